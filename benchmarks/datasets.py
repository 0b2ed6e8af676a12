"""Datasets to measure on, made once and kept."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.synthetic import Recording, record
from lewm_data.format.schema import PIXELS, camera_name

SYNTHETIC = "synthetic"
"""The source that is recorded for the purpose, by ``benchmarks/synthetic.py``."""


def log(words: str) -> None:
    """Tells on stderr how far a benchmark is."""
    print(words, file=sys.stderr, flush=True)


def once(path: Path, build: Callable[[Path], Any]) -> Path:
    """Lets something be built under another name, and renames it when it is whole; does nothing where it is there.

    Args:
        path: File or folder.
        build: Builds it under the name that it is given.

    Returns:
        ``path``.
    """
    if path.exists():
        return path
    log(f"preparing {path}")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"partial-{os.getpid()}-{path.name}")
    try:
        build(partial)
        os.rename(partial, path)
    finally:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        partial.unlink(missing_ok=True)
    return path


def apart[**P, R](function: Callable[P, R], *arguments: P.args, **keywords: P.kwargs) -> R:
    """Calls a function in a process of its own, so that what it imports and holds stays out of this one."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as other:
        return other.submit(function, *arguments, **keywords).result()


def recorded(data: Path, recordings: Sequence[Recording]) -> list[Path]:
    """Records what is not there yet, all in one other process, since importing LeRobot takes ten seconds.

    Args:
        data: Folder that keeps datasets.
        recordings: What to record.

    Returns:
        Their folders.
    """
    folders = [data / recording.name for recording in recordings]
    absent = [(place, wanted) for place, wanted in zip(folders, recordings, strict=True) if not place.exists()]
    if absent:
        apart(_record_all, absent)
    return folders


def _record_all(absent: Sequence[tuple[Path, Recording]]) -> None:
    for folder, recording in absent:
        once(folder, lambda out, recording=recording: record(out, recording))  # type: ignore[misc]


def decoded_frames(source: Path, camera: str, *, side: int, num_frames: int, folder: Path) -> NDArray[np.uint8]:
    """Frames as they are after the video.

    Most of a sensor's noise does not survive the encoder, and that decides how well they compress.

    Args:
        source: A LeRobot dataset's folder.
        camera: The camera.
        side: Side of the frames, in pixels.
        num_frames: Frames at most, spread over the whole.
        folder: Where a file is written meanwhile.

    Returns:
        (n, side, side, 3) uint8.
    """
    import h5py

    from lewm_data.config import ConvertConfig
    from lewm_data.conversion.pipeline import convert

    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        path = Path(scratch) / "frames.h5"
        convert(str(source), path, ConvertConfig(camera=camera, image_size=side, compression="none"))
        with h5py.File(path) as file:
            count = len(file[PIXELS])
            chosen = np.unique(np.linspace(0, count - 1, min(num_frames, count)).astype(int))
            frames: NDArray[np.uint8] = file[PIXELS][chosen]
    return frames


def repeat_dataset(root: Path, out: Path, times: int, *, camera: str | None = None) -> Path:
    """Lays out the same recording many times over, each repetition in files of its own, as LeRobot does.

    Args:
        root: A v3.0 dataset whose data and videos are in one file each.
        out: Folder to make; its videos are hard links to the original where the disk has them, since a
            symbolic one that leads out of a dataset is refused.
        times: Repetitions.
        camera: Leave out all cameras but this (its short name); None keeps all.

    Returns:
        ``out``.
    """
    info = json.loads((root / "meta" / "info.json").read_text())
    cameras = [name for name, feature in info["features"].items() if feature["dtype"] == "video"]
    dropped = [name for name in cameras if camera is not None and camera_name(name) != camera]
    if dropped == cameras:
        raise ValueError(f"{root}: there is no camera {camera!r}, only {', '.join(map(camera_name, cameras))}.")
    info["features"] = {name: feature for name, feature in info["features"].items() if name not in dropped}
    episodes = pq.read_table(root / "meta" / "episodes")
    unwanted = ("stats/", *(f"videos/{name}/" for name in dropped))
    episodes = episodes.select([name for name in episodes.column_names if not name.startswith(unwanted)])
    data = pq.read_table(root / "data" / "chunk-000" / "file-000.parquet")
    parts = []
    for number in range(times):
        shifts = {"episode_index": len(episodes), "dataset_from_index": len(data), "dataset_to_index": len(data)}
        part = episodes
        for name in part.column_names:
            if name in shifts:
                part = _set(part, name, pc.add(part[name], number * shifts[name]))
            elif name.endswith("file_index") and not name.startswith("meta/"):
                part = _set(part, name, pa.array([number] * len(part)))
        parts.append(part)
        moved = _set(data, "episode_index", pc.add(data["episode_index"], number * len(episodes)))
        moved = _set(moved, "index", pc.add(data["index"], number * len(data)))
        path = out / "data" / "chunk-000" / f"file-{number:03d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(moved, path)
        for video in (root / "videos").rglob("file-000.mp4"):
            if video.relative_to(root / "videos").parts[0] in dropped:
                continue
            link = out / video.relative_to(root).with_name(f"file-{number:03d}.mp4")
            link.parent.mkdir(parents=True, exist_ok=True)
            _same_file(video.resolve(), link)
    (out / "meta" / "episodes" / "chunk-000").mkdir(parents=True)
    pq.write_table(pa.concat_tables(parts), out / "meta" / "episodes" / "chunk-000" / "file-000.parquet")
    shutil.copy(root / "meta" / "tasks.parquet", out / "meta" / "tasks.parquet")
    info |= {"total_episodes": times * len(episodes), "total_frames": times * len(data)}
    (out / "meta" / "info.json").write_text(json.dumps(info))
    return out


def _same_file(original: Path, link: Path) -> None:
    try:
        os.link(original, link)
    except OSError:  # on another disk, or one without hard links
        shutil.copyfile(original, link)


def _set(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, values)
