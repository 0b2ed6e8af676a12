"""A resumed run repeats the uninterrupted run."""

from __future__ import annotations

import itertools
import os
import random
import signal
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lewm_data.datamodule import LeWMDataModule
from lewm_data.loading.training_state import TrainingState
from tests.loading import files
from tests.training.dots import small_lewm, write_dots

STEPS = 14  # 5 an epoch, so training ends in the middle of one


@pytest.fixture(scope="module")
def dots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dots(tmp_path_factory.mktemp("dots") / "dots.h5", num_episodes=8, length=20).path


class Curve(lightning.Callback):
    """Losses by step; optionally sends this process a signal after a step."""

    def __init__(self, stop_after: int | None = None, number: signal.Signals = signal.SIGTERM) -> None:
        self.losses: dict[int, float] = {}
        self._stop_after, self._number = stop_after, number

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.losses[trainer.global_step] = float(outputs["loss"])
        if trainer.global_step == self._stop_after:
            os.kill(os.getpid(), self._number)


def run(dots: Path, folder: Path, curve: Curve, **settings: Any) -> None:
    torch.manual_seed(0)  # for the first weights; a resumed run takes those of the checkpoint
    data = LeWMDataModule(h5_path=str(dots), frameskip=1, batch_size=16, num_workers=2, val_fraction=0.25)
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_steps=STEPS,
        val_check_interval=3,
        logger=False,
        callbacks=[
            curve,
            ModelCheckpoint(
                folder, every_n_train_steps=4, save_last="link", save_on_exception=True, enable_version_counter=False
            ),
        ],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
    )
    trainer.fit(small_lewm(predictor_dropout=0.3), data, **settings)


