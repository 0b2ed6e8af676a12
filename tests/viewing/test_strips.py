"""Film strips and curves: bounded, even, never without what is urgent, and unchanged by packing."""

from __future__ import annotations

import base64

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lewm_data.viewing.strips import (
    ABSENT,
    choose_episodes,
    evenly,
    packed,
    run_steps,
    strip_shape,
    strip_steps,
    thinned,
)


@settings(deadline=None)
@given(st.integers(0, 300), st.lists(st.integers(0, 400)), st.integers(1, 50))
def test_chosen_episodes_are_bounded_and_include_urgent_ones(num: int, urgent: list[int], most: int) -> None:
    candidates = np.arange(num) * 2
    chosen = choose_episodes(candidates, urgent, most)
    assert chosen == sorted(set(chosen))
    assert set(chosen) <= set(candidates.tolist())
    assert len(chosen) == min(num, most)
    allowed = [position for position in dict.fromkeys(urgent) if position in candidates]
    assert set(allowed[: (most + 1) // 2]) <= set(chosen)


def test_episodes_without_findings_are_spread_evenly() -> None:
    assert choose_episodes(np.arange(101), [], 11) == list(range(0, 101, 10))


@settings(deadline=None)
@given(st.integers(0, 500), st.integers(1, 30), st.lists(st.integers(-5, 600), max_size=8))
def test_a_strip_has_the_first_the_last_and_every_marked_frame(length: int, num: int, marks: list[int]) -> None:
    steps = strip_steps(length, num, marks)
    assert steps == sorted(set(steps))
    assert {mark for mark in marks if 0 <= mark < length} <= set(steps)
    assert len(steps) <= min(length, num + len(marks))
    if length > 1 and num > 1:
        assert (steps[0], steps[-1]) == (0, length - 1)


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 200))
def test_an_example_holds_a_whole_window_of_the_episode(num_steps: int, frameskip: int, more: int) -> None:
    span = num_steps * frameskip
    length = span + more
    first, steps = run_steps(length, num_steps, frameskip, 60)
    assert {k * frameskip for k in range(num_steps)} <= set(steps)
    assert first >= 0
    assert first + max(steps) < length
    assert first + span <= length
    assert len(steps) <= 60 + num_steps


def test_more_strips_get_smaller_frames() -> None:
    bytes_ = [shape.num_frames * shape.height**2 for shape in map(strip_shape, (24, 100, 400, 1000))]
    assert bytes_ == sorted(bytes_, reverse=True)


def test_evenly_includes_the_first_and_the_last() -> None:
    assert evenly([3, 4, 5, 6, 9], 3) == [3, 5, 9]
    assert evenly([3], 3) == [3]
    assert evenly([], 3) == []


def unpacked(text: str, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    numbers = np.frombuffer(base64.b64decode(text), "<u2").reshape(len(low), -1).T.astype(np.float64)
    return np.where(numbers == ABSENT, np.nan, low + numbers / (ABSENT - 1) * (high - low))


@settings(deadline=None)
@given(st.integers(1, 900), st.integers(0, 2**32))
def test_thinned_curves_keep_their_extremes_in_order(length: int, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=(length, 3))
    thin = thinned(values, 100)
    assert len(thin) == min(length, 100)
    np.testing.assert_array_equal(thin.min(axis=0), values.min(axis=0))
    np.testing.assert_array_equal(thin.max(axis=0), values.max(axis=0))
    for curve, whole in zip(thin.T, values.T, strict=True):
        places = iter(whole.tolist())
        assert all(value in places for value in curve.tolist()) or length > 100  # in the order they came in


def test_thinning_keeps_a_spike_of_one_step() -> None:
    values = np.zeros((10_000, 1))
    values[4321] = 7.0
    values[77] = np.nan
    assert np.nanmax(thinned(values)) == 7.0


def test_packed_curves_can_be_unpacked() -> None:
    low, high = np.array([-3.0, 5.0]), np.array([9.0, 5.0])
    values = np.array([[-3.0, 5.0], [9.0, 5.0], [1.2345, 5.0], [np.nan, np.inf]])
    back = unpacked(packed(values, low, high), low, high)
    np.testing.assert_allclose(back[:3], values[:3], atol=12 / 65534)
    assert np.isnan(back[3]).all()
