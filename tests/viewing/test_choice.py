"""Which episodes and frames are shown: bounded, even, and never without what is urgent."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lewm_data.viewing.choice import choose_episodes, examples, run_steps, strip_shape, strip_steps


@settings(deadline=None)
@given(st.integers(0, 300), st.lists(st.integers(0, 400)), st.integers(1, 50))
def test_chosen_episodes_are_bounded_and_hold_the_urgent_ones(num: int, urgent: list[int], most: int) -> None:
    candidates = np.arange(num) * 2
    chosen = choose_episodes(candidates, urgent, most)
    assert chosen == sorted(set(chosen))
    assert set(chosen) <= set(candidates.tolist())
    assert len(chosen) == min(num, most)
    allowed = [position for position in dict.fromkeys(urgent) if position in candidates]
    assert set(allowed[: (most + 1) // 2]) <= set(chosen)


def test_the_rest_lies_evenly() -> None:
    assert choose_episodes(np.arange(101), [], 11) == list(range(0, 101, 10))


@settings(deadline=None)
@given(st.integers(0, 500), st.integers(1, 30), st.lists(st.integers(-5, 600), max_size=8))
def test_strips_have_the_first_the_last_and_the_marked_frame(length: int, num: int, marks: list[int]) -> None:
    steps = strip_steps(length, num, marks)
    assert steps == sorted(set(steps))
    assert {mark for mark in marks if 0 <= mark < length} <= set(steps)
    assert len(steps) <= min(length, num + len(marks))
    if length > 1 and num > 1:
        assert (steps[0], steps[-1]) == (0, length - 1)


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 200))
def test_an_example_holds_its_window_within_the_episode(num_steps: int, frameskip: int, more: int) -> None:
    span = num_steps * frameskip
    length = span + more
    first, steps = run_steps(length, num_steps, frameskip, 60)
    assert {k * frameskip for k in range(num_steps)} <= set(steps)
    assert first >= 0
    assert first + max(steps) < length
    assert first + span <= length
    assert len(steps) <= 60 + num_steps


def test_more_strips_are_smaller() -> None:
    bytes_ = [shape.num_frames * shape.height**2 for shape in map(strip_shape, (24, 100, 400, 1000))]
    assert bytes_ == sorted(bytes_, reverse=True)


def test_examples_are_spread() -> None:
    assert examples([3, 4, 5, 6, 9], 3) == [3, 5, 9]
    assert examples([3], 3) == [3]
    assert examples([], 3) == []
