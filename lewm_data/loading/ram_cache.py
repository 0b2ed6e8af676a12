"""The RAM cache: frames decoded once, in parallel, into one copy for all processes of a node."""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lewm_data.errors import ResourceError, UsageError
from lewm_data.loading.shared_memory import NodeMemory, find_or_create, private_memory
from lewm_data.loading.store import FrameStore
from lewm_data.resources import Progress, available_memory_bytes, num_cpus

logger = logging.getLogger(__name__)

CacheMode = Literal["auto", "ram", "none"]

AUTO_SHARE = 0.5
"""Share of the available memory that ``auto`` may take. The model, the batches and other programs need the rest."""

_ROWS_PER_TASK = 256


def wants_cache(mode: str, *, needed_bytes: int, available_bytes: int) -> bool:
    """Decides whether to cache.

    Args:
        mode: ``none`` never caches, ``ram`` always does, and ``auto`` does if the frames take at most ``AUTO_SHARE`` of
            the available memory.
        needed_bytes: Size of all frames, decoded.
        available_bytes: Memory that is available without swapping.

    Returns:
        Whether to cache.

    Raises:
        UsageError: The mode is none of the three.
        ResourceError: The mode is ``ram`` and the frames do not fit.
    """
    if mode not in ("auto", "ram", "none"):
        raise UsageError(f"cache is {mode!r}, but must be auto, ram or none.")
    if mode == "ram" and needed_bytes > available_bytes:
        raise ResourceError(
            f"cache='ram' needs {needed_bytes / 1e9:.1f} GB for the decoded frames, but {available_bytes / 1e9:.1f} "
            "GB of memory are available. Use cache='auto' or 'none', or a smaller image_size."
        )
    return mode == "ram" or (mode == "auto" and needed_bytes <= AUTO_SHARE * available_bytes)


def cache_frames(
    *stores: FrameStore,
    mode: CacheMode = "auto",
    columns: Sequence[str] | None = None,
    num_threads: int | None = None,
    is_shared: bool = True,
    progress: Progress | None = None,
) -> bool:
    """Decodes columns of frames into memory, and lets the stores read from there.

    Processes of the same user on the same node that cache the same frames share the memory, and wait until it is
    filled. ``auto`` skips uncompressed files, which the kernel's page cache serves as fast.

    Args:
        *stores: The open files. They read from memory afterwards. ``auto`` takes them in turn, and skips a file if all
            cached files together would exceed their share.
        mode: When to cache; see ``wants_cache``.
        columns: Which columns of frames. None takes all.
        num_threads: Number of decoding threads. None is one per processor.
        is_shared: Let other processes find the memory. DDP ranks and spawned worker processes need that. A process
            alone gets faster memory without it.
        progress: Called with the column, the frames decoded and their total. None shows a bar on stderr.

    Returns:
        Whether any frames were cached.

    Raises:
        ResourceError: The mode is ``ram`` and the frames do not fit.
        DamagedChunkError: A stored frame is damaged; names its episode and step.
    """
    taken_bytes = 0
    for store in stores:
        taken_bytes += _cache_file(
            store,
            _columns_to_cache(store, mode, columns),
            mode=mode,
            taken_bytes=taken_bytes,
            num_threads=num_threads or num_cpus(),
            is_shared=is_shared,
            progress=progress,
        )
    return taken_bytes > 0


def _columns_to_cache(store: FrameStore, mode: CacheMode, columns: Sequence[str] | None) -> list[str]:
    chosen = [column for column in (columns or store.frame_columns) if not store.is_resident(column)]
    if mode == "none":
        return []
    return chosen if mode == "ram" else [column for column in chosen if not store.is_uncompressed(column)]


def _cache_file(
    store: FrameStore,
    columns: Sequence[str],
    *,
    mode: CacheMode,
    taken_bytes: int,
    num_threads: int,
    is_shared: bool,
    progress: Progress | None,
) -> int:
    """Caches columns of one file, after earlier files took ``taken_bytes``. Returns the bytes that it takes."""
    sizes = [store.num_rows * store.columns[column].row_bytes for column in columns]
    starts = [0, *itertools.accumulate(sizes)]
    num_bytes = starts.pop()
    if not num_bytes:
        return 0

    def may_create() -> bool:
        available_bytes = available_memory_bytes() + taken_bytes  # as it was before the first file
        return wants_cache(mode, needed_bytes=taken_bytes + num_bytes, available_bytes=available_bytes)

    def fill(memory: NDArray[np.uint8]) -> None:
        for column, start, size in zip(columns, starts, sizes, strict=True):
            frames = memory[start : start + size].reshape(store.num_rows, *store.columns[column].shape)
            _decode_all(store, column, frames, num_threads, progress)

    memory: NodeMemory | NDArray[np.uint8] | None = None
    if is_shared:
        memory = find_or_create(_name(store, columns), num_bytes, fill, may_create=may_create)
    elif may_create():
        memory = private_memory(num_bytes)
        fill(memory)
    if memory is None:
        return 0
    for column, start in zip(columns, starts, strict=True):
        store.make_resident(column, memory, start)
    return num_bytes


def _decode_all(
    store: FrameStore, column: str, frames: NDArray[np.uint8], num_threads: int, progress: Progress | None
) -> None:
    from lewm_data.progress_bar import shown  # only a process that caches needs rich

    logger.info("%s: decoding %d frames of %s into RAM", store.path, store.num_rows, column)

    def decode(first_row: int) -> int:
        rows = np.arange(first_row, min(first_row + _ROWS_PER_TASK, store.num_rows), dtype=np.int64)
        store.read_frames(column, rows, frames[rows[0] : rows[-1] + 1])
        return len(rows)

    num_done = 0
    with shown(progress) as show, ThreadPoolExecutor(num_threads, "lewm_data-cache") as threads:
        futures = [threads.submit(decode, row) for row in range(0, store.num_rows, _ROWS_PER_TASK)]
        try:
            for future in futures:
                num_done += future.result()
                show(f"{column} into RAM", num_done, store.num_rows)
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise


def _name(store: FrameStore, columns: Sequence[str]) -> str:
    """A name for the cached columns: equal for the same bytes of the same file, in any process."""
    fingerprint = store.header.fingerprint if store.header else ""
    parts = (store.data_file.key, store.data_file.identity, fingerprint, columns, store.verify_checksums)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]
