"""How cost grows: opening, memory and windows per second over frames and episodes, conversion memory over length.

Each number is taken in a process of its own. Files have tiny frames, so that ten million of them fit on the disk; the
largest is held against targets. Each curve gets its fitted slopes: the exponent b of cost ~ size^b (0: it does not
grow; 1: twice the size, twice the cost), and what a further step of the size costs.

    python benchmarks/scaling.py            up to 10,000,000 frames and 100,000 episodes; made at the first run (5 GB)
    python benchmarks/scaling.py --full     more sizes between, longer epochs
    python benchmarks/scaling.py --quick    thousands: to see that it works, not to believe its numbers
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if not __package__:  # run as a script, whose folder would hide other packages' datasets and codecs
    sys.path[0] = str(Path(__file__).parents[1])

from benchmarks import scaling_report as report
from benchmarks.conversions.cases import Case, convert_apart
from benchmarks.datasets import log, once, recorded, repeat_dataset
from benchmarks.harness import Spread
from benchmarks.results import Run, Sizes, make_parser, parse
from benchmarks.scaling_files import build_file, divide_anew
from benchmarks.scaling_probes import in_new_process
from benchmarks.synthetic import Recording
from benchmarks.words import show

EPISODE_STEPS = 200
"""Steps of an episode where the number of frames grows."""

SIZES: Sizes = {
    "quick": {
        "frames": (1000, 4000), "episodes": (10, 100), "episode_frames": 4000, "steps_per_epoch": 2, "epochs": 2,
        "openings": 1, "times": (1, 2), "recording": Recording(num_episodes=2, num_steps=30, height=64, width=64,
                                                               codec="h264"),
    },
    "bench": {
        "frames": (1000, 10_000, 100_000, 1_000_000, 10_000_000), "episodes": (10, 100, 1000, 10_000, 100_000),
        "episode_frames": 1_000_000, "steps_per_epoch": 150, "epochs": 3, "openings": 3, "times": (1, 8, 64),
        "recording": Recording(num_episodes=2, num_steps=60, height=96, width=128, codec="h264"),
    },
    "full": {
        "frames": (1000, 3000, 10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000),
        "episodes": (10, 100, 1000, 10_000, 100_000), "episode_frames": 1_000_000, "steps_per_epoch": 3000,
        "epochs": 3, "openings": 5, "times": (1, 4, 16, 64, 256, 1024),
        "recording": Recording(num_episodes=2, num_steps=60, height=96, width=128, codec="h264"),
    },
}  # fmt: skip


def measure_file(path: Path, options: argparse.Namespace, *, num_steps: int, frameskip: int) -> dict[str, Any]:
    """Everything of one file: its first opening, later ones, and some epochs.

    Args:
        path: The file.
        options: ``openings``, ``epochs``, ``steps_per_epoch`` and ``num_workers``.
        num_steps: Frames of a window.
        frameskip: Steps from one to the next.

    Returns:
        ``file_bytes``, ``index_bytes``, ``first_opening``, ``later_openings`` (spreads) and ``epochs``.
    """
    index = path.with_name(f"{path.name}.pixels.index.npz")
    index.unlink(missing_ok=True)
    first = in_new_process(path, "open")
    later = [in_new_process(path, "open") for _ in range(options.openings)]
    epochs = in_new_process(
        path,
        "epochs",
        num_epochs=options.epochs,
        steps_per_epoch=options.steps_per_epoch,
        num_workers=options.num_workers,
        num_steps=num_steps,
        frameskip=frameskip,
    )
    log(f"{path.name}: first opened in {first['seconds']:.3f} s, {max(epochs['windows_per_second']):,.0f} windows/s")
    return {
        "file_bytes": path.stat().st_size,
        "index_bytes": index.stat().st_size if index.exists() else 0,
        "first_opening": first,
        "later_openings": {
            name: dataclasses.asdict(Spread.of([opening[name] for opening in later])) for name in later[0]
        },
        "epochs": epochs,
    }


def over_frames(options: argparse.Namespace) -> list[dict[str, Any]]:
    """A point for each number of frames, in episodes of one length."""
    points = []
    for count in sorted(options.frames):
        num_episodes = max(1, count // EPISODE_STEPS)
        path = _file(options.data, count, num_episodes)
        found = measure_file(path, options, num_steps=4, frameskip=5)
        points.append({"num_frames": count, "num_episodes": num_episodes, **found})
    return points


def over_episodes(options: argparse.Namespace) -> list[dict[str, Any]]:
    """A point for each number of episodes, of as many frames in all; windows of four neighbouring steps fit in each."""
    count = options.episode_frames
    whole = _file(options.data, count, max(1, count // EPISODE_STEPS))
    points = []
    for num_episodes in sorted(options.episodes):
        path = once(
            _path(options.data, count, num_episodes),
            lambda out, number=num_episodes: divide_anew(whole, out, num_episodes=number),  # type: ignore[misc]
        )
        found = measure_file(path, options, num_steps=4, frameskip=1)
        points.append({"num_frames": count, "num_episodes": num_episodes, **found})
    return points


def over_length(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Peak memory of a whole conversion for each number of repetitions of a recording."""
    source = recorded(options.data, [options.recording])[0]
    points = []
    for times in sorted(options.times):
        folder = options.data / f"{source.name}-x{times}"
        dataset = once(folder, lambda out, times=times: repeat_dataset(source.resolve(), out, times))  # type: ignore[misc]
        output = options.data / "scaling-conversion.h5"
        done = convert_apart(Case(source=dataset, camera="front", settings={"image_size": 64}), output)
        output.unlink()
        point = {"num_frames": done["num_steps"], "peak_mb": done["peak_memory_bytes"] / 1e6}
        log(f"converted {point['num_frames']:,} frames in {point['peak_mb']:,.0f} MB")
        points.append(point)
    return points


