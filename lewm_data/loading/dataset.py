"""The windows of one file, or of several, as tensors of the batch contract (``lewm_data.format.schema``)."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lewm_data.config import RemoteConfig
from lewm_data.errors import UsageError
from lewm_data.format.schema import ACTION, DONE, EPISODE_IDX, STATE, STEP_IDX, is_pixels
from lewm_data.format.segments import group_by_segment
from lewm_data.loading.batches import Batch, BatchDataset, Layout
from lewm_data.loading.batches import whole_batch as whole_batch  # offered next to the dataset that needs it
from lewm_data.loading.store import FrameStore
from lewm_data.loading.windows import WindowIndex


class WindowDataset(BatchDataset):
    """Every window of some episodes of a file, by number.

    Pass ``collate_fn=whole_batch`` to torch's own DataLoader, because ``__getitems__`` returns a batch and not a list
    of samples.

    Attributes:
        store: The open file.
        num_steps: Frames that a window keeps, T.
        frameskip: Steps from one kept frame to the next, K.
        columns: Names of the columns in a batch.
        windows: Maps window numbers to rows of the file.
    """

    def __init__(
        self,
        store: FrameStore | str | Path,
        *,
        num_steps: int = 4,
        frameskip: int = 5,
        columns: Sequence[str] | None = None,
        episodes: Sequence[int] | NDArray[np.int64] | None = None,
        remote: RemoteConfig | None = None,
    ) -> None:
        """Counts the windows and reads the small columns into memory.

        Args:
            store: An open file, its path, or an fsspec address such as ``s3://bucket/data.h5``.
            num_steps: Frames that a window keeps.
            frameskip: Steps from one kept frame to the next.
            columns: Columns of a batch. None takes every numeric column except ``episode_idx`` and ``step_idx``.
            episodes: Positions in the file of the episodes to draw from. None takes all.
            remote: How to read from object storage if ``store`` is an address. None takes the defaults.

        Raises:
            UsageError: A column does not exist or is not numeric, an episode does not exist, or a number is
                below 1.
            FormatError: The file is broken (see ``FrameStore``).
        """
        self.store = store if isinstance(store, FrameStore) else FrameStore(store, remote=remote)
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

    def layout(self) -> Layout:
        """See ``BatchDataset``."""
        layout: Layout = {}
        for name in self.columns:
            shape = self.store.columns[name].shape
            if is_pixels(name):
                layout[name] = (self.num_steps, *shape), np.dtype(np.uint8)
            elif name == ACTION:
                layout[name] = (self.num_steps, self.frameskip * math.prod(shape)), self._values[name].dtype
            else:
                layout[name] = (self.num_steps, *shape), self._values[name].dtype
        return layout

    def fill(
        self, windows: NDArray[np.int64], out: dict[str, NDArray[Any]], out_indices: NDArray[np.int64] | None = None
    ) -> None:
        """See ``BatchDataset``."""
        first_rows = self.windows.rows(windows)
        all_rows = first_rows[:, None] + np.arange(self.windows.span)
        kept_rows = np.ascontiguousarray(all_rows[:, :: self.frameskip]).reshape(-1)
        frame_indices = None
        if out_indices is not None:
            frame_indices = (out_indices[:, None] * self.num_steps + np.arange(self.num_steps)).reshape(-1)
        for name in self.columns:
            target = out[name]
            if is_pixels(name):
                frames = target.reshape(-1, *self.store.columns[name].shape)
                self.store.read_frames(name, kept_rows, frames, frame_indices)
            elif out_indices is None:
                self._fill_values(name, all_rows, kept_rows, target)
            else:
                values = np.empty((len(windows), *target.shape[1:]), target.dtype)
                self._fill_values(name, all_rows, kept_rows, values)
                target[out_indices] = values

    def _fill_values(
        self, name: str, all_rows: NDArray[np.int64], kept_rows: NDArray[np.int64], target: NDArray[Any]
    ) -> None:
        """Fills a small column of n windows, (n, ...), from all their rows (n, T*K) or the kept ones (n*T,)."""
        values = self._values[name]
        if name == DONE:
            ends = values[all_rows].reshape(*target.shape, self.frameskip)
            np.any(ends, axis=-1, out=target)
        else:
            rows = all_rows.reshape(-1) if name == ACTION else kept_rows
            np.take(values, rows, axis=0, out=target.reshape(-1, *values.shape[1:]), mode="clip")

    def describe(self, window: int) -> str:
        """See ``BatchDataset``."""
        [episode], [start] = self.windows.locate([window])
        return f"{self.store.path}, episode {episode}, step {start}"

    def restrict(self, episodes: Sequence[int] | NDArray[np.int64]) -> WindowDataset:
        """The same dataset over some of the episodes. Both share the file and the small columns.

        Args:
            episodes: Positions in the file of the episodes to draw from.

        Returns:
            A dataset with its own window numbers.
        """
        return self._with_windows(episodes, num_steps=self.num_steps)

    def read_episode(self, episode: int, *, max_frames: int) -> Batch:
        """Reads a whole episode as one window.

        Args:
            episode: Its position in the file.
            max_frames: Limit on the kept frames; a longer episode is cut off.

        Returns:
            Column to tensor as ``read`` returns it, B = 1 and T = min(steps // frameskip, max_frames).

        Raises:
            UsageError: The episode is shorter than ``frameskip``.
        """
        num_frames = int(self.store.ep_len[episode]) // self.frameskip
        if num_frames < 1:
            raise UsageError(
                f"{self.store.path}: episode {episode} has {self.store.ep_len[episode]} steps, fewer than frameskip, "
                f"{self.frameskip}. Lower frameskip."
            )
        return self._with_windows([episode], num_steps=min(num_frames, max_frames)).read([0])

    def _with_windows(self, episodes: Sequence[int] | NDArray[np.int64], *, num_steps: int) -> WindowDataset:
        other = copy.copy(self)
        other.num_steps = num_steps
        other.windows = WindowIndex.build(
            self.store.ep_len,
            self.store.ep_offset,
            num_steps=num_steps,
            frameskip=self.frameskip,
            episodes=episodes,
        )
        return other

    def values(self, column: str) -> NDArray[Any]:
        """A small column of the whole file, (N, ...), in the dtype that batches have."""
        return self._values[column]

    def __copy__(self) -> WindowDataset:
        other = type(self).__new__(type(self))
        other.__dict__.update(self.__dict__)
        return other

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_values": None}  # the other process reads them again, which is cheaper than sending

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._values = {name: _load(self.store, name) for name in self.columns if not is_pixels(name)}


class ConcatDataset(BatchDataset):
    """The windows of several datasets, numbered dataset after dataset.

    Attributes:
        datasets: The datasets.
    """

    def __init__(self, datasets: Sequence[WindowDataset]) -> None:
        """Concatenates datasets whose windows fit into one batch (see ``check_alike``).

        Args:
            datasets: One or more datasets.
        """
        self.datasets = tuple(datasets)
        self._stops = np.cumsum([len(dataset) for dataset in datasets])

    def __len__(self) -> int:
        return int(self._stops[-1])

    def layout(self) -> Layout:
        """See ``BatchDataset``."""
        return self.datasets[0].layout()

    def fill(
        self, windows: NDArray[np.int64], out: dict[str, NDArray[Any]], out_indices: NDArray[np.int64] | None = None
    ) -> None:
        """See ``BatchDataset``."""
        for number, chosen, own_windows in self._by_dataset(windows):
            indices = chosen if out_indices is None else out_indices[chosen]
            self.datasets[number].fill(own_windows, out, indices)

    def describe(self, window: int) -> str:
        """See ``BatchDataset``."""
        [(number, _, own_windows)] = self._by_dataset(np.array([window]))
        return self.datasets[number].describe(int(own_windows[0]))

    def _by_dataset(self, windows: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.intp], NDArray[np.int64]]]:
        if windows.size and (windows.min() < 0 or windows.max() >= len(self)):
            raise IndexError(f"window {windows.min()} or {windows.max()} lies outside [0, {len(self)})")
        return group_by_segment(windows, self._stops)


def concat_datasets(datasets: Sequence[WindowDataset]) -> BatchDataset:
    """One dataset of all windows: the only dataset itself, or a ``ConcatDataset``."""
    return datasets[0] if len(datasets) == 1 else ConcatDataset(datasets)


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
        is_double = store.header is not None and values.dtype == np.float64  # converted with --state_dtype float64
        return np.ascontiguousarray(values, np.float64 if is_double else np.float32)
    if name == DONE:
        return np.ascontiguousarray(values, np.bool_)
    return np.ascontiguousarray(values, values.dtype.newbyteorder("="))
