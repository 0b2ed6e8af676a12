"""Write frames in micro-batches and chunks of every size: the cost of a mismatch.

HDF5 compresses a chunk as a whole. A micro-batch that fills only part of a chunk makes the library read the chunk back,
decompress it, change it and compress it again, unless the chunk is still in its cache.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import interleaved

DIRECT = 0
"""Stands for our writer: one-frame chunks, encoded here and written past HDF5's filters."""

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
    """Writes ``frames`` in every pair of sizes with one thread, lzf and checksums, for at least ``seconds`` each.

    Rows hold frames per second, round by round.
    """
    pairs = [(chunk, batch) for chunk in chunk_frames for batch in micro_batches]
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        path = Path(scratch) / "out.h5"

        def write(pair: tuple[int, int]) -> float:
            chunk, micro_batch = pair
            batch = frames[np.arange(micro_batch) % len(frames)]
            return round(write_frames(path, batch, chunk, seconds), 1)

        rounds = interleaved(pairs, num_rounds, write)
    return [{"chunk_frames": chunk, "micro_batch": batch, "fps": rounds[chunk, batch]} for chunk, batch in pairs]


def write_frames(path: Path, batch: Frames, chunk_frames: int, seconds: float) -> float:
    """Writes a micro-batch again and again and closes the file; returns frames per second."""
    import h5py

    from lewm_data.format.codecs import encoder

    encode = encoder("lzf")
    shape = batch.shape[1:]
    began, count = time.perf_counter(), 0
    with h5py.File(path, "w") as file:
        pixels = file.create_dataset(
            "pixels", shape=(0, *shape), maxshape=(None, *shape), chunks=(chunk_frames or 1, *shape), dtype="u1",
            compression="lzf", fletcher32=True,
        )  # fmt: skip
        while not count or time.perf_counter() - began < seconds:
            pixels.resize(count + len(batch), axis=0)
            if chunk_frames == DIRECT:
                for row, chunk in enumerate([encode(frame) for frame in batch], start=count):
                    pixels.id.write_direct_chunk((row, 0, 0, 0), chunk.data, chunk.filter_mask)
            else:
                pixels[count : count + len(batch)] = batch
            count += len(batch)
    rate = count / (time.perf_counter() - began)
    with h5py.File(path) as file:
        check_written(file["pixels"], batch, count)
    return rate


def check_written(pixels: Any, batch: Frames, count: int) -> None:
    """Reads the first and the last micro-batch back."""
    last = count - len(batch)
    if not (np.array_equal(pixels[: len(batch)], batch) and np.array_equal(pixels[last:count], batch)):
        raise SystemExit("the file does not hold the frames that were written")
