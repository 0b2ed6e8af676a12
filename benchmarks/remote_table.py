"""The tables of the benchmark of object storage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.harness import markdown
from benchmarks.remote_contenders import PEER
from benchmarks.tables import conditions


def table(result: Mapping[str, Any]) -> str:
    """The result as Markdown."""
    header = (
        "delay ms", "contender", "windows/s (min to max)", "times Lance", "CPU s per 1,000", "requests per window",
        "kB per window", "waits per window", "opened in s", "frames",
    )  # fmt: skip
    rows = []
    for part in result["parts"]:
        for row in part["rows"]:
            rate, times = row["windows_per_second"], row[f"times_{PEER}"]
            rows.append(
                (
                    f"{1000 * part['latency_seconds']:g}",
                    row["label"],
                    f"{rate['median']:,.1f} ({rate['min']:,.1f} to {rate['max']:,.1f})",
                    f"{times['median']:,.2f} ({times['min']:,.2f} to {times['max']:,.2f})",
                    f"{row['cpu_seconds_per_1000_windows']['median']:,.1f}",
                    f"{row['requests_per_window']:g}",
                    f"{row['kilobytes_per_window']:,.0f}",
                    f"{row['waits_per_window']:.1f}" if "thread" in row["name"] or "cached" in row["name"] else "",
                    f"{row['open_seconds']:.2f}",
                    row["compared"],
                )
            )
    return markdown(header, rows)


def remote_blocks(result: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The blocks of the pages."""
    settings = result["settings"]
    yield (
        "conditions",
        (
            f"Shuffled windows of {settings['num_steps']} frames {settings['frameskip']} steps apart, batch "
            f"{settings['batch_size']}, {settings['num_workers']} threads or processes; {result['source']}; medians of "
            f"{settings['rounds']} interleaved rounds. {conditions(result)}"
        ),
    )
    yield "table", table(result)
