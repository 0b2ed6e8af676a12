"""Shows whether a world model sees anything: on whole episodes that it was not trained on, early and often."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning
import numpy as np
from rich.console import Console

from lewm_data.errors import redact
from lewm_data.format.schema import STATE
from lewm_data.training.diagnosis import Diagnosis
from lewm_data.training.latents import cut_anchors, encode_episodes, moving_state
from lewm_data.training.measure import diagnose
from lewm_data.training.verdict import Run, cautions, judge, next_steps

if TYPE_CHECKING:
    from lewm_data.datamodule import LeWMDataModule
    from lewm_data.training.lewm import LeWMModule


class Diagnostics(lightning.Callback):
    """Compares predictions with doing nothing, looks for collapse, reads the state from the latents, and plans.

    On a small robot dataset most frames resemble the one before, so a low loss says little. The callback logs

    - ``val/blindness``: one-step error over that of repeating the last frame; 1 or more is blind,
    - ``val/versus_mean``: one-step error over that of predicting the mean,
    - ``val/action_gain``: how many times larger the error is with actions from elsewhere; 1 is deaf,
    - ``val/plan_rank``: where the recorded actions rank among others by predicted distance to the goal; 0 is first,
      0.5 is chance,
    - ``val/effective_rank``, ``val/latent_variance`` and ``val/probe_r2``

    after about a minute of training, after each validation, and at the end. ``diagnostics.json`` and
    ``diagnostics.png`` also have the errors further ahead. When training ends, the callback prints a verdict, cautions,
    and what to do next.

    With several processes, the first one measures while the others wait.

    Attributes:
        diagnosis: The latest; None before the first.
        paused_seconds: Time that diagnoses took in the middle of training, outside of validation.
        command: Words of the command line that trains, without secrets, for the advice on what to type next.
    """

    def __init__(
        self,
        *,
        dirpath: str | Path | None = None,
        horizon: int = 8,
        plan_horizon: int = 5,
        max_frames: int = 2000,
        first_seconds: float = 60.0,
        seed: int = 3072,
    ) -> None:
        """Takes settings.

        Args:
            dirpath: Folder for the JSON and the picture. None is the trainer's ``default_root_dir``.
            horizon: Kept frames to predict ahead.
            plan_horizon: Kept frames to the goal of a plan, at most ``horizon``.
            max_frames: Kept frames to encode on each side of the split, in whole episodes.
            first_seconds: Training time after which the first diagnosis comes, even without a validation.
            seed: Seed of the choice of episodes and of actions from elsewhere.
        """
        self.dirpath = None if dirpath is None else Path(dirpath)
        self.horizon = horizon
        self.plan_horizon = min(plan_horizon, horizon)
        self.max_frames = max_frames
        self.first_seconds = first_seconds
        self.seed = seed
        self.diagnosis: Diagnosis | None = None
        self.paused_seconds = 0.0
        self.command: tuple[str, ...] = ()
        self._history: list[tuple[int, float]] = []
        self._since = 0.0
        self._judged_step: int | None = None
        self._run: Run | None = None

    def state_dict(self) -> dict[str, Any]:
        """The blindness so far, which a resumed run continues."""
        return {"history": [list(entry) for entry in self._history]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues with the blindness of the interrupted run."""
        self._history = [(int(step), float(value)) for step, value in state_dict.get("history", ())]

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Starts the clock of the first diagnosis."""
        self._since = time.perf_counter()
        self._judged_step = trainer.global_step  # a complete run that goes on only to be exported has its diagnosis

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Measures once in the middle of training, so that a blind run shows before its first validation."""
        began = time.perf_counter()
        if self.diagnosis is not None or began - self._since < self.first_seconds or not trainer.is_global_zero:
            return  # the other processes wait in their next step
        data: LeWMDataModule = trainer.datamodule  # type: ignore[attr-defined]
        if not len(data.val_positions) or trainer.limit_val_batches == 0:
            self.first_seconds = math.inf
            return
        self._measure_while_training(trainer, pl_module, data)
        self.paused_seconds += time.perf_counter() - began

    def on_validation_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Measures, logs, and writes the files."""
        data: LeWMDataModule = trainer.datamodule  # type: ignore[attr-defined]
        if trainer.sanity_checking or not len(data.val_positions):
            return
        self._judged_step = trainer.global_step
        if trainer.is_global_zero:
            self._measure(trainer, pl_module, data)  # type: ignore[arg-type]
        trainer.strategy.barrier("diagnostics")

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Measures the final weights, unless the last step was validated."""
        data: LeWMDataModule = trainer.datamodule  # type: ignore[attr-defined]
        is_known = self._judged_step in (None, trainer.global_step)  # the same in all processes, which wait below
        if is_known or not len(data.val_positions) or trainer.limit_val_batches == 0 or trainer.interrupted:
            return
        if trainer.is_global_zero:
            self._measure_while_training(trainer, pl_module, data, logs=False)
        trainer.strategy.barrier("diagnostics")

    def _measure_while_training(
        self,
        trainer: lightning.Trainer,
        module: lightning.LightningModule,
        data: LeWMDataModule,
        *,
        logs: bool = True,
    ) -> None:
        training = [part for part in module.modules() if part.training]
        module.eval()
        try:
            self._measure(trainer, module, data, logs=logs)  # type: ignore[arg-type]
        finally:
            for part in training:
                part.training = True

    def teardown(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Prints the verdict, when the progress bar is gone."""
        if stage == "fit":
            self.print_verdict(trainer)

    def print_verdict(self, trainer: lightning.Trainer) -> None:
        """Prints the latest verdict, cautions, and what to do next, once. Lightning has no teardown after Ctrl-C."""
        if self.diagnosis is not None and self._run is not None and trainer.is_global_zero:
            console = Console()
            lines = [judge(self.diagnosis, is_over=self._run.is_over).sentence, *cautions(self.diagnosis, self._run)]
            lines.append(f"See {self._folder(trainer) / 'diagnostics.png'}")
            steps = next_steps(self.diagnosis, self._run)
            lines += ["Next:"] * bool(steps)
            for step in steps:
                lines += [f"  # {step.why}", *([f"  {step.command}"] if step.command else [])]
            for line in lines:
                console.print(line, highlight=False, markup=False, soft_wrap=True)
            self._run = None

    def _folder(self, trainer: lightning.Trainer) -> Path:
        return self.dirpath or Path(trainer.default_root_dir)

    def _measure(
        self, trainer: lightning.Trainer, module: LeWMModule, data: LeWMDataModule, *, logs: bool = True
    ) -> None:
        random = np.random.default_rng(self.seed)
        train, val = (
            encode_episodes(module, data, random.permutation(numbers), max_frames=self.max_frames)
            for numbers in (data.train_positions, data.val_positions)
        )
        anchors = cut_anchors(val, history_size=module.hparams["history_size"], horizon=self.horizon)
        self.diagnosis = diagnosis = diagnose(
            module,
            train,
            val,
            anchors,
            plan_horizon=self.plan_horizon,
            state_names=data.feature_names(STATE),
            moving=moving_state(data, [episode.episode for episode in (*train, *val)]),
            random=random,
        )
        self._history.append((trainer.global_step, diagnosis.blindness))
        self._run = run = _run_of(trainer, module, data, self._history, self.command)
        values = {
            "blindness": diagnosis.blindness,
            "versus_mean": diagnosis.versus_mean,
            "action_gain": diagnosis.action_gain,
            "plan_rank": diagnosis.plan_rank,
            "effective_rank": diagnosis.effective_rank,
            "latent_variance": diagnosis.mean_variance,
            "probe_r2": diagnosis.mean_r2,
        }
        for name, value in values.items():
            if logs and math.isfinite(value):  # Lightning logs nothing after the last step
                module.log(f"val/{name}", value, prog_bar=name == "blindness", rank_zero_only=True)
        folder = self._folder(trainer)
        folder.mkdir(parents=True, exist_ok=True)
        facts: dict[str, Any] = {"step": trainer.global_step, "epoch": trainer.current_epoch}
        facts |= {"episodes": [episode.episode for episode in val], **diagnosis.to_json()}
        verdict = judge(diagnosis, is_over=run.is_over)
        facts |= {
            "verdict": verdict.sentence,
            "level": verdict.level,
            "cautions": cautions(diagnosis, run),
            "next_steps": [str(step) for step in next_steps(diagnosis, run)],
            "history": [[step, value if math.isfinite(value) else None] for step, value in self._history],
        }
        temporary = folder / "diagnostics.json.tmp"
        temporary.write_text(json.dumps(facts, indent=1) + "\n")
        temporary.replace(folder / "diagnostics.json")
        from lewm_data.training.figure import draw  # only the process that draws needs matplotlib

        draw(diagnosis, val, folder / "diagnostics.png", run=run)


def _run_of(
    trainer: lightning.Trainer,
    module: LeWMModule,
    data: LeWMDataModule,
    history: list[tuple[int, float]],
    command: tuple[str, ...],
) -> Run:
    total = trainer.estimated_stepping_batches
    ends_by_epochs = trainer.max_steps < 0 and trainer.max_epochs is not None and trainer.max_epochs > 0
    return Run(
        step=trainer.global_step,
        max_steps=int(total) if math.isfinite(total) else 0,
        max_epochs=trainer.max_epochs if ends_by_epochs else None,
        num_train_episodes=len(data.train_positions),
        frameskip=data.frameskip,
        sigreg_weight=module.hparams["sigreg_weight"],
        data=redact(str(data.splits.stores[0].path)),
        history=tuple(history),
        command=command,
    )