@pytest.fixture(scope="module")
def whole(dots: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, float]:
    curve = Curve()
    run(dots, tmp_path_factory.mktemp("whole"), curve)
    assert sorted(curve.losses) == list(range(1, STEPS + 1))
    return curve.losses


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.parametrize(
    ("number", "stop_after"),
    [
        (signal.SIGINT, 3),
        (signal.SIGTERM, 6),
        (signal.SIGINT, 7),
        pytest.param(signal.SIGTERM, 3, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 6, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 7, marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_run_continues_exactly(
    dots: Path, tmp_path: Path, whole: dict[int, float], stop_after: int, number: signal.Signals
) -> None:
    first, second = Curve(stop_after, number), Curve()
    with pytest.raises((SIGTERMException, KeyboardInterrupt, SystemExit)):
        run(dots, tmp_path, first)
    assert (tmp_path / "last.ckpt").exists()
    run(dots, tmp_path, second, ckpt_path="last")
    assert max(first.losses) == min(second.losses) - 1
    assert {**first.losses, **second.losses} == whole


@pytest.mark.filterwarnings("ignore:.*there is no last checkpoint available")
def test_last_without_a_checkpoint_starts_a_new_run(dots: Path, tmp_path: Path, whole: dict[int, float]) -> None:
    curve = Curve()
    run(dots, tmp_path, curve, ckpt_path="last")
    assert curve.losses == whole


class Recorder(lightning.LightningModule):
    """A small model that records its batches: their states, and the mean of the randomly transformed frames."""

    def __init__(self, fail_at: int | None = None) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 1)
        self.seen: list[torch.Tensor] = []
        self._fail_at = fail_at

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        if len(self.seen) == self._fail_at:
            raise KeyboardInterrupt
        numbers = batch["state"][:, 0], batch["pixels"].mean(dim=(1, 2, 3, 4))[:, None]
        self.seen.append(torch.cat(numbers, dim=1))
        loss: torch.Tensor = self.layer(batch["state"][:, 0]).square().mean()
        return loss

    def validation_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.01)


class Disturb(lightning.Callback):
    """Iterates over the training loader in some hooks, and interrupts training after a batch."""

    def __init__(self, hooks: set[str], stop_after: int | None, folder: Path) -> None:
        self.hooks, self.stop_after, self.folder, self.count = hooks, stop_after, folder, 0

    def _walk(self, trainer: Any, hook: str, limit: int | None = None) -> None:
        if hook in self.hooks:
            for _ in itertools.islice(trainer.train_dataloader, limit):
                pass

    def on_train_start(self, trainer: Any, *_: Any) -> None:
        self._walk(trainer, "start")

    def on_train_epoch_start(self, trainer: Any, *_: Any) -> None:
        self._walk(trainer, "epoch_start", 2)

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        self.count += 1
        if self.count % 4 == 3:
            self._walk(trainer, "batch_end")
        if self.count == self.stop_after:
            raise KeyboardInterrupt

    def on_train_epoch_end(self, trainer: Any, *_: Any) -> None:
        self._walk(trainer, "epoch_end", 3)

    def on_exception(self, trainer: Any, *_: Any) -> None:
        trainer.save_checkpoint(self.folder / "stopped.ckpt")


def add_noise(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    noise = torch.rand(len(batch["pixels"]), 1, 1, 1, 1) + float(np.random.rand()) + random.random()  # noqa: NPY002
    return batch | {"pixels": batch["pixels"] / 255 * noise}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return files.write(tmp_path_factory.mktemp("small") / "a.h5", [12] * 6, height=4, width=4).path


@given(
    how=st.sampled_from(["between", "within", "max_steps"]),
    stop_after=st.integers(1, 20),
    hooks=st.sets(st.sampled_from(["start", "epoch_start", "batch_end", "epoch_end"])),
    accumulate=st.sampled_from([1, 3]),
    reload_every=st.sampled_from([0, 1]),
    kinds=st.tuples(st.sampled_from(["thread", "process"]), st.sampled_from(["thread", "process"])),
    workers=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    validates=st.booleans(),
)
@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@example("between", 5, {"start", "epoch_start", "batch_end", "epoch_end"}, 3, 1, ("process", "thread"), (2, 1), True)
@example("within", 9, {"start", "batch_end"}, 1, 0, ("thread", "process"), (2, 1), False)
@example("max_steps", 4, {"epoch_end"}, 3, 0, ("thread", "thread"), (1, 0), False)
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The checkpoint was saved within an optimizer step:UserWarning")
def test_a_resumed_run_sees_the_windows_of_the_uninterrupted_one_and_ends_with_its_weights(
    small: Path,
    tmp_path_factory: pytest.TempPathFactory,
    how: str,
    stop_after: int,
    hooks: set[str],
    accumulate: int,
    reload_every: int,
    kinds: tuple[Any, Any],
    workers: tuple[int, int],
    validates: bool,
) -> None:
    """With any interruption, any other iteration over the training loader, and any workers."""
    folder = tmp_path_factory.mktemp("run")

    def fit(model: Recorder, callbacks: list[Any], kind: Any = "thread", num_workers: int = 0, **options: Any) -> Any:
        settings_of_data: dict[str, Any] = {"num_steps": 2, "frameskip": 2, "batch_size": 5, "val_fraction": 0.3}
        data = LeWMDataModule(
            h5_path=str(small),
            **settings_of_data,
            num_workers=num_workers,
            worker_type=kind,
            normalize=False,
            train_transform=add_noise,
        )
        ckpt_path = options.pop("ckpt_path", None)
        trainer = lightning.Trainer(
            **{
                "accelerator": "cpu",
                "max_epochs": 3,
                "logger": False,
                "enable_checkpointing": False,
                "enable_progress_bar": False,
                "enable_model_summary": False,
                "num_sanity_val_steps": 0,
                "limit_val_batches": 1.0 if validates else 0,
                "accumulate_grad_batches": accumulate,
                "reload_dataloaders_every_n_epochs": reload_every,
                "callbacks": callbacks,
                "default_root_dir": folder,
            }
            | options
        )
        trainer.fit(model, data, ckpt_path=ckpt_path, weights_only=True if ckpt_path else None)
        return trainer

    def model(**options: Any) -> Recorder:
        torch.manual_seed(0)
        return Recorder(**options)

    whole = model()
    fit(whole, [])
    first, rest = model(fail_at=stop_after if how == "within" else None), model()
    disturb = Disturb(hooks, stop_after if how == "between" else None, folder)
    if how == "max_steps":
        fit(first, [disturb], kinds[0], workers[0], max_steps=stop_after // accumulate + 1).save_checkpoint(
            folder / "stopped.ckpt"
        )
    elif stop_after >= len(whole.seen):
        return
    else:
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            fit(first, [disturb], kinds[0], workers[0])
    begun = len(first.seen)
    fit(rest, [Disturb(hooks, None, folder)], kinds[1], workers[1], ckpt_path=folder / "stopped.ckpt")
    seen = first.seen + rest.seen
    assert len(seen) == len(whole.seen)
    assert all(map(torch.equal, seen, whole.seen)), f"{begun} batches before the interruption"
    if how != "within" or accumulate == 1:
        for name, weights in whole.state_dict().items():
            assert torch.equal(weights, rest.state_dict()[name]), name


def test_gradients_that_cannot_be_saved_are_reported(small: Path, tmp_path: Path) -> None:
    state = {"train": {"epoch": 0, "position": 8}, "lost_gradients": 2}
    with pytest.warns(UserWarning, match="the gradients of 2 of its batches are not in it"):
        TrainingState().load_state_dict(state)


class Deaf(LeWMDataModule):
    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return batch


def test_a_data_module_that_hides_its_batches_warns_when_it_is_saved(small: Path, tmp_path: Path) -> None:
    data = Deaf(h5_path=str(small), num_steps=2, frameskip=2, batch_size=5, val_fraction=0, num_workers=0)
    trainer = lightning.Trainer(
        accelerator="cpu", max_steps=2, logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    trainer.fit(Recorder(), data)
    with pytest.warns(UserWarning, match=r"stores no position.*call super\(\)\.on_before_batch_transfer"):
        trainer.save_checkpoint(tmp_path / "a.ckpt")
