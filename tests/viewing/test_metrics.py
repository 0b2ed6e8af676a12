"""What is measured of episodes, against numpy on data whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lewm_data.viewing.metrics import MIN_EPISODES, Scale, ScaleSum, measure, odd, still_shares

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


def pausing(num_moving: int, num_resting: int) -> dict[str, np.ndarray]:
    state = np.concatenate([20 * np.sin(np.arange(num_moving) / 5), np.full(num_resting, 20 * np.sin(num_moving / 5))])
    noise = np.random.default_rng(0).normal(0, 0.005, (len(state), 2))
    moving = np.stack([state, state], axis=1)
    return {"action": moving + noise, "state": moving + noise}


def test_a_robot_that_pauses_is_still_for_that_long() -> None:
    shares = still_shares([pausing(100, 100), pausing(200, 0), pausing(3, 0)], 10, anything_moves=True)
    assert shares[:2] == pytest.approx([0.5, 0.0], abs=0.03)
    assert np.isnan(shares[2])  # too short for a rest


def test_one_joint_that_moves_is_not_still() -> None:
    rows = pausing(200, 0)
    rows["action"][:, 0] = rows["state"][:, 0] = 0
    assert still_shares([rows], 10, anything_moves=True) == pytest.approx([0.0], abs=0.03)


def test_a_robot_that_never_moves_is_always_still() -> None:
    assert still_shares([pausing(0, 60)], 10, anything_moves=False) == [1.0]


def test_an_episode_with_holes_says_nothing_and_harms_no_other() -> None:
    spoiled = pausing(200, 0)
    spoiled["state"][7, 0] = np.nan
    none, half = still_shares([spoiled, pausing(100, 100)], 10, anything_moves=True)
    assert np.isnan(none)
    assert half == pytest.approx(0.5, abs=0.03)


def test_peaks_say_how_large_and_where() -> None:
    rows = {"action": np.zeros((30, 2)), "state": np.zeros((30, 2))}
    rows["action"][12:, 1] = 3.0
    rows["state"][20, 0] = -9.0
    extreme, jump = measure(rows, {"action": scale(std=0.5), "state": scale(mean=1.0, std=2.0)})
    assert extreme == (6.0, "action", 1, 12)  # 3 / 0.5, compared with 10 / 2
    assert jump == (6.0, "action", 1, 12)
    rows["action"][5] = np.nan
    assert measure(rows, {"action": scale(std=0.5), "state": scale()})[0] == (9.0, "state", 0, 20)


def test_what_never_changes_has_no_peak() -> None:
    rows = {"action": np.zeros((30, 2)), "state": np.zeros((30, 2))}
    extreme, jump = measure(rows, {name: scale(std=0.0) for name in rows})
    assert np.isnan([extreme.deviations, jump.deviations]).all()


def test_odd_ones_are_found_on_both_sides() -> None:
    lengths = [100, 101, 99, 102, 98, 100, 103, 97, 5, 400]
    assert odd(lengths).tolist() == [0] * 8 + [-1, 1]
    assert odd([100] * 9 + [7]).tolist() == [0] * 9 + [-1]  # more than half of them are equal
    assert odd([100] * 10).tolist() == [0] * 10
    assert odd([*lengths[:8], np.nan, 400]).tolist() == [0] * 9 + [1]


def test_among_few_nothing_is_odd() -> None:
    assert odd([1] * (MIN_EPISODES - 2) + [1000]).tolist() == [0] * (MIN_EPISODES - 1)
