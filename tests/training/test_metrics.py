"""The numbers of the diagnostics, against cases whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lewm_data.training.metrics import Diagnosis, effective_rank, ridge_r2


def diagnosis(**changes: object) -> Diagnosis:
    values: dict[str, object] = {
        "num_anchors": 100,
        "model_errors": (0.4, 0.6),
        "copy_errors": (1.0, 1.5),
        "mean_errors": (2.0, 2.0),
        "shuffled_errors": (0.8, 1.0),
        "effective_rank": 12.0,
        "variances": (1.0,) * 16,
        "probe_r2": (0.9, 0.7, math.nan),
        "state_names": ("x", "y", "grip"),
    }
    return Diagnosis(**{**values, **changes})  # type: ignore[arg-type]


@given(st.integers(1, 8), st.floats(0.01, 100))
def test_a_cloud_of_equal_axes_has_their_number_as_its_effective_rank(rank: int, scale: float) -> None:
    axes = np.zeros((16, 8))
    for axis in range(rank):
        axes[2 * axis, axis], axes[2 * axis + 1, axis] = scale, -scale
    assert effective_rank(axes) == pytest.approx(rank)


def test_unequal_axes_count_by_the_entropy_of_their_lengths() -> None:
    points = np.array([[3.0, 0], [-3, 0], [0, 1], [0, -1]])
    assert effective_rank(points) == pytest.approx(math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25))))


def test_where_the_cloud_lies_does_not_matter_to_its_rank() -> None:
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


def test_the_probe_is_numpys_least_squares_where_nothing_has_to_be_held_back() -> None:
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


def test_ratios_are_of_one_step() -> None:
    told = diagnosis()
    assert told.blindness == pytest.approx(0.4)
    assert told.versus_mean == pytest.approx(0.2)
    assert told.action_gain == pytest.approx(2.0)
    assert told.mean_r2 == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "It predicts: its one-step error is 0.40 of repeating the last frame, and 2.00 times larger"),
        ({"model_errors": (1.1, 1.2)}, "Blind: its one-step error is 1.10 of repeating the last frame, so"),
        ({"model_errors": (1.0, 1.2)}, "Blind: its one-step error is 1.00 of repeating"),
        ({"model_errors": (0.95, 1.2), "shuffled_errors": (1.1, 2.0)}, "Nearly blind: its one-step error is 0.95 of"),
        ({"mean_errors": (0.2, 0.2)}, "Blind: its one-step error is 2.00 of always predicting the mean"),
        ({"shuffled_errors": (0.41, 0.6)}, "Deaf to actions: "),
        ({"variances": (1e-4,) * 16}, "Collapsed: the encoder says much the same of every frame (variance 0.0001"),
        ({"effective_rank": 1.2}, "Collapsed: "),
        ({"model_errors": (), "copy_errors": ()}, "Unknown: no validation episode has a frame to predict."),
    ],
)
def test_the_verdict_is_one_sentence(changes: dict[str, object], words: str) -> None:
    verdict = diagnosis(**changes).verdict()
    assert verdict.startswith(words)
    assert verdict.endswith(".")


def test_what_cannot_be_known_is_null_in_json() -> None:
    told = diagnosis(model_errors=(), copy_errors=(0.0,)).to_json()
    assert told["blindness"] is None
    assert told["probe_r2"] == [0.9, 0.7, None]
    assert told["verdict"].startswith("Unknown")
