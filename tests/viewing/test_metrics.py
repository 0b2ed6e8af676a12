"""What is measured of episodes, against numpy on data whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lewm_data.viewing.metrics import MIN_EPISODES, Scale, ScaleSum, measure, odd, still_share

ONES = np.ones(2)


def scale(*, mean: float = 0.0, std: float = 1.0) -> Scale:
    return Scale(mean * ONES, std * ONES, -10 * ONES, 10 * ONES)


@settings(deadline=None)
@given(
    st.lists(st.lists(st.floats(-1e3, 1e3) | st.sampled_from([np.nan, np.inf]), min_size=2, max_size=2), min_size=1),
    st.integers(1, 5),
)
def test_scales_add_up_to_numpys(values: list[list[float]], block: int) -> None:
    table = np.array(values)
    total = ScaleSum(2)
    for start in range(0, len(table), block):
        total.add(table[start : start + block])
    found = total.scale()
    for dimension, column in enumerate(table.T):
        known = column[np.isfinite(column)]
        if len(known) == 0:
            assert (found.min[dimension], found.max[dimension]) == (0, 0)
            continue
        np.testing.assert_allclose(found.mean[dimension], known.mean(), atol=1e-9)
        np.testing.assert_allclose(found.std[dimension], known.std(), atol=1e-6)
        assert (found.min[dimension], found.max[dimension]) == (known.min(), known.max())


def test_a_robot_that_pauses_is_still_for_that_long() -> None:
    moving = np.linspace(0, 20, 100)
    state = np.concatenate([moving, np.full(100, 20.0)])[:, None]
    # of the 195 pairs of steps that are half a second apart, 96 lie within the pause
    assert still_share(state, np.ones(1), fps=10) == pytest.approx(96 / 195)
    assert still_share(state[:100], np.ones(1), fps=10) == 0
    assert still_share(state[100:] + np.random.default_rng(0).normal(0, 0.005, (100, 1)), np.ones(1), fps=10) == 1
    assert np.isnan(still_share(state[:5], np.ones(1), fps=10))


def test_one_joint_that_moves_is_not_still() -> None:
    state = np.stack([np.zeros(50), np.arange(50.0)], axis=1)
    assert still_share(state, ONES, fps=10) == 0


def test_peaks_say_how_large_and_where() -> None:
    rows = {"action": np.zeros((30, 2)), "state": np.zeros((30, 2))}
    rows["action"][12:, 1] = 3.0
    rows["state"][20, 0] = -9.0
    metrics = measure(rows, {"action": scale(std=0.5), "state": scale(mean=1.0, std=2.0)}, fps=10)
    assert metrics.extreme == (6.0, "action", 1, 12)  # 3 / 0.5, compared with 10 / 2
    assert metrics.jump == (6.0, "action", 1, 12)
    rows["action"][5] = np.nan
    assert measure(rows, {"action": scale(std=0.5), "state": scale()}, fps=10).extreme == (9.0, "state", 0, 20)


def test_what_never_changes_has_no_peak() -> None:
    rows = {"action": np.zeros((30, 2)), "state": np.zeros((30, 2))}
    metrics = measure(rows, {name: scale(std=0.0) for name in rows}, fps=10)
    assert np.isnan([metrics.extreme.deviations, metrics.jump.deviations]).all()


def test_odd_ones_are_found_on_both_sides() -> None:
    lengths = [100, 101, 99, 102, 98, 100, 103, 97, 5, 400]
    assert odd(lengths).tolist() == [0] * 8 + [-1, 1]
    assert odd([100] * 9 + [7]).tolist() == [0] * 9 + [-1]  # more than half of them are equal
    assert odd([100] * 10).tolist() == [0] * 10
    assert odd([*lengths[:8], np.nan, 400]).tolist() == [0] * 9 + [1]


def test_among_few_nothing_is_odd() -> None:
    assert odd([1] * (MIN_EPISODES - 2) + [1000]).tolist() == [0] * (MIN_EPISODES - 1)
