"""On which side each episode of each file is: the rule, applied to the sources that the files record."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lewm_data.format.compatibility import SourceEpisode, refuse_duplicates, source_episodes
from lewm_data.loading.dataset import WindowDataset
from lewm_data.loading.episode_split import SIDES, Side, SplitRule
from lewm_data.loading.split_sides import SourceContent, named_episodes, sides_of
from lewm_data.loading.store import FrameStore


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
