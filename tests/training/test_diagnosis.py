"""The numbers of the diagnostics, in cases with a known answer."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lewm_data.training.diagnosis import effective_rank, ridge_r2


@given(st.integers(1, 8), st.floats(0.01, 100))
def test_a_cloud_of_equal_axes_has_their_number_as_its_effective_rank(rank: int, scale: float) -> None:
    axes = np.zeros((16, 8))
    for axis in range(rank):
        axes[2 * axis, axis], axes[2 * axis + 1, axis] = scale, -scale
    assert effective_rank(axes) == pytest.approx(rank)


def test_unequal_axes_count_by_the_entropy_of_their_lengths() -> None:
    points = np.array([[3.0, 0], [-3, 0], [0, 1], [0, -1]])
    assert effective_rank(points) == pytest.approx(math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25))))


def test_the_rank_of_a_cloud_does_not_depend_on_its_position() -> None:
    points = np.random.default_rng(0).normal(size=(500, 5))
    assert effective_rank(points + 7) == pytest.approx(effective_rank(points))


@pytest.mark.parametrize("value", [0.0, 1.0, -123.0])
def test_a_cloud_that_is_one_point_has_no_rank(value: float) -> None:
    assert effective_rank(np.full((50, 6), value, np.float32)) == 0


def test_the_probe_reads_a_linear_state_and_no_noise() -> None:
    random = np.random.default_rng(0)
    latents = random.normal(size=(3000, 10)) * np.logspace(-2, 2, 10)
    states = np.column_stack([latents @ random.normal(size=10) + 5, random.normal(size=3000), np.ones(3000)])
    r2 = ridge_r2(latents[:2000], states[:2000], latents[2000:], states[2000:])
    assert r2[0] == pytest.approx(1, abs=1e-4)
    assert abs(r2[1]) < 0.05
    assert math.isnan(r2[2])


def test_the_probe_is_numpys_least_squares_when_regularization_is_weak() -> None:
    random = np.random.default_rng(1)
    latents = random.normal(size=(4000, 4))
    states = (latents @ random.normal(size=4) + random.normal(size=4000))[:, None]
    design = np.column_stack([latents, np.ones(4000)])
    solution = np.linalg.lstsq(design[:3000], states[:3000], rcond=None)[0]
    residual = np.square(states[3000:] - design[3000:] @ solution).sum()
    expected = 1 - residual / np.square(states[3000:] - states[3000:].mean()).sum()
    assert ridge_r2(latents[:3000], states[:3000], latents[3000:], states[3000:])[0] == pytest.approx(
        expected, abs=1e-3
    )
