"""On which side each episode of each file is: the rule, the user's lists, and the sources that the files record."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lewm_data.errors import UsageError
from lewm_data.format.compatibility import SourceEpisode, refuse_duplicates, source_episodes
from lewm_data.loading.episode_selection import EpisodeSelection, episodes_text
from lewm_data.loading.episode_split import SIDES, Side, SplitRule
from lewm_data.loading.store import FrameStore
from lewm_data.notation import episode_ranges

if TYPE_CHECKING:  # a preview asks for the split, and does without torch
    from lewm_data.loading.dataset import WindowDataset

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
                f"{setting} names episodes, but the data has {len(contents)} sources. Name the source: {{{example}}}."
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


@dataclass(frozen=True, slots=True, eq=False)
class FileSplit:
    """The sides of one file.

    Attributes:
        dataset: All windows of the file.
        sources: The source of each of its episodes, in file order.
        sides: (E,) int8, the side of each episode as its position in ``SIDES``; -1 for one that no side uses.
        leaves_out: (E,) whether an episode for validation or test is left out, because another file holds it too.
    """

    dataset: WindowDataset
    sources: tuple[SourceEpisode, ...]
    sides: NDArray[np.int8]
    leaves_out: NDArray[np.bool_]

    def episodes(self, side: Side) -> NDArray[np.int64]:
        """Positions in the file of the episodes on one side that hold a window."""
        store = self.dataset.store
        is_long_enough = store.ep_len >= self.dataset.windows.span
        return np.flatnonzero((self.sides == SIDES.index(side)) & ~self.leaves_out & is_long_enough)


def split_files(
    datasets: Sequence[WindowDataset], rule: SplitRule, *, names: Sequence[str] = (), allow_duplicates: bool
) -> list[FileSplit]:
    """Decides on which side each episode of each file is; see ``Splits.of``."""
    paths = [str(dataset.store.path) for dataset in datasets]
    sources = [_sources(dataset.store) for dataset in datasets]
    if not allow_duplicates:
        refuse_duplicates(
            dict(zip(paths, sources, strict=True)),
            remedy="accept them with allow_duplicates=True (in train.py: --data.allow_duplicates true)",
        )
    contents = _contents(datasets, sources, names or paths) if rule.named else {}
    named = named_episodes(rule, contents, span=datasets[0].windows.span)
    seen: set[SourceEpisode] = set()
    files = []
    for dataset, episodes in zip(datasets, sources, strict=True):
        sides = np.full(len(episodes), -1, np.int8)
        repo_ids = np.array([episode.repo_id for episode in episodes])
        numbers = np.array([episode.episode for episode in episodes], np.int64)
        for repo_id in dict.fromkeys(repo_ids.tolist()):
            members = repo_ids == repo_id
            sides[members] = sides_of(rule, named, repo_id, numbers[members])
        leaves_out = np.zeros(len(episodes), np.bool_)
        for position in np.flatnonzero(sides > SIDES.index("train")).tolist():
            leaves_out[position] = episodes[position] in seen
            seen.add(episodes[position])
        files.append(FileSplit(dataset, tuple(episodes), sides, leaves_out))
    return files


def _contents(
    datasets: Sequence[WindowDataset], sources: Sequence[Sequence[SourceEpisode]], names: Sequence[str]
) -> dict[str, SourceContent]:
    """What the files hold of each source, for the lists of episodes."""
    called: dict[str, set[str]] = {}
    steps: dict[str, dict[int, int]] = {}
    dropped: dict[str, set[int]] = {}
    for dataset, episodes, name in zip(datasets, sources, names, strict=True):
        header = dataset.store.header
        for episode, length in zip(episodes, dataset.store.ep_len.tolist(), strict=True):
            known = steps.setdefault(episode.repo_id, {})
            known[episode.episode] = max(length, known.get(episode.episode, 0))
        path = str(dataset.store.path)
        for repo_id in {episode.repo_id for episode in episodes}:
            called.setdefault(repo_id, set()).update((name, Path(name).name, path, Path(path).name))
            dropped.setdefault(repo_id, set()).update(header.dropped_episodes if header is not None else ())
    return {
        source: SourceContent(names=frozenset(called[source]), steps=lengths, dropped=frozenset(dropped[source]))
        for source, lengths in steps.items()
    }


def _sources(store: FrameStore) -> list[SourceEpisode]:
    """The source of each episode. The source of a file that another program wrote is the file itself."""
    sources = source_episodes(store.header)
    if len(sources) == len(store.ep_len):
        return sources
    path = str(store.path)
    name = path if "://" in path else os.path.realpath(path)
    return [SourceEpisode(name, None, position) for position in range(len(store.ep_len))]
