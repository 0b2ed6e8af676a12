"""The batch contract of every dataset of windows, and the memory that batches are read into."""

from __future__ import annotations

import contextlib
import operator
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info
from torch.utils.data._utils.collate import default_collate_fn_map

from lewm_data.errors import UsageError
from lewm_data.format.schema import columns_of_batch, is_pixels

if TYPE_CHECKING:
    from lewm_data.loading.dataset import WindowDataset
    from lewm_data.loading.picture import Picture

type Batch = dict[str, Any]
"""Column to tensor. Only ``task``, which a user has to ask for, is a list of texts."""

type Layout = dict[str, tuple[tuple[int, ...], np.dtype[Any]]]
"""Column to the shape of one window, with frames as (T, H, W, 3), and its dtype."""
type Allocator = Callable[[tuple[int, ...], np.dtype[Any]], Tensor]
"""Makes an uninitialized, contiguous CPU tensor of a shape and a numpy dtype."""


class BatchDataset(Dataset[Batch], ABC):
    """Windows by number, read a whole batch at a time into memory that the caller chooses.

    Torch's own DataLoader takes it as it is: ``__getitems__`` reads a whole batch, and torch's ``default_collate``
    passes it on. Torch's ``ConcatDataset`` reads windows one by one, which is slower.
    """

    @abstractmethod
    def __len__(self) -> int:
        """Number of windows."""

    @abstractmethod
    def layout(self) -> Layout:
        """Shape of one window and dtype of each column, as ``fill`` takes them. Frames are (T, H, W, 3)."""

    @property
    def uses_draws(self) -> bool:
        """Whether ``fill`` uses ``draws``, so that loaders need to compute them."""
        return True

    @abstractmethod
    def fill(
        self,
        windows: NDArray[np.int64],
        out: dict[str, NDArray[Any]],
        out_indices: NDArray[np.int64] | None = None,
        draws: NDArray[np.uint64] | None = None,
    ) -> None:
        """Fills a batch. Several threads may call this at once.

        Args:
            windows: (n,) int64 window numbers in [0, len(self)).
            out: Column to contiguous array (B, ...), with the shapes and dtypes of ``layout``.
            out_indices: (n,) int64 index in the batch of each window. None fills the whole batch in order, and n is B.
            draws: (n,) uint64, a random number for each window, which chooses its goal. None draws them from torch.

        Raises:
            DamagedChunkError: A stored frame is damaged; names its episode and step.
            IndexError: A number lies outside [0, len(self)).
        """

    @abstractmethod
    def describe(self, window: int) -> str:
        """Says where a window comes from: file, episode and first step."""

    @abstractmethod
    def part_of(self, window: int) -> tuple[WindowDataset, int]:
        """The dataset of one file that a window belongs to, and the window's number in it."""

    def show(self, window: int = 0, path: str | Path | None = None) -> Picture:
        """Draws a window: its frames and goal above, its actions below, with episode, steps, time and task.

        Args:
            window: Its number; -1 is the last window.
            path: Where to write the picture as a PNG file. None writes nothing.

        Returns:
            The picture. A notebook displays it by itself.

        Raises:
            IndexError: There is no such window.

        Example:
            >>> WindowDataset("so101.h5").show(3, path="window.png")  # doctest: +SKIP
        """
        from lewm_data.loading.picture import show_window

        return show_window(self, window, path)

    def number(self, window: int) -> int:
        """A window's number in [0, len(self)), also of a negative one, as in a list.

        Raises:
            IndexError: There is no such window.
        """
        number = operator.index(window)
        if not -len(self) <= number < len(self):
            raise IndexError(f"window {number} lies outside [-{len(self)}, {len(self)})")
        return number % len(self)

    def __getitem__(self, window: int | slice) -> Batch:
        """Reads one window without the batch axis, or the windows of a slice as a batch.

        Args:
            window: Its number; -1 is the last window. Or a slice of numbers.

        Returns:
            Column to tensor: ``pixels`` (T, 3, H, W) uint8, ``action`` (T, K*A) float32, and so on.

        Raises:
            IndexError: There is no such window.
            UsageError: It is neither a number nor a slice.
        """
        if isinstance(window, slice):
            return self.read(np.arange(*window.indices(len(self))))
        try:
            number = self.number(window)
        except TypeError:
            raise UsageError(
                f"a window is chosen by its number or a slice, but this is {window!r}. For several numbers, use "
                "read([...])."
            ) from None
        return {name: tensor[0] for name, tensor in self.read([number]).items()}

    def __getitems__(self, windows: ArrayLike) -> Batch:
        """Reads a whole batch for torch's DataLoader. A worker process reads it into shared memory.

        Args:
            windows: (B,) window numbers in [0, len(self)).

        Returns:
            Column to tensor, as ``lewm_data.format.schema`` describes them.
        """
        return _WholeBatch(self.read(windows, empty_shared if get_worker_info() else empty))

    def read(
        self, windows: ArrayLike, allocate: Allocator | None = None, draws: NDArray[np.uint64] | None = None
    ) -> Batch:
        """Reads a batch into tensors made by an allocator.

        Args:
            windows: (B,) window numbers in [0, len(self)).
            allocate: Makes the tensors to fill. None uses ordinary memory.
            draws: (B,) uint64, a random number for each window, which chooses its goal. None draws them from torch.

        Returns:
            Column to tensor. ``pixels`` is (B, T, 3, H, W), a view of (B, T, H, W, 3).
        """
        windows = np.asarray(windows, np.int64)
        allocate = allocate or empty
        batch = {name: allocate((len(windows), *shape), dtype) for name, (shape, dtype) in self.layout().items()}
        self.fill(windows, {name: tensor.numpy() for name, tensor in batch.items()}, None, draws)
        return self.arrange(batch)

    def arrange(self, batch: Batch) -> Batch:
        """Gives a filled batch the shapes of the contract: frames (B, T, H, W, 3) become (B, T, 3, H, W) views."""
        columns = columns_of_batch(batch)
        return {key: t.permute(0, 1, 4, 2, 3) if is_pixels(columns[key]) else t for key, t in batch.items()}

    @contextlib.contextmanager
    def add_batch_context(self, windows: NDArray[np.int64]) -> Iterator[None]:
        """Adds a note to any error inside: which batch was being read."""
        try:
            yield
        except Exception as error:
            error.add_note(
                f"While reading a batch of {len(windows)} windows, the first from {self.describe(windows[0])}."
            )
            raise


