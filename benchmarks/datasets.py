"""Datasets to measure on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lewm_data.schema import camera_name


def repeat_dataset(root: Path, out: Path, times: int, *, camera: str | None = None) -> Path:
    """Lays out the same recording many times over, each repetition in files of its own, as LeRobot does.

    Args:
        root: A v3.0 dataset whose data and videos are in one file each.
        out: Folder to make; its videos are links to the original.
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
            link.symlink_to(video.resolve())
    (out / "meta" / "episodes" / "chunk-000").mkdir(parents=True)
    pq.write_table(pa.concat_tables(parts), out / "meta" / "episodes" / "chunk-000" / "file-000.parquet")
    shutil.copy(root / "meta" / "tasks.parquet", out / "meta" / "tasks.parquet")
    info |= {"total_episodes": times * len(episodes), "total_frames": times * len(data)}
    (out / "meta" / "info.json").write_text(json.dumps(info))
    return out


def _set(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, values)
