from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lewm_data.findings import Finding, group_findings
from lewm_data.notation import episode_ranges


def found(code: str, episode: int | None, severity: str = "error", handling: str = "refused") -> Finding:
    return Finding(
        code=code, severity=severity, episode=episode, expected="x", found=f"y {episode}", remedy="z", handling=handling
    )  # type: ignore[arg-type]


def test_findings_of_a_kind_are_one_group_errors_first() -> None:
    groups = group_findings(
        [
            found("span_gap", 1, "warning", "recorded"),
            found("rows_missing", 7),
            found("rows_missing", 2),
            found("rows_missing", 2),
            found("rows_missing", 5, handling="kept"),
            found("fps_invalid", None),
        ]
    )
    assert [(group.first.code, group.first.handling, group.count, group.episodes) for group in groups] == [
        ("rows_missing", "refused", 3, (2, 7)),
        ("rows_missing", "kept", 1, (5,)),
        ("fps_invalid", "refused", 1, ()),
        ("span_gap", "recorded", 1, (1,)),
    ]
    assert groups[0].first.found == "y 7"
    assert [group.where() for group in groups] == ["episodes 2, 7", "episode 5", "the whole dataset", "episode 1"]


@pytest.mark.parametrize(
    ("episodes", "most", "words"),
    [([], 6, ""), ([3], 6, "3"), ([0, 1, 2, 5, 7, 8], 6, "0-2, 5, 7-8"), ([0, 2, 4, 5, 6], 2, "0, 2 and 3 more")],
)
def test_episodes_as_ranges(episodes: list[int], most: int, words: str) -> None:
    assert episode_ranges(episodes, most) == words


@given(st.sets(st.integers(0, 200)))
def test_ranges_say_every_episode_and_no_other(episodes: set[int]) -> None:
    covered: set[int] = set()
    for part in filter(None, episode_ranges(sorted(episodes), most=1000).split(", ")):
        first, _, last = part.partition("-")
        covered |= set(range(int(first), int(last or first) + 1))
    assert covered == episodes
