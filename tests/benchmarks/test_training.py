"""The training benchmark: the real LeWM, small."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import training


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
