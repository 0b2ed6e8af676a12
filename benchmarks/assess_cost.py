"""Seconds and peak memory of ``lewm-data assess`` on twelve episodes of 750 frames of 640x480 pixels.

The dataset is LeRobot v2.1: AV1 as LeRobot writes it, one file for each episode. All video files are hard links to one,
since decoding costs the same; actions and states differ.

    python -m benchmarks.assess_cost            writes benchmarks/results/assess_cost.json
    python -m benchmarks.assess_cost --quick    shows that it works
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
from benchmarks.scenes import STATE_DIM, Scene

CAMERA = "observation.images.front"
FPS = 30
HEIGHT, WIDTH = 480, 640

OPTIONS = {
    "episodes": Option("episodes", 2, 12, 12),
    "steps": Option("steps of each episode", 90, 750, 750),
    "cameras": Option("cameras", 1),
}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Lays the dataset out and assesses it."""
    with tempfile.TemporaryDirectory(prefix="lewm-data-assess-") as folder:
        root = write_dataset(Path(folder) / "data", options.episodes, options.steps, options.cameras)
        settings = {name: getattr(options, name) for name in OPTIONS}
        return {"settings": settings, "height": HEIGHT, "width": WIDTH, **assess(root)}


def assess(root: Path) -> dict[str, float]:
    """Runs ``lewm-data assess`` once: seconds, processor seconds and peak memory."""
    code = (
        "import sys; from lewm_data.resources import peak_memory_bytes; from lewm_data.cli.commands import main\n"
        "try:\n    main(sys.argv[1:])\nfinally:\n    print(peak_memory_bytes(), file=sys.stderr)"
    )
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-c", code, "assess", str(root), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "assess_seconds": round(seconds, 1),
        "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        "peak_memory_bytes": int(done.stderr.strip().splitlines()[-1]),
        "episodes_judged": json.loads(done.stdout)["episodes"]["count"],
    }


def write_dataset(root: Path, num_episodes: int, num_steps: int, num_cameras: int) -> Path:
    """Writes the dataset into a new folder."""
    names = [f"{CAMERA}_{number}" if number else CAMERA for number in range(num_cameras)]
    first = root / "first.mp4"
    (root / "data/chunk-000").mkdir(parents=True)
    (root / "meta").mkdir()
    scene = Scene(HEIGHT, WIDTH, 0)
    _write_video(first, scene, num_steps)
    for episode in range(num_episodes):
        _write_rows(root / f"data/chunk-000/episode_{episode:06d}.parquet", scene, episode, num_steps)
        for name in names:
            video = root / f"videos/chunk-000/{name}/episode_{episode:06d}.mp4"
            video.parent.mkdir(parents=True, exist_ok=True)
            os.link(first, video)
    first.unlink()
    _write_metadata(root, names, num_episodes, num_steps)
    return root


def _write_video(path: Path, scene: Scene, num_frames: int) -> None:
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libsvtav1", rate=FPS, options={"g": "2", "crf": "30", "preset": "12"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for step in range(num_frames):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(scene.frame(0, step), format="rgb24")))
        output.mux(stream.encode(None))


def _write_rows(path: Path, scene: Scene, episode: int, num_steps: int) -> None:
    states = np.array([scene.state(episode, step) for step in range(num_steps + 1)])
    action, state = states[1:], states[:-1]
    step = np.arange(num_steps)
    columns: dict[str, Any] = {
        key: pa.FixedSizeListArray.from_arrays(pa.array(values.astype(np.float32).ravel()), STATE_DIM)
        for key, values in (("action", action), ("observation.state", state))
    }
    columns |= {"timestamp": (step / FPS).astype(np.float32), "frame_index": step, "task_index": np.zeros_like(step)}
    columns |= {"episode_index": np.full(num_steps, episode), "index": episode * num_steps + step}
    pq.write_table(pa.table(columns), path)


def _write_metadata(root: Path, names: list[str], num_episodes: int, num_steps: int) -> None:
    vector = {"dtype": "float32", "shape": [STATE_DIM], "names": [f"joint_{n}" for n in range(STATE_DIM)]}
    number = {"dtype": "int64", "shape": [1], "names": None}
    features: dict[str, Any] = {"action": vector, "observation.state": vector}
    features |= {name: {"dtype": "video", "shape": [HEIGHT, WIDTH, 3], "names": ["height", "width", "channels"]}
                 for name in names}  # fmt: skip
    features |= dict.fromkeys(("frame_index", "episode_index", "index", "task_index"), number)
    features["timestamp"] = {"dtype": "float32", "shape": [1], "names": None}
    info = {
        "codebase_version": "v2.1",
        "robot_type": "synthetic",
        "fps": FPS,
        "total_episodes": num_episodes,
        "total_frames": num_episodes * num_steps,
        "total_tasks": 1,
        "total_chunks": 1,
        "total_videos": num_episodes * len(names),
        "chunks_size": 1000,
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        "features": features,
    }
    (root / "meta/info.json").write_text(json.dumps(info))
    episodes = [{"episode_index": e, "tasks": ["move"], "length": num_steps} for e in range(num_episodes)]
    (root / "meta/episodes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in episodes))
    (root / "meta/tasks.jsonl").write_text(json.dumps({"task_index": 0, "task": "move"}) + "\n")


BENCHMARK = Benchmark(name="assess_cost", doc=__doc__, options=OPTIONS, measure=measure, distributions=("av",))
main = BENCHMARK.main

if __name__ == "__main__":
    main()
