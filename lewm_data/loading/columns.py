"""The columns of a batch, frames apart: those of the file, and those that say where a window comes from."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lewm_data.errors import UsageError
from lewm_data.format.schema import ACTION, DONE, EPISODE_IDX, STATE, STEP_IDX, is_pixels
from lewm_data.loading.store import FrameStore

DATASET_IDX = "dataset_idx"
TASK_IDX = "task_idx"
TASK = "task"
TASK_COLUMN = "task_index"
"""LeRobot's name of each step's task; ``--extra_columns task_index`` stores it."""

PROVENANCE = (DATASET_IDX, EPISODE_IDX, STEP_IDX, TASK_IDX, TASK)
"""Columns that a batch can have on request, whether or not the file stores them. ``schema`` describes them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Numbering:
    """How a file's episodes and tasks are numbered among those of several files.

    Attributes:
        dataset: Position of the file among the files.
        first_episode: Number of its first episode.
        tasks: Number of each task of all files to its text.
        task_numbers: The file's own number of each of its tasks to its number among those of all files.
    """

    dataset: int = 0
    first_episode: int = 0
    tasks: Mapping[int, str] = field(default_factory=dict)
    task_numbers: Mapping[int, int] = field(default_factory=dict)


def number_files(stores: Sequence[FrameStore]) -> list[Numbering]:
    """Numbers the episodes and tasks of several files.

    Episodes count on from file to file. The tasks of a single file keep their numbers; those of several files are
    numbered by their texts, in the order in which they appear.
    """
    own = [store.header.tasks if store.header is not None else {} for store in stores]
    if len(stores) == 1:
        tasks = dict(own[0])
        numbers = [{index: index for index in tasks}]
    else:
        texts = dict.fromkeys(itertools.chain.from_iterable(found.values() for found in own))
        tasks = dict(enumerate(texts))
        number_of = {text: number for number, text in tasks.items()}
        numbers = [{index: number_of[text] for index, text in found.items()} for found in own]
    starts = itertools.accumulate((len(store.ep_len) for store in stores), initial=0)
    return [
        Numbering(dataset=dataset, first_episode=start, tasks=tasks, task_numbers=task_numbers)
        for dataset, (start, task_numbers) in enumerate(zip(starts, numbers, strict=False))
    ]


def provenance_values(store: FrameStore, name: str, numbering: Numbering) -> NDArray[np.int32]:
    """A column of provenance with one number per step of a file.

    Args:
        store: The file.
        name: ``episode_idx``, ``step_idx`` or ``task_idx``.
        numbering: How its episodes and tasks are numbered.

    Returns:
        (N,) int32.

    Raises:
        UsageError: The file does not say which task a step belongs to.
    """
    if name == EPISODE_IDX:
        episodes = np.arange(len(store.ep_len)) + numbering.first_episode
        return np.repeat(episodes, store.ep_len).astype(np.int32)
    if name == STEP_IDX:
        return (np.arange(store.num_rows) - np.repeat(store.ep_offset, store.ep_len)).astype(np.int32)
    if TASK_COLUMN in store.columns:
        stored, row = np.unique(store.read_column(TASK_COLUMN).reshape(store.num_rows), return_inverse=True)
    elif len(numbering.task_numbers) == 1:  # so every step belongs to it
        stored, row = np.array([*numbering.task_numbers]), np.zeros(store.num_rows, np.int64)
    else:
        raise UsageError(
            f"{store.path}: the file does not store the task of each step. Convert the dataset with "
            f"--extra_columns {TASK_COLUMN}, or leave {TASK_IDX} and {TASK} out of columns."
        )
    without_text = [int(index) for index in stored if int(index) not in numbering.task_numbers]
    if without_text:
        raise UsageError(
            f"{store.path}: task_index {without_text[0]} has no text in the file. Record it in the dataset's "
            f"meta/tasks and convert again, or leave {TASK_IDX} and {TASK} out of columns; {TASK_COLUMN} itself is a "
            "column like any other."
        )
    numbers = np.array([numbering.task_numbers[int(index)] for index in stored], np.int32)
    return numbers[row]


def task_texts(tasks: Mapping[int, str], task_idx: Any) -> list[str]:
    """The text of each window's task.

    Args:
        tasks: Number to text.
        task_idx: (B, T) tensor of numbers; the first kept frame decides.
    """
    return [tasks[number] for number in task_idx[:, 0].tolist()]


def default_columns(store: FrameStore) -> tuple[str, ...]:
    """Every numeric column of a file except ``episode_idx`` and ``step_idx``, frames first."""
    names = dict.fromkeys([*store.frame_columns, ACTION, STATE, DONE, *store.columns])
    numeric = [name for name in names if name in store.columns and store.columns[name].dtype.kind in "biuf"]
    return tuple(name for name in numeric if name not in (EPISODE_IDX, STEP_IDX))


def check_columns(store: FrameStore, columns: Sequence[str]) -> tuple[str, ...]:
    """The columns that a user asks for, each once.

    Raises:
        UsageError: The file has no such column, or it holds no numbers.
    """
    if isinstance(columns, str):
        raise UsageError(f"columns is {columns!r}, but must be a list: [{columns!r}].")
    for name in columns:
        if is_provenance(store, name):
            continue
        if name not in store.columns:
            known = ", ".join(sorted({*store.columns, *PROVENANCE}))
            raise UsageError(f"{store.path}: there is no column {name!r}. A batch can have: {known}.")
        if store.columns[name].dtype.kind not in "biuf":
            raise UsageError(
                f"{store.path}: column {name!r} is {store.columns[name].dtype}, and only numbers become tensors. "
                "Leave it out of columns."
            )
    return tuple(dict.fromkeys([*columns, *([TASK_IDX] if TASK in columns and is_provenance(store, TASK) else [])]))


def is_provenance(store: FrameStore, name: str) -> bool:
    """Whether a column is made here, rather than read from the file."""
    return name in (EPISODE_IDX, STEP_IDX) or (name in PROVENANCE and name not in store.columns)


def load_values(store: FrameStore, columns: Sequence[str], numbering: Numbering) -> dict[str, NDArray[Any]]:
    """Reads the small columns of a batch into memory.

    Args:
        store: The file.
        columns: Columns of a batch.
        numbering: How episodes and tasks are numbered.

    Returns:
        Column to (N, ...), in the dtype that batches have. Columns with one value per window are left out.
    """
    values = {}
    for name in columns:
        if is_provenance(store, name):
            if name not in (DATASET_IDX, TASK):
                values[name] = provenance_values(store, name, numbering)
        elif not is_pixels(name):
            values[name] = _load(store, name)
    return values


def _load(store: FrameStore, name: str) -> NDArray[Any]:
    values = store.read_column(name)
    if name in (ACTION, STATE):
        is_double = store.header is not None and values.dtype == np.float64  # converted with --state_dtype float64
        return np.ascontiguousarray(values, np.float64 if is_double else np.float32)
    if name == DONE:
        return np.ascontiguousarray(values, np.bool_)
    return np.ascontiguousarray(values, values.dtype.newbyteorder("="))
