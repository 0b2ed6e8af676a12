"""Datasets to measure on, built once and kept."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.harness import log
from benchmarks.synthetic import Recording, record
from lewm_data.format.schema import PIXELS, camera_name

ROOT = Path(__file__).parents[1]
SYNTHETIC = "synthetic"
"""The source that ``benchmarks/synthetic.py`` records."""

_CALL = """
import pickle, sys
function, arguments, keywords = pickle.load(sys.stdin.buffer)
answer = function(*arguments, **keywords)
with open(sys.argv[1], "wb") as output:
    pickle.dump(answer, output)
"""


def apart[**P, R](function: Callable[P, R], *arguments: P.args, **keywords: P.kwargs) -> R:
    """Calls an importable function in a new interpreter, which imports only that function's module.

    Raises:
        RuntimeError: The function failed; stderr says why.
    """
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer"
        done = subprocess.run(
            [sys.executable, "-c", _CALL, str(answer)],
            input=pickle.dumps((function, arguments, keywords)),
            stdout=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))},
        )
        if done.returncode:
            raise RuntimeError(f"{function.__module__}.{function.__qualname__} failed, see above")
        result: R = pickle.loads(answer.read_bytes())
        return result


def once(path: Path, build: Callable[[Path], Any]) -> Path:
    """Builds a file or folder under a temporary name and renames it; does nothing if it exists."""
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


def source_folder(options: Any) -> Path:
    """The dataset that the options name; the synthetic one is recorded if it does not exist."""
    if options.source == SYNTHETIC:
        return recorded(options.data, [options.recording])[0]
    return Path(options.source).resolve()


def recorded(data: Path, recordings: Sequence[Recording]) -> list[Path]:
    """Folders of these recordings in ``data``; records missing ones in one other process (LeRobot imports slowly)."""
    folders = [data.resolve() / recording.name for recording in recordings]
    missing = [pair for pair in zip(folders, recordings, strict=True) if not pair[0].exists()]
    if missing:
        apart(_record_all, missing)
    return folders


def _record_all(missing: Sequence[tuple[Path, Recording]]) -> None:
    for folder, recording in missing:
        once(folder, lambda out, recording=recording: record(out, recording))  # type: ignore[misc]


def decoded_frames(source: Path, camera: str, *, side: int, num_frames: int, folder: Path) -> NDArray[np.uint8]:
    """Frames as a conversion stores them: (n, side, side, 3) uint8, at most ``num_frames``, spread over the dataset.

    The video encoder removes most of a sensor's noise, which decides how well frames compress.
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


def repeated(source: Path, times: int, data: Path) -> Path:
    """A recording so many times over, kept in ``data``."""
    if times == 1:
        return source
    return once(data / f"{source.name}-x{times}", lambda out: repeat_dataset(source.resolve(), out, times))


def repeat_dataset(root: Path, out: Path, times: int, *, camera: str | None = None) -> Path:
    """Lays out a recording many times over, each repetition in files of its own, as LeRobot does.

    Args:
        root: A v3.0 dataset whose data and videos are in one file each.
        out: Folder to create. Its videos are hard links where the disk allows them, since a symbolic link that leads
            out of a dataset is refused.
        times: Repetitions.
        camera: Short name of the one camera to keep; None keeps all.

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
    steps = {"episode_index": len(episodes), "dataset_from_index": len(data), "dataset_to_index": len(data)}
    parts = []
    for number in range(times):
        part = _shift(episodes, {name: number * step for name, step in steps.items()})
        for name in part.column_names:
            if name.endswith("file_index") and not name.startswith("meta/"):
                place = part.column_names.index(name)
                part = part.set_column(place, name, pa.array([number] * len(part)))
        parts.append(part)
        path = out / "data" / "chunk-000" / f"file-{number:03d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(_shift(data, {"episode_index": number * len(episodes), "index": number * len(data)}), path)
        for video in (root / "videos").rglob("file-000.mp4"):
            if video.relative_to(root / "videos").parts[0] not in dropped:
                link = out / video.relative_to(root).with_name(f"file-{number:03d}.mp4")
                link.parent.mkdir(parents=True, exist_ok=True)
                _link_or_copy(video.resolve(), link)
    (out / "meta" / "episodes" / "chunk-000").mkdir(parents=True)
    pq.write_table(pa.concat_tables(parts), out / "meta" / "episodes" / "chunk-000" / "file-000.parquet")
    shutil.copy(root / "meta" / "tasks.parquet", out / "meta" / "tasks.parquet")
    info |= {"total_episodes": times * len(episodes), "total_frames": times * len(data)}
    (out / "meta" / "info.json").write_text(json.dumps(info))
    return out


def _shift(table: pa.Table, shifts: dict[str, int]) -> pa.Table:
    """Adds a number to columns."""
    for name, shift in shifts.items():
        table = table.set_column(table.column_names.index(name), name, pc.add(table[name], shift))
    return table


def _link_or_copy(original: Path, link: Path) -> None:
    try:
        os.link(original, link)
    except OSError:  # another disk, or one without hard links
        shutil.copyfile(original, link)
