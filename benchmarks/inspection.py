"""Seconds and peak memory of ``lewm-data inspect`` on a dataset of 100,000 episodes.

The dataset is LeRobot v3.0 with everything that inspection reads: metadata, every Parquet row, and the headers of MP4
files. All video files are hard links to one, since inspection reads only their headers.

    python -m benchmarks.inspection            writes benchmarks/results/inspection.json
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.runner import Benchmark, Option

CAMERA = "observation.images.top"
FPS = 30
WIDTH = 7
EPISODES_PER_FILE = 1000

OPTIONS = {
    "episodes": Option("episodes, a multiple of 1,000", 1000, 100_000, 100_000),
    "steps": Option("steps of each episode", 5, 50, 50),
}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Writes the dataset and inspects it."""
    with tempfile.TemporaryDirectory(prefix="lewm-data-inspection-") as folder:
        root = write_dataset(Path(folder) / "data", num_episodes=options.episodes, num_steps=options.steps)
        sizes = {
            f"{name}_bytes": sum(path.stat().st_size for path in (root / part).rglob("*") if path.is_file())
            for name, part in (("metadata", "meta"), ("parquet", "data"))
        }
        return {"episodes": options.episodes, "steps": options.episodes * options.steps, **sizes, **inspect(root)}


def inspect(root: Path) -> dict[str, float]:
    """Runs ``lewm-data inspect`` once: seconds, processor seconds, peak memory, and the number of findings."""
    code = (
        "import sys; from lewm_data.resources import peak_memory_bytes; from lewm_data.cli.commands import main\n"
        "try:\n    main(sys.argv[1:])\nfinally:\n    print(peak_memory_bytes(), file=sys.stderr)"
    )
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-c", code, "inspect", str(root), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "inspection_seconds": round(seconds, 1),
        "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        "peak_memory_bytes": int(done.stderr.strip().splitlines()[-1]),
        "findings": len(json.loads(done.stdout)["findings"]),
    }


def write_dataset(root: Path, *, num_episodes: int, num_steps: int) -> Path:
    """Writes a LeRobot v3.0 dataset whose episodes all have the same number of steps."""
    first_video: Path | None = None
    for file in range(num_episodes // EPISODES_PER_FILE):
        data = root / f"data/chunk-000/file-{file:03d}.parquet"
        video = root / f"videos/{CAMERA}/chunk-000/file-{file:03d}.mp4"
        for path in (data, video):
            path.parent.mkdir(parents=True, exist_ok=True)
        _write_rows(data, file * EPISODES_PER_FILE, num_steps)
        if first_video is None:
            first_video = video
            _write_video(video, EPISODES_PER_FILE * num_steps)
        else:
            os.link(first_video, video)
    _write_metadata(root, num_episodes, num_steps)
    return root


def _write_rows(path: Path, first_episode: int, num_steps: int) -> None:
    """One row group for each episode, as LeRobot writes them."""
    rng = np.random.default_rng(first_episode)
    count = EPISODES_PER_FILE * num_steps
    values = {key: rng.standard_normal(count * WIDTH, np.float32) for key in ("action", "observation.state")}
    index = np.arange(first_episode * num_steps, first_episode * num_steps + count)
    step = index % num_steps
    columns = {key: pa.FixedSizeListArray.from_arrays(pa.array(value), WIDTH) for key, value in values.items()}
    columns |= {"timestamp": (step / FPS).astype(np.float32), "frame_index": step, "episode_index": index // num_steps}
    columns |= {"index": index, "task_index": np.zeros(count, np.int64), "next.done": step == num_steps - 1}
    pq.write_table(pa.table(columns), path, row_group_size=num_steps)


def _write_video(path: Path, num_frames: int) -> None:
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=FPS, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        picture = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
        for _ in range(num_frames):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(stream.encode(None))


def _write_metadata(root: Path, num_episodes: int, num_steps: int) -> None:
    index = np.arange(num_episodes)
    file, place = np.divmod(index, EPISODES_PER_FILE)
    episodes: dict[str, Any] = {
        "episode_index": index,
        "length": np.full(num_episodes, num_steps),
        "tasks": pa.array([["push the block"]] * num_episodes),
        "dataset_from_index": index * num_steps,
        "dataset_to_index": (index + 1) * num_steps,
        f"videos/{CAMERA}/from_timestamp": place * num_steps / FPS,
        f"videos/{CAMERA}/to_timestamp": (place + 1) * num_steps / FPS,
    }
    for part in ("data", f"videos/{CAMERA}"):
        episodes |= {f"{part}/chunk_index": np.zeros_like(index), f"{part}/file_index": file}
    (root / "meta/episodes/chunk-000").mkdir(parents=True)
    pq.write_table(pa.table(episodes), root / "meta/episodes/chunk-000/file-000.parquet")
    pq.write_table(pa.table({"task_index": [0], "task": ["push the block"]}), root / "meta/tasks.parquet")
    shapes = {CAMERA: ("video", [48, 64, 3]), "next.done": ("bool", [1])}
    shapes |= {key: ("float32", [WIDTH]) for key in ("action", "observation.state")}
    names = {CAMERA: ["height", "width", "channels"]}
    info = {
        "codebase_version": "v3.0",
        "fps": FPS,
        "features": {
            key: {"dtype": dtype, "shape": shape, "names": names.get(key)} for key, (dtype, shape) in shapes.items()
        },
        "total_episodes": num_episodes,
        "total_frames": num_episodes * num_steps,
    }
    (root / "meta/info.json").write_text(json.dumps(info))


BENCHMARK = Benchmark(name="inspection", doc=__doc__, options=OPTIONS, measure=measure)
main = BENCHMARK.main

if __name__ == "__main__":
    main()
