"""What a contender is, and what all of them read."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.prepared import Prepared
from lewm_data.format.schema import ACTION, PIXELS, STATE

type Arrays = dict[str, NDArray[Any]]
"""A batch for comparison: ``pixels`` (B, T, H, W, 3) uint8, ``action`` (B, T, K*A), ``state`` (B, T, S)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What every contender reads: windows of ``num_steps`` frames, ``frameskip`` steps apart, in an order by seed."""

    batch_size: int = 256
    num_steps: int = 4
    frameskip: int = 5
    seed: int = 0


class Contender:
    """Delivers batches of windows, as dictionaries of tensors unless a subclass says otherwise.

    Args:
        data: The files.
        settings: What to read.
        path: The file or folder to open.
        open_dataset: Opens it. Its time is the setup time: indexing, and filling a cache; imports come before.
        reads_file: Whether it reads the file while it is timed.

    Attributes:
        path: The file or folder that it reads, if any; it is read into the page cache before each round.
        bytes_per_frame: Bytes of a frame on disk.
        setup_seconds: Time to open the dataset.
        is_slow: Whether a batch takes seconds, so that only a handful of them are timed.
    """

    is_slow = False

    def __init__(
        self,
        data: Prepared,
        settings: Settings,
        path: Path,
        open_dataset: Callable[[], Any],
        *,
        reads_file: bool = True,
    ) -> None:
        began = time.perf_counter()
        self._dataset = open_dataset()
        self.setup_seconds = time.perf_counter() - began
        self.path = path if reads_file else None
        self.bytes_per_frame = data.bytes_per_frame(path)
        self._settings = settings

    def num_in_work(self, num_workers: int) -> int:
        """Batches that may be ready or in work at once."""
        raise NotImplementedError

    def batches(self, batch_size: int, num_workers: int) -> Iterator[Any]:
        """Endless batches; workers start with the first, and stop when the iterator is closed."""
        raise NotImplementedError

    def count(self, batch: Any) -> int:
        """Touches a batch as a trainer would, and returns its number of windows."""
        batch[PIXELS][0, 0, 0, 0, 0].item()
        return len(batch[PIXELS])

    def arrays(self, batch: Any) -> Arrays:
        """The batch for comparison."""
        arrays = {name: batch[name].numpy() for name in (PIXELS, ACTION, STATE)}
        return arrays | {PIXELS: arrays[PIXELS].transpose(0, 1, 3, 4, 2)}


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
