"""The windows of a file: pure arithmetic on episode lengths, in O(episodes) memory.

A window is ``span = num_steps * frameskip`` consecutive steps of one episode. An episode of L steps holds
``max(0, L - span + 1)`` windows, one for each first step in [0, L - span + 1), as in LeWM and stable-worldmodel.
Windows are numbered episode after episode.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lewm_data.errors import UsageError
from lewm_data.loading.permutation import hash_u64

_SPLIT_SALT = 0x5EED_0F_5B11


@dataclass(frozen=True, slots=True)
class WindowIndex:
    """Maps window numbers to episodes and rows, for some episodes of a file.

    Attributes:
        span: Steps in a window.
        episodes: (E,) int64 position in the file of each episode that holds a window, ascending.
        first_rows: (E,) int64 first row of each of these episodes.
        window_stops: (E,) int64 cumulated number of windows, each episode included.
    """

    span: int
    episodes: NDArray[np.int64]
    first_rows: NDArray[np.int64]
    window_stops: NDArray[np.int64]

    @classmethod
    def build(
        cls,
        lengths: ArrayLike,
        offsets: ArrayLike,
        *,
        num_steps: int,
        frameskip: int,
        episodes: Sequence[int] | NDArray[np.int64] | None = None,
    ) -> WindowIndex:
        """Counts the windows of each episode.

        Args:
            lengths: (E,) steps of every episode of the file.
            offsets: (E,) first row of every episode of the file.
            num_steps: Frames that a window keeps.
            frameskip: Steps from one kept frame to the next.
            episodes: Positions in the file of the episodes to use, each once. None uses all.

        Returns:
            The index, which may be empty.

        Raises:
            UsageError: ``num_steps`` or ``frameskip`` is below 1, or an episode does not exist or is named
                twice.
        """
        for name, value in (("num_steps", num_steps), ("frameskip", frameskip)):
            if value < 1:
                raise UsageError(f"{name} is {value}, but must be 1 or more.")
        lengths = np.asarray(lengths, np.int64)
        chosen = np.arange(len(lengths)) if episodes is None else np.sort(np.asarray(episodes, np.int64))
        if len(chosen) and (chosen[0] < 0 or chosen[-1] >= len(lengths)):
            raise UsageError(
                f"episodes go from {chosen[0]} to {chosen[-1]}, but the file holds episodes 0 to "
                f"{len(lengths) - 1}. Choose from these."
            )
        if len(np.unique(chosen)) != len(chosen):
            raise UsageError("episodes names an episode twice. Name each once.")
        span = num_steps * frameskip
        chosen = chosen[lengths[chosen] >= span]
        return cls(
            span=span,
            episodes=chosen,
            first_rows=np.asarray(offsets, np.int64)[chosen],
            window_stops=np.cumsum(lengths[chosen] - span + 1),
        )

    def __len__(self) -> int:
        return int(self.window_stops[-1]) if len(self.window_stops) else 0

    def locate(self, windows: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Finds the episode and first step of windows.

        Args:
            windows: (B,) window numbers in [0, len(self)).

        Returns:
            (B,) int64 position in the file of each window's episode, and (B,) int64 its first step in that
            episode.

        Raises:
            IndexError: A number lies outside [0, len(self)).
        """
        index, start = self._find(windows)
        return self.episodes[index], start

    def rows(self, windows: ArrayLike) -> NDArray[np.int64]:
        """Finds the first row of windows.

        Args:
            windows: (B,) window numbers in [0, len(self)).

        Returns:
            (B,) int64; window i covers the rows [rows[i], rows[i] + span).

        Raises:
            IndexError: A number lies outside [0, len(self)).
        """
        index, start = self._find(windows)
        return self.first_rows[index] + start

    def _find(self, windows: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        windows = np.asarray(windows, np.int64)
        if windows.size and (windows.min() < 0 or windows.max() >= len(self)):
            raise IndexError(f"window {windows.min()} or {windows.max()} lies outside [0, {len(self)})")
        index = np.searchsorted(self.window_stops, windows, side="right")
        before = np.concatenate([np.zeros(1, np.int64), self.window_stops])[index]
        return index, windows - before


def split_episodes(
    lengths: ArrayLike, *, span: int, val_fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Splits episodes into training and validation, never one episode into both.

    The episodes that hold a window are numbered 0, 1, 2, ... and cut into runs of ``1 / val_fraction`` (runs
    differ by one where that is no whole number). Each run gives one episode, drawn by a hash of the seed and
    the run's number, to validation; the first run draws among its first two only. So the share is exact to
    one episode, two episodes suffice for both splits to have one, and an episode keeps its side when others
    are appended.

    Args:
        lengths: (E,) steps of every episode of the file.
        span: Steps in a window; shorter episodes land on neither side.
        val_fraction: Share of the episodes that goes to validation, in [0, 1); 0 trains on all.
        seed: Another seed draws another split.

    Returns:
        Positions in the file of the training episodes and of the validation episodes, each int64 and
        ascending.

    Raises:
        UsageError: ``val_fraction`` is out of range, or only one episode could be split.
    """
    if not 0 <= val_fraction < 1:
        raise UsageError(f"val_fraction is {val_fraction}, but must lie in [0, 1); 0 trains on every episode.")
    usable = np.flatnonzero(np.asarray(lengths) >= span)
    if val_fraction == 0 or len(usable) == 0:
        return usable, usable[:0]
    if len(usable) < 2:
        raise UsageError(
            f"val_fraction is {val_fraction}, but only one episode holds a window of {span} steps, and an episode is "
            "never split. Set val_fraction=0 to train on it, or convert more episodes."
        )
    num_runs = int(np.ceil(len(usable) * val_fraction)) + 1
    bounds = np.ceil(np.arange(num_runs + 1) / val_fraction).astype(np.int64)
    choices = np.diff(bounds)
    choices[0] = min(2, choices[0])
    keys = hash_u64(np.arange(num_runs, dtype=np.uint64), seed ^ _SPLIT_SALT)
    drawn = bounds[:-1] + (keys % choices.astype(np.uint64)).astype(np.int64)
    in_val = np.zeros(len(usable), bool)
    in_val[drawn[drawn < len(usable)]] = True
    return usable[~in_val], usable[in_val]