def _file(data: Path, num_frames: int, num_episodes: int) -> Path:
    return once(
        _path(data, num_frames, num_episodes),
        lambda out: build_file(out, num_frames=num_frames, num_episodes=num_episodes),
    )


def _path(data: Path, num_frames: int, num_episodes: int) -> Path:
    return data / f"scaling-{num_frames}-{num_episodes}-fixed-array.h5"  # as the writer's files index their chunks


def main(arguments: Sequence[str] | None = None) -> None:
    """Builds the files where they are not there, measures, prints tables, and writes JSON and chart."""
    parser = make_parser(__doc__)
    parser.add_argument("--frames", type=int, nargs="+", help="sizes of the files, multiples of 200 (1000 to 10000000)")
    parser.add_argument("--episodes", type=int, nargs="+", help="numbers of episodes (10 to 100000)")
    parser.add_argument("--episode_frames", type=int, help="frames in all of these, a multiple of each (1000000)")
    parser.add_argument("--times", type=int, nargs="+", help="lengths of the dataset to convert, in repetitions of "
                        "120 frames (1 to 256)")  # fmt: skip
    parser.add_argument("--steps_per_epoch", type=int, help="batches of 256 in an epoch (150; full 3000)")
    parser.add_argument("--epochs", type=int, help="epochs (3)")
    parser.add_argument("--openings", type=int, help="later openings of each file (3; full 5)")
    parser.add_argument("--num_workers", type=int, default=2, help="threads that load")
    options = parse(parser, arguments, name=report.NAME, sizes=SIZES)
    this = Run(report.NAME, options.form, "h5py", "torch", "imagecodecs")
    frames, episodes, length = over_frames(options), over_episodes(options), over_length(options)
    largest = frames[-1]
    measured = {
        **largest,
        "steps_per_epoch": options.steps_per_epoch,
        "targets": report.judge(largest),
        "frames": frames,
        "episodes": episodes,
        "conversion": length,
        "slopes": report.slopes(frames, episodes, length),
    }
    result = this.finish(options.output, measured)
    report.draw(result, options.output.parent)
    print(show(report.blocks(result)))


if __name__ == "__main__":
    main()
