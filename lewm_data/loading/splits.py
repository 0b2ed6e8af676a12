"""Datasets for training and validation: files split by source episode, and statistics of the training side."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lewm_data.errors import UsageError
from lewm_data.format.compatibility import SourceEpisode, refuse_duplicates, source_episodes
from lewm_data.format.schema import ACTION, STATE
from lewm_data.loading.batches import Batch, BatchDataset
from lewm_data.loading.dataset import WindowDataset, concat_datasets
from lewm_data.loading.episode_split import is_validation
from lewm_data.loading.full_datasets import check_alike
from lewm_data.loading.mixture import Mixture
from lewm_data.loading.normalizer import Normalizer, Sample
from lewm_data.loading.store import FrameStore
from lewm_data.notation import episode_ranges


@dataclass(frozen=True, slots=True, eq=False)
class FileSplit:
    """The two sides of one file.

    Attributes:
        dataset: All windows of the file.
        sources: The source of each of its episodes, in file order.
        validates: (E,) whether each episode validates. The others train.
        leaves_out: (E,) whether a validating episode is left out, because another file validates with it already.
    """

    dataset: WindowDataset
    sources: tuple[SourceEpisode, ...]
    validates: NDArray[np.bool_]
    leaves_out: NDArray[np.bool_]

    def episodes(self, *, validate: bool) -> NDArray[np.int64]:
        """Positions in the file of the episodes on one side that hold a window."""
        store = self.dataset.store
        is_long_enough = store.ep_len >= self.dataset.windows.span
        return np.flatnonzero((self.validates == validate) & ~self.leaves_out & is_long_enough)


@dataclass(frozen=True, slots=True, eq=False)
class Splits:
    """The windows to train on, to validate on and to predict.

    Attributes:
        files: The two sides of each file.
        train: Windows of the training episodes.
        val: Windows of the validation episodes.
        predict: All windows, file after file.
        mixture: How often an epoch visits the training windows of each file. None visits each window once.
        normalizers: ``action`` and ``state`` to their normalizers, of the training episodes. A row counts as often as
            an epoch visits a window of its file.
    """

    files: tuple[FileSplit, ...]
    train: BatchDataset
    val: BatchDataset
    predict: BatchDataset
    mixture: Mixture | None
    normalizers: dict[str, Normalizer]

    @classmethod
    def of(
        cls,
        datasets: Sequence[WindowDataset],
        *,
        weights: Sequence[float] | None = None,
        val_fraction: float,
        seed: int,
        allow_duplicates: bool = False,
    ) -> Splits:
        """Splits datasets by source episode. An episode that is in several files is on the same side in all of them.

        Args:
            datasets: All windows of each file, one dataset or more.
            weights: Weight of each dataset in training. None visits every window once per epoch.
            val_fraction: Share of the episodes that validate, in [0, 1).
            seed: Seed of the split.
            allow_duplicates: Accept episodes that are there twice. Training uses them all, validation each once.

        Returns:
            The splits.

        Raises:
            UsageError: The files do not fit together, hold the same source episode, or leave a side without windows.
        """
        check_alike(datasets)
        files = tuple(split_files(datasets, val_fraction=val_fraction, seed=seed, allow_duplicates=allow_duplicates))
        train, val = (
            [file.dataset.restrict(file.episodes(validate=validate)) for file in files] for validate in (False, True)
        )
        _check_sides(files, train, val, weights, val_fraction=val_fraction, seed=seed)
        mixture = None if weights is None else Mixture.weighted([len(part) for part in train], weights)
        visits = [1.0] * len(train) if mixture is None else mixture.visits()
        return cls(
            files=files,
            train=concat_datasets(train),
            val=concat_datasets(val),
            predict=concat_datasets(datasets),
            mixture=mixture,
            normalizers={
                name: Normalizer.fit(
                    *(
                        Sample(part.values(name), _rows_of(part.store, part.windows.episodes), weight)
                        for part, weight in zip(train, visits, strict=True)
                    )
                )
                for name in (ACTION, STATE)
                if name in datasets[0].columns
            },
        )

    @property
    def stores(self) -> tuple[FrameStore, ...]:
        """The open files."""
        return tuple(file.dataset.store for file in self.files)

    def episodes(self, *, validate: bool) -> NDArray[np.int64]:
        """Numbers of the episodes on one side that hold a window, counted through the files."""
        lengths = [len(file.sources) for file in self.files]
        starts = itertools.accumulate(lengths, initial=0)
        sides = [file.episodes(validate=validate) + start for file, start in zip(self.files, starts, strict=False)]
        return np.concatenate(sides)

    def read_episode(self, episode: int, *, max_frames: int) -> Batch:
        """Reads an episode as a batch of one window (see ``WindowDataset.read_episode``), counted through the files."""
        for file in self.files:
            if episode < len(file.sources):
                return file.dataset.read_episode(episode, max_frames=max_frames)
            episode -= len(file.sources)
        raise IndexError(f"the last episode is {episode + 1} before this one")


def split_files(
    datasets: Sequence[WindowDataset], *, val_fraction: float, seed: int, allow_duplicates: bool
) -> list[FileSplit]:
    """Decides on which side each episode of each file is; see ``Splits.of``."""
    sources = [_sources(dataset.store) for dataset in datasets]
    if not allow_duplicates:
        names = [str(dataset.store.path) for dataset in datasets]
        refuse_duplicates(
            dict(zip(names, sources, strict=True)),
            remedy="accept them with allow_duplicates=True (in train.py: --data.allow_duplicates true)",
        )
    seen: set[SourceEpisode] = set()
    files = []
    for dataset, episodes in zip(datasets, sources, strict=True):
        numbers = np.array([episode.episode for episode in episodes], np.int64)
        validates = is_validation(numbers, val_fraction=val_fraction, seed=seed)
        leaves_out = np.zeros(len(episodes), np.bool_)
        for position in np.flatnonzero(validates).tolist():
            leaves_out[position] = episodes[position] in seen
            seen.add(episodes[position])
        files.append(FileSplit(dataset, tuple(episodes), validates, leaves_out))
    return files


def _sources(store: FrameStore) -> list[SourceEpisode]:
    """The source of each episode. The source of a file that another program wrote is the file itself."""
    sources = source_episodes(store.header)
    if len(sources) == len(store.ep_len):
        return sources
    path = str(store.path)
    name = path if "://" in path else os.path.realpath(path)
    return [SourceEpisode(name, None, position) for position in range(len(store.ep_len))]


def _check_sides(
    files: Sequence[FileSplit],
    train: Sequence[WindowDataset],
    val: Sequence[WindowDataset],
    weights: Sequence[float] | None,
    *,
    val_fraction: float,
    seed: int,
) -> None:
    """Refuses a split that leaves a side without windows."""
    span = files[0].dataset.windows.span
    if val_fraction and sum(len(file.sources) for file in files) == 1:
        raise UsageError(
            f"{files[0].dataset.store.path}: val_fraction is {val_fraction}, but the file has only one episode, and an "
            "episode is never split. Set val_fraction=0 to train on it, or convert more episodes."
        )
    for file, part in zip(files, train, strict=True):
        if not len(part) and (weights is not None or not any(map(len, train))):
            raise UsageError(
                f"{file.dataset.store.path}: with val_fraction {val_fraction} and seed {seed}, no training episode "
                f"holds a window of {span} steps, and an episode is never split. Set val_fraction=0 to train on every "
                "episode, lower num_steps or frameskip, or choose another seed."
            )
    if val_fraction and not any(map(len, val)):
        paths = ", ".join(str(file.dataset.store.path) for file in files)
        numbers = sorted({source.episode for f in files for source in itertools.compress(f.sources, f.validates)})
        found = (
            f"none of the {len(numbers)} validation episodes ({episode_ranges(numbers)} of the source) holds a window "
            f"of {span} steps"
            if numbers
            else f"none of the {sum(len(file.sources) for file in files)} episodes is a validation episode"
        )
        raise UsageError(
            f"{paths}: with val_fraction {val_fraction} and seed {seed}, {found}. Raise val_fraction, choose another "
            f"seed{', lower num_steps or frameskip' if numbers else ''}, or set val_fraction=0 to train on every "
            "episode."
        )


def _rows_of(store: FrameStore, episodes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of a file's rows belong to some episodes, (N,) bool."""
    edges = np.zeros(store.num_rows + 1, np.int32)
    np.add.at(edges, store.ep_offset[episodes], 1)
    np.add.at(edges, store.ep_offset[episodes] + store.ep_len[episodes], -1)
    rows: NDArray[Any] = np.cumsum(edges[:-1]) > 0
    return rows
