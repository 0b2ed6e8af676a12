from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lewm_data.errors import UsageError
from lewm_data.loading.windows import WindowIndex

lengths_of_episodes = st.lists(st.integers(0, 40), max_size=30)


def build(lengths, num_steps=2, frameskip=3, episodes=None):
    lengths = np.array(lengths, np.int64)
    offsets = np.cumsum(lengths) - lengths
    return WindowIndex.build(lengths, offsets, num_steps=num_steps, frameskip=frameskip, episodes=episodes)


@given(lengths_of_episodes, st.integers(1, 4), st.integers(1, 5))
def test_every_place_that_fits_a_window_is_one_and_none_crosses_an_episode(lengths, num_steps, frameskip):
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
def test_chosen_episodes_give_only_their_windows(lengths, data):
    chosen = data.draw(st.sets(st.integers(0, len(lengths) - 1)) if lengths else st.just(set()))
    index = build(lengths, episodes=sorted(chosen, reverse=True))
    episodes, _ = index.locate(np.arange(len(index)))
    assert set(episodes.tolist()) == {e for e in chosen if lengths[e] >= 6}


def test_a_mask_chooses_episodes_like_their_positions():
    lengths = [10, 3, 10, 12]
    mask = [False, True, True, True]
    for chosen in (mask, np.array(mask)):
        assert build(lengths, episodes=chosen).episodes.tolist() == build(lengths, episodes=[1, 2, 3]).episodes.tolist()
    assert len(build(lengths, episodes=[])) == 0


def test_steps_after_a_window_reach_the_episodes_end():
    index = build([10, 3, 7])
    episodes, starts = index.locate(np.arange(len(index)))
    ends = starts + index.span + index.steps_after(np.arange(len(index)))
    assert ends.tolist() == np.array([10, 3, 7])[episodes].tolist()


def test_window_numbers_out_of_range_are_refused():
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
        ({"num_steps": 4.0}, "num_steps is 4.0, but must be one whole number, 1 or more. Write 4."),
        ({"num_steps": "4"}, "num_steps is '4', but must be one whole number, 1 or more. Write 4."),
        ({"num_steps": True}, "num_steps is True, but must be one whole number"),
        (
            {"frameskip": [1, 5]},
            r"frameskip is \[1, 5\], but must be one whole number.*make a dataset or a data module",
        ),
        ({"episodes": [True]}, r"episodes is a mask of shape \(1,\), but the file holds 2 episodes"),
        ({"episodes": 1}, r"episodes is 1, but must be a list of positions in the file, such as \[0, 3\]"),
        ({"episodes": ["a"]}, r"episodes is \['a'\], but must be a list of positions"),
    ],
)
def test_invalid_settings_are_refused(changes, words):
    with pytest.raises(UsageError, match=words):
        build([10, 10], **changes)
