from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lewm_data.errors import UsageError
from lewm_data.loading.windows import WindowIndex, split_episodes

lengths_of_episodes = st.lists(st.integers(0, 40), max_size=30)


def build(lengths, num_steps=2, frameskip=3, episodes=None):
    lengths = np.array(lengths, np.int64)
    offsets = np.cumsum(lengths) - lengths
    return WindowIndex.build(lengths, offsets, num_steps=num_steps, frameskip=frameskip, episodes=episodes)


@given(lengths_of_episodes, st.integers(1, 4), st.integers(1, 5))
def test_windows_are_all_places_where_one_fits_and_none_crosses_an_episode(lengths, num_steps, frameskip):
    index = build(lengths, num_steps, frameskip)
    span = num_steps * frameskip
    expected = [(e, s) for e, length in enumerate(lengths) for s in range(length - span + 1)]
    assert len(index) == len(expected)
    episodes, starts = index.locate(np.arange(len(index)))
    assert list(zip(episodes.tolist(), starts.tolist(), strict=True)) == expected
    owner = np.repeat(np.arange(len(lengths)), lengths)
    for row in index.rows(np.arange(len(index))).tolist():
        assert len(set(owner[row : row + span].tolist())) == 1


@given(lengths_of_episodes, st.data())
def test_chosen_episodes_give_their_windows_only(lengths, data):
    chosen = data.draw(st.sets(st.integers(0, len(lengths) - 1)) if lengths else st.just(set()))
    index = build(lengths, episodes=sorted(chosen, reverse=True))
    episodes, _ = index.locate(np.arange(len(index)))
    assert set(episodes.tolist()) == {e for e in chosen if lengths[e] >= 6}


def test_numbers_outside_are_refused():
    index = build([10])
    for window in (-1, 5):
        with pytest.raises(IndexError, match=r"outside \[0, 5\)"):
            index.rows([window])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_steps": 0}, "num_steps is 0, but must be 1 or more"),
        ({"frameskip": -1}, "frameskip is -1"),
        ({"episodes": [0, 2]}, "the file holds episodes 0 to 1"),
        ({"episodes": [-1]}, "the file holds episodes 0 to 1"),
        ({"episodes": [1, 1]}, "names an episode twice"),
    ],
)
def test_impossible_windows_are_refused(changes, words):
    with pytest.raises(UsageError, match=words):
        build([10, 10], **changes)


fractions = st.floats(0.01, 0.95)


@given(st.integers(2, 300), fractions, st.integers(0, 2**63))
def test_a_split_is_disjoint_complete_near_its_share_and_has_both_sides(num, fraction, seed):
    train, val = split_episodes(np.full(num, 20), span=20, val_fraction=fraction, seed=seed)
    assert sorted([*train, *val]) == list(range(num))
    assert abs(len(val) - fraction * num) <= 1
    assert len(train) >= 1
    assert len(val) >= 1


@given(st.lists(st.integers(10, 30), min_size=2, max_size=80), st.integers(1, 40), fractions, st.integers())
def test_an_episode_keeps_its_side_when_others_are_appended(lengths, more, fraction, seed):
    if sum(length >= 20 for length in lengths) < 2:
        lengths = [20, 20, *lengths]
    before = split_episodes(lengths, span=20, val_fraction=fraction, seed=seed)
    after = split_episodes([*lengths, *[25] * more], span=20, val_fraction=fraction, seed=seed)
    for old, new in zip(before, after, strict=True):
        assert set(old.tolist()) <= set(new.tolist())


def test_seeds_draw_different_splits_and_episodes_too_short_take_no_part():
    lengths = np.where(np.arange(100) % 3 == 0, 5, 30)
    splits = [split_episodes(lengths, span=20, val_fraction=0.2, seed=seed) for seed in range(20)]
    assert len({tuple(val) for _, val in splits}) == 20
    assert all((lengths[np.concatenate(split)] == 30).all() for split in splits)


def test_no_validation_trains_on_everything():
    train, val = split_episodes([30, 30], span=20, val_fraction=0, seed=1)
    assert train.tolist() == [0, 1]
    assert val.tolist() == []


def test_a_split_that_needs_more_episodes_is_refused():
    with pytest.raises(UsageError, match="only one episode holds a window of 20 steps.*val_fraction=0"):
        split_episodes([30, 5], span=20, val_fraction=0.1, seed=1)
    for fraction in (-0.1, 1.0):
        with pytest.raises(UsageError, match=r"must lie in \[0, 1\)"):
            split_episodes([30, 30], span=20, val_fraction=fraction, seed=1)
