"""All contenders in one run: compared first, then timed in interleaved rounds."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.comparison import compare, reference_windows
from benchmarks.contenders.base import Settings
from benchmarks.contenders.registry import CONTENDERS
from benchmarks.contenders.stage import Cold, First, Stage
from benchmarks.datasets import log
from benchmarks.harness import Round, interleave, ratios
from benchmarks.prepared import Prepared
from benchmarks.throughput_report import summarize
from benchmarks.throughput_targets import judge
from lewm_data.format.schema import PIXELS

SWEPT = ("limit_mmap", "ram_thread", "lzf_thread", "swm_hdf5", "lerobot_torchcodec")
"""Who is also timed with other numbers of workers."""

CHILLED = ("none_thread", "lzf_thread", "swm_hdf5", "swm_lance", "lerobot_torchcodec")
"""Who is also timed with a cold page cache: those that read a file."""

type Case = tuple[str, int]
"""A contender and its number of workers."""


def contest(
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
        num_rounds: Rounds of each; of other numbers of workers than everybody's one fewer, but one at least.
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
                if count != num_workers and number == 0 < num_rounds - 1:
                    continue  # the sweep over workers makes no ratios: one round fewer will do
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
        row = compared[name] | summarize(name, rounds[name, num_workers], **_of_frame(compared[name], settings))
        if "limit_mmap" in present:
            row["of_limit"] = dataclasses.asdict(ratios(rates[name, num_workers], rates["limit_mmap", num_workers]))
        rows.append(row)
    return {
        "rows": rows,
        "workers": [
            {"num_workers": count, **summarize(name, rounds[name, count], **_of_frame(compared[name], settings))}
            for name, count in cases
            if name in SWEPT
        ],
        "cold": [
            {
                **summarize(
                    name, [done.round for done in cold[name]], **_of_frame(compared[name], settings)
                ),
                "cached_share_before": max(done.cached_share for done in cold[name]),
            }
            for name in chilled
            if cold[name]
        ],
        "cold_refused": cold_refused,
        "targets": judge({name: rates[name, num_workers] for name in present}),
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
