"""Windows that are the same, and windows that are not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.comparison import compare, psnr_db


def _windows(**changed: Any) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    windows = {
        "pixels": random.integers(0, 256, (3, 2, 8, 8, 3), np.uint8),
        "action": random.normal(size=(3, 2, 6)).astype(np.float32),
    }
    return windows | changed


def test_another_frame_is_not_the_same_window() -> None:
    wrong = _windows()["pixels"].copy()
    wrong[1, 1, 4, 4, 0] ^= 1
    with pytest.raises(ValueError, match="frames are not equal"):
        compare(_windows(), _windows(pixels=wrong))


def test_another_action_is_not_the_same_window() -> None:
    with pytest.raises(ValueError, match="column 'action' is not that of the reference"):
        compare(_windows(), _windows(action=np.zeros((3, 2, 6), np.float32)), least_psnr_db=10)


def test_lossy_frames_must_be_near() -> None:
    near = np.clip(_windows()["pixels"].astype(int) + 1, 0, 255).astype(np.uint8)
    found = compare(_windows(), _windows(pixels=near), least_psnr_db=40)
    assert found.psnr_db == pytest.approx(48.1, abs=0.1)
    assert found.columns == ("action",)
    with pytest.raises(ValueError, match="less than 60 dB"):
        compare(_windows(), _windows(pixels=near), least_psnr_db=60)


def test_larger_frames_are_reduced_before_they_are_compared() -> None:
    large = _windows()["pixels"].repeat(2, axis=2).repeat(2, axis=3)
    assert compare(_windows(), _windows(pixels=large), least_psnr_db=45).windows == 3


def test_decibels_are_those_of_the_definition() -> None:
    """An error of 16 everywhere: 20 log10(255 / 16)."""
    black = np.zeros((2, 4, 4, 3), np.uint8)
    assert psnr_db(black + np.uint8(16), black) == pytest.approx(20 * np.log10(255 / 16))
