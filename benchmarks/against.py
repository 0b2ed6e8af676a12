"""Compare the speed of two checkouts, each with its own environment and its own benchmarks."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import interleaved, markdown, ratios
from benchmarks.tables import spread, spread_of

ROOT = Path(__file__).parents[1]
_RATES = {
    "encode_fps": "encoded frames/s", "decode_fps": "decoded frames/s", "convert_fps": "converted frames/s",
    "fps": "frames/s", "ratios": "converting over decoding",
}  # fmt: skip


def compare(name: str, other: Path, arguments: Sequence[str] | None, *, rounds: int, data: Path) -> str:
    """Runs a benchmark in both checkouts in turn, one round at a time, and compares their rates round by round.

    Args:
        name: The benchmark.
        other: A checkout with a ``.venv``.
        arguments: The command line; its flags apply to both.
        rounds: Runs of each.
        data: Folder of the prepared datasets, which both use.

    Returns:
        A Markdown table.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    for flag in ("--against", "--rounds", "--data", "--output"):
        if flag in words:
            del words[words.index(flag) : words.index(flag) + 2]

    def run(checkout: Path) -> dict[str, float]:
        python = sys.executable if checkout == ROOT else str(checkout / ".venv" / "bin" / "python")
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder) / f"{name}.json"
            flags = ["--rounds", "1", "--data", str(data.resolve()), "--output", str(output)]
            command = [python, "-m", f"benchmarks.{name}", *words, *flags]
            done = subprocess.run(command, cwd=checkout, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(f"{' '.join(command)} failed in {checkout}:\n{done.stderr.strip()[-3000:]}")
            return rates(json.loads(output.read_text()))

    measured = interleaved([ROOT, other.resolve()], rounds, run, show=lambda found: f"{len(found)} rates")
    ours, theirs = measured[ROOT], measured[other.resolve()]
    rows = []
    for case in ours[0]:
        if case in theirs[0]:
            here, there = ([found[case] for found in runs] for runs in (ours, theirs))
            ratio = ratios(here, there)
            values = {"median": ratio.median, "min": ratio.min, "max": ratio.max}
            rows.append((case, spread_of(here), spread_of(there), spread(values)))
    return markdown(("case", f"{ROOT.name} (min to max)", other.resolve().name, "ratio"), rows)


def rates(result: Mapping[str, Any]) -> dict[str, float]:
    """The rates in a result's rows by case, and two that a busy machine disturbs less.

    Those are windows per second of processor time, and the speed of converting relative to decoding alone.
    """
    found = {}
    for row in result.get("rows", result.get("speed", [])):
        case = " ".join(str(row[key]) for key in ("content", "codec", "contender", "name", "compression") if key in row)
        for key, words in _RATES.items():
            if key in row:
                found[f"{case}, {words}"] = statistics.median(row[key])
        if "windows_per_second" in row:
            found[f"{case}, windows/s"] = row["windows_per_second"]["median"]
        if (cpu := row.get("cpu_seconds_per_1000_windows", {}).get("median")) is not None:
            found[f"{case}, windows/cpu s"] = 1000 / max(cpu, 1e-9)
    return found
