"""The windows of a file: pure arithmetic on episode lengths, in O(episodes) memory.

A window is ``span = num_steps * frameskip`` consecutive steps of one episode. An episode of L steps holds
``max(0, L - span + 1)`` windows, one for each first step in [0, L - span + 1), as in LeWM and stable-worldmodel.
Windows are numbered episode after episode.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lewm_data.errors import UsageError
from lewm_data.notation import check_count


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
        episodes: Sequence[int] | NDArray[np.int64] | NDArray[np.bool_] | None = None,
    ) -> WindowIndex:
        """Counts the windows of each episode.

        Args:
            lengths: (E,) steps of every episode of the file.
            offsets: (E,) first row of every episode of the file.
            num_steps: Frames that a window keeps.
            frameskip: Steps from one kept frame to the next.
            episodes: Positions in the file of the episodes to use, each once, or a mask (E,) of them. None uses all.

        Returns:
            The index, which may be empty.

        Raises:
            UsageError: ``num_steps`` or ``frameskip`` is not a whole number above 0, or ``episodes`` is neither
                positions nor a mask, or names an episode that does not exist, or one twice.
        """
        check_count("num_steps", num_steps)
        check_count("frameskip", frameskip)
        lengths = np.asarray(lengths, np.int64)
        chosen = np.arange(len(lengths)) if episodes is None else _positions(episodes, len(lengths))
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


def _positions(episodes: Any, num_episodes: int) -> NDArray[np.int64]:
    """The episodes that positions or a mask choose, ascending."""
    given = np.asarray(episodes)
    if given.dtype == np.bool_ and given.shape == (num_episodes,):
        return np.flatnonzero(given)
    if given.dtype == np.bool_:
        raise UsageError(
            f"episodes is a mask of shape {given.shape}, but the file holds {num_episodes} episodes. Give one value "
            "for each, or a list of positions."
        )
    if given.ndim != 1 or (given.dtype.kind not in "iu" and given.size):
        raise UsageError(
            f"episodes is {episodes!r}, but must be a list of positions in the file, such as [0, 3], or a mask with "
            "one value for each episode."
        )
    return np.sort(given.astype(np.int64))
