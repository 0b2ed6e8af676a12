"""The windows of one file, as tensors of the batch contract (``lewm_data.format.schema``)."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lewm_data.errors import UsageError
from lewm_data.format.schema import (
    ACTION,
    DONE,
    GOAL_PREFIX,
    GOAL_STEPS,
    has_goal,
    is_pixels,
)
from lewm_data.loading.batches import Batch, BatchDataset, Layout
from lewm_data.loading.batches import whole_batch as whole_batch  # offered next to the dataset that needs it
from lewm_data.loading.columns import (
    DATASET_IDX,
    TASK,
    TASK_IDX,
    Numbering,
    check_columns,
    default_columns,
    load_values,
    number_files,
    task_texts,
)
from lewm_data.loading.goals import Goal, draws_from_torch
from lewm_data.loading.readers import FrameRead
from lewm_data.loading.remote.config import RemoteConfig
from lewm_data.loading.store import FrameStore
from lewm_data.loading.windows import WindowIndex
from lewm_data.notation import count_of


class WindowDataset(BatchDataset):
    """Every window of some episodes of a file, by number.

    Index it with a number or a slice, or give it to torch's own DataLoader.

    Attributes:
        store: The open file.
        num_steps: Frames that a window keeps, T.
        frameskip: Steps from one kept frame to the next, K.
        columns: Names of the columns in a batch.
        goal: How far ahead of a window its goal lies; None without goals.
        numbering: How episodes and tasks are numbered in a batch.
        windows: Maps window numbers to rows of the file.
    """

    def __init__(
        self,
        store: FrameStore | str | Path,
        *,
        num_steps: int = 4,
        frameskip: int = 5,
        columns: Sequence[str] | None = None,
        episodes: Sequence[int] | NDArray[np.int64] | NDArray[np.bool_] | None = None,
        goal: str | None = None,
        remote: RemoteConfig | None = None,
        numbering: Numbering | None = None,
    ) -> None:
        """Counts the windows and reads the small columns into memory.

        Args:
            store: An open file, its path, or an fsspec address such as ``s3://bucket/data.h5``.
            num_steps: Frames that a window keeps.
            frameskip: Steps from one kept frame to the next.
            columns: Columns of a batch: any that the file stores, and ``episode_idx``, ``step_idx``, ``task_idx``,
                ``task`` and ``dataset_idx`` (``lewm_data.format.schema`` describes them). None takes every numeric
                column except ``episode_idx`` and ``step_idx``.
            episodes: Positions in the file of the episodes to draw from, or a mask (E,) of them. None takes all.
            goal: Adds a later step of the same episode to each window: ``uniform`` draws all later steps equally often,
                ``geometric:0.98`` nearer ones more often. None adds nothing. ``lewm_data.format.schema`` describes the
                keys. Torch's random numbers choose the goals, so ``torch.manual_seed`` repeats them.
            remote: How to read from object storage if ``store`` is an address. None takes the defaults.
            numbering: How the file's episodes and tasks are numbered among those of several files. None takes the
                file's own numbers.

        Raises:
            UsageError: A column does not exist or is not numeric, an episode does not exist, a number is below 1, or
                no episode is long enough for a window.
            FormatError: The file is broken (see ``FrameStore``).
        """
        self.store = store if isinstance(store, FrameStore) else FrameStore(store, remote=remote)
        self.num_steps = num_steps
        self.frameskip = frameskip
        self.columns = default_columns(self.store) if columns is None else check_columns(self.store, columns)
        self.numbering = numbering or number_files([self.store])[0]
        self.goal = None if goal is None else Goal.parse(goal)
        if self.goal is not None:
            _check_goal_keys(self.store, self.columns)
        self.windows = WindowIndex.build(
            self.store.ep_len,
            self.store.ep_offset,
            num_steps=num_steps,
            frameskip=frameskip,
            episodes=episodes,
        )
        if not len(self.windows):
            lengths = self.store.ep_len if episodes is None else self.store.ep_len[np.asarray(episodes)]
            raise UsageError(
                f"{self.store.path}: a window takes num_steps * frameskip = {num_steps} * {frameskip} = "
                f"{num_steps * frameskip} steps, but the longest of {count_of(len(lengths), 'episode')} has "
                f"{lengths.max(initial=0)}. Lower num_steps or frameskip."
            )
        self._values = load_values(self.store, self.columns, self.numbering)

    def __repr__(self) -> str:
        """One line with the file, the windows, and what a window holds."""
        goals = "" if self.goal is None else f" with {self.goal} goals"
        return (
            f"WindowDataset({self.store.path}: {len(self):,} windows of {self.num_steps} frames {self.frameskip} steps "
            f"apart{goals}, from {len(self.windows.episodes)} of {count_of(len(self.store.ep_len), 'episode')}; "
            f"{', '.join(f'{name} {shape}' for name, (shape, _) in self.layout().items())})"
        )

    def __len__(self) -> int:
        return len(self.windows)

    def layout(self) -> Layout:
        """See ``BatchDataset``."""
        layout: Layout = {}
        for name in self.columns:
            if is_pixels(name):
                layout[name] = (self.num_steps, *self.store.columns[name].shape), np.dtype(np.uint8)
            elif name in self._values:
                values = self._values[name]
                shape = (self.frameskip * math.prod(values.shape[1:]),) if name == ACTION else values.shape[1:]
                layout[name] = (self.num_steps, *shape), values.dtype
            elif name == DATASET_IDX:
                layout[name] = (), np.dtype(np.int64)
        if self.goal is not None:
            for name in filter(self._has_goal, self.columns):
                layout[GOAL_PREFIX + name] = (1, *layout[name][0][1:]), layout[name][1]
            layout[GOAL_STEPS] = (), np.dtype(np.int64)
        return layout

    @property
    def uses_draws(self) -> bool:
        """See ``BatchDataset``."""
        return self.goal is not None

    def fill(
        self,
        windows: NDArray[np.int64],
        out: dict[str, NDArray[Any]],
        out_indices: NDArray[np.int64] | None = None,
        draws: NDArray[np.uint64] | None = None,
    ) -> None:
        """See ``BatchDataset``."""
        first_rows = self.windows.rows(windows)
        all_rows = first_rows[:, None] + np.arange(self.windows.span)
        kept_rows = np.ascontiguousarray(all_rows[:, :: self.frameskip]).reshape(-1)
        frame_indices = None
        if out_indices is not None:
            frame_indices = (out_indices[:, None] * self.num_steps + np.arange(self.num_steps)).reshape(-1)
        goal_rows = None if self.goal is None else self._fill_goal_steps(windows, out[GOAL_STEPS], out_indices, draws)
        for name in self.columns:
            if name not in self._values and not is_pixels(name):  # the same for all frames of a window
                if name == DATASET_IDX:
                    out[name][slice(None) if out_indices is None else out_indices] = self.numbering.dataset
                continue
            target = out[name]
            if is_pixels(name):
                shape = self.store.columns[name].shape
                reads = [FrameRead(kept_rows, target.reshape(-1, *shape), frame_indices)]
                if goal_rows is not None:
                    reads.append(FrameRead(goal_rows, out[GOAL_PREFIX + name].reshape(-1, *shape), out_indices))
                self.store.read_all(name, reads)
                continue
            if out_indices is None:
                self._fill_values(name, all_rows, kept_rows, target)
            else:
                values = np.empty((len(windows), *target.shape[1:]), target.dtype)
                self._fill_values(name, all_rows, kept_rows, values)
                target[out_indices] = values
            if goal_rows is not None and self._has_goal(name):
                out[GOAL_PREFIX + name][slice(None) if out_indices is None else out_indices, 0] = self._values[name][
                    goal_rows
                ]

    def _has_goal(self, name: str) -> bool:
        return has_goal(name) and (is_pixels(name) or name in self._values)

    def arrange(self, batch: Batch) -> Batch:
        """See ``BatchDataset``. Adds the texts of the tasks, if asked for."""
        arranged = super().arrange(batch)
        if TASK in self.columns and TASK not in batch:
            arranged[TASK] = task_texts(self.numbering.tasks, batch[TASK_IDX])
        return arranged

    def _fill_goal_steps(
        self,
        windows: NDArray[np.int64],
        target: NDArray[np.int64],
        out_indices: NDArray[np.int64] | None,
        draws: NDArray[np.uint64] | None,
    ) -> NDArray[np.int64]:
        """Chooses the goal of each of n windows, fills in how far ahead it lies, and returns its row, (n,)."""
        assert self.goal is not None
        draws = draws_from_torch(len(windows)) if draws is None else draws
        # Within the window, frameskip - 1 steps follow its last frame.
        steps = self.goal.steps(draws, self.windows.steps_after(windows) + self.frameskip - 1)
        target[slice(None) if out_indices is None else out_indices] = steps
        rows: NDArray[np.int64] = self.windows.rows(windows) + (self.num_steps - 1) * self.frameskip + steps
        return rows

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

    def part_of(self, window: int) -> tuple[WindowDataset, int]:
        """See ``BatchDataset``."""
        return self, window

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
            Column to tensor as ``read`` returns it, without a goal; B = 1 and T = min(steps // frameskip, max_frames).

        Raises:
            UsageError: The episode is shorter than ``frameskip``.
        """
        num_frames = int(self.store.ep_len[episode]) // self.frameskip
        if num_frames < 1:
            raise UsageError(
                f"{self.store.path}: episode {episode} has {self.store.ep_len[episode]} steps, fewer than frameskip, "
                f"{self.frameskip}. Lower frameskip."
            )
        whole = self._with_windows([episode], num_steps=min(num_frames, max_frames))
        whole.goal = None
        return whole.read([0])

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
        self._values = load_values(self.store, self.columns, self.numbering)


def _check_goal_keys(store: FrameStore, columns: Sequence[str]) -> None:
    for name in columns:
        if name.startswith(GOAL_PREFIX):
            raise UsageError(
                f"{store.path}: with goal, names that begin with {GOAL_PREFIX!r} are taken, but there is a column "
                f"{name!r}. Leave it out of columns, or leave goal out."
            )
