"""Numbers in words."""

from __future__ import annotations

import pytest

from benchmarks.charts import short
from benchmarks.words import count, picture, show, spread_of


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (23362.4, "23,362"),
        (604.4, "604"),
        (77.25, "77.2"),
        (0.861, "0.86"),
        (0.00342, "0.0034"),
        (0, "0"),
        (3.0, "3.00"),
    ],
)
def test_three_digits_matter(value: float, words: str) -> None:
    assert count(value) == words


def test_a_spread_says_median_least_and_greatest() -> None:
    assert spread_of([0.9, 0.82, 0.86]) == "0.86 (0.82 to 0.90)"
    assert spread_of([0.9]) == "0.90"


@pytest.mark.parametrize(
    ("value", "words"), [(1500, "1500"), (15_000, "15k"), (1e7, "10M"), (250, "250"), (0.25, "0.25"), (2e9, "2G")]
)
def test_axes_have_few_letters(value: float, words: str) -> None:
    assert short(value) == words


def test_a_terminal_is_shown_no_pictures() -> None:
    assert show({"chart": picture("A chart", "a.png"), "table": "| 1 |"}) == "| 1 |"
