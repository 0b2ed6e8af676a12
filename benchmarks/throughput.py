"""How many random windows per second reach a trainer: ours, the peers and the memory's own limit in one run.

Each contender lives in a process of its own, opens the same frames in its own format, and draws the same windows in the
same shuffled order. First, their windows are compared with those of a plain h5py loop. Then they are timed in
interleaved rounds with a warm page cache; some also with fewer workers, some also with a cold page cache.

    python -m benchmarks.throughput            the first run records and converts the files (9 GB)
    python -m benchmarks.throughput --full     more and longer rounds
    python -m benchmarks.throughput --quick    small and short: shows that it works; its numbers mean nothing
    python -m benchmarks.throughput --source DATASET --camera NAME     your frames (LeRobot v3.0, in one file)
    python -m benchmarks.throughput --against CHECKOUT --contenders ram_thread lzf_thread     is another version slower?
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.comparison import compare, reference_windows
from benchmarks.contenders import CONTENDERS
from benchmarks.contenders.base import Settings
from benchmarks.datasets import SYNTHETIC, apart, source_folder
from benchmarks.harness import Round, Spread, interleaved, log, ratios
from benchmarks.prepared import prepare
from benchmarks.runner import Benchmark, Option
from benchmarks.stage import Cold, Stage, first_batch, time_cold, time_warm
from benchmarks.synthetic import STANDARD, TINY, Recording
from lewm_data.format.schema import PIXELS
from lewm_data.resources import num_cpus

SWEPT = ("limit_mmap", "ram_thread", "lzf_thread", "swm_hdf5", "lerobot_torchcodec")
"""Also timed with other numbers of workers."""
CHILLED = ("none_thread", "lzf_thread", "swm_hdf5", "swm_lance", "lerobot_torchcodec")
"""Also timed with a cold page cache: these read a file."""
_ONLY_FULL = ("swm_on_lzf_plain", "none_process", "lz4_process", "zstd_process", "blosc2_process", "jpeg_process")
STANDARD_CONTENDERS = tuple(name for name in CONTENDERS if name not in _ONLY_FULL)

BEST_PEER = "the best of stable-worldmodel"
TARGETS: tuple[tuple[str, str, float], ...] = (
    ("ram_thread", "limit_mmap", 0.70),
    ("ram_thread", "limit_ram", 0.70),
    ("none_thread", "limit_mmap", 0.70),
    ("ram_thread", BEST_PEER, 20),
    ("none_thread", BEST_PEER, 20),
    ("lzf_thread", BEST_PEER, 3),
    ("lzf_thread", "swm_on_lzf", 12),
    ("jpeg_thread", "swm_lance", 3),
    ("ram_process", BEST_PEER, 8),
    ("ram_thread", "lerobot_torchcodec", 100),
    ("none_thread", "lerobot_torchcodec", 100),
)
"""A contender, the one it is compared with, and the least ratio of their rates."""


def default_workers(cpus: int) -> list[int]:
    """0, 1, 2 and on by doubling up to the number of processors; at least up to 2."""
    counts = [0, 1]
    while counts[-1] * 2 < cpus:
        counts.append(counts[-1] * 2)
    return [*counts, max(2, cpus)]


OPTIONS = {
    "source": Option("LeRobot v3.0 dataset with its data and videos in one file each", SYNTHETIC),
    "camera": Option("the camera", "front"),
    "frames": Option("least number of frames; the recording is repeated", 120, 10_000, 20_000),
    "image_size": Option("side of the converted frames, in pixels", 64, 224, 224),
    "batch_size": Option("windows per batch", 16, 256, 256),
    "num_workers": Option(
        "threads or processes that load; all contenders use the last number, some also the others",
        tuple(default_workers(num_cpus())),
    ),
    "num_steps": Option("frames that a window keeps", 4),
    "frameskip": Option("steps from one kept frame to the next", 5),
    "rounds": Option("rounds of each contender", 1, 3, 7),
    "cold_rounds": Option("rounds of each contender with a cold page cache", 1, 1, 5),
    "seconds": Option("least counted seconds of a round", 0.1, 1.0, 2.0),
    "warmup_seconds": Option("least seconds before them", 0.0, 1.0, 1.0),
    "contenders": Option(
        f"contenders, of {', '.join(CONTENDERS)}; default", STANDARD_CONTENDERS, STANDARD_CONTENDERS, tuple(CONTENDERS),
        choices=list(CONTENDERS),
    ),
    "recording": Option("", TINY, STANDARD, Recording()),
}  # fmt: skip


def summarize(name: str, rounds: Sequence[Round], *, num_steps: int, frame_bytes: int) -> dict[str, Any]:
    """A contender's rounds as a row of the result."""
    rates = Spread.of([done.windows_per_second for done in rounds])
    return {
        "name": name,
        "group": CONTENDERS[name].group,
        "label": CONTENDERS[name].label,
        "windows_per_second": dataclasses.asdict(rates),
        "frames_per_second": rates.median * num_steps,
        "gb_per_second": rates.median * num_steps * frame_bytes / 1e9,
        "cpu_seconds_per_1000_windows": dataclasses.asdict(Spread.of([done.cpu_seconds_per_1000 for done in rounds])),
        "first_batch_seconds": dataclasses.asdict(Spread.of([done.first_batch_seconds for done in rounds])),
        "memory_bytes": max(done.memory_bytes for done in rounds),
        "frame_bytes": frame_bytes,
        "rounds": [dataclasses.asdict(done) for done in rounds],
    }


