"""The campaign's long form: ``python -m tests.faults`` breaks things for an hour, and counts.

Writes ``docs/reliability.json`` and, from it, the table in ``docs/reliability.md``.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import platform
import shutil
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from lewm_data import __version__  # noqa: E402
from lewm_data.progress_bar import progress_bar  # noqa: E402
from tests.faults.campaign import EPISODE_LENGTHS  # noqa: E402
from tests.faults.long import FAULTS, Ground, flip_bits, spoil_bytes, try_fault  # noqa: E402
from tests.recording import record_v3  # noqa: E402

DOCS = Path(__file__).parents[2] / "docs"
BEGIN, END = "<!-- made by `make faults` -->", "<!-- end -->"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=float, default=1.0, help="of the trials of the long form")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=3, help="processes that try faults; most of a trial is waiting")
    parser.add_argument("--output", type=Path, default=DOCS / "reliability.json")
    options = parser.parse_args()
    logging.disable()
    console = Console(stderr=True)
    started = time.time()
    folder = Path(tempfile.mkdtemp(prefix="lewm-data-faults-"))
    try:
        source = record_v3(
            folder / "source", cameras=("front", "top"), episode_lengths=EPISODE_LENGTHS, episodes_per_video_file=2
        )
        results = []
        with (
            progress_bar(console) as progress,
            ProcessPoolExecutor(options.workers, mp_context=multiprocessing.get_context("spawn")) as processes,
        ):
            task = progress.add_task("faults", total=len(FAULTS) + 3, note="")
            ground = Ground(source, folder, options.share, options.seed)
            futures = [processes.submit(try_fault, ground, number) for number in range(len(FAULTS))]
            futures.append(processes.submit(flip_bits, ground))
            futures += [processes.submit(spoil_bytes, ground, kind) for kind in ("source", "file")]
            for future in futures:
                future.add_done_callback(lambda _: progress.advance(task))
            for future in futures:
                results += future.result()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    report = {
        "lewm_data": __version__,
        "python": platform.python_version(),
        "system": platform.system(),
        "seed": options.seed,
        "minutes": round((time.time() - started) / 60, 1),
        "faults": [
            {
                "fault": result.fault,
                "tried": result.tried,
                "too_late": result.too_late,
                "ended": dict(result.ended.most_common()),
                "lost": result.lost,
                "skipped": result.skipped,
            }
            for result in results
        ],
    }
    options.output.write_text(json.dumps(report, indent=2) + "\n")
    if options.output == DOCS / "reliability.json":
        write_table(report)
    _show(console, report)
    sys.exit(1 if any(result.lost for result in results) else 0)


def table(report: dict[str, Any]) -> str:
    """The table of ``docs/reliability.md``."""
    lines = ["| fault | tried | how it ended | lost |", "|---|---|---|---|"]
    for row in report["faults"]:
        ended = ", ".join(f"{how}: {count}" for how, count in row["ended"].items())
        if row["skipped"]:
            ended = f"not tried: {row['skipped']}"
        lines.append(f"| {row['fault']} | {row['tried']} | {ended} | {len(row['lost']) or 'nothing'} |")
    return "\n".join(lines)


def write_table(report: dict[str, Any]) -> None:
    """Puts the table into the document, between its two marks."""
    path = DOCS / "reliability.md"
    before, rest = path.read_text().split(BEGIN)
    _, after = rest.split(END)
    path.write_text(f"{before}{BEGIN}\n{table(report)}\n{END}{after}")


def _show(console: Console, report: dict[str, Any]) -> None:
    shown = Table("fault", "tried", "how it ended", "lost")
    for row in report["faults"]:
        ended = row["skipped"] or ", ".join(f"{how}: {count}" for how, count in row["ended"].items())
        shown.add_row(row["fault"], str(row["tried"]), ended, str(len(row["lost"])))
    console.print(shown)
    for row in report["faults"]:
        for lost in row["lost"]:
            console.print(f"{row['fault']}: {lost}", markup=False)


if __name__ == "__main__":
    main()
