"""Read results, and write their numbers as text and Markdown tables."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import Spread, markdown

RESULTS = Path(__file__).parent / "results"
PLACE = "results:"
"""Stands for the folder of results in the address of a chart, since each page sees that folder from elsewhere."""

type Result = Mapping[str, Any]
type Columns = Mapping[str, Callable[[Any], str]]
"""Header to a function from a row to its cell."""


def load(name: str, folder: Path = RESULTS) -> dict[str, Any] | None:
    """The last result of a benchmark; None if there is none."""
    path = folder / f"{name}.json"
    result: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
    return result


def count(value: float) -> str:
    """A number with three significant digits, or all before the point: 23,362; 604; 77.2; 0.86; 0.0034."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    digits = 1 if abs(value) >= 10 else 2
    return f"{value:.{digits}f}" if abs(value) >= 0.095 else f"{value:.2g}"


def spread(values: Mapping[str, float]) -> str:
    """Median, minimum and maximum: ``0.86 (0.82 to 0.90)``; of one value, that alone."""
    if values["min"] == values["max"]:
        return count(values["median"])
    return f"{count(values['median'])} ({count(values['min'])} to {count(values['max'])})"


def spread_of(values: Sequence[float]) -> str:
    """The same of the values themselves."""
    return spread(dataclasses.asdict(Spread.of(values)))


def conditions(result: Result) -> str:
    """Machine, load, date and form."""
    where = result["machine"]
    words = [f"{where['cpus']} cores of {where['processor']}"]
    if "memory_gb" in where:
        words.append(f"{where['memory_gb']:.0f} GB")
    if "load_at_start" in where and "load_at_end" in result:
        words.append(
            f"load {where['load_at_start']:g} before and {result['load_at_end']:g} after (the benchmark's own included)"
        )
    words += [where["date"]] if "date" in where else []
    return ", ".join(words) + (f"; form `{result['form']}`." if "form" in result else ".")


def table(rows: Sequence[Any], columns: Columns) -> str:
    """A Markdown table."""
    return markdown(list(columns), [[cell(row) for cell in columns.values()] for row in rows])


def chart(alt: str, file: str) -> str:
    """A chart in Markdown."""
    return f"![{alt}]({PLACE}{file})"


def decibels(value: float | None) -> str:
    """PSNR in words; None stands for equal frames."""
    return "equal" if value is None else f"{value:.1f} dB"
