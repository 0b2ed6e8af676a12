"""The scaling benchmark: its files, its probes, its fits, and a short run."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from benchmarks import scaling
from benchmarks.datasets import apart
from benchmarks.scaling_files import SIDE, build_file, divide_again, probe_epochs, probe_open
from lewm_data.format.fixed_array import read_fixed_array
from lewm_data.loading.dataset import WindowDataset


def test_the_file_has_format_version_1(tmp_path: Path) -> None:
    build_file(tmp_path / "file.h5", num_frames=1200, num_episodes=30)
    with h5py.File(tmp_path / "file.h5") as file:
        assert read_fixed_array(tmp_path / "file.h5", file["pixels"]) is not None, "indexed unlike the writer's files"
    dataset = WindowDataset(tmp_path / "file.h5")
    assert len(dataset) == 30 * (40 - 20 + 1)
    batch = dataset[0]
    assert batch["pixels"].shape == (4, 3, SIDE, SIDE)
    assert len(np.unique(batch["pixels"].numpy())) > 100
    assert dataset[20]["done"].tolist() == [False, False, False, True]


def test_the_same_frames_are_divided_into_other_episodes(tmp_path: Path) -> None:
    build_file(tmp_path / "few.h5", num_frames=1200, num_episodes=30)
    divide_again(tmp_path / "few.h5", tmp_path / "many.h5", num_episodes=60)
    few, many = WindowDataset(tmp_path / "few.h5"), WindowDataset(tmp_path / "many.h5")
    assert len(many) == 60
    np.testing.assert_array_equal(many[1]["pixels"].numpy(), few[20]["pixels"].numpy())
    assert many[0]["done"].tolist() == [False, False, False, True]


def test_frames_that_do_not_divide_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1,000 frames cannot be divided into 30 episodes"):
        build_file(tmp_path / "file.h5", num_frames=1000, num_episodes=30)


def test_a_file_is_probed(tmp_path: Path) -> None:
    path = tmp_path / "file.h5"
    build_file(path, num_frames=1200, num_episodes=30)
    opened = apart(probe_open, path)
    assert 0 < opened["seconds"] < 20
    assert 20 < opened["imports_mb"] <= opened["peak_mb"]
    found = probe_epochs(path, num_epochs=2, steps_per_epoch=2, num_workers=2, num_steps=4, frameskip=5)
    assert found["num_windows"] == 630
    assert len(found["resident_mb_after_epochs"]) == len(found["windows_per_second"]) == 2


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2.0])
def test_the_exponent_of_a_power_is_found(power: float) -> None:
    sizes = [10, 100, 1000, 10_000]
    assert scaling.exponent(sizes, [3 * size**power for size in sizes]) == pytest.approx(power)


@pytest.mark.parametrize(("largest", "step"), [(30_720, 10_000), (5_000_000, 1_000_000), (70_000_000, 1_000_000)])
def test_the_cost_of_a_further_step_is_found(largest: int, step: int) -> None:
    sizes = [100, 1000, largest]
    assert scaling.adds(sizes, [7 + 2e-6 * size for size in sizes]) == (step, pytest.approx(2e-6 * step))


def test_a_value_above_its_target_fails() -> None:
    result = {
        "first_opening": {"seconds": 21.0, "peak_mb": 100.0},
        "later_openings": {"seconds": {"median": 2.9}, "peak_mb": {"median": 100.0}},
        "epochs": {"first_batch_seconds": 0.1, "resident_mb_after_epochs": [100.0, 110.0]},
    }
    assert [outcome for *_, outcome in scaling.judge(result)] == ["FAIL", "PASS", "PASS", "PASS", "PASS", "FAIL"]


@pytest.mark.slow
def test_it_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "results" / "scaling.json"
    scaling.main(["--quick", "--data", str(tmp_path / "data"), "--output", str(output)])
    result = json.loads(output.read_text())
    assert [point["num_frames"] for point in result["frames"]] == [1000, 4000]
    assert [point["num_episodes"] for point in result["episodes"]] == [10, 100]
    assert [point["num_frames"] for point in result["conversion"]] == [60, 120]
    assert len(result["slopes"]) == 2 * len(scaling.CURVES) + 1
    assert "4,000 frames in 20 episodes" in capsys.readouterr().out
