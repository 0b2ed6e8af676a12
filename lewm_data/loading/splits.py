"""Files to datasets: opened, checked against each other, split by episode, with statistics of the training side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lewm_data.config import RemoteConfig, parse_image_size
from lewm_data.errors import UsageError
from lewm_data.format.schema import ACTION, PIXELS, STATE, camera_name
from lewm_data.loading.batches import Batch, BatchDataset
from lewm_data.loading.concat import check_alike
from lewm_data.loading.dataset import WindowDataset, concat_datasets
from lewm_data.loading.mixture import Mixture
from lewm_data.loading.normalizer import Normalizer, Sample
from lewm_data.loading.store import FrameStore
from lewm_data.loading.windows import split_episodes


@dataclass(frozen=True, slots=True, eq=False)
class Splits:
    """What to train on, to validate on and to predict.

    Attributes:
        full_datasets: All windows of each file.
        train: Windows of the training episodes.
        val: Windows of the validation episodes.
        predict: All windows, file after file.
        train_episodes: (E,) int64 numbers of the training episodes; they count on through the files.
        val_episodes: The same of the validation episodes.
        mixture: How often an epoch visits the training windows of each file; None where each comes once.
        normalizers: ``action`` and ``state`` to their normalizers, of the training episodes. A row counts as often as
            an epoch visits a window of its file.
    """

    full_datasets: tuple[WindowDataset, ...]
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
        return tuple(whole.store for whole in self.full_datasets)

    @classmethod
    def open(
        cls,
        paths: Sequence[str | Path],
        *,
        weights: Sequence[float] | None = None,
        num_steps: int,
        frameskip: int,
        val_fraction: float,
        seed: int,
        verify_checksums: bool = False,
        remote: RemoteConfig | None = None,
    ) -> Splits:
        """Opens files and splits each of them by episode.

        Args:
            paths: Converted files or their addresses, one or more.
            weights: Weight of each in training; None visits every window once per epoch.
            num_steps: Frames that a window keeps.
            frameskip: Steps from one kept frame to the next.
            val_fraction: Share of each file's episodes for validation, in [0, 1).
            seed: Seed of the split.
            verify_checksums: Check each frame's checksum when it is read.
            remote: How to read from object storage; None takes the defaults.

        Returns:
            The splits.

        Raises:
            UsageError: A file is not there, holds no window or too few episodes to be split, or the files do not fit
                together (see ``check_alike``).
            FormatError: A file is broken.
        """
        stores = [FrameStore(path, verify_checksums=verify_checksums, remote=remote) for path in paths]
        full_datasets = [WindowDataset(store, num_steps=num_steps, frameskip=frameskip) for store in stores]
        check_alike(full_datasets)
        sides = [_split(whole, val_fraction=val_fraction, seed=seed) for whole in full_datasets]
        train = [whole.restrict(side) for whole, (side, _) in zip(full_datasets, sides, strict=True)]
        val = [whole.restrict(side) for whole, (_, side) in zip(full_datasets, sides, strict=True)]
        mixture = None if weights is None else Mixture.weighted([len(part) for part in train], weights)
        visits = [1.0] * len(train) if mixture is None else mixture.visits()
        starts = np.cumsum([0, *(len(store.ep_len) for store in stores)])
        train_episodes, val_episodes = (
            np.concatenate([side[number] + start for side, start in zip(sides, starts, strict=False)])
            for number in (0, 1)
        )
        return cls(
            full_datasets=tuple(full_datasets),
            train=concat_datasets(train),
            val=concat_datasets(val),
            predict=concat_datasets(full_datasets),
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
                if name in full_datasets[0].columns
            },
        )

    def fingerprints(self) -> list[str]:
        """What tells the files' contents from others; empty for a file that this package did not write."""
        return [store.header.fingerprint if store.header is not None else "" for store in self.stores]

    def check_asked(self, *, camera: str | None, image_size: int | str | None) -> None:
        """Makes sure that the files hold what settings of a conversion ask for.

        Args:
            camera: The camera that shall be ``pixels``; None takes any.
            image_size: Frame size as ``ConvertConfig`` has it; None takes any.

        Raises:
            UsageError: A file holds something else.
        """
        for store in self.stores:
            if store.header is None:
                continue
            key = store.header.cameras[PIXELS]
            if camera not in (None, key, camera_name(key)):
                raise UsageError(
                    f"{store.path}: its pixels are camera {camera_name(key)!r}, but camera is {camera!r}. Leave camera "
                    "out, or convert that one."
                )
            size = store.header.image_height, store.header.image_width
            if image_size is not None and parse_image_size(image_size) not in (None, size):
                raise UsageError(
                    f"{store.path}: its frames are {size[0]}x{size[1]}, but image_size is {image_size}. Leave "
                    "image_size out, or convert the dataset again."
                )

    def kept_dirt(self) -> list[str]:
        """For each file with episodes that were kept although they are dirty, a sentence that says so."""
        told = []
        for store in self.stores:
            kept = store.header.kept_episodes() if store.header is not None else {}
            if kept:
                some = ", ".join(f"{episode} ({', '.join(codes)})" for episode, codes in list(kept.items())[:5])
                more = f" and {len(kept) - 5} more" if len(kept) > 5 else ""
                told.append(
                    f"{store.path}: kept although dirty, and drawn from like all others: episode {some}{more}. To "
                    "train without them, convert with --dirty_episode_policy skip."
                )
        return told

    def read_episode(self, episode: int, *, max_frames: int) -> Batch:
        """A whole episode as a batch of one window (see ``WindowDataset.read_episode``); numbers count on."""
        for part in self.full_datasets:
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
