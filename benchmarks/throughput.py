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
from typing import Any

if not __package__:  # run as a script, whose folder would hide other packages' datasets and codecs
    sys.path[0] = str(Path(__file__).parents[1])

import numpy as np

from benchmarks import throughput_report as report
from benchmarks.comparison import compare, reference_windows
from benchmarks.contenders.base import Settings
from benchmarks.contenders.registry import CONTENDERS
from benchmarks.contenders.stage import Cold, First, Stage
from benchmarks.datasets import SYNTHETIC, apart, log, recorded
from benchmarks.harness import Round, interleave, ratios
from benchmarks.prepared import Prepared, prepare
from benchmarks.results import Run, Sizes, make_parser, parse
from benchmarks.synthetic import Recording
from benchmarks.words import show
from lewm_data.resources import num_cpus
from lewm_data.schema import PIXELS

SWEPT = ("limit_mmap", "ram_thread", "lzf_thread", "swm_hdf5", "lerobot_torchcodec")
"""Who is also timed with other numbers of workers."""

CHILLED = ("none_thread", "lzf_thread", "blosc2_thread", "swm_hdf5", "swm_lance", "lerobot_torchcodec")
"""Who is also timed with a cold page cache: those that read a file."""

ALMOST_ALL = tuple(name for name in CONTENDERS if name != "swm_on_lzf_plain")

SIZES: Sizes = {
    "quick": {
        "frames": 120, "image_size": 64, "batch_size": 16, "rounds": 1, "seconds": 0.1, "warmup_seconds": 0.0,
        "cold_rounds": 1, "recording": Recording(num_episodes=2, num_steps=60, height=96, width=128, codec="h264"),
        "contenders": ALMOST_ALL,
    },
    "bench": {
        "frames": 10_000, "image_size": 224, "batch_size": 256, "rounds": 3, "seconds": 1.0, "warmup_seconds": 0.3,
        "cold_rounds": 2, "recording": Recording(), "contenders": ALMOST_ALL,
    },
    "full": {
        "frames": 10_000, "image_size": 224, "batch_size": 256, "rounds": 7, "seconds": 2.0, "warmup_seconds": 1.0,
        "cold_rounds": 5, "recording": Recording(), "contenders": tuple(CONTENDERS),
    },
}  # fmt: skip

type Case = tuple[str, int]
"""A contender and its number of workers."""


def run(
    data: Prepared,
    settings: Settings,
    names: Sequence[str],
    *,
    workers: Sequence[int],
    num_rounds: int,
    num_cold_rounds: int,
    num_checked: int,
    seconds: float,
    warmup_seconds: float,
) -> dict[str, Any]:
    """Compares, times and judges.

    Args:
        data: The files.
        settings: What to read.
        names: Contenders.
        workers: Numbers of threads or processes that load; the last is everybody's, the others those of ``SWEPT``.
        num_rounds: Rounds of each.
        num_cold_rounds: Rounds of each with a cold page cache.
        num_checked: Windows to compare; of the MP4 readers a quarter.
        seconds: Counted seconds of a round, at least.
        warmup_seconds: Seconds before them, at least.

    Returns:
        Rows, the rows of the sweep over workers and of the cold page cache, targets, and who was left out.
    """
    num_workers = workers[-1]
    stage = Stage(names, data, settings)
    try:
        compared, left_out = _compare_all(stage, data, settings, names, num_checked, num_workers)
        present = [name for name in names if name in compared]
        cases = [(name, count) for count in workers for name in present if count == num_workers or name in SWEPT]
        rounds: dict[Case, list[Round]] = {case: [] for case in cases}
        turns = {f"{name}, {count} workers": (name, count) for name, count in cases}
        for number, order in enumerate(interleave(list(turns), num_rounds)):
            for words in order:
                name, count = turns[words]
                timing = {"seconds": seconds, "warmup_seconds": warmup_seconds}
                done: Round = stage.ask(name, "warm", num_workers=count, **timing)
                rounds[name, count].append(done)
                log(f"round {number + 1} of {num_rounds}, {words}: {done.windows_per_second:,.0f} windows/s")
        chilled = [name for name in CHILLED if name in present]
        cold, cold_refused = _time_cold(stage, chilled, num_cold_rounds, num_workers)
    finally:
        stage.close()
    rates = {case: [done.windows_per_second for done in rounds[case]] for case in cases}
    rows = []
    for name in present:
        row = compared[name] | report.summarize(name, rounds[name, num_workers], **_of_frame(compared[name], settings))
        if "limit_mmap" in present:
            row["of_limit"] = dataclasses.asdict(ratios(rates[name, num_workers], rates["limit_mmap", num_workers]))
        rows.append(row)
    return {
        "rows": rows,
        "workers": [
            {"num_workers": count, **report.summarize(name, rounds[name, count], **_of_frame(compared[name], settings))}
            for name, count in cases
            if name in SWEPT
        ],
        "cold": [
            {
                **report.summarize(
                    name, [done.round for done in cold[name]], **_of_frame(compared[name], settings)
                ),
                "cached_share_before": max(done.cached_share for done in cold[name]),
            }
            for name in chilled
            if cold[name]
        ],
        "cold_refused": cold_refused,
        "targets": report.judge({name: rates[name, num_workers] for name in present}),
        "left_out": left_out,
    }  # fmt: skip


