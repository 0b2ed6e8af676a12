"""Files to datasets: opened, checked against each other, split by episode, with statistics of the training side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lewm_data.errors import UsageError
from lewm_data.loading.batches import Batch, BatchDataset
from lewm_data.loading.dataset import WindowDataset
from lewm_data.loading.joined import check_alike, join
from lewm_data.loading.mixture import Mixture
from lewm_data.loading.normalizer import Normalizer, Sample
from lewm_data.loading.store import FrameStore
from lewm_data.loading.windows import split_episodes
from lewm_data.schema import ACTION, STATE


@dataclass(frozen=True, slots=True, eq=False)
class Splits:
    """What to train on, to validate on and to predict.

    Attributes:
        wholes: All windows of each file.
        train: Windows of the training episodes.
        val: Windows of the validation episodes.
        predict: All windows, file after file.
        train_episodes: (E,) int64 numbers of the training episodes; they count on through the files.
        val_episodes: The same of the validation episodes.
        mixture: How often an epoch visits the training windows of each file; None where each comes once.
        normalizers: ``action`` and ``state`` to their normalizers, of the training episodes. A row counts as often as
            an epoch visits a window of its file.
    """

    wholes: tuple[WindowDataset, ...]
    train: BatchDataset
    val: BatchDataset
    predict: BatchDataset
    train_episodes: NDArray[np.int64]
    val_episodes: NDArray[np.int64]
    mixture: Mixture | None
    normalizers: dict[str, Normalizer]

    @property
    def stores(self) -> tuple[FrameStore, ...]:
        """The open files."""
        return tuple(whole.store for whole in self.wholes)

    @classmethod
    def open(
        cls,
        paths: Sequence[Path],
        *,
        weights: Sequence[float] | None = None,
        num_steps: int,
        frameskip: int,
        val_fraction: float,
        seed: int,
        verify_checksums: bool = False,
    ) -> Splits:
        """Opens files and splits each of them by episode.

        Args:
            paths: Converted files, one or more.
            weights: Weight of each in training; None visits every window once per epoch.
            num_steps: Frames that a window keeps.
            frameskip: Steps from one kept frame to the next.
            val_fraction: Share of each file's episodes for validation, in [0, 1).
            seed: Seed of the split.
            verify_checksums: Check each frame's checksum when it is read.

        Returns:
            The splits.

        Raises:
            UsageError: A file is not there, holds no window or too few episodes to be split, or the files do not fit
                together (see ``check_alike``).
            FormatError: A file is broken.
        """
        stores = [FrameStore(path, verify_checksums=verify_checksums) for path in paths]
        wholes = [WindowDataset(store, num_steps=num_steps, frameskip=frameskip) for store in stores]
        check_alike(wholes)
        sides = [_split(whole, val_fraction=val_fraction, seed=seed) for whole in wholes]
        train = [whole.restrict(side) for whole, (side, _) in zip(wholes, sides, strict=True)]
        val = [whole.restrict(side) for whole, (_, side) in zip(wholes, sides, strict=True)]
        mixture = None if weights is None else Mixture.weighted([len(part) for part in train], weights)
        visits = [1.0] * len(train) if mixture is None else mixture.visits()
        starts = np.cumsum([0, *(len(store.ep_len) for store in stores)])
        train_episodes, val_episodes = (
            np.concatenate([side[number] + start for side, start in zip(sides, starts, strict=False)])
            for number in (0, 1)
        )
        return cls(
            wholes=tuple(wholes),
            train=join(train),
            val=join(val),
            predict=join(wholes),
            train_episodes=train_episodes,
            val_episodes=val_episodes,
            mixture=mixture,
            normalizers={
                name: Normalizer.fit(
                    *(
                        Sample(part.values(name), _rows_of(part.store, side), weight)
                        for part, (side, _), weight in zip(train, sides, visits, strict=True)
                    )
                )
                for name in (ACTION, STATE)
                if name in wholes[0].columns
            },
        )

    def read_episode(self, episode: int, *, max_frames: int) -> Batch:
        """A whole episode as a batch of one window (see ``WindowDataset.read_episode``); numbers count on."""
        for part in self.wholes:
            if episode < len(part.store.ep_len):
                return part.read_episode(episode, max_frames=max_frames)
            episode -= len(part.store.ep_len)
        raise IndexError(f"there are not so many episodes ({episode} too many)")


def _split(whole: WindowDataset, *, val_fraction: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    store, span = whole.store, whole.windows.span
    longest = int(store.ep_len.max(initial=0))
    if longest < span:
        raise UsageError(
            f"{store.path}: a window takes num_steps * frameskip = {whole.num_steps} * {whole.frameskip} = {span} "
            f"steps, but the longest of {len(store.ep_len)} episodes has {longest}. Lower num_steps or frameskip."
        )
    try:
        return split_episodes(store.ep_len, span=span, val_fraction=val_fraction, seed=seed)
    except UsageError as error:
        raise UsageError(f"{store.path}: {error}") from error


def _rows_of(store: FrameStore, episodes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of a file's rows belong to some episodes, (N,) bool."""
    edges = np.zeros(store.num_rows + 1, np.int32)
    np.add.at(edges, store.ep_offset[episodes], 1)
    np.add.at(edges, store.ep_offset[episodes] + store.ep_len[episodes], -1)
    rows: NDArray[Any] = np.cumsum(edges[:-1]) > 0
    return rows
