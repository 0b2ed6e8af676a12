"""What a training run prints in a log file, where a progress bar shows nothing."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lewm_data.training import report
from lewm_data.training.report import Progress, TrainingReport, clock


@pytest.mark.parametrize(
    ("seconds", "num_lines", "blindness", "shown"),
    [
        (0.0, 3, 0.7, "blindness 0.70"),
        (0.0, 3, 122.0, "blindness over 2 (not yet better than repeating the last frame)"),
        (1000.0, 0, 0.7, ""),
    ],
)
def test_a_log_file_gets_a_line_at_intervals(
    seconds: float,
    num_lines: int,
    blindness: float,
    shown: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(report, "_SECONDS_BETWEEN_LINES", seconds)
    trainer: Any = SimpleNamespace(
        global_step=1200,
        estimated_stepping_batches=4000,
        callback_metrics={"train/loss": torch.tensor(0.25), "val/blindness": torch.tensor(blindness)},
        callbacks=[],
        is_global_zero=True,
    )
    module: Any = SimpleNamespace(log=lambda *arguments, **keywords: None)
    reporter = TrainingReport()
    reporter.on_train_start(trainer, module)
    trainer.global_step = 1201
    for number in range(3):
        reporter.on_train_batch_end(trainer, module, None, {"state": torch.zeros(8, 2)}, number)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == num_lines
    for line in lines:
        assert line.startswith(f"step 1,201 of 4,000 (30%): loss 0.25, {shown}, ")
        assert " windows/s, " in line
        assert " left of " in line


def test_the_time_left_follows_from_the_steps_of_this_run() -> None:
    progress = Progress(step=300, max_steps=1000, first_step=200, seconds=60.0)
    assert progress.seconds_left == pytest.approx(7 * 60)
    assert progress.time() == "7:00 left of 8:00"
    assert progress.steps() == "step 300 of 1,000 (30%)"


def test_training_without_an_end_has_no_time_left() -> None:
    progress = Progress(step=300, max_steps=None, first_step=0, seconds=60.0)
    assert math.isnan(progress.seconds_left)
    assert (progress.steps(), progress.time()) == ("step 300", "")
    assert Progress(step=200, max_steps=300, first_step=200, seconds=1.0).time() == ""


def test_a_time_is_written_like_a_clock() -> None:
    assert [clock(seconds) for seconds in (7, 754, 3723, 59.6)] == ["0:07", "12:34", "1:02:03", "1:00"]