def _compare_all(
    stage: Stage, data: Prepared, settings: Settings, names: Sequence[str], num_checked: int, num_workers: int
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Has everybody show the first windows; returns what was found, and who could not.

    Raises:
        SystemExit: Somebody returns other windows.
    """
    reference = reference_windows(data.ours("none"), num_checked, settings)
    compared: dict[str, dict[str, Any]] = {}
    left_out: dict[str, str] = {}
    for name in names:
        entry = CONTENDERS[name]
        try:
            num_windows = num_checked // 4 if entry.group == "mp4" else num_checked
            first: First = stage.ask(name, "first", num_windows=num_windows, num_workers=num_workers)
        except RuntimeError as error:
            if entry.group in ("limit", "ours"):
                raise
            left_out[name] = str(error).strip().splitlines()[-1]
            log(f"{name}: left out: {error}")
            continue
        try:
            found = compare(reference, first.arrays, least_psnr_db=entry.least_psnr_db)
        except ValueError as error:
            raise SystemExit(f"{name} does not return the same windows: {error}") from error
        log(f"{name}: {found.windows} windows compared: {found}")
        compared[name] = {
            "bytes_per_frame": first.bytes_per_frame,
            "setup_seconds": first.setup_seconds,
            "compared": {**dataclasses.asdict(found), "words": str(found)},
            "frame_bytes": int(np.prod(first.arrays[PIXELS].shape[2:])),
        }
    return compared, left_out


def _time_cold(
    stage: Stage, names: Sequence[str], num_rounds: int, num_workers: int
) -> tuple[dict[str, list[Cold]], str | None]:
    """Times with a cold page cache; returns the rounds, or why this system has none."""
    done: dict[str, list[Cold]] = {name: [] for name in names}
    for number, order in enumerate(interleave(names, num_rounds)):
        for name in order:
            try:
                done[name].append(stage.ask(name, "cold", num_workers=num_workers))
            except RuntimeError as error:
                if "posix_fadvise" not in str(error) and "mincore" not in str(error):
                    raise
                return {name: [] for name in names}, str(error).strip().splitlines()[-1]
            rate, share = done[name][-1].round.windows_per_second, done[name][-1].cached_share
            log(f"cold round {number + 1} of {num_rounds}, {name}: {rate:,.0f} windows/s ({share:.0%} was cached)")
    return done, None


def _of_frame(compared: dict[str, Any], settings: Settings) -> dict[str, int]:
    return {"num_steps": settings.num_steps, "frame_bytes": compared["frame_bytes"]}


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--source", default=SYNTHETIC, help="LeRobot v3.0 dataset whose data and videos are in one "
                        "file each (recorded for the purpose)")  # fmt: skip
    parser.add_argument("--camera", default="front", help="the one camera to use")
    parser.add_argument("--frames", type=int, help="least frames; the recording is laid out so often (10000)")
    parser.add_argument("--image_size", type=int, help="side of the converted frames, in pixels (224)")
    parser.add_argument("--batch_size", type=int, help="windows per batch (256)")
    parser.add_argument("--num_workers", type=int, nargs="+", help="threads or processes that load; the last is "
                        "everybody's, the others are for a sweep (0, 1, 2, and so on by doubling up to the "
                        "processors)")  # fmt: skip
    parser.add_argument("--num_steps", type=int, default=4, help="frames that a window keeps")
    parser.add_argument("--frameskip", type=int, default=5, help="steps from one kept frame to the next")
    parser.add_argument("--rounds", type=int, help="rounds of each (3; full 7)")
    parser.add_argument("--cold_rounds", type=int, help="rounds of each with a cold page cache (2; full 5)")
    parser.add_argument("--seconds", type=float, help="counted seconds of a round, at least (1; full 2)")
    parser.add_argument("--warmup_seconds", type=float, help="seconds before them, at least (0.3; full 1)")
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
    measured = run(
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
