"""How much each joint moves the picture."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lewm_data.quality.assess.joint_weights import joint_weights, paired

LAGS = range(-4, 5)


def episodes(true: list[float], lag: int, seed: int, count: int = 4) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Speeds, and an energy that is their weighted sum ``lag`` frames later."""
    random = np.random.default_rng(seed)
    speeds = [random.normal(size=(80, len(true))) for _ in range(count)]
    return speeds, [np.roll(speed @ np.array(true), lag) for speed in speeds]


@given(
    true=st.lists(st.floats(0.1, 5), min_size=1, max_size=6),
    lag=st.sampled_from(LAGS),
    seed=st.integers(0, 1000),
)
def test_known_weights_are_found_at_any_lag(true: list[float], lag: int, seed: int) -> None:
    speeds, energies = episodes(true, lag, seed)
    weights = joint_weights(speeds, energies, LAGS)
    shares = weights / weights.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(shares, np.tile(np.array(true) / sum(true), (4, 1)), atol=0.02)


def test_weights_are_the_least_squares_where_those_are_positive() -> None:
    speeds, energies = episodes([1.0, 2.0, 0.5], 2, 0)
    noise = np.random.default_rng(1).normal(size=(4, 80))
    energies = [energy + own for energy, own in zip(energies, noise, strict=True)]
    pairs = [paired(speed, energy / energy.std(), 2) for speed, energy in zip(speeds[1:], energies[1:], strict=True)]
    expected = np.linalg.lstsq(np.concatenate([a for a, _ in pairs]), np.concatenate([b for _, b in pairs]))[0]
    np.testing.assert_allclose(joint_weights(speeds, energies, LAGS)[0], expected, rtol=1e-3)


def test_a_joint_that_calms_the_picture_gets_no_weight() -> None:
    speeds, energies = episodes([1.0, -1.0], 0, 0)
    weights = joint_weights(speeds, energies, LAGS)
    assert (weights[:, 0] > 0).all()
    assert (weights[:, 1] == 0).all()


def test_the_weights_of_an_episode_do_not_come_from_itself() -> None:
    speeds, energies = episodes([1.0, 2.0], 0, 0)
    before = joint_weights(speeds, energies, LAGS)[0]
    energies[0] = energies[0] + 0.5 * speeds[0][:, 0]
    assert joint_weights(speeds, energies, LAGS)[0] == pytest.approx(before)


def test_joints_weigh_the_same_where_nothing_is_known() -> None:
    speeds, energies = episodes([1.0, 2.0], 0, 0, count=1)
    assert (joint_weights(speeds, energies, LAGS) == 1).all()
    still = [np.zeros(80)] * 4
    assert (joint_weights(episodes([1.0, 2.0], 0, 0)[0], still, LAGS) == 1).all()
