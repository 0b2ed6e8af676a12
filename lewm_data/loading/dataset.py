"""Windows as tensors: the batch contract of ``lewm_data.schema``, filled into memory that the caller chooses."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from lewm_data.errors import UsageError
from lewm_data.loading.store import FrameStore
from lewm_data.loading.windows import WindowIndex
from lewm_data.schema import ACTION, DONE, EPISODE_IDX, STATE, STEP_IDX, is_pixels

type Batch = dict[str, Tensor]
type Allocator = Callable[[tuple[int, ...], np.dtype[Any]], Tensor]
"""Makes an uninitialised, contiguous CPU tensor of a shape and a numpy dtype."""


class WindowDataset(Dataset[Batch]):
    """Every window of some episodes of a file, by number.

    With torch's own DataLoader, pass ``collate_fn=whole_batch``: ``__getitems__`` returns batches, not
    samples.

    Attributes:
        store: The open file.
        num_steps: Frames that a window keeps, T.
        frameskip: Steps from one kept frame to the next, K.
        columns: Names of what a batch holds.
        windows: Window numbers to rows of the file.
    """

    def __init__(
        self,
        store: FrameStore | str | Path,
        *,
        num_steps: int = 4,
        frameskip: int = 5,
        columns: Sequence[str] | None = None,
        episodes: Sequence[int] | NDArray[np.int64] | None = None,
    ) -> None:
        """Counts the windows and takes the small columns into memory.

        Args:
            store: An open file, or the path of one.
            num_steps: Frames that a window keeps.
            frameskip: Steps from one kept frame to the next.
            columns: What a batch shall hold; None takes every numeric column but ``episode_idx`` and
                ``step_idx``.
            episodes: Positions in the file of the episodes to draw from; None takes all.

        Raises:
            UsageError: A column does not exist or is not numeric, an episode does not exist, or a number is
                below 1.
            FormatError: The file is broken (see ``FrameStore``).
        """
        self.store = store if isinstance(store, FrameStore) else FrameStore(store)
        self.num_steps = num_steps
        self.frameskip = frameskip
        self.columns = _choose_columns(self.store, columns)
        self.windows = WindowIndex.build(
            self.store.ep_len,
            self.store.ep_offset,
            num_steps=num_steps,
            frameskip=frameskip,
            episodes=episodes,
        )
        self._values = {name: _load(self.store, name) for name in self.columns if not is_pixels(name)}

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, window: int) -> Batch:
        """One window, without the batch axis.

        Args:
            window: Its number in [0, len(self)).

        Returns:
            Column to tensor: ``pixels`` (T, 3, H, W) uint8, ``action`` (T, K*A) float32, and so on.
        """
        return {name: tensor[0] for name, tensor in self.read(np.array([window], np.int64)).items()}

    def __getitems__(self, windows: ArrayLike) -> Batch:
        """A whole batch; torch's DataLoader calls this. In a worker process it is made in shared memory.

        Args:
            windows: (B,) window numbers in [0, len(self)).

        Returns:
            Column to tensor, as ``lewm_data.schema`` has it.
        """
        return self.read(windows, empty_shared if get_worker_info() else empty)

    def read(self, windows: ArrayLike, allocate: Allocator | None = None) -> Batch:
        """Reads a batch into tensors made by an allocator.

        Args:
            windows: (B,) window numbers in [0, len(self)).
            allocate: Makes the tensors that are filled; ordinary memory if None.

        Returns:
            Column to tensor. ``pixels`` is (B, T, 3, H, W), a view of (B, T, H, W, 3).
        """
        windows = np.asarray(windows, np.int64)
        allocate = allocate or empty
        batch = {name: allocate((len(windows), *shape), dtype) for name, (shape, dtype) in self.layout().items()}
        self.fill(windows, {name: tensor.numpy() for name, tensor in batch.items()})
        return self.arrange(batch)

    def arrange(self, batch: Batch) -> Batch:
        """Gives a filled batch the shapes of the contract: frames (B, T, H, W, 3) become (B, T, 3, H, W) views."""
        return {name: t.permute(0, 1, 4, 2, 3) if is_pixels(name) else t for name, t in batch.items()}

    def layout(self) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
        """Shape of one window and dtype of each column, as ``fill`` takes them: frames are (T, H, W, 3)."""
        layout: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}
        for name in self.columns:
            shape = self.store.columns[name].shape
            if is_pixels(name):
                layout[name] = (self.num_steps, *shape), np.dtype(np.uint8)
            elif name == ACTION:
                layout[name] = (self.num_steps, self.frameskip * math.prod(shape)), self._values[name].dtype
            else:
                layout[name] = (self.num_steps, *shape), self._values[name].dtype
        return layout

    def fill(self, windows: NDArray[np.int64], out: dict[str, NDArray[Any]]) -> None:
        """Fills a batch. Threads may call this side by side.

        Args:
            windows: (B,) int64 window numbers in [0, len(self)).
            out: Column to array (B, ...), contiguous, of the shapes and dtypes of ``layout``.

        Raises:
            DamagedChunkError: A stored frame cannot be read as it was written; names its episode and step.
            IndexError: A number lies outside [0, len(self)).
        """
        first_rows = self.windows.rows(windows)
        all_rows = first_rows[:, None] + np.arange(self.windows.span)
        kept_rows = np.ascontiguousarray(all_rows[:, :: self.frameskip]).reshape(-1)
        for name in self.columns:
            target = out[name]
            if is_pixels(name):
                shape = self.store.columns[name].shape
                self.store.read_frames(name, kept_rows, target.reshape(-1, *shape))
            elif name == ACTION:
                values = self._values[name]
                flat = target.reshape(-1, *values.shape[1:])
                np.take(values, all_rows.reshape(-1), axis=0, out=flat, mode="clip")
            elif name == DONE:
                ends = self._values[name][all_rows].reshape(*target.shape, self.frameskip)
                np.any(ends, axis=-1, out=target)
            else:
                values = self._values[name]
                flat = target.reshape(-1, *values.shape[1:])
                np.take(values, kept_rows, axis=0, out=flat, mode="clip")

    def restrict(self, episodes: Sequence[int] | NDArray[np.int64]) -> WindowDataset:
        """The same dataset over some episodes only; file and small columns are shared.

        Args:
            episodes: Positions in the file of the episodes to draw from.

        Returns:
            Another dataset with its own window numbers.
        """
        restricted = object.__new__(WindowDataset)
        restricted.__dict__.update(self.__dict__)
        restricted.windows = WindowIndex.build(
            self.store.ep_len,
            self.store.ep_offset,
            num_steps=self.num_steps,
            frameskip=self.frameskip,
            episodes=episodes,
        )
        return restricted

    def values(self, column: str) -> NDArray[Any]:
        """A small column of the whole file, as batches hold it: (N, ...)."""
        return self._values[column]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_values": None}  # read again on the other side: cheaper than sending them

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._values = {name: _load(self.store, name) for name in self.columns if not is_pixels(name)}


def whole_batch(batch: Any) -> Any:
    """A ``collate_fn`` for torch's DataLoader: ``WindowDataset.__getitems__`` has made the batch already."""
    return batch


