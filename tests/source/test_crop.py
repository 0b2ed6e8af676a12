"""Which steps stay, compared with going through every step by hand."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lewm_data.source.crop import crop_end_flags, overlap, steps_with_frames, without_idle


@given(length=st.integers(0, 12), shifts=st.lists(st.integers(-4, 4), max_size=3))
def test_a_step_stays_exactly_if_every_camera_has_its_frame(length: int, shifts: list[int]) -> None:
    expected = [step for step in range(length) if all(0 <= step + shift < length for shift in shifts)]
    assert list(steps_with_frames(length, shifts)) == expected


@given(
    moving=st.lists(st.booleans(), min_size=1, max_size=40).filter(any),
    margin=st.integers(0, 5),
    least=st.integers(1, 50),
)
def test_every_movement_stays_with_its_margin_and_enough_steps(moving: list[bool], margin: int, least: int) -> None:
    length, head, tail = len(moving), moving.index(True), moving[::-1].index(True)
    kept = without_idle(length, head=head, tail=tail, margin=margin, least=least)
    assert set(kept) <= set(range(length))
    assert set(range(max(0, head - margin), min(length, length - tail + margin))) <= set(kept)
    assert len(kept) >= min(least, length)
    if len(kept) > least:  # nothing more than the margin stays
        assert (kept.start, kept.stop) == (max(0, head - margin), min(length, length - tail + margin))


@given(first=st.tuples(st.integers(0, 9), st.integers(0, 9)), second=st.tuples(st.integers(0, 9), st.integers(0, 9)))
def test_overlap_holds_the_steps_of_both(first: tuple[int, int], second: tuple[int, int]) -> None:
    assert set(overlap(range(*first), range(*second))) == set(range(*first)) & set(range(*second))


@given(flags=st.lists(st.booleans(), min_size=1, max_size=9), data=st.data())
def test_an_end_that_is_cut_off_moves_to_the_last_step(flags: list[bool], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(flags)))
    stop = data.draw(st.integers(start, len(flags)))
    kept = crop_end_flags(np.array(flags), range(start, stop)).tolist()
    expected = flags[start:stop]
    if expected and any(flags[stop:]):
        expected[-1] = True
    assert kept == expected
