"""The training benchmark: the real LeWM, small."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import training, training_report


@pytest.mark.slow
def test_it_trains_the_real_lewm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("stable_worldmodel")
    pytest.importorskip("transformers")
    output = tmp_path / "training.json"
    training.main(["--quick", "--rounds", "2", "--device", "cpu", "--output", str(output)])
    result = json.loads(output.read_text())
    assert result["last_loss"] < result["first_loss"]
    assert 10e6 < result["num_parameters"] < 30e6
    assert result["windows_per_second"]["median"] > 0
    assert "LeWM, consumes" in capsys.readouterr().out


def _result() -> dict[str, Any]:
    return {
        "machine": {"processor": "this one", "cpus": 2},
        "side": 224, "batch_size": 8, "device": "this one", "device_type": "cpu", "num_parameters": 15_000_000,
        "windows_per_second": {"median": 10.0, "min": 9.0, "max": 11.0},
    }  # fmt: skip


@pytest.mark.parametrize(("processor", "is_shown"), [("this one", True), ("another", False)])
def test_only_loaders_of_the_same_machine_stand_beside_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, processor: str, is_shown: bool
) -> None:
    throughput = {
        "machine": {"processor": processor},
        "source": "a recording, 10,000 frames at 224x224",
        "rows": [
            {"name": "ram_thread", "group": "ours", "label": "RAM cache",
             "windows_per_second": {"median": 20_000.0, "min": 19_000.0, "max": 21_000.0}},
        ],
    }  # fmt: skip
    monkeypatch.setattr(training_report, "load", lambda name: throughput)
    blocks = training_report.blocks(_result())
    assert set(blocks) == set(training_report.BLOCKS)
    table = blocks["table"]
    assert ("| RAM cache, delivers | 20,000 (19,000 to 21,000) | 2,000 |" in table) == is_shown
    pytest.importorskip("matplotlib")
    training_report.draw(_result(), tmp_path)
    assert (tmp_path / training_report.CHART).read_bytes().startswith(b"\x89PNG")
