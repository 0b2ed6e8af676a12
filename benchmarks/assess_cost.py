"""Seconds and peak memory of ``lewm-data assess`` on twelve episodes of 750 frames of 640x480 pixels.

The video is AV1 as LeRobot writes it, one file for each episode. Actions and states differ between episodes.

    python -m benchmarks.assess_cost            writes benchmarks/results/assess_cost.json
    python -m benchmarks.assess_cost --quick    shows that it works
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.linked import encode, run, write_dataset
from benchmarks.runner import Benchmark, Option
from benchmarks.scenes import Scene

CAMERA = "observation.images.front"
HEIGHT, WIDTH = 480, 640

OPTIONS = {
    "episodes": Option("episodes", 2, 12, 12),
    "steps": Option("steps of each episode", 90, 750, 750),
    "cameras": Option("cameras", 1),
}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Lays the dataset out and assesses it."""
    scene = Scene(HEIGHT, WIDTH, 0)
    steps = range(options.steps)

    def rows(episode: int) -> Mapping[str, np.ndarray]:
        states = np.array([scene.state(episode, step) for step in range(options.steps + 1)])
        return {"action": states[1:], "observation.state": states[:-1]}

    with tempfile.TemporaryDirectory(prefix="lewm-data-assess-") as folder:
        root = write_dataset(
            Path(folder) / "data",
            num_episodes=options.episodes,
            num_steps=options.steps,
            episodes_per_file=1,
            cameras=[f"{CAMERA}_{number}" if number else CAMERA for number in range(options.cameras)],
            rows=rows,
            video=lambda path: encode(
                path, "libsvtav1", {"g": "2", "crf": "30", "preset": "12"}, (scene.frame(0, step) for step in steps)
            ),
        )
        found, seconds, costs = run("assess", root)
        return {
            "settings": {name: getattr(options, name) for name in OPTIONS},
            "height": HEIGHT,
            "width": WIDTH,
            "assess_seconds": seconds,
            **costs,
            "episodes_judged": found["episodes"]["count"],
        }


BENCHMARK = Benchmark(name="assess_cost", doc=__doc__, options=OPTIONS, measure=measure, distributions=("av",))
main = BENCHMARK.main

if __name__ == "__main__":
    main()
