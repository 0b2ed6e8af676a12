"""The text and tables of the benchmarks of ``assess``."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.tables import Columns, Result, chart, conditions, table


def faults_blocks(result: Result) -> Iterator[tuple[str, str]]:
    """Faults found and false alarms, by recording."""
    recordings = list(dict.fromkeys(row["recording"] for row in result["rows"]))
    by_fault: dict[str, dict[str, Any]] = {}
    for row in result["rows"]:
        if row["fault"] is not None:
            by_fault.setdefault(row["fault"], {})[row["recording"]] = row

    def found(recording: str) -> Callable[[Any], str]:
        return lambda rows: _found(rows[recording]) if recording in rows else ""

    columns: Columns = {
        "fault": lambda rows: next(iter(rows.values()))["fault"],
        **{f"found: {recording}": found(recording) for recording in recordings},
        "false alarms": lambda rows: (
            f"{sum(row['false_alarms'] for row in rows.values())} of {sum(row['seeds'] for row in rows.values())}"
        ),
    }
    yield "table", table(list(by_fault.values()), columns)
    clean = [row for row in result["rows"] if row["fault"] is None]
    columns = {
        "unspoiled recording": lambda row: row["recording"],
        "seeds": lambda row: str(row["seeds"]),
        "findings": lambda row: ", ".join(f"`{code}` {count} x" for code, count in row["codes"].items()) or "none",
        "lag in frames (min to max)": lambda row: _spread_of_known(row["lags"]),
        "score (min to max)": lambda row: _spread_of_known(row["scores"]),
    }
    yield "clean", table(clean, columns)
    shifts = [row for row in result["rows"] if row["fault"] and row["fault"].startswith("camera late")]
    words = [_shifts(name, [row for row in shifts if row["recording"] == name]) for name in recordings]
    if shifts:
        yield "shifts", "\n".join([*(f"- {line}" for line in words), "", conditions(result)])


def _found(row: dict[str, Any]) -> str:
    undecided = f", {row['undecided']} cannot tell" if row["undecided"] else ""
    return f"{row['found']} of {row['seeds']}{undecided}"


def _shifts(recording: str, rows: list[dict[str, Any]]) -> str:
    """How many of the shifts of a recording were measured, and how many of those right."""
    tried, found = sum(row["seeds"] for row in rows), sum(row["found"] for row in rows)
    undecided = sum(row["undecided"] for row in rows)
    wrong = tried - found - undecided
    return (
        f"{recording}: of {tried:,} shifts, {found:,} were measured within 0.3 frames ({found / max(1, tried):.0%}), "
        f'{wrong:,} {"was" if wrong == 1 else "were"} off by more, and {undecided:,} got "cannot tell".'
    )


def _spread_of_known(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "cannot tell"
    missing = f"; {len(values) - len(known)} x cannot tell" if len(known) < len(values) else ""
    return f"{statistics.median(known):.2f} ({min(known):.2f} to {max(known):.2f}){missing}"


def prediction_blocks(result: Result) -> Iterator[tuple[str, str]]:
    """Scores and the errors of trained models."""
    yield "chart", chart("Score of assess against the error of a trained model", "assess_prediction.png")
    settings = result["settings"]
    words = (
        f"Over {len(result['rows'])} recordings, the rank correlation between score and success is "
        f"{result['rank_correlation']:.2f} (95 % interval {result['rank_correlation_low']:.2f} to "
        f"{result['rank_correlation_high']:.2f}). Errors of 1 or more count as equal: such a model is blind, and how "
        f"far it is above 1 is chance. With the errors as measured, it is {result['rank_correlation_uncapped']:.2f}. "
        f"{settings['episodes']} episodes each, {settings['steps']} training steps, frameskip {settings['frameskip']}. "
        f"{conditions(result)}"
    )
    yield "summary", words
    columns: Columns = {
        "contrast": lambda row: f"{row['grade']['contrast']:g}",
        "sensor noise": lambda row: f"{row['grade']['sensor_noise']:g}",
        "frames late": lambda row: f"{row['grade']['late_frames']:g}",
        "amplitude": lambda row: f"{row['grade']['amplitude']:g}",
        "motion explained by actions": lambda row: f"{row['grade']['obedience']:.0%}",
        "score": lambda row: "cannot tell" if row["score"] is None else f"{row['score']:.2f}",
        "verdict": lambda row: f"`{row['verdict']}`",
        "error of the model": lambda row: f"{row['error']:.2f}",
    }
    yield "table", table(sorted(result["rows"], key=lambda row: -(row["score"] or 0.0)), columns)


def cost_blocks(result: Result) -> Iterator[tuple[str, str]]:
    """Time and memory."""
    settings = result["settings"]
    frames = settings["episodes"] * settings["steps"] * settings["cameras"]
    yield (
        "summary",
        (
            f"{settings['episodes']} episodes of {settings['steps']} steps ({frames:,} frames of "
            f"{result['width']}x{result['height']}, AV1) took {result['assess_seconds']:g} s "
            f"({result['cpu_seconds']:g} s of processor time) and {result['peak_memory_bytes'] / 1e6:,.0f} MB. "
            f"{conditions(result)}"
        ),
    )
