"""What a contender is, and what all of them read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.prepared import Prepared

type Arrays = dict[str, NDArray[Any]]
"""A batch for comparison: ``pixels`` (B, T, H, W, 3) uint8, ``action`` (B, T, K*A), ``state`` (B, T, S)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What every contender reads.

    Attributes:
        batch_size: Windows in a batch.
        num_steps: Frames that a window keeps.
        frameskip: Steps from one kept frame to the next.
        seed: Seed of the order.
    """

    batch_size: int = 256
    num_steps: int = 4
    frameskip: int = 5
    seed: int = 0


class Contender(Protocol):
    """Delivers batches of windows.

    Attributes:
        is_slow: Whether a batch takes seconds, so that only a handful of them are timed.
        bytes_per_frame: Bytes of a frame on disk.
        path: The file or folder that it reads, if any; it is read into the page cache before each round.
        setup_seconds: Time to open it without imports: indexing, and filling a cache of its own.
    """

    is_slow: bool
    bytes_per_frame: float
    path: Path | None
    setup_seconds: float

    def num_in_work(self, num_workers: int) -> int:
        """Batches that may be ready or in work at once."""

    def batches(self, batch_size: int, num_workers: int) -> Iterator[Any]:
        """Endless batches; workers start with the first, and stop when the iterator is closed."""

    def count(self, batch: Any) -> int:
        """Touches a batch as a trainer would, and returns its number of windows."""

    def arrays(self, batch: Any) -> Arrays:
        """The batch for comparison."""


def window_order(num_windows: int, batch_size: int, settings: Settings) -> Any:
    """The order in which every contender draws."""
    from lewm_data.loading.sampler import WindowOrder

    return WindowOrder(num_windows=num_windows, batch_size=batch_size, seed=settings.seed)


def window_index(data: Prepared, settings: Settings) -> tuple[int, Callable[[NDArray[np.int64]], NDArray[np.int64]]]:
    """The number of windows, and a function from window numbers to their first rows."""
    import h5py

    from lewm_data.loading.windows import WindowIndex

    with h5py.File(data.ours("none")) as file:
        lengths, offsets = file["ep_len"][:], file["ep_offset"][:]
    index = WindowIndex.build(lengths, offsets, num_steps=settings.num_steps, frameskip=settings.frameskip)
    return len(index), index.rows
