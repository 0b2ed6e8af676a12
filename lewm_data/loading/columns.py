"""Which columns of a file a batch has, and their values in memory, frames apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lewm_data.errors import UsageError
from lewm_data.format.schema import ACTION, DONE, EPISODE_IDX, STATE, STEP_IDX, is_pixels
from lewm_data.loading.provenance import DATASET_IDX, PROVENANCE, TASK, TASK_IDX, Numbering, provenance_values
from lewm_data.loading.store import FrameStore


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
