"""How many random windows per second reach a trainer: ours, the peers and the memory's own limit in one run.

Every contender lives in a process of its own, opens the same frames in its own format, and draws the same windows in
the same shuffled order. First each one's windows are compared with those that a plain h5py loop reads. Then they are
timed in interleaved rounds, each with its own warm-up, the page cache warm; some also with fewer workers, and some from
a page cache that was emptied. Ratios are taken round by round.

    python benchmarks/throughput.py            the files are recorded and converted at the first run (about 9 GB)
    python benchmarks/throughput.py --full     more rounds, longer ones
    python benchmarks/throughput.py --quick    small and short: to see that it works, not to believe its numbers
    python benchmarks/throughput.py --source DATASET --camera NAME     frames of your own (LeRobot v3.0, in one file)
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # run as a script, whose folder would hide other packages' datasets and codecs
    sys.path[0] = str(Path(__file__).parents[1])


from benchmarks import throughput_report as report
from benchmarks.contenders.base import Settings
from benchmarks.contenders.contest import contest
from benchmarks.contenders.registry import CONTENDERS
from benchmarks.datasets import SYNTHETIC, apart, recorded
from benchmarks.prepared import prepare
from benchmarks.results import Run, Sizes, make_parser, parse
from benchmarks.synthetic import STANDARD, Recording
from benchmarks.words import show
from lewm_data.resources import num_cpus

_LEFT_TO_FULL = ("swm_on_lzf_plain", "none_process", "lz4_process", "zstd_process", "blosc2_process")
ALMOST_ALL = tuple(name for name in CONTENDERS if name not in _LEFT_TO_FULL)

SIZES: Sizes = {
    "quick": {
        "frames": 120, "image_size": 64, "batch_size": 16, "rounds": 1, "seconds": 0.1, "warmup_seconds": 0.0,
        "cold_rounds": 1, "recording": Recording(num_episodes=2, num_steps=60, height=96, width=128, codec="h264"),
        "contenders": ALMOST_ALL,
    },
    "bench": {
        "frames": 10_000, "image_size": 224, "batch_size": 256, "rounds": 3, "seconds": 1.0, "warmup_seconds": 1.0,
        "cold_rounds": 1, "recording": STANDARD, "contenders": ALMOST_ALL,
    },
    "full": {
        "frames": 20_000, "image_size": 224, "batch_size": 256, "rounds": 7, "seconds": 2.0, "warmup_seconds": 1.0,
        "cold_rounds": 5, "recording": Recording(), "contenders": tuple(CONTENDERS),
    },
}  # fmt: skip


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--source", default=SYNTHETIC, help="LeRobot v3.0 dataset whose data and videos are in one "
                        "file each (recorded for the purpose)")  # fmt: skip
    parser.add_argument("--camera", default="front", help="the one camera to use")
    parser.add_argument("--frames", type=int, help="least frames; the recording is laid out so often (10000; full "
                        "20000)")  # fmt: skip
    parser.add_argument("--image_size", type=int, help="side of the converted frames, in pixels (224)")
    parser.add_argument("--batch_size", type=int, help="windows per batch (256)")
    parser.add_argument("--num_workers", type=int, nargs="+", help="threads or processes that load; the last is "
                        "everybody's, the others are for a sweep (0, 1, 2, and so on by doubling up to the "
                        "processors)")  # fmt: skip
    parser.add_argument("--num_steps", type=int, default=4, help="frames that a window keeps")
    parser.add_argument("--frameskip", type=int, default=5, help="steps from one kept frame to the next")
    parser.add_argument("--rounds", type=int, help="rounds of each (3; full 7)")
    parser.add_argument("--cold_rounds", type=int, help="rounds of each with a cold page cache (1; full 5)")
    parser.add_argument("--seconds", type=float, help="counted seconds of a round, at least (1; full 2)")
    parser.add_argument("--warmup_seconds", type=float, help="seconds before them, at least (1)")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, metavar="NAME",
                        help="only these: " + ", ".join(CONTENDERS))  # fmt: skip
    options = parse(parser, arguments, name=report.NAME, sizes=SIZES)
    options.num_workers = options.num_workers or default_workers(num_cpus())
    return options


def default_workers(cpus: int) -> list[int]:
    """0, 1, 2 and so on by doubling, and as many as there are processors at the end; at least up to 2."""
    counts = [0, 1]
    while counts[-1] * 2 < cpus:
        counts.append(counts[-1] * 2)
    return [*counts, max(2, cpus)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints the tables, and writes JSON and charts."""
    options = _options(arguments)
    settings = Settings(
        batch_size=options.batch_size,
        mp4_batch_size=min(8, options.batch_size),
        num_steps=options.num_steps,
        frameskip=options.frameskip,
    )
    this = Run(
        report.NAME, options.form, "torch", "h5py", "imagecodecs", "blosc2", "stable-worldmodel", "lancedb", "pylance",
        "lerobot", "torchcodec", "av",
    )  # fmt: skip
    synthetic = options.source == SYNTHETIC
    source = recorded(options.data, [options.recording])[0] if synthetic else Path(options.source)
    data = apart(
        prepare,
        source,
        options.data,
        camera=options.camera,
        num_frames=options.frames,
        image_size=options.image_size,
        peers=options.contenders,
    )
    measured = contest(
        data,
        settings,
        options.contenders,
        workers=options.num_workers,
        num_rounds=options.rounds,
        num_cold_rounds=options.cold_rounds,
        num_checked=min(32, options.batch_size),
        seconds=options.seconds,
        warmup_seconds=options.warmup_seconds,
    )
    timing = {"seconds": options.seconds, "warmup_seconds": options.warmup_seconds}
    result = this.finish(
        options.output,
        {
            "source": f"{'a synthetic recording' if synthetic else source.name}, camera {options.camera}, "
            f"{data.num_frames:,} frames at {data.image_size}x{data.image_size}",
            "settings": {
                **dataclasses.asdict(settings),
                **timing,
                "num_workers": options.num_workers[-1],
                "rounds": options.rounds,
                "cold_rounds": options.cold_rounds,
            },
            **measured,
        },
    )
    report.draw(result, options.output.parent)
    print(show(report.blocks(result)))


if __name__ == "__main__":
    main()
