"""The scaling benchmark over a file of three hundred frames."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from benchmarks import scaling
from lewm_data.loading.dataset import WindowDataset
from lewm_data.loading.fixed_array import read_fixed_array


def test_the_file_is_of_format_version_1(tmp_path: Path) -> None:
    scaling.build_file(tmp_path / "file.h5", num_frames=1200, num_episodes=30)
    with h5py.File(tmp_path / "file.h5") as file:
        assert read_fixed_array(tmp_path / "file.h5", file["pixels"]) is not None, "not indexed as the writer's files"
    dataset = WindowDataset(tmp_path / "file.h5")
    assert len(dataset) == 30 * (40 - 20 + 1)
    batch = dataset[0]
    assert batch["pixels"].shape == (4, 3, scaling.SIDE, scaling.SIDE)
    assert len(np.unique(batch["pixels"].numpy())) > 100
    assert dataset[20]["done"].tolist() == [False, False, False, True]


def test_it_measures_and_judges(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--frames", "1200", "--episodes", "30", "--steps_per_epoch", "2", "--epochs", "2", "--openings", "1"]
    output = tmp_path / "results" / "scaling.json"
    scaling.main([*sizes, "--data", str(tmp_path), "--output", str(output)])
    result = json.loads(output.read_text())
    assert result["first_opening"]["seconds"] < 20
    assert len(result["epochs"]["resident_mb_after_epochs"]) == 2
    assert result["epochs"]["num_windows"] == 630
    assert "1,200 frames in 30 episodes" in capsys.readouterr().out


def test_a_value_above_its_target_fails() -> None:
    result = {
        "first_opening": {"seconds": 21.0, "peak_mb": 100.0},
        "later_openings": {"seconds": {"median": 2.9}, "peak_mb": {"median": 100.0}},
        "epochs": {"first_batch_seconds": 0.1, "resident_mb_after_epochs": [100.0, 110.0]},
    }
    assert [outcome for *_, outcome in scaling.judge(result)] == ["FAIL", "PASS", "PASS", "PASS", "PASS", "FAIL"]
