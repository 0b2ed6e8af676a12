"""Very large files for the scaling benchmark, and what it measures in them.

The byte index, the small columns and the order of the windows grow with the number of frames and episodes, but not with
the size of a frame. So the frames are tiny. They are noise, stored raw behind an lzf filter, as the writer stores what
does not compress.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

SIDE = 8
_DISTINCT = 1000


def build_file(path: Path, *, num_frames: int, num_episodes: int) -> None:
    """Writes a file of format version 1 with episodes of equal length, chunk by chunk."""
    import h5py
    import imagecodecs

    from lewm_data.format.codecs import CODEC_SKIPPED_MASK
    from lewm_data.format.schema import ROWS_PER_CHUNK
    from lewm_data.format.writer import LIBVER

    random = np.random.default_rng(0)
    chunks = []
    for frame in random.integers(0, 256, (_DISTINCT, SIDE, SIDE, 3), np.uint8):
        checksum = int(imagecodecs.h5checksum_fletcher32(frame.tobytes())).to_bytes(4, "little")
        chunks.append(frame.tobytes() + checksum)
    with h5py.File(path, "w", libver=LIBVER) as file:  # which decides how HDF5 indexes chunks
        shape = (num_frames, SIDE, SIDE, 3)
        pixels = file.create_dataset("pixels", shape, "u1", chunks=(1, *shape[1:]), compression="lzf", fletcher32=True)
        write = pixels.id.write_direct_chunk
        for row in range(num_frames):
            write((row, 0, 0, 0), chunks[row % _DISTINCT], CODEC_SKIPPED_MASK)
        for name in ("action", "state"):
            values = random.normal(size=(num_frames, 2)).astype(np.float32)
            file.create_dataset(name, data=values, chunks=(min(ROWS_PER_CHUNK, num_frames), 2))
        _divide(file, num_frames, num_episodes)


def divide_again(source: Path, path: Path, *, num_episodes: int) -> None:
    """Copies a file of ``build_file`` and divides its frames into another number of episodes."""
    import h5py

    from lewm_data.format.writer import LIBVER

    shutil.copyfile(source, path)
    with h5py.File(path, "r+", libver=LIBVER) as file:
        for name in ("done", "episode_idx", "step_idx", "ep_len", "ep_offset"):
            del file[name]
        _divide(file, len(file["pixels"]), num_episodes)


def _divide(file: Any, num_frames: int, num_episodes: int) -> None:
    """Writes the columns and the header that say where episodes begin and end."""
    from lewm_data.format.header import FileHeader, SourceRecord
    from lewm_data.format.schema import ROWS_PER_CHUNK

    if num_frames % num_episodes:
        raise ValueError(f"{num_frames:,} frames cannot be divided into {num_episodes:,} episodes of equal length.")
    length = num_frames // num_episodes
    steps = np.arange(num_frames)
    columns = {
        "done": steps % length == length - 1,
        "episode_idx": (steps // length).astype(np.int32),
        "step_idx": (steps % length).astype(np.int32),
    }
    for name, values in columns.items():
        file.create_dataset(name, data=values, chunks=(min(ROWS_PER_CHUNK, num_frames),))
    file["ep_len"] = np.full(num_episodes, length, np.int32)
    file["ep_offset"] = (np.arange(num_episodes) * length).astype(np.int64)
    source = SourceRecord(
        repo_id="benchmark/scaling", revision=None, codebase_version="v3.0", episodes=tuple(range(num_episodes))
    )
    header = FileHeader(
        lewm_data_version="0",
        sources=(source,),
        fps=30.0,
        cameras={"pixels": "observation.images.front"},
        image_height=SIDE,
        image_width=SIDE,
        resize="stretch",
        compression="lzf",
        done_source="last_step",
        fingerprint=f"scaling-{num_episodes}",
    )
    file.attrs.update(header.to_attributes())


def probe_open(path: Path) -> dict[str, float]:
    """Opens the store; to be called in a new process."""
    from lewm_data.loading.store import FrameStore
    from lewm_data.resources import peak_memory_bytes

    before = peak_memory_bytes()
    began = time.perf_counter()
    store = FrameStore(path)
    seconds = time.perf_counter() - began
    assert store.num_rows
    return {"seconds": seconds, "imports_mb": before / 1e6, "peak_mb": peak_memory_bytes() / 1e6}


def probe_epochs(
    path: Path, *, num_epochs: int, steps_per_epoch: int, num_workers: int, num_steps: int, frameskip: int
) -> dict[str, Any]:
    """Opens the file, takes the first batch, and reads some epochs; to be called in a new process."""
    from lewm_data.loading.dataset import WindowDataset
    from lewm_data.loading.loader import WindowLoader
    from lewm_data.loading.sampler import WindowOrder, WindowSampler
    from lewm_data.loading.store import FrameStore
    from lewm_data.resources import peak_memory_bytes, resident_memory_bytes

    before = resident_memory_bytes()
    began = time.perf_counter()
    store = FrameStore(path)
    opened = time.perf_counter()
    dataset = WindowDataset(store, num_steps=num_steps, frameskip=frameskip)
    order = WindowOrder(num_windows=len(dataset), batch_size=256, steps_per_epoch=steps_per_epoch)
    loader = WindowLoader(dataset, WindowSampler(order), num_workers=num_workers)
    resident, rates = [], []
    first_batch = 0.0
    for _ in range(num_epochs):
        begun = time.perf_counter()
        for batch in loader:
            first_batch = first_batch or time.perf_counter() - opened
            del batch
        rates.append(256 * steps_per_epoch / (time.perf_counter() - begun))
        resident.append(resident_memory_bytes() / 1e6)
    loader.close()
    return {
        "open_seconds": opened - began,
        "first_batch_seconds": first_batch,
        "imports_mb": before / 1e6,
        "resident_mb_after_epochs": resident,
        "windows_per_second": rates,
        "peak_mb": peak_memory_bytes() / 1e6,
        "num_windows": len(dataset),
    }
