"""A run that was stopped and goes on is the run that was never stopped."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lewm_data.datamodule import LeWMDataModule
from tests.training.dots import small_lewm, write_dots

STEPS = 14  # of 5 an epoch: stopped in the middle of one


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
    torch.manual_seed(0)  # the first weights; a resumed run has the checkpoint's
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
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("stop_after", [3, 6, 7])
def test_a_run_that_was_taken_away_goes_on_exactly(
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
def test_last_without_a_checkpoint_begins_at_the_beginning(dots: Path, tmp_path: Path, whole: dict[int, float]) -> None:
    curve = Curve()
    run(dots, tmp_path, curve, ckpt_path="last")
    assert curve.losses == whole
