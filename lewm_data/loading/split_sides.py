"""On which side each source episode is, with the checks of what a user's lists name. Pure: no file is read."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Set
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lewm_data.errors import UsageError
from lewm_data.loading.episode_selection import EpisodeSelection, episodes_text
from lewm_data.loading.episode_split import SIDES, Side, SplitRule
from lewm_data.notation import episode_ranges

type SideEpisodes = Mapping[str, Set[int]]
"""Source to the numbers of its episodes on one side."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceContent:
    """What the files hold of one source.

    Attributes:
        names: What else a user may call it: the files that hold nothing else, by path and by name.
        steps: Number of each episode to its steps.
        dropped: Numbers of the episodes that were left out as dirty.
    """

    names: frozenset[str]
    steps: Mapping[int, int]
    dropped: frozenset[int]


def named_episodes(
    rule: SplitRule, contents: Mapping[str, SourceContent], *, span: int
) -> dict[Side, dict[str, set[int]]]:
    """The episodes that a user's lists name.

    Args:
        rule: Holds the lists.
        contents: Each source to what the files hold of it.
        span: Steps of a window.

    Returns:
        Side to source to episodes. A side without a list is absent.

    Raises:
        UsageError: A list names an unknown source; an episode that does not exist, was left out as dirty or is shorter
            than a window; or an episode of another list.
    """
    found: dict[Side, dict[str, set[int]]] = {}
    for side, selections in rule.named.items():
        found[side] = {}
        for name, selection in selections.items():
            source = _source_of(name, contents, setting=f"{side}_episodes")
            if source in found[side]:
                raise UsageError(
                    f"{side}_episodes names {source} twice, once as {name}. Give one list of its episodes."
                )
            found[side][source] = _existing(
                selection, contents[source], span=span, setting=f"{side}_episodes", source=source
            )
    _check_disjoint(found)
    return found


def sides_of(
    rule: SplitRule, named: Mapping[Side, SideEpisodes], source: str, numbers: NDArray[np.int64]
) -> NDArray[np.int8]:
    """Decides on which side episodes of one source are.

    Args:
        rule: How to split.
        named: From ``named_episodes``.
        source: The source.
        numbers: (E,) int64 ``episode_index`` of each episode in the source.

    Returns:
        (E,) int8 positions in ``SIDES``; -1 for an episode that no side uses.
    """
    rest = -1 if "train" in named else SIDES.index("train")
    sides = np.where(rule.validates(numbers), SIDES.index("val"), rest).astype(np.int8)
    for side, by_source in named.items():
        episodes = by_source.get(source)
        if episodes:
            sides[np.isin(numbers, list(episodes))] = SIDES.index(side)
    return sides


def _source_of(name: str | None, contents: Mapping[str, SourceContent], *, setting: str) -> str:
    if name is None:
        if len(contents) > 1:
            example = ", ".join(f"{source!r}: '0:8'" for source in itertools.islice(contents, 2))
            raise UsageError(
                f"{setting} names episodes, but the data has {len(contents)} sources. Say of which: {{{example}}}."
            )
        return next(iter(contents))
    found = [source for source, content in contents.items() if name == source or name in content.names]
    if name in contents:
        found = [name]
    if len(found) != 1:
        problem = f"may be {' or '.join(found)}" if found else "is not a source of the data"
        raise UsageError(f"{setting}: {name} {problem}. The sources are: {', '.join(contents)}.")
    return found[0]


def _existing(selection: EpisodeSelection, content: SourceContent, *, span: int, setting: str, source: str) -> set[int]:
    """The episodes of a selection, if all that it names can serve windows."""
    numbers = selection.numbers(content.steps)
    absent = selection.named - content.steps.keys()
    dropped = absent & content.dropped
    unknown = absent - dropped
    short = {number for number in selection.named & numbers if content.steps[number] < span}
    problems = []
    if unknown:
        existing = f"its episodes are {episode_ranges(sorted(content.steps))}"
        problems.append(f"{_episodes(unknown)} of {source} {_verb(unknown, 'does', 'do')} not exist ({existing})")
    if dropped:
        problems.append(f"{_episodes(dropped)} of {source} {_verb(dropped, 'was', 'were')} dropped as dirty")
    if short:
        longest = max(content.steps[number] for number in short)
        problems.append(
            f"{_episodes(short)} of {source} {_verb(short, 'has', 'have at most')} {longest} steps, fewer than a "
            f"window of {span}"
        )
    usable = numbers - short
    if problems:
        lower = ", or lower num_steps or frameskip" if short else ""
        remedy = f"Write {setting}={episodes_text(usable)!r}{lower}" if usable else f"Name others{lower}"
        raise UsageError(f"{setting}: {'; '.join(problems)}. {remedy}.")
    if not numbers:
        raise UsageError(
            f"{setting} takes no episode of {source}, which has the episodes {episode_ranges(sorted(content.steps))}."
        )
    return numbers


def _check_disjoint(named: Mapping[Side, SideEpisodes]) -> None:
    for (side, one), (other_side, other) in itertools.combinations(named.items(), 2):
        for source in one.keys() & other.keys():
            both = one[source] & other[source]
            if both:
                raise UsageError(
                    f"{side}_episodes and {other_side}_episodes both name {_episodes(both)} of {source}, but an "
                    "episode is on one side only. Remove it from one of them."
                )


def _episodes(numbers: Set[int]) -> str:
    return f"{_verb(numbers, 'episode', 'episodes')} {episode_ranges(sorted(numbers))}"


def _verb(numbers: Set[int], one: str, several: str) -> str:
    return one if len(numbers) == 1 else several
