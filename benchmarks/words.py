"""Numbers in words, the same in every table."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.harness import Spread


def count(value: float) -> str:
    """A number with three digits that matter, or all before the point: 23,362; 604; 77.2; 0.86; 0.0034."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    digits = 1 if abs(value) >= 10 else 2
    return f"{value:.{digits}f}" if abs(value) >= 0.095 else f"{value:.2g}"


def spread(values: Mapping[str, float]) -> str:
    """Median, least and greatest: ``0.86 (0.82 to 0.90)``; of one value, that alone."""
    if values["min"] == values["max"]:
        return count(values["median"])
    return f"{count(values['median'])} ({count(values['min'])} to {count(values['max'])})"


def spread_of(values: Sequence[float]) -> str:
    """The same of the values themselves."""
    return spread(dataclasses.asdict(Spread.of(values)))


PLACE = "results:"
"""Stands in a picture's address for the folder of results, which each README sees from elsewhere."""


def picture(alt: str, file: str) -> str:
    """A chart in Markdown.

    Args:
        alt: What it shows, for those who cannot see it.
        file: Its name in the folder of results.
    """
    return f"![{alt}]({PLACE}{file})"


def show(blocks: Mapping[str, str]) -> str:
    """All blocks of a result as a terminal shows them: no pictures."""
    return "\n\n".join(text for text in blocks.values() if PLACE not in text)


def circumstances(result: Mapping[str, Any]) -> str:
    """Machine, load, date and how long it took."""
    where = result["machine"]
    words = f"{where['cpus']} cores of {where['processor']}"
    if "memory_gb" in where:
        words += f", {where['memory_gb']:.0f} GB"
    if "load_at_start" in where:
        words += f", load {where['load_at_start']:g} before"
    if "load_at_end" in result:
        words += f" and {result['load_at_end']:g} after (its own included)"
    if "date" in where:
        words += f", {where['date']}"
    if "form" in result:
        words += f"; form `{result['form']}`"
    return words + "."