def judge(rates: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    """Compares rates, contender to windows per second round by round, with ``TARGETS``."""
    peers = [name for name in ("swm_hdf5", "swm_lance", "swm_on_lzf") if name in rates]
    best = max(peers, key=lambda name: Spread.of(rates[name]).median, default=BEST_PEER)
    results = []
    for name, other, least in TARGETS:
        rival = best if other == BEST_PEER else other
        result = {"who": name, "against": rival, "target": least, "is_best_peer": other == BEST_PEER,
                  "ratio": None, "outcome": "not measured"}  # fmt: skip
        if name in rates and rival in rates:
            ratio = ratios(rates[name], rates[rival])
            result |= {"ratio": dataclasses.asdict(ratio), "outcome": "PASS" if ratio.median >= least else "FAIL"}
        results.append(result)
    return results


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Prepares the files, compares all contenders with the reference, and times them."""
    settings = Settings(
        batch_size=options.batch_size,
        num_steps=options.num_steps,
        frameskip=options.frameskip,
    )
    source, num_workers = source_folder(options), options.num_workers[-1]
    sizes = {"num_frames": options.frames, "image_size": options.image_size}
    data = apart(prepare, source, options.data, camera=options.camera, **sizes, peers=options.contenders)
    stage = Stage(options.contenders, data, settings)
    try:
        reference = reference_windows(data.ours("none"), min(32, options.batch_size), settings)
        compared, left_out = _compare_all(stage, reference, options.contenders, num_workers)

        def warm(case: tuple[str, int]) -> Round:
            timing = {name: getattr(options, name) for name in ("batch_size", "seconds", "warmup_seconds")}
            return stage.ask(case[0], time_warm, num_workers=case[1], **timing)

        def show(done: Round) -> str:
            return f"{done.windows_per_second:,.0f} windows/s"

        cases = [(name, num_workers) for name in compared]
        swept = [(name, count) for count in options.num_workers[:-1] for name in compared if name in SWEPT]
        rounds = interleaved(cases, options.rounds, warm, show)
        rounds |= interleaved(swept, max(1, options.rounds - 1), warm, show)
        cold, cold_refused = _time_cold(stage, [name for name in CHILLED if name in compared], options)
    finally:
        stage.close()

    def row(name: str, done: Sequence[Round]) -> dict[str, Any]:
        return summarize(name, done, num_steps=settings.num_steps, frame_bytes=compared[name]["frame_bytes"])

    rates = {name: [done.windows_per_second for done in rounds[name, num_workers]] for name in compared}
    rows = [compared[name] | row(name, rounds[name, num_workers]) for name in compared]
    for each in rows:
        if "limit_mmap" in rates:
            each["of_limit"] = dataclasses.asdict(ratios(rates[each["name"]], rates["limit_mmap"]))
    return {
        "source": f"{'a synthetic recording' if options.source == SYNTHETIC else source.name}, camera "
        f"{options.camera}, {data.num_frames:,} frames at {data.image_size}x{data.image_size}",
        "settings": {
            **dataclasses.asdict(settings),
            **{name: getattr(options, name) for name in ("seconds", "warmup_seconds", "rounds", "cold_rounds")},
            "num_workers": num_workers,
        },
        "rows": rows,
        "workers": [
            {"num_workers": count, **row(name, rounds[name, count])}
            for name, count in sorted(rounds, key=lambda case: case[1])
            if name in SWEPT
        ],
        "cold": [
            {**row(name, [one.round for one in done]), "cached_share_before": max(one.cached_share for one in done)}
            for name, done in cold.items()
            if done
        ],
        "cold_refused": cold_refused,
        "targets": judge(rates),
        "left_out": left_out,
    }


def _compare_all(
    stage: Stage, reference: Mapping[str, Any], names: Sequence[str], num_workers: int
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Compares each contender's first windows with the reference; returns what was found, and which peers failed.

    Raises:
        SystemExit: A contender returns other windows.
    """
    compared: dict[str, dict[str, Any]] = {}
    left_out: dict[str, str] = {}
    for name in names:
        entry, num_windows = CONTENDERS[name], len(reference[PIXELS])
        try:
            num_windows = num_windows // 4 if entry.group == "mp4" else num_windows
            first = stage.ask(name, first_batch, batch_size=num_windows, num_workers=num_workers)
        except Exception as error:
            if entry.group in ("limit", "ours"):
                raise
            left_out[name] = f"{type(error).__name__}: {str(error).strip().splitlines()[-1]}"
            log(f"{name}: left out: {error}")
            continue
        try:
            found = compare(dict(reference), first.arrays, least_psnr_db=entry.least_psnr_db)
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
    stage: Stage, names: Sequence[str], options: argparse.Namespace
) -> tuple[dict[str, list[Cold]], str | None]:
    """Times contenders with a cold page cache; also returns why this system cannot, if so."""

    def cold(name: str) -> Cold:
        return stage.ask(name, time_cold, batch_size=options.batch_size, num_workers=options.num_workers[-1])

    def show(done: Cold) -> str:
        return f"cold, {done.round.windows_per_second:,.0f} windows/s ({done.cached_share:.0%} was cached)"

    try:
        return interleaved(names, options.cold_rounds, cold, show), None
    except OSError as error:
        if "posix_fadvise" not in str(error) and "mincore" not in str(error):
            raise
        return {}, str(error).strip().splitlines()[-1]


BENCHMARK = Benchmark(
    name="throughput", doc=__doc__, options=OPTIONS, measure=measure,
    distributions=("torch", "h5py", "imagecodecs", "blosc2", "stable-worldmodel", "lancedb", "pylance", "lerobot",
                   "torchcodec", "av"),
)  # fmt: skip
main = BENCHMARK.main

if __name__ == "__main__":
    main()
