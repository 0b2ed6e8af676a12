"""Training windows without motion, drawn less often than the others: pure arithmetic on runs of windows."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lewm_data.errors import UsageError
from lewm_data.format.segments import group_by_segment
from lewm_data.loading.dataset import WindowDataset
from lewm_data.loading.permutation import derive_key, permute
from lewm_data.loading.windows import WindowIndex


@dataclass(frozen=True, slots=True)
class IdleWeight:
    """How often windows without motion are drawn.

    Attributes:
        weight: Draws of such a window in an epoch, in [0, 1).
        find_rest: Returns whether the robot rests, bool of shape (N,), for each row of a dataset's file.
    """

    weight: float
    find_rest: Callable[[WindowDataset], NDArray[np.bool_]]


@dataclass(frozen=True, slots=True, eq=False)
class ThinnedPart:
    """The windows of one dataset, some of which are idle.

    An epoch draws every other window once, and ``num_idle_draws`` of the idle ones, different ones in each epoch.

    Attributes:
        num_windows: Windows of the dataset.
        starts: (R,) int64, the first window of each run of idle windows, ascending.
        stops: (R,) int64, the end of each run.
        num_idle_draws: Idle windows in an epoch.
    """

    num_windows: int
    starts: NDArray[np.int64]
    stops: NDArray[np.int64]
    num_idle_draws: int

    @classmethod
    def of(cls, index: WindowIndex, is_resting: NDArray[np.bool_], weight: float) -> ThinnedPart:
        """Finds the windows in which the robot rests from the first step to the last.

        Args:
            index: The windows.
            is_resting: (N,) bool, for each row of the file.
            weight: Draws of such a window in an epoch.
        """
        starts: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
        stops: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
        before = 0
        for row, stop in zip(index.first_rows.tolist(), index.window_stops.tolist(), strict=True):
            rest = is_resting[row : row + stop - before + index.span - 1]
            edges = np.flatnonzero(np.diff(np.concatenate([[False], rest, [False]]).astype(np.int8)))
            first, last = edges[::2].astype(np.int64), edges[1::2].astype(np.int64) - (index.span - 1)
            is_long = last > first
            starts.append(first[is_long] + before)
            stops.append(last[is_long] + before)
            before = stop
        first, last = np.concatenate(starts), np.concatenate(stops)
        return cls(before, first, last, round(weight * int((last - first).sum())))

    @property
    def num_idle(self) -> int:
        """Windows without motion."""
        return int((self.stops - self.starts).sum())

    @property
    def num_draws(self) -> int:
        """Windows in an epoch."""
        return self.num_windows - self.num_idle + self.num_idle_draws

    def windows(self, draws: NDArray[np.int64], key: int) -> NDArray[np.int64]:
        """Maps draws to windows, each of an epoch's draws to another one.

        Args:
            draws: (B,) int64 in [0, num_draws): those of windows with motion first.
            key: The epoch's key. It selects the idle windows.

        Returns:
            (B,) int64 window numbers.
        """
        num_idle = self.num_idle
        idle_before = np.concatenate([np.zeros(1, np.int64), np.cumsum(self.stops - self.starts)])
        moving_before = self.starts - idle_before[:-1]  # windows with motion before each run
        windows = draws + idle_before[np.searchsorted(moving_before, draws, side="right")]
        is_idle = draws >= self.num_windows - num_idle
        if is_idle.any():
            chosen = permute(draws[is_idle] - (self.num_windows - num_idle), num_idle, key)
            run = np.searchsorted(idle_before[1:], chosen, side="right")
            windows[is_idle] = self.starts[run] + chosen - idle_before[run]
        return windows


@dataclass(frozen=True, slots=True, eq=False)
class Thinning:
    """How often an epoch draws the windows of several datasets, of which some are idle.

    Attributes:
        parts: The datasets, in order. Windows and draws are numbered dataset after dataset.
    """

    parts: tuple[ThinnedPart, ...]

    @classmethod
    def of(cls, datasets: Sequence[WindowDataset], idle: IdleWeight) -> Thinning:
        """Finds the idle windows of datasets.

        Args:
            datasets: The training windows of each file.
            idle: How to find them, and how often to draw them.

        Raises:
            UsageError: No window is left to draw.
        """
        parts = [ThinnedPart.of(dataset.windows, idle.find_rest(dataset), idle.weight) for dataset in datasets]
        for dataset, part in zip(datasets, parts, strict=True):
            if part.num_windows and not part.num_draws:
                raise UsageError(
                    f"{dataset.store.path}: idle_weight is {idle.weight:g}, but in all {part.num_windows} training "
                    "windows the robot stands still. Raise idle_weight, or leave this file out."
                )
        return cls(tuple(parts))

    @property
    def num_draws(self) -> tuple[int, ...]:
        """Windows of each dataset in an epoch."""
        return tuple(part.num_draws for part in self.parts)

    @property
    def fingerprint(self) -> int:
        """Equal for two thinnings that draw the same windows."""
        runs = (zlib.crc32(ends.tobytes()) for part in self.parts for ends in (part.starts, part.stops))
        return derive_key(*self.num_draws, *runs)

    def windows(self, draws: NDArray[np.int64], key: int) -> NDArray[np.int64]:
        """Maps draws to windows.

        Args:
            draws: (B,) int64 in [0, sum(num_draws)), dataset after dataset.
            key: The epoch's key.

        Returns:
            (B,) int64 window numbers.
        """
        windows = np.empty_like(draws)
        for number, chosen, own_draws in group_by_segment(draws, np.cumsum(self.num_draws)):
            before = sum(part.num_windows for part in self.parts[:number])
            windows[chosen] = self.parts[number].windows(own_draws, derive_key(key, number, 1)) + before
        return windows

    def describe(self) -> str:
        """The thinning in words."""
        idle, drawn = (sum(getattr(part, name) for part in self.parts) for name in ("num_idle", "num_idle_draws"))
        return f"the robot stands still in {idle:,} training windows; an epoch draws {drawn:,} of them"
