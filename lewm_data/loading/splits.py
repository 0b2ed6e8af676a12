"""Datasets for training, validation and test: files split by source episode, and statistics of the training side."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lewm_data.errors import UsageError
from lewm_data.loading.batches import Batch, BatchDataset
from lewm_data.loading.concat_dataset import concat_datasets
from lewm_data.loading.dataset import WindowDataset
from lewm_data.loading.episode_split import SIDES, Side, SplitRule
from lewm_data.loading.file_split import FileSplit, split_files
from lewm_data.loading.full_datasets import check_alike
from lewm_data.loading.idle_windows import IdleWeight, Thinning
from lewm_data.loading.mixture import Mixture
from lewm_data.loading.statistics import Normalization, Statistics
from lewm_data.loading.store import FrameStore
from lewm_data.notation import count_of, episode_ranges


@dataclass(frozen=True, slots=True, eq=False)
class Splits:
    """The windows to train on, to validate on, to test with and to predict.

    Attributes:
        rule: How the episodes were split.
        files: The sides of each file.
        train: Windows of the training episodes.
        val: Windows of the validation episodes.
        test: Windows of the test episodes.
        predict: All windows, file after file.
        mixture: How often an epoch visits the training windows of each file. None visits each window once.
        thinning: How often an epoch draws training windows without motion. None draws them like the others.
        statistics: The normalizers of the training episodes.
    """

    rule: SplitRule
    files: tuple[FileSplit, ...]
    train: BatchDataset
    val: BatchDataset
    test: BatchDataset
    predict: BatchDataset
    mixture: Mixture | None
    thinning: Thinning | None
    statistics: Statistics

    @classmethod
    def of(
        cls,
        datasets: Sequence[WindowDataset],
        rule: SplitRule,
        *,
        names: Sequence[str] = (),
        weights: Sequence[float] | None = None,
        idle: IdleWeight | None = None,
        allow_duplicates: bool = False,
        normalize: Normalization = True,
    ) -> Splits:
        """Splits datasets by source episode. An episode that is in several files is on the same side in all of them.

        Args:
            datasets: All windows of each file, one dataset or more.
            rule: How to split.
            names: What the user calls each file, in addition to its path.
            weights: Weight of each dataset in training. None visits every window once per epoch.
            idle: How often training draws windows without motion. None draws them like the others.
            allow_duplicates: Accept episodes that are there twice. Training uses them all; validation and test use
                each once.
            normalize: Whether statistics are pooled or those of each dataset.

        Returns:
            The splits.

        Raises:
            UsageError: The files do not fit together, hold the same source episode, or leave a side without windows; or
                the rule names episodes that cannot be used.
        """
        check_alike(datasets)
        files = tuple(split_files(datasets, rule, names=names, allow_duplicates=allow_duplicates))
        train, val, test = ([file.dataset.restrict(file.episodes(side)) for file in files] for side in SIDES)
        _check_sides(files, train, val, weights, rule)
        thinning = None if idle is None else Thinning.of(train, idle)
        num_draws = [len(part) for part in train] if thinning is None else thinning.num_draws
        mixture = None if weights is None else Mixture.weighted(num_draws, weights)
        visits = [1.0] * len(train) if mixture is None else mixture.visits()
        return cls(
            rule=rule,
            files=files,
            train=concat_datasets(train),
            val=concat_datasets(val),
            test=concat_datasets(test),
            predict=concat_datasets(datasets),
            mixture=mixture,
            thinning=thinning,
            statistics=Statistics.of(train, visits, normalize=normalize),
        )

    @property
    def num_train_draws(self) -> int:
        """Training windows that an epoch draws."""
        return len(self.train) if self.thinning is None else sum(self.thinning.num_draws)

    @property
    def stores(self) -> tuple[FrameStore, ...]:
        """The open files."""
        return tuple(file.dataset.store for file in self.files)

    def episodes(self, side: Side) -> NDArray[np.int64]:
        """Numbers of the episodes on one side that hold a window, counted through the files."""
        lengths = [len(file.sources) for file in self.files]
        starts = itertools.accumulate(lengths, initial=0)
        return np.concatenate([file.episodes(side) + start for file, start in zip(self.files, starts, strict=False)])

    def source_episodes(self, side: Side) -> dict[str, set[int]]:
        """Source to the numbers of its episodes on one side, with episodes too short for a window."""
        found: dict[str, set[int]] = {}
        for file in self.files:
            for source in itertools.compress(file.sources, file.sides == SIDES.index(side)):
                found.setdefault(source.repo_id, set()).add(source.episode)
        return found

    def __str__(self) -> str:
        """The windows and the episodes of each side."""
        sides: dict[str, Side] = {"training": "train", "validation": "val", "test": "test"}
        return ", ".join(
            f"{name} {len(getattr(self, side)):,} of {count_of(len(self.episodes(side)), 'episode')}"
            for name, side in sides.items()
        )

    def describe(self) -> list[str]:
        """The split in words: what decided, and a line for each side with its episodes and windows."""
        lines = [f"Split by {self.rule}:"]
        for side in SIDES:
            by_source = self.source_episodes(side)
            ranges = "; ".join(f"{episode_ranges(sorted(found))} of {name}" for name, found in by_source.items())
            num_windows = len(getattr(self, side))
            words = f"{count_of(len(self.episodes(side)), 'episode')}, {count_of(num_windows, 'window')} ({ranges})"
            lines.append(f"  {side:<5} {words if by_source else 'nothing'}")
        if self.thinning is not None:
            lines.append(f"  idle  {self.thinning.describe()}")
        num_unused = sum(int((file.sides < 0).sum()) for file in self.files)
        return lines + ([f"  {count_of(num_unused, 'episode')} not used"] if num_unused else [])

    def read_episode(self, episode: int, *, max_frames: int) -> Batch:
        """Reads an episode as a batch of one window (see ``WindowDataset.read_episode``), counted through the files."""
        for file in self.files:
            if episode < len(file.sources):
                return file.dataset.read_episode(episode, max_frames=max_frames)
            episode -= len(file.sources)
        raise IndexError(f"the last episode is {episode + 1} before this one")


def _check_sides(
    files: Sequence[FileSplit],
    train: Sequence[WindowDataset],
    val: Sequence[WindowDataset],
    weights: Sequence[float] | None,
    rule: SplitRule,
) -> None:
    """Refuses a split that leaves a side without windows. Lists of episodes were checked before."""
    span = files[0].dataset.windows.span
    num_episodes = sum(len(file.sources) for file in files)
    if rule.is_by_fraction and rule.val_fraction and num_episodes == 1:
        raise UsageError(
            f"{files[0].dataset.store.path}: val_fraction is {rule.val_fraction}, but the file has only one episode, "
            "and an episode is never split. Set val_fraction=0 to train on it, or convert more episodes."
        )
    other = (
        "choose another seed, set val_fraction=0 to train on every episode, or name the episodes that validate: "
        "val_episodes='0,5' (in train.py: --data.val_episodes 0,5)"
        if rule.is_by_fraction
        else "or name other episodes"
        if rule.fold is None
        else "choose fewer folds or another seed, or name the episodes with val_episodes"
    )
    for file, part in zip(files, train, strict=True):
        if not len(part) and (weights is not None or not any(map(len, train))):
            raise UsageError(
                f"{file.dataset.store.path}: with {rule}, no training episode holds a window of {span} steps, and an "
                f"episode is never split. Lower num_steps or frameskip, {other}."
            )
    if rule.wants_validation and not any(map(len, val)):
        paths = ", ".join(str(file.dataset.store.path) for file in files)
        chosen = (itertools.compress(file.sources, file.sides == SIDES.index("val")) for file in files)
        numbers = sorted({source.episode for source in itertools.chain.from_iterable(chosen)})
        found = (
            f"none of the {len(numbers)} validation episodes ({episode_ranges(numbers)} of the source) holds a window "
            f"of {span} steps"
            if numbers
            else f"none of the {num_episodes} episodes is a validation episode"
        )
        raise_it = "raise val_fraction, " if rule.is_by_fraction else ""
        lower = "lower num_steps or frameskip, " if numbers else ""
        remedy = f"{raise_it}{lower}{other}"
        raise UsageError(f"{paths}: with {rule}, {found}. {remedy[0].upper()}{remedy[1:]}.")
