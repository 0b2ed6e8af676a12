"""What a conversion result says: tables and charts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import Spread, markdown
from benchmarks.words import circumstances, count, picture, spread_of

NAME = "conversion"
CHART = "conversion.png"
SOURCES_CHART = "conversion_sources.png"
CHUNKS_CHART = "conversion_chunks.png"
BLOCKS = (
    "conditions", "chart", "sources_chart", "chunks_chart", "codecs", "peer", "sources", "micro_batches", "chunks",
)  # fmt: skip
"""Everything that ``blocks`` may write."""


def blocks(result: Mapping[str, Any]) -> dict[str, str]:
    """The result as Markdown, piece by piece; what was not measured is not there.

    Args:
        result: As ``conversion.py`` writes it.

    Returns:
        Name of a block to its text.
    """
    pieces = {"conditions": _conditions(result)}
    charts = (
        ("rows", "chart", "Frames per second of conversions, beside only decoding", CHART),
        ("sources", "sources_chart", "Speed and memory of a conversion over the rows of a frame", SOURCES_CHART),
        ("chunks", "chunks_chart", "Frames written per second over the micro-batch, by chunk size", CHUNKS_CHART),
    )
    pieces |= {name: picture(alt, file) for key, name, alt, file in charts if result.get(key)}
    makers: dict[str, tuple[str, Callable[[Any], str]]] = {
        "codecs": ("rows", _codecs),
        "peer": ("peer", _peer),
        "sources": ("sources", _sources),
        "micro_batches": ("micro_batches", _micro_batches),
        "chunks": ("chunks", _chunks),
    }
    for name, (key, make) in makers.items():
        if result.get(key):
            pieces[name] = make(result[key])
    return pieces


def _conditions(result: Mapping[str, Any]) -> str:
    size = result.get("image_size", 224)
    return (
        f"Resized to {size}x{size}; {result['source']}; medians of {result['repeats']} interleaved runs "
        f"(source codecs, micro-batches and stable-worldmodel: one fewer). "
        f"{circumstances(result)}"
    )


def _rates(row: Mapping[str, Any]) -> tuple[str, ...]:
    median = {name: Spread.of(row[name]).median for name in ("decode_fps", "convert_fps", "whole_fps")}
    return (
        count(median["decode_fps"]),
        count(median["convert_fps"]),
        spread_of(row["ratios"]),
        count(median["whole_fps"]),
        f"{row['bytes_per_frame'] / 1000:,.1f}",
        f"{row['peak_memory_bytes'] / 1e6:,.0f}",
    )


_RATES = ("decode only, frames/s", "convert, f/s", "ratio (min to max)", "with inspection", "KB/frame", "peak MB")


def _codecs(rows: Sequence[Mapping[str, Any]]) -> str:
    return markdown(("codec", *_RATES), [(row["compression"], *_rates(row)) for row in rows])


def _sources(rows: Sequence[Mapping[str, Any]]) -> str:
    named = [(f"{row['codec']} {row['width']}x{row['height']}", *_rates(row)) for row in rows]
    return markdown(("source", *_RATES), named)


def _micro_batches(rows: Sequence[Mapping[str, Any]]) -> str:
    return markdown(("micro-batch", *_RATES), [(str(row["micro_batch"]), *_rates(row)) for row in rows])


def _peer(peer: Mapping[str, Any]) -> str:
    rows = [
        (
            row["label"],
            spread_of(row["fps"]),
            spread_of(row["ratios_to_theirs"]),
            f"{row['peak_memory_bytes'] / 1e6:,.0f}",
        )
        for row in peer["rows"]
    ]
    words = (
        f"{peer['frames']:,} frames ({peer['source']}) in episodes of {peer['episode_steps']}; their frames beside "
        f"ours at native size: {_how_near(peer['psnr_db'])}."
    )
    return words + "\n\n" + markdown(("who", "frames/s (min to max)", "times theirs", "peak MB"), rows)


def _how_near(decibels: float | None) -> str:
    return "equal" if decibels is None else f"{decibels:.1f} dB"


def _chunk_name(chunk_frames: int) -> str:
    """What a table calls a chunk size; 0 stands for our writer."""
    if chunk_frames == 0:
        return "chunks of 1, written directly (ours)"
    return f"chunks of {chunk_frames}, through HDF5"


def _chunks(rows: Sequence[Mapping[str, Any]]) -> str:
    batches = list(dict.fromkeys(row["micro_batch"] for row in rows))
    chunks = list(dict.fromkeys(row["chunk_frames"] for row in rows))
    rates = {(row["chunk_frames"], row["micro_batch"]): row["fps"] for row in rows}
    table = [
        (_chunk_name(chunk), *(count(Spread.of(rates[chunk, batch]).median) for batch in batches)) for chunk in chunks
    ]
    return markdown(("frames/s written in micro-batches of", *map(str, batches)), table)


def draw(result: Mapping[str, Any], folder: Path) -> None:
    """Draws what was measured: who converts how fast, sources, and micro-batches beside chunks."""
    from benchmarks.charts import Bar, Line, Panel, draw_bars, draw_panels

    where = result["machine"]
    note = f"{result['source']}; {where['cpus']} cores of {where['processor']}"
    bars = []
    if result.get("rows"):
        decoding = Spread.of([rate for row in result["rows"] for rate in row["decode_fps"]])
        bars.append(Bar(label="only decode the same video", group="limit", value=decoding))
    bars += [
        Bar(label=f"lewm_data, {row['compression']}", group="ours", value=Spread.of(row["convert_fps"]))
        for row in result.get("rows", [])
    ]
    at_native = {
        "ours_native": ("lewm_data, none, native size", "ours"),
        "theirs": ("stable-worldmodel, native size", "peer"),
    }
    bars += [
        Bar(label=at_native[row["name"]][0], group=at_native[row["name"]][1], value=Spread.of(row["fps"]))
        for row in result.get("peer", {}).get("rows", [])
        if row["name"] in at_native
    ]
    if bars:
        groups = {"limit": "physical limit", "ours": "lewm_data", "peer": "stable-worldmodel (PyPI)"}
        draw_bars(
            folder / CHART,
            bars,
            title="Conversion: frames per second",
            axis="frames per second (line: slowest to fastest run)",
            groups={group: words for group, words in groups.items() if any(bar.group == group for bar in bars)},
            note=note,
            log=False,
        )
    if result.get("sources"):
        rows = [row for row in result["sources"] if row["codec"] == "av1"]
        heights = [row["height"] for row in rows]

        def line(label: str, key: str) -> Line:
            return Line(label=label, x=heights, y=[Spread.of(row[key]) for row in rows])

        memory = Line(label="convert", x=heights, y=[Spread.of([row["peak_memory_bytes"] / 1e6]) for row in rows])
        panels = [
            Panel(
                title="Speed", x_axis="rows of a source frame (AV1)", y_axis="frames/s, log scale", ticks=heights,
                lines=[line("convert", "convert_fps"), line("decode only", "decode_fps")],
            ),
            Panel(
                title="Memory", x_axis="rows of a source frame (AV1)", y_axis="peak MB, libraries included",
                lines=[memory], log_y=False, ticks=heights,
            ),
        ]  # fmt: skip
        machine = f"synthetic recordings; {where['cpus']} cores of {where['processor']}"
        draw_panels(folder / SOURCES_CHART, panels, title="Conversion of larger and larger videos", note=machine)
    if result.get("chunks"):
        rows = result["chunks"]
        lines = []
        for chunk in dict.fromkeys(row["chunk_frames"] for row in rows):
            points = [row for row in rows if row["chunk_frames"] == chunk]
            rates = [Spread.of(row["fps"]) for row in points]
            lines.append(Line(label=_chunk_name(chunk), x=[row["micro_batch"] for row in points], y=rates))
        batches = sorted({row["micro_batch"] for row in rows})
        panel = Panel(
            title="", x_axis="frames written at once (micro-batch)", y_axis="frames per second, log scale",
            lines=lines, ticks=batches,
        )  # fmt: skip
        draw_panels(
            folder / CHUNKS_CHART, [panel], title="Writing alone: what a mismatch of micro-batch and chunk costs",
            note=f"lzf, one thread; {note}",
        )  # fmt: skip
