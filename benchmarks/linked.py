"""Large LeRobot datasets that are written in seconds, and one run of a command on them.

The datasets are LeRobot v3.0. All video files are hard links to one, since reading them costs the same.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FPS = 30

type Rows = Callable[[int], Mapping[str, np.ndarray]]
"""Number of a file to ``action`` and ``observation.state`` of its steps, each of shape (N, D)."""


def write_dataset(
    root: Path,
    *,
    num_episodes: int,
    num_steps: int,
    episodes_per_file: int,
    cameras: Sequence[str],
    rows: Rows,
    video: Callable[[Path], tuple[int, int]],
) -> Path:
    """Writes a dataset whose episodes all have the same number of steps.

    Args:
        root: The folder to write.
        num_episodes: A multiple of ``episodes_per_file``.
        num_steps: Steps of each episode.
        episodes_per_file: Episodes of each Parquet and each video file.
        cameras: Keys of the cameras.
        rows: Makes the actions and states of a file.
        video: Writes the video of a file, and returns the height and width of its frames.
    """
    first = root / "first.mp4"
    root.mkdir(parents=True)
    size = video(first)
    for file in range(num_episodes // episodes_per_file):
        data = root / f"data/chunk-000/file-{file:03d}.parquet"
        videos = [root / f"videos/{camera}/chunk-000/file-{file:03d}.mp4" for camera in cameras]
        for path in (data, *videos):
            path.parent.mkdir(parents=True, exist_ok=True)
        values = rows(file)
        _write_rows(data, values, file * episodes_per_file, num_steps)
        for path in videos:
            os.link(first, path)
    first.unlink()
    width = values["action"].shape[1]
    _write_metadata(root, num_episodes, num_steps, episodes_per_file, {camera: [*size, 3] for camera in cameras}, width)
    return root


def encode(path: Path, codec: str, options: dict[str, str], frames: Iterable[np.ndarray]) -> tuple[int, int]:
    """Encodes RGB frames of shape (H, W, 3), and returns their height and width."""
    height = width = 0
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=FPS, options=options)
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            if not height:
                stream.height, stream.width = height, width = frame.shape[:2]
            output.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        output.mux(stream.encode(None))
    return height, width


def run(command: str, root: Path) -> tuple[dict[str, Any], float, dict[str, float]]:
    """Runs ``lewm-data COMMAND ROOT --json`` in a new process.

    Returns:
        What it prints; its seconds; and its processor seconds and peak memory.
    """
    code = (
        "import sys; from lewm_data.resources import peak_memory_bytes; from lewm_data.cli.commands import main\n"
        "try:\n    main(sys.argv[1:])\nfinally:\n    print(peak_memory_bytes(), file=sys.stderr)"
    )
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", code, command, str(root), "--json"], capture_output=True, text=True, check=True
    )
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    costs = {
        "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        "peak_memory_bytes": int(done.stderr.strip().splitlines()[-1]),
    }
    return json.loads(done.stdout), round(seconds, 1), costs


def _write_rows(path: Path, values: Mapping[str, np.ndarray], first_episode: int, num_steps: int) -> None:
    """One row group for each episode, as LeRobot writes them."""
    count = len(values["action"])
    index = np.arange(first_episode * num_steps, first_episode * num_steps + count)
    step = index % num_steps
    columns: dict[str, Any] = {
        key: pa.FixedSizeListArray.from_arrays(pa.array(value.ravel()), value.shape[1]) for key, value in values.items()
    }
    columns |= {"timestamp": (step / FPS).astype(np.float32), "frame_index": step, "episode_index": index // num_steps}
    columns |= {"index": index, "task_index": np.zeros(count, np.int64), "next.done": step == num_steps - 1}
    pq.write_table(pa.table(columns), path, row_group_size=num_steps)


def _write_metadata(
    root: Path, num_episodes: int, num_steps: int, episodes_per_file: int, cameras: Mapping[str, list[int]], width: int
) -> None:
    index = np.arange(num_episodes)
    file, place = np.divmod(index, episodes_per_file)
    episodes: dict[str, Any] = {
        "episode_index": index,
        "length": np.full(num_episodes, num_steps),
        "tasks": pa.array([["push the block"]] * num_episodes),
        "dataset_from_index": index * num_steps,
        "dataset_to_index": (index + 1) * num_steps,
    }
    for camera in cameras:
        episodes[f"videos/{camera}/from_timestamp"] = place * num_steps / FPS
        episodes[f"videos/{camera}/to_timestamp"] = (place + 1) * num_steps / FPS
    for part in ("data", *(f"videos/{camera}" for camera in cameras)):
        episodes |= {f"{part}/chunk_index": np.zeros_like(index), f"{part}/file_index": file}
    (root / "meta/episodes/chunk-000").mkdir(parents=True)
    pq.write_table(pa.table(episodes), root / "meta/episodes/chunk-000/file-000.parquet")
    pq.write_table(pa.table({"task_index": [0], "task": ["push the block"]}), root / "meta/tasks.parquet")
    features: dict[str, Any] = {
        key: {"dtype": "video", "shape": shape, "names": ["height", "width", "channels"]}
        for key, shape in cameras.items()
    }
    for key, dtype, size in (
        ("action", "float32", width),
        ("observation.state", "float32", width),
        ("next.done", "bool", 1),
    ):
        features[key] = {"dtype": dtype, "shape": [size], "names": None}
    info = {
        "codebase_version": "v3.0",
        "fps": FPS,
        "features": features,
        "total_episodes": num_episodes,
        "total_frames": num_episodes * num_steps,
    }
    (root / "meta/info.json").write_text(json.dumps(info))
