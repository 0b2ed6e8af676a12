"""Whether a peer's file holds the same dataset as ours."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from benchmarks.conversions.peer import _compare


def _file(path: Path, frames: np.ndarray, action: np.ndarray) -> Path:
    with h5py.File(path, "w") as file:
        file["pixels"], file["action"] = frames, action
    return path


@pytest.fixture
def frames() -> np.ndarray:
    """(20, 16, 16, 3) of noise."""
    return np.random.default_rng(0).integers(2, 254, (20, 16, 16, 3), np.uint8)


ACTION = np.zeros((20, 2), np.float32)


def test_equal_frames_are_equal(tmp_path: Path, frames: np.ndarray) -> None:
    ours, theirs = (_file(tmp_path / name, frames, ACTION) for name in ("a.h5", "b.h5"))
    assert _compare(ours, theirs) is None


def test_a_rounding_is_told_in_decibels(tmp_path: Path, frames: np.ndarray) -> None:
    ours, theirs = _file(tmp_path / "a.h5", frames, ACTION), _file(tmp_path / "b.h5", frames + np.uint8(1), ACTION)
    assert _compare(ours, theirs) == pytest.approx(48.13, abs=0.01)


@pytest.mark.parametrize("changed", ["frames", "action", "length"])
def test_another_dataset_ends_the_run(tmp_path: Path, frames: np.ndarray, changed: str) -> None:
    ours = _file(tmp_path / "a.h5", frames, ACTION)
    other = {
        "frames": (frames[::-1], ACTION),
        "action": (frames, ACTION + 1),
        "length": (frames[:-1], ACTION[:-1]),
    }[changed]
    with pytest.raises(SystemExit, match="theirs"):
        _compare(ours, _file(tmp_path / "b.h5", *other))
