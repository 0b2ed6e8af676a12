"""Frames written in micro-batches of every size to chunks of every size: what a mismatch of the two costs.

HDF5 compresses a chunk as one piece. A micro-batch that fills only a part of a chunk makes the library read the chunk
back, decompress it, change it and compress it all again, unless the chunk stays in its cache.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.datasets import log
from benchmarks.harness import interleave

DIRECT = 0
"""Stands for our own way: one-frame chunks that are encoded here and written past HDF5's filters."""

type Frames = NDArray[np.uint8]
"""(n, H, W, 3)."""


def measure_chunks(
    frames: Frames,
    *,
    micro_batches: Sequence[int],
    chunk_frames: Sequence[int],
    seconds: float,
    num_rounds: int,
    folder: Path,
) -> list[dict[str, Any]]:
    """Measures every pair of sizes, one process, one thread, lzf and checksum.

    Args:
        frames: What is written, again and again.
        micro_batches: Frames that are written at once.
        chunk_frames: Frames of a chunk; ``DIRECT`` for our own writer.
        seconds: Each pair is written for at least so long; a micro-batch is never cut short.
        num_rounds: Interleaved rounds.
        folder: Where the files are written meanwhile.

    Returns:
        A row for each pair: its sizes, and frames per second round by round.
    """
    rows = {
        f"{chunk} {batch}": {"chunk_frames": chunk, "micro_batch": batch, "fps": []}
        for chunk in chunk_frames
        for batch in micro_batches
    }  # type: dict[str, dict[str, Any]]
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        path = Path(scratch) / "out.h5"
        for order in interleave(list(rows), num_rounds):
            for name in order:
                row = rows[name]
                write = _write_directly if row["chunk_frames"] == DIRECT else _write_through_hdf5
                rate = write(path, frames, row["micro_batch"], row["chunk_frames"], seconds)
                row["fps"].append(round(rate, 1))
                log(f"chunks of {row['chunk_frames']}, micro-batches of {row['micro_batch']}: {rate:,.0f} frames/s")
    return list(rows.values())


def _write_through_hdf5(path: Path, frames: Frames, micro_batch: int, chunk_frames: int, seconds: float) -> float:
    import h5py

    batch = _batch(frames, micro_batch)
    began = time.perf_counter()
    with h5py.File(path, "w") as file:
        pixels = file.create_dataset(
            "pixels",
            shape=(0, *frames.shape[1:]),
            maxshape=(None, *frames.shape[1:]),
            chunks=(chunk_frames, *frames.shape[1:]),
            dtype="u1",
            compression="lzf",
            fletcher32=True,
        )

        def write(start: int) -> None:
            pixels.resize(start + micro_batch, axis=0)
            pixels[start : start + micro_batch] = batch

        count = _repeat(write, micro_batch, seconds)
    rate = count / (time.perf_counter() - began)  # with closing: what the cache held back is written then
    with h5py.File(path) as file:
        _check(file["pixels"], batch, count)
    return rate


def _write_directly(path: Path, frames: Frames, micro_batch: int, chunk_frames: int, seconds: float) -> float:
    import h5py

    from lewm_data.format.codecs import encoder

    encode = encoder("lzf")
    batch = _batch(frames, micro_batch)
    shape = frames.shape[1:]
    began = time.perf_counter()
    with h5py.File(path, "w") as file:
        pixels = file.create_dataset(
            "pixels", (0, *shape), "u1", maxshape=(None, *shape), chunks=(1, *shape), compression="lzf",
            fletcher32=True,
        )  # fmt: skip

        def write(start: int) -> None:
            pixels.resize(start + micro_batch, axis=0)
            for row, chunk in enumerate([encode(frame) for frame in batch], start=start):
                pixels.id.write_direct_chunk((row, 0, 0, 0), chunk.data, chunk.filter_mask)

        count = _repeat(write, micro_batch, seconds)
    rate = count / (time.perf_counter() - began)
    with h5py.File(path) as file:
        _check(file["pixels"], batch, count)
    return rate


def _batch(frames: Frames, micro_batch: int) -> Frames:
    return frames[np.arange(micro_batch) % len(frames)]


def _repeat(write: Callable[[int], None], micro_batch: int, seconds: float) -> int:
    """Writes micro-batches until the time is over; returns the frames written."""
    began, count = time.perf_counter(), 0
    while not count or time.perf_counter() - began < seconds:
        write(count)
        count += micro_batch
    return count


def _check(pixels: Any, batch: Frames, count: int) -> None:
    """Reads the first and the last micro-batch back."""
    last = count - len(batch)
    if not (np.array_equal(pixels[: len(batch)], batch) and np.array_equal(pixels[last:count], batch)):
        raise SystemExit("what was written is not what is read back")
