"""Tells whether a world model sees anything: after each validation, on whole episodes it was not trained on."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from lewm_data.format.schema import STATE
from lewm_data.training.latents import Anchors, EpisodeLatents, cut_anchors, encode_episodes, errors, roll_out
from lewm_data.training.metrics import Diagnosis, effective_rank, ridge_r2

if TYPE_CHECKING:
    from lewm_data.datamodule import LeWMDataModule
    from lewm_data.training.lewm import LeWMModule


class Diagnostics(lightning.Callback):
    """Compares predictions with doing nothing, looks for collapse, and reads the state from the latents.

    On a small robot dataset most frames resemble the one before, so that a low loss alone says little. Logged as
    ``val/blindness`` (one-step error over that of repeating the last frame: 1 or more is blind), ``val/versus_mean``,
    ``val/action_gain`` (times the error with other places' actions: 1 is deaf), ``val/effective_rank``,
    ``val/latent_variance`` and ``val/probe_r2``; with the errors over the horizon in ``diagnostics.json`` and
    ``diagnostics.png`` beside the checkpoints, anew after each validation; and in one sentence at the end.

    With several processes, the first one computes while the others wait.

    Attributes:
        diagnosis: The latest; None before the first validation.
    """

    def __init__(
        self, *, dirpath: str | Path | None = None, horizon: int = 8, max_frames: int = 2000, seed: int = 3072
    ) -> None:
        """Takes settings.

        Args:
            dirpath: Folder for the JSON and the picture; None is the trainer's ``default_root_dir``.
            horizon: Kept frames to predict ahead.
            max_frames: Kept frames to encode on either side of the split, in whole episodes.
            seed: Of the choice of episodes and of whose actions are given to whom.
        """
        self.dirpath = None if dirpath is None else Path(dirpath)
        self.horizon = horizon
        self.max_frames = max_frames
        self.seed = seed
        self.diagnosis: Diagnosis | None = None

    def on_validation_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Measures, logs, and writes the files."""
        data: LeWMDataModule = trainer.datamodule  # type: ignore[attr-defined]
        if trainer.sanity_checking or not len(data.val_positions):
            return
        if trainer.is_global_zero:
            self._measure(trainer, pl_module, data)  # type: ignore[arg-type]
        trainer.strategy.barrier("diagnostics")

    def teardown(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Prints the verdict, when the progress bar is gone."""
        if stage == "fit" and self.diagnosis is not None and trainer.is_global_zero:
            console = Console()
            console.print(self.diagnosis.verdict(), highlight=False, markup=False)
            console.print(f"See {self._folder(trainer) / 'diagnostics.png'}", highlight=False, markup=False)

    def _folder(self, trainer: lightning.Trainer) -> Path:
        return self.dirpath or Path(trainer.default_root_dir)

    def _measure(self, trainer: lightning.Trainer, module: LeWMModule, data: LeWMDataModule) -> None:
        random = np.random.default_rng(self.seed)
        train, val = (
            encode_episodes(module, data, random.permutation(numbers), max_frames=self.max_frames)
            for numbers in (data.train_positions, data.val_positions)
        )
        anchors = cut_anchors(val, history_size=module.hparams["history_size"], horizon=self.horizon)
        self.diagnosis = diagnose(module, train, val, anchors, state_names=data.feature_names(STATE), random=random)
        values = {
            "blindness": self.diagnosis.blindness,
            "versus_mean": self.diagnosis.versus_mean,
            "action_gain": self.diagnosis.action_gain,
            "effective_rank": self.diagnosis.effective_rank,
            "latent_variance": self.diagnosis.mean_variance,
            "probe_r2": self.diagnosis.mean_r2,
        }
        for name, value in values.items():
            if math.isfinite(value):
                module.log(f"val/{name}", value, prog_bar=name == "blindness", rank_zero_only=True)
        folder = self._folder(trainer)
        folder.mkdir(parents=True, exist_ok=True)
        facts: dict[str, Any] = {"step": trainer.global_step, "epoch": trainer.current_epoch}
        facts |= {"episodes": [episode.episode for episode in val], **self.diagnosis.to_json()}
        temporary = folder / "diagnostics.json.tmp"
        temporary.write_text(json.dumps(facts, indent=1) + "\n")
        temporary.replace(folder / "diagnostics.json")
        from lewm_data.training.figure import draw  # only the process that draws needs matplotlib

        draw(self.diagnosis, val, folder / "diagnostics.png", step=trainer.global_step)


def diagnose(
    module: LeWMModule,
    train: list[EpisodeLatents],
    val: list[EpisodeLatents],
    anchors: Anchors,
    *,
    state_names: tuple[str, ...] = (),
    random: np.random.Generator,
) -> Diagnosis:
    """Measures a model on encoded episodes.

    Args:
        module: In evaluation mode.
        train: Training episodes.
        val: Validation episodes.
        anchors: Cut from the validation episodes.
        state_names: Names of the state's dimensions; numbers where there are none.
        random: Decides whose actions are given to whom.

    Returns:
        The diagnosis.
    """
    horizon = anchors.futures.shape[1]
    train_latents, train_states, val_latents, val_states = (
        torch.cat([getattr(episode, name) for episode in side]).numpy()
        for side in (train, val)
        for name in ("latents", "states")
    )
    others = torch.from_numpy(random.permutation(len(anchors.history)))
    width = val_states.shape[1]
    return Diagnosis(
        num_anchors=len(anchors.history),
        model_errors=_errors(roll_out(module, anchors.history, anchors.actions, horizon=horizon), anchors),
        copy_errors=_errors(anchors.history[:, -1:], anchors),
        mean_errors=_errors(torch.from_numpy(train_latents.mean(axis=0)), anchors),
        shuffled_errors=_errors(roll_out(module, anchors.history, anchors.actions[others], horizon=horizon), anchors),
        effective_rank=effective_rank(val_latents),
        variances=_numbers(val_latents.astype(np.float64).var(axis=0)),
        probe_r2=_numbers(ridge_r2(train_latents, train_states, val_latents, val_states)) if width else (),
        state_names=state_names if len(state_names) == width else tuple(str(number) for number in range(width)),
    )


def _errors(predicted: torch.Tensor, anchors: Anchors) -> tuple[float, ...]:
    return _numbers(errors(predicted, anchors.futures)) if len(anchors.history) else ()


def _numbers(values: NDArray[np.floating[Any]]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