def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Tensor:
    """An uninitialised tensor in ordinary memory."""
    return torch.from_numpy(np.empty(shape, dtype))


def empty_shared(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Tensor:
    """An uninitialised tensor in shared memory, which a worker process hands over without a copy."""
    example = torch.from_numpy(np.empty(0, dtype))
    num_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    storage = example.untyped_storage()._new_shared(num_bytes)  # as torch's own default_collate does
    return example.new_empty(0).set_(storage, 0, shape)  # type: ignore[call-overload]


def _choose_columns(store: FrameStore, columns: Sequence[str] | None) -> tuple[str, ...]:
    if columns is None:
        names = dict.fromkeys([*store.frame_columns, ACTION, STATE, DONE, *store.columns])
        numeric = [name for name in names if name in store.columns and store.columns[name].dtype.kind in "biuf"]
        return tuple(name for name in numeric if name not in (EPISODE_IDX, STEP_IDX))
    for name in columns:
        if name not in store.columns:
            raise UsageError(f"{store.path}: there is no column {name!r}. It has: {', '.join(sorted(store.columns))}.")
        if store.columns[name].dtype.kind not in "biuf":
            raise UsageError(
                f"{store.path}: column {name!r} is {store.columns[name].dtype}, and only numbers become tensors. "
                "Leave it out of columns."
            )
    return tuple(dict.fromkeys(columns))


def _load(store: FrameStore, name: str) -> NDArray[Any]:
    values = store.read_column(name)
    if name in (ACTION, STATE):
        return np.ascontiguousarray(values, np.float32)
    if name == DONE:
        return np.ascontiguousarray(values, np.bool_)
    return np.ascontiguousarray(values, values.dtype.newbyteorder("="))
