"""Findings for people: thousands of them as a handful of groups, and episodes as ranges."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lewm_data.schema import Finding

HANDLED = {
    "refused": "refuses the dataset",
    "dropped": "dropped",
    "kept": "kept and marked",
    "recorded": "recorded",
}
"""What was done about a finding, in words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FindingGroup:
    """Findings of one code that were handled alike.

    Attributes:
        first: The first of them, as an example.
        count: How many there are.
        episodes: episode_index of those that concern an episode, ascending, each once.
    """

    first: Finding
    count: int
    episodes: tuple[int, ...]

    def where(self, most: int = 6) -> str:
        """The episodes concerned, in words; ``most`` ranges at most."""
        if not self.episodes:
            return "the whole dataset"
        return f"{'episode' if len(self.episodes) == 1 else 'episodes'} {episode_ranges(self.episodes, most)}"


def group_findings(findings: Iterable[Finding]) -> list[FindingGroup]:
    """Groups findings by code and handling.

    Returns:
        Errors first, then in the order in which their first one was found.
    """
    groups: dict[tuple[str, str], list[Finding]] = {}
    for found in findings:
        groups.setdefault((found.code, found.handling), []).append(found)
    made = [
        FindingGroup(
            first=members[0],
            count=len(members),
            episodes=tuple(sorted({found.episode for found in members if found.episode is not None})),
        )
        for members in groups.values()
    ]
    return sorted(made, key=lambda group: group.first.severity != "error")


def episode_ranges(episodes: Iterable[int], most: int = 6) -> str:
    """Ascending episode numbers as ranges, both ends included: ``0-2, 5``.

    Args:
        episodes: Ascending, each once.
        most: Ranges that are written out; the episodes of the rest are counted.
    """
    ranges: list[tuple[int, int]] = []
    for episode in episodes:
        if ranges and episode == ranges[-1][1] + 1:
            ranges[-1] = ranges[-1][0], episode
        else:
            ranges.append((episode, episode))
    shown = [str(first) if first == last else f"{first}-{last}" for first, last in ranges[:most]]
    rest = sum(last - first + 1 for first, last in ranges[most:])
    return ", ".join(shown) + (f" and {rest:,} more" if rest else "")


def count_of(number: int, what: str) -> str:
    """A number of things in words: ``1 error``, ``2,000 errors``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
