"""Very large files for the scaling benchmark: many tiny frames, in any number of episodes.

What grows with the number of frames and episodes is the byte index, the small columns and the order of the windows, and
these do not depend on the size of a frame. So the frames are tiny. They are noise, stored raw behind an lzf filter, as
the writer does with what does not compress.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

SIDE = 8
_DISTINCT = 1000


def build_file(path: Path, *, num_frames: int, num_episodes: int) -> None:
    """Writes a file of format version 1 by writing its chunks directly.

    Args:
        path: The file to make.
        num_frames: Frames in all, a multiple of the episodes.
        num_episodes: Episodes, all of one length.
    """
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
    with h5py.File(path, "w", libver=LIBVER) as file:  # it decides how chunks are indexed
        shape = (num_frames, SIDE, SIDE, 3)
        pixels = file.create_dataset("pixels", shape, "u1", chunks=(1, *shape[1:]), compression="lzf", fletcher32=True)
        write = pixels.id.write_direct_chunk
        for row in range(num_frames):
            write((row, 0, 0, 0), chunks[row % _DISTINCT], CODEC_SKIPPED_MASK)
        for name in ("action", "state"):
            values = random.normal(size=(num_frames, 2)).astype(np.float32)
            file.create_dataset(name, data=values, chunks=(min(ROWS_PER_CHUNK, num_frames), 2))
        _divide(file, num_frames, num_episodes)


def divide_anew(source: Path, path: Path, *, num_episodes: int) -> None:
    """Copies a file of ``build_file`` and divides its frames into another number of episodes.

    Args:
        source: The file.
        path: The copy to make.
        num_episodes: Episodes, all of one length; they divide the frames.
    """
    import h5py

    from lewm_data.format.writer import LIBVER

    shutil.copyfile(source, path)
    with h5py.File(path, "r+", libver=LIBVER) as file:
        for name in ("done", "episode_idx", "step_idx", "ep_len", "ep_offset"):
            del file[name]
        _divide(file, len(file["pixels"]), num_episodes)


def _divide(file: Any, num_frames: int, num_episodes: int) -> None:
    """Writes all that says where episodes begin and end."""
    from lewm_data.format.schema import ROWS_PER_CHUNK

    if num_frames % num_episodes:
        raise ValueError(f"{num_frames:,} frames cannot be divided into {num_episodes:,} episodes of one length.")
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
    file.attrs.update(_header(num_episodes))


def _header(num_episodes: int) -> dict[str, Any]:
    from lewm_data.format.header import FileHeader, SourceRecord

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
    return header.to_attributes()
