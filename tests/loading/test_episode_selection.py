from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lewm_data.errors import UsageError
from lewm_data.loading.episode_selection import EpisodeSelection, episodes_text, parse_selections


def chosen(value, existing=range(20)):
    return sorted(EpisodeSelection.parse(value, setting="val_episodes").numbers(existing))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, [3]),
        ("3", [3]),
        ("0:3,12", [0, 1, 2, 12]),
        (" 0 : 3 , 12 ", [0, 1, 2, 12]),
        ("17:", [17, 18, 19]),
        (":2", [0, 1]),
        (":", list(range(20))),
        ([0, "2:4", slice(6, 8), range(18, 20)], [0, 2, 3, 6, 7, 18, 19]),
        (slice(18, None), [18, 19]),
        (np.array([5, 4]), [4, 5]),
        (np.int64(7), [7]),
        (np.array(7), [7]),
        (torch.tensor([5, 4]), [4, 5]),
    ],
)
def test_a_selection_takes_every_usual_form(value, expected):
    assert chosen(value) == expected


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("0-8", r"val_episodes is '0-8': '0-8' is neither a number nor a range start:stop. Example: 0:8,12"),
        ("1,,2", "'' is neither"),
        ("", "'' is neither"),
        ([], "val_episodes is empty"),
        ("8:3", "range 8:3 is empty, since it stops before it begins"),
        (slice(0, 9, 2), "has a step. List the numbers"),
        (-1, "holds -1, but episodes are numbered from 0"),
        ([True, False], r"True or False, but takes episode numbers. From a mask: numpy.flatnonzero"),
        (np.array([True, False]), "True or False"),
        (torch.tensor([True, False]), "True or False"),
        (1.5, "holds 1.5, but takes episode numbers"),
        ("0:999999999999", "To take all episodes from 0 on, write 0: without an end"),
        ({}, "an empty mapping"),
    ],
)
def test_an_invalid_selection_is_refused_with_an_example(value, words):
    with pytest.raises(UsageError, match=words):
        parse_selections(value, setting="val_episodes")


@given(st.sets(st.integers(0, 50), min_size=1))
def test_the_text_of_episodes_reads_back(numbers):
    assert set(chosen(episodes_text(numbers), range(60))) == numbers
