"""The text and tables of the benchmark of object storage."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.remote_contenders import PEER
from benchmarks.tables import Columns, Result, chart, conditions, count, spread
from benchmarks.tables import table as markdown_table

_HAS_ALL_THREADS = ("ours_thread", "ours_jpeg_thread", "ours_cached")
"""Contenders whose threads all belong to the process that counts waits."""


def delay(part: Result) -> str:
    """A part's delay in words."""
    return f"{1000 * part['latency_seconds']:g} ms" if part["latency_seconds"] else "no delay"


def remote_blocks(result: Result) -> Iterator[tuple[str, str]]:
    """Names and texts of the blocks."""
    settings = result["settings"]
    measured = (
        f"Shuffled windows of {settings['num_steps']} frames {settings['frameskip']} steps apart, batch "
        f"{settings['batch_size']}, {settings['num_workers']} threads or processes; {result['source']}; medians of "
        f"{settings['rounds']} interleaved rounds. {conditions(result)}"
    )
    yield "chart", chart("Windows per second from object storage, without and with a delay, logarithmic", "remote.png")
    yield "conditions", measured
    yield "summary", "\n\n".join(["\n".join(_claims(result)), measured])
    yield "table", table(result)


def table(result: Result) -> str:
    """The result as Markdown."""
    columns: Columns = {
        "delay": lambda row: row["delay"],
        "contender": lambda row: row["label"],
        "windows/s (min to max)": lambda row: spread(row["windows_per_second"]),
        "times Lance": lambda row: spread(row[f"times_{PEER}"]),
        "cpu s per 1,000": lambda row: count(row["cpu_seconds_per_1000_windows"]["median"]),
        "requests per window": lambda row: count(row["requests_per_window"]),
        "KB per window": lambda row: count(row["kilobytes_per_window"]),
        "waits per window": lambda row: count(row["waits_per_window"]) if row["name"] in _HAS_ALL_THREADS else "",
        "opened in s": lambda row: f"{row['open_seconds']:.2f}",
        "stored KB/frame": lambda row: f"{row['bytes_per_frame'] / 1000:.1f}",
        "frames": lambda row: row["compared"],
    }
    return markdown_table([{**row, "delay": delay(part)} for part in result["parts"] for row in part["rows"]], columns)


def _claims(result: Result) -> Iterator[str]:
    """How many times Lance's rate ours are, lossy compared with lossy first, and what each takes."""
    for part in result["parts"]:
        rows = {row["name"]: row for row in part["rows"]}
        times = {name: f"**{spread(row[f'times_{PEER}'])}**" for name, row in rows.items()}
        lance, jpeg = rows[PEER], rows["ours_jpeg_thread"]
        yield (
            f"- {delay(part)}: {times['ours_jpeg_thread']} times Lance with JPEG by threads, "
            f"{times['ours_jpeg_process']} by processes (both lossy: ours {jpeg['bytes_per_frame'] / 1000:.1f} KB per "
            f"frame and {jpeg['compared']}, Lance {lance['bytes_per_frame'] / 1000:.1f} KB and {lance['compared']}); "
            f"{times['ours_thread']} and {times['ours_process']} times with lossless LZF"
        )
