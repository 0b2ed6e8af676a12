"""What a training run says in a log file, where a progress bar shows nothing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lewm_data.training import report
from lewm_data.training.report import TrainingReport


@pytest.mark.parametrize(("seconds", "num_lines"), [(0.0, 3), (1000.0, 0)])
def test_a_log_file_gets_a_line_now_and_then(
    seconds: float, num_lines: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report, "_SECONDS_BETWEEN_LINES", seconds)
    metrics = {"train/loss": torch.tensor(0.25)}
    trainer: Any = SimpleNamespace(global_step=1200, current_epoch=4, callback_metrics=metrics, is_global_zero=True)
    module: Any = SimpleNamespace(log=lambda *arguments, **keywords: None)
    told = TrainingReport()
    told.on_train_start(trainer, module)
    for number in range(3):
        told.on_train_batch_end(trainer, module, None, {"state": torch.zeros(8, 2)}, number)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == num_lines
    assert all(line.startswith("step 1,200, epoch 4: loss 0.25, ") and line.endswith(" windows/s") for line in lines)
