"""What a codec result says: a table and a chart."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.harness import Spread, markdown
from benchmarks.words import circumstances, picture, spread_of

NAME = "codecs"
CHART = "codecs.png"
BLOCKS = ("chart", "conditions", "table")
"""Everything that ``blocks`` may write."""

CAMERA, DRAWN = "camera-like", "drawn"


def blocks(result: Mapping[str, Any]) -> dict[str, str]:
    """The result as Markdown, piece by piece.

    Args:
        result: As ``codecs.py`` writes it.

    Returns:
        Name of a block to its text.
    """
    side = result["side"]
    conditions = (
        f"{side}x{side}, one thread; camera-like frames from {result['source']}, drawn ones of flat colours; medians "
        f"of {result['repeats']} interleaved rounds. {circumstances(result)}"
    )
    header = (
        "frames", "codec", "KB/frame", "of raw", "encode, f/s (min to max)", "decode, f/s (min to max)", "returned",
    )  # fmt: skip
    rows = [
        (
            row["content"],
            row["codec"],
            f"{row['bytes_per_frame'] / 1000:,.1f}",
            f"{row['bytes_per_frame'] / row['raw_bytes']:.2f}",
            spread_of(row["encode_fps"]),
            spread_of(row["decode_fps"]),
            "equal" if row["psnr_db"] is None else f"{row['psnr_db']:.1f} dB",
        )
        for row in result["rows"]
    ]
    return {
        "chart": picture("Size of a frame against the speed of decoding and of encoding, for every codec", CHART),
        "conditions": conditions,
        "table": markdown(header, rows),
    }


def draw(result: Mapping[str, Any], folder: Path) -> None:
    """Draws size against the speed of decoding and of encoding."""
    from benchmarks.charts import Line, Panel, draw_panels

    panels = []
    for content in (CAMERA, DRAWN):
        rows = [row for row in result["rows"] if row["content"] == content]
        sizes = [row["bytes_per_frame"] / 1000 for row in rows]
        names = [row["codec"] for row in rows]
        for what, key in (("decoding", "decode_fps"), ("encoding", "encode_fps")):
            speeds = [Spread.of(row[key]) for row in rows]
            panels.append(
                Panel(
                    title=f"{content} frames, {what}",
                    x_axis="KB per frame" + (", log scale" if content == DRAWN else ""),
                    y_axis="frames per second, log scale",
                    lines=[Line(label=f"{what} (smaller to the left, faster above)", x=sizes, y=speeds, joined=False,
                                names=names)],
                    log_x=content == DRAWN,
                )
            )  # fmt: skip
    where = result["machine"]
    note = f"{result['side']}x{result['side']}, {result['source']}; one core of {where['processor']}"
    draw_panels(folder / CHART, panels, title="Codecs: how small, and how fast on one core", note=note)
