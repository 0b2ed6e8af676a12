"""Which dimensions never move, and which only move rarely."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from lewm_data.format.motion import moving_dimensions, noise_floor
from lewm_data.quality.assess.visibility import change_over_noise

FPS = 30.0
EPISODE = np.repeat(np.arange(4), 300)
RANDOM = np.random.default_rng(0)
TIME = np.tile(np.arange(300) / FPS, 4)


def moves(column: NDArray[np.float64]) -> bool:
    return bool(moving_dimensions(column[:, None], EPISODE, FPS)[0])


def test_the_noise_of_slow_motion_is_its_noise() -> None:
    motion = 40 * np.sin(0.3 * TIME)
    noise = RANDOM.normal(0, 0.2, len(TIME))
    assert noise_floor((motion + noise)[:, None], EPISODE)[0] == pytest.approx(0.2, rel=0.1)


STILL = {
    "constant": np.full(1200, 3.0),
    "jitter": RANDOM.normal(0, 0.1, 1200),
    "one count of an encoder, at random": RANDOM.integers(0, 2, 1200) * 0.088,
    "one count of an encoder, now and then": (RANDOM.random(1200) < 0.03) * 0.088,
    "a few counts of an encoder": RANDOM.normal(0, 1, 1200).round() * 0.088,
    "jitter on a large value": 1e3 + RANDOM.normal(0, 0.1, 1200),
}
MOVING = {
    "slow": 5 * np.sin(0.2 * TIME) + RANDOM.normal(0, 0.05, 1200),
    "counts of an encoder": (40 * np.sin(TIME) / 0.088).round() * 0.088,
    "a gripper that opens and closes": (np.sin(2 * TIME) > 0).astype(float),
    "moves once, rests otherwise": np.clip(20 * (TIME - 5), 0, 20),
    "mostly at rest, in counts": (np.clip(20 * (TIME - 8), 0, 20) / 0.088).round() * 0.088,
}


@pytest.mark.parametrize("name", STILL)
def test_a_dimension_that_only_jitters_is_still(name: str) -> None:
    assert not moves(STILL[name])


@pytest.mark.parametrize("name", MOVING)
def test_a_dimension_that_moves_is_not_still(name: str) -> None:
    assert moves(MOVING[name])


def test_a_picture_of_noise_changes_no_more_over_time() -> None:
    noise = RANDOM.integers(0, 60, (300, 12, 12, 3)).astype(np.uint8)
    assert change_over_noise(noise, EPISODE[:300], 6) == pytest.approx(1.0, abs=0.05)
    drifting = np.broadcast_to((np.arange(300) // 2)[:, None, None, None], (300, 12, 12, 3)).astype(np.uint8)
    ratio = change_over_noise(drifting, EPISODE[:300], 6)
    assert ratio is not None
    assert ratio > 5
    assert change_over_noise(np.zeros((300, 12, 12, 3), np.uint8), EPISODE[:300], 6) is None
