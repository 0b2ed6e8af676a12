"""How cost grows: opening, memory and windows per second over frames and episodes, conversion memory over length.

Each number is taken in a new process. Frames are tiny, so that ten million of them fit on the disk. The largest file is
compared with targets. Each curve gets two fitted slopes: the exponent b of cost ~ size^b (0: constant; 1: twice the
size, twice the cost), and the cost of a further step.

    python -m benchmarks.scaling            up to 10,000,000 frames and 100,000 episodes; the first run builds 5 GB
    python -m benchmarks.scaling --full     more sizes, longer epochs
    python -m benchmarks.scaling --quick    thousands: shows that it works; its numbers mean nothing
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.blocks import CURVES
from benchmarks.conversion_cases import Case, convert_apart
from benchmarks.datasets import apart, once, recorded, repeated
from benchmarks.harness import Spread, log
from benchmarks.runner import Benchmark, Option
from benchmarks.scaling_files import build_file, divide_again, probe_epochs, probe_open
from benchmarks.synthetic import TINY

EPISODE_STEPS = 200
"""Steps of an episode where the number of frames grows."""
_POWERS = (1000, 10_000, 100_000, 1_000_000, 10_000_000)
_BETWEEN = (3000, 30_000, 300_000, 3_000_000)
_EPISODES = (10, 100, 1000, 10_000, 100_000)

OPTIONS = {
    "frames": Option("sizes of the files, multiples of 200", (1000, 4000), _POWERS, tuple(sorted(_POWERS + _BETWEEN))),
    "episodes": Option("numbers of episodes", (10, 100), _EPISODES, _EPISODES),
    "episode_frames": Option("frames in all of these, a multiple of each", 4000, 1_000_000, 1_000_000),
    "times": Option("datasets to convert, in repetitions of 120 frames", (1, 2), (1, 8, 64), (1, 4, 16, 64, 256, 1024)),
    "steps_per_epoch": Option("batches of 256 windows in an epoch", 2, 150, 3000),
    "epochs": Option("epochs", 2, 3, 3),
    "openings": Option("later openings of each file", 1, 3, 5),
    "num_workers": Option("threads that load", 2),
    "recording": Option("", dataclasses.replace(TINY, num_steps=30, height=64, width=64), TINY, TINY),
}


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Fits b of cost ~ size^b by least squares over the logarithms."""
    return statistics.linear_regression([math.log(size) for size in sizes], [math.log(cost) for cost in costs]).slope


def adds(sizes: Sequence[float], costs: Sequence[float]) -> tuple[int, float]:
    """Fits cost ~ a + c * size by least squares; returns a step, a power of ten up to a million, and its cost."""
    step = 10 ** min(6, int(math.log10(max(sizes))))
    return step, step * statistics.linear_regression(sizes, costs).slope


def slopes(
    frames: Sequence[Mapping[str, Any]], episodes: Sequence[Mapping[str, Any]], length: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Fits all curves: over the number of frames, of episodes, and of converted frames."""
    curves: list[tuple[str, str, Sequence[Mapping[str, Any]], Callable[[Any], float]]] = [
        *((what, "frames", frames, value) for what, value in CURVES),
        *((what, "episodes", episodes, value) for what, value in CURVES),
        ("peak memory of a conversion, MB", "frames", length, lambda point: point["peak_mb"]),
    ]
    found = []
    for what, over, points, value in curves:
        sizes, costs = [point[f"num_{over}"] for point in points], [max(value(point), 1e-9) for point in points]
        step, more = adds(sizes, costs)
        found.append({"what": what, "over": over, "exponent": exponent(sizes, costs), "step": step, "adds": more})
    return found


def judge(result: Mapping[str, Any]) -> list[tuple[str, float, float, str]]:
    """Compares the largest file with the targets: what, measured value, upper limit, and PASS or FAIL."""
    resident = result["epochs"]["resident_mb_after_epochs"]
    measured = (
        ("first opening, s", result["first_opening"]["seconds"], 20.0),
        ("later openings, s (median)", result["later_openings"]["seconds"]["median"], 3.0),
        ("peak memory of a process that opens it first, MB", result["first_opening"]["peak_mb"], 400.0),
        ("peak memory of a process that opens it later, MB", result["later_openings"]["peak_mb"]["median"], 400.0),
        ("first batch after opening, s", result["epochs"]["first_batch_seconds"], 1.0),
        ("growth of memory from the first to the last epoch, share", resident[-1] / resident[0] - 1, 0.02),
    )
    return [(what, value, limit, "PASS" if value < limit else "FAIL") for what, value, limit in measured]


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Builds the missing files, and measures all curves."""

    def point(path: Path, num_frames: int, num_episodes: int, frameskip: int) -> dict[str, Any]:
        index = path.with_name(f"{path.name}.pixels.index.npz")
        index.unlink(missing_ok=True)
        first = apart(probe_open, path.resolve())
        later = [apart(probe_open, path.resolve()) for _ in range(options.openings)]
        epochs = apart(
            probe_epochs, path.resolve(), num_epochs=options.epochs, steps_per_epoch=options.steps_per_epoch,
            num_workers=options.num_workers, num_steps=4, frameskip=frameskip,
        )  # fmt: skip
        log(f"{path.name}: opened in {first['seconds']:.3f} s, {max(epochs['windows_per_second']):,.0f} windows/s")
        return {
            "num_frames": num_frames,
            "num_episodes": num_episodes,
            "file_bytes": path.stat().st_size,
            "index_bytes": index.stat().st_size if index.exists() else 0,
            "first_opening": first,
            "later_openings": {
                name: dataclasses.asdict(Spread.of([opening[name] for opening in later])) for name in first
            },
            "epochs": epochs,
        }

    def path(num_frames: int, num_episodes: int) -> Path:
        return options.data / f"scaling-{num_frames}-{num_episodes}-fixed-array.h5"

    def built(num_frames: int) -> tuple[Path, int, int]:
        num_episodes = max(1, num_frames // EPISODE_STEPS)
        file = once(
            path(num_frames, num_episodes),
            lambda out: build_file(out, num_frames=num_frames, num_episodes=num_episodes),
        )
        return file, num_frames, num_episodes

    frames = [point(*built(count), frameskip=5) for count in sorted(options.frames)]
    total, episodes = options.episode_frames, []
    whole = built(total)[0]
    for count in sorted(options.episodes):
        divided = once(path(total, count), lambda out, count=count: divide_again(whole, out, num_episodes=count))  # type: ignore[misc]
        episodes.append(point(divided, total, count, frameskip=1))  # a window of 4 steps fits into the shortest episode
    length = []
    source, output = recorded(options.data, [options.recording])[0], options.data / "scaling-conversion.h5"
    for times in sorted(options.times):
        case = Case(source=repeated(source, times, options.data), camera="front", settings={"image_size": 64})
        done = convert_apart(case, output)
        output.unlink()
        log(f"converted {done['num_steps']:,} frames in {done['peak_memory_bytes'] / 1e6:,.0f} MB")
        length.append({"num_frames": done["num_steps"], "peak_mb": done["peak_memory_bytes"] / 1e6})
    return {
        **frames[-1],
        "steps_per_epoch": options.steps_per_epoch,
        "targets": judge(frames[-1]),
        "frames": frames,
        "episodes": episodes,
        "conversion": length,
        "slopes": slopes(frames, episodes, length),
    }


BENCHMARK = Benchmark(
    name="scaling", doc=__doc__, options=OPTIONS, measure=measure, distributions=("h5py", "torch", "imagecodecs")
)
main = BENCHMARK.main

if __name__ == "__main__":
    main()