class _WholeBatch(dict[str, Tensor]):
    """A batch where torch expects a list of samples: its first sample, ``batch[0]``, is the batch itself."""

    def __missing__(self, key: Any) -> Any:
        if key == 0:
            return self
        raise KeyError(key)


def whole_batch(batch: Any, **_: Any) -> Any:
    """Passes on a batch of ``BatchDataset.__getitems__``; a ``collate_fn`` for torch's DataLoader.

    Torch's ``default_collate`` calls it by itself. Pass it where a library sets a ``collate_fn`` of its own.
    """
    return dict(batch) if isinstance(batch, _WholeBatch) else batch


default_collate_fn_map[_WholeBatch] = whole_batch


def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Tensor:
    """An uninitialized tensor in ordinary memory."""
    return torch.from_numpy(np.empty(shape, dtype))


def empty_shared(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Tensor:
    """An uninitialized tensor in shared memory, which a worker process hands over without a copy."""
    example = torch.from_numpy(np.empty(0, dtype))
    num_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    storage = example.untyped_storage()._new_shared(num_bytes)  # as torch's own default_collate does
    return example.new_empty(0).set_(storage, 0, shape)  # type: ignore[call-overload]


class BufferPool:
    """Recycles the memory of batches.

    A fresh 154 MB batch costs more in page faults than in copying. Each tensor that the pool hands out views an array
    of its own. When the last tensor that shares its storage dies, that array dies too, and a finalizer returns the
    memory to the pool.
    """

    def __init__(self, batch_size: int, *, max_idle: int, small_bytes: int = 1 << 20) -> None:
        """Makes an empty pool.

        Args:
            batch_size: Windows in a full batch. A smaller batch uses the front of a full one's memory.
            max_idle: Number of unused buffers of one shape to keep.
            small_bytes: Below this size a tensor gets fresh memory, which costs no more than recycled memory.
        """
        self._batch_size = batch_size
        self._max_idle = max_idle
        self._small_bytes = small_bytes
        self._idle: dict[Any, SimpleQueue[NDArray[Any]]] = {}

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Tensor:
        """Makes an uninitialized tensor; an ``Allocator``."""
        full_shape = (max(self._batch_size, shape[0]), *shape[1:])
        if np.prod(full_shape) * dtype.itemsize < self._small_bytes:
            return empty(shape, dtype)
        # SimpleQueue, because finalizers run at any instant of any thread: a lock could deadlock.
        idle = self._idle.setdefault((full_shape, dtype), SimpleQueue())
        try:
            memory = idle.get_nowait()
        except Empty:
            memory = np.empty(full_shape, dtype)
        view = memory[: shape[0]]
        weakref.finalize(view, _give_back, idle, self._max_idle, memory).atexit = False
        return torch.from_numpy(view)


def _give_back(idle: SimpleQueue[NDArray[Any]], max_idle: int, memory: NDArray[Any]) -> None:
    if idle.qsize() < max_idle:
        idle.put(memory)


def empty_pinned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Tensor:
    """An uninitialized tensor in page-locked memory, which torch's allocator recycles once the GPU has read it."""
    return torch.empty(shape, dtype=torch.from_numpy(np.empty(0, dtype)).dtype, pin_memory=True)
