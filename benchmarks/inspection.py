"""Seconds and peak memory of ``lewm-data inspect`` on a dataset of 100,000 episodes.

The dataset holds everything that inspection reads: metadata, every Parquet row, and the headers of MP4 files.

    python -m benchmarks.inspection            writes benchmarks/results/inspection.json
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

WIDTH = 7
EPISODES_PER_FILE = 1000

OPTIONS = {
    "episodes": Option("episodes, a multiple of 1,000", 1000, 100_000, 100_000),
    "steps": Option("steps of each episode", 5, 50, 50),
}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Writes the dataset and inspects it."""
    count = EPISODES_PER_FILE * options.steps
    picture = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)

    def rows(file: int) -> Mapping[str, np.ndarray]:
        random = np.random.default_rng(file)
        return {key: random.standard_normal((count, WIDTH), np.float32) for key in ("action", "observation.state")}

    with tempfile.TemporaryDirectory(prefix="lewm-data-inspection-") as folder:
        root = write_dataset(
            Path(folder) / "data",
            num_episodes=options.episodes,
            num_steps=options.steps,
            episodes_per_file=EPISODES_PER_FILE,
            cameras=["observation.images.top"],
            rows=rows,
            video=lambda path: encode(path, "libx264", {"preset": "ultrafast"}, [picture] * count),
        )
        sizes = {
            f"{name}_bytes": sum(path.stat().st_size for path in (root / part).rglob("*") if path.is_file())
            for name, part in (("metadata", "meta"), ("parquet", "data"))
        }
        found, seconds, costs = run("inspect", root)
        return {
            "episodes": options.episodes,
            "steps": options.episodes * options.steps,
            **sizes,
            "inspection_seconds": seconds,
            **costs,
            "findings": len(found["findings"]),
        }


BENCHMARK = Benchmark(name="inspection", doc=__doc__, options=OPTIONS, measure=measure)
main = BENCHMARK.main

if __name__ == "__main__":
    main()
