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

    def steps_after(self, windows: ArrayLike) -> NDArray[np.int64]:
        """Counts the steps that follow windows in their episodes.

        Args:
            windows: (B,) window numbers in [0, len(self)).

        Returns:
            (B,) int64; 0 for the last window of an episode.

        Raises:
            IndexError: A number lies outside [0, len(self)).
        """
        index, _ = self._find(windows)
        last: NDArray[np.int64] = self.window_stops[index] - 1
        return last - np.asarray(windows, np.int64)

    def _find(self, windows: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        windows = np.asarray(windows, np.int64)
        if windows.size and (windows.min() < 0 or windows.max() >= len(self)):
            raise IndexError(f"window {windows.min()} or {windows.max()} lies outside [0, {len(self)})")
        index = np.searchsorted(self.window_stops, windows, side="right")
        before = np.concatenate([np.zeros(1, np.int64), self.window_stops])[index]
        return index, windows - before
