"""What a scaling result says: targets, slopes, tables and a chart."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import Spread, markdown
from benchmarks.words import circumstances, count, picture

NAME = "scaling"
CHART = "scaling.png"
BLOCKS = ("largest", "chart", "frames", "episodes", "conversion", "slopes")
"""Everything that ``blocks`` may write."""

type Point = Mapping[str, Any]

RATE = "windows/s"
CURVES: tuple[tuple[str, Callable[[Point], float]], ...] = (
    ("first opening, s", lambda point: point["first_opening"]["seconds"]),
    ("later openings, s", lambda point: point["later_openings"]["seconds"]["median"]),
    ("memory of opening, MB", lambda point: _opening_mb(point)),
    (RATE, lambda point: statistics.median(point["epochs"]["windows_per_second"])),
)
"""What is followed over frames and over episodes."""


def _opening_mb(point: Point) -> float:
    """Peak memory of a process that opens a file of which the index is there, its libraries left out."""
    later = point["later_openings"]
    return float(later["peak_mb"]["median"] - later["imports_mb"]["median"])


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Fits cost ~ size^b: the slope of the straight line through the logarithms, by least squares.

    Args:
        sizes: Two or more different ones.
        costs: What each costs, above 0.

    Returns:
        b.
    """
    return statistics.linear_regression([math.log(size) for size in sizes], [math.log(cost) for cost in costs]).slope


def adds(sizes: Sequence[float], costs: Sequence[float]) -> tuple[int, float]:
    """Fits cost ~ a + c * size, by least squares.

    Args:
        sizes: Two or more different ones.
        costs: What each costs.

    Returns:
        A step within what was measured, a power of ten and a million at most, and what the cost rises by over it.
    """
    step = 10 ** min(6, int(math.log10(max(sizes))))
    return step, step * statistics.linear_regression(sizes, costs).slope


def slopes(frames: Sequence[Point], episodes: Sequence[Point], length: Sequence[Point]) -> list[dict[str, Any]]:
    """The fitted slopes of all curves.

    Args:
        frames: Points over the number of frames.
        episodes: Points over the number of episodes.
        length: Points of the conversion over the number of frames.

    Returns:
        For each curve ``what``, ``over``, ``exponent``, and how much (``adds``) a further ``step`` costs.
    """
    curves = [
        (what, over, [point[key] for point in points], [max(value(point), 1e-9) for point in points])
        for over, key, points in (("frames", "num_frames", frames), ("episodes", "num_episodes", episodes))
        for what, value in CURVES
    ]
    sizes, peaks = [point["num_frames"] for point in length], [point["peak_mb"] for point in length]
    curves.append(("peak memory of a conversion, MB", "frames", sizes, peaks))
    found = []
    for what, over, sizes, costs in curves:
        step, more = adds(sizes, costs)
        found.append({"what": what, "over": over, "exponent": exponent(sizes, costs), "step": step, "adds": more})
    return found


def judge(result: Mapping[str, Any]) -> list[tuple[str, float, float, str]]:
    """Holds the largest file against the targets.

    Args:
        result: ``first_opening``, ``later_openings`` and ``epochs``, as ``scaling.py`` writes them.

    Returns:
        What, the measured value, the target below which it must lie, and PASS or FAIL.
    """
    resident = result["epochs"]["resident_mb_after_epochs"]
    measured = (
        ("first opening, s", result["first_opening"]["seconds"], 20.0),
        ("later openings, s (median)", result["later_openings"]["seconds"]["median"], 3.0),
        ("peak memory of a process that opens it first, MB", result["first_opening"]["peak_mb"], 400.0),
        ("peak memory of a process that opens it later, MB", result["later_openings"]["peak_mb"]["median"], 400.0),
        ("first batch after opening, s", result["epochs"]["first_batch_seconds"], 1.0),
        ("growth of memory from the first to the last epoch, share", resident[-1] / resident[0] - 1, 0.02),
    )
    return [(what, value, below, "PASS" if value < below else "FAIL") for what, value, below in measured]


def blocks(result: Mapping[str, Any]) -> dict[str, str]:
    """The result as Markdown, piece by piece; what was not measured is not there.

    Args:
        result: As ``scaling.py`` writes it.

    Returns:
        Name of a block to its text.
    """
    pieces = {"largest": _largest(result)}
    if result.get("frames"):
        pieces["chart"] = picture("Opening, memory and windows per second over frames and episodes", CHART)
    for key, name in (("frames", "num_frames"), ("episodes", "num_episodes")):
        if result.get(key):
            pieces[key] = _points(result[key], name)
    if result.get("conversion"):
        peaks = [(f"{point['num_frames']:,}", f"{point['peak_mb']:,.0f}") for point in result["conversion"]]
        pieces["conversion"] = markdown(("frames converted", "peak MB"), peaks)
    if result.get("slopes"):
        rows = [
            (
                f"{row['what']}, over {row['over']}",
                f"{row['exponent']:.2f}",
                "" if row["what"] == RATE else f"{count(row['adds'])} ({row['step']:,} {row['over']})",
            )
            for row in result["slopes"]
        ]
        pieces["slopes"] = markdown(("curve", "exponent b of size^b", "what further ones add"), rows)
    return pieces


def _largest(result: Mapping[str, Any]) -> str:
    rows = [(what, f"{value:,.3g}", f"< {below:g}", outcome) for what, value, below, outcome in judge(result)]
    epochs = result["epochs"]
    resident = ", ".join(f"{value:,.0f}" for value in epochs["resident_mb_after_epochs"])
    rates = ", ".join(f"{value:,.0f}" for value in epochs["windows_per_second"])
    return "\n\n".join(
        [
            f"{result['num_frames']:,} frames in {result['num_episodes']:,} episodes, "
            f"{result['file_bytes'] / 1e9:.2f} GB and an index of {result['index_bytes'] / 1e6:,.0f} MB. "
            f"{circumstances(result)}",
            markdown(("what", "measured", "target", ""), rows),
            f"Resident MB after each epoch of {result['steps_per_epoch']:,} batches (torch and all columns included): "
            f"{resident}; windows/s in it: {rates}.",
        ]
    )


def _points(points: Sequence[Point], key: str) -> str:
    rows = [(f"{point[key]:,}", *(count(value(point)) for _, value in CURVES)) for point in points]
    return markdown((key.removeprefix("num_"), *(what for what, _ in CURVES)), rows)


def draw(result: Mapping[str, Any], folder: Path) -> None:
    """Draws the curves, each axis logarithmic; nothing where there are none."""
    if not result.get("frames"):
        return
    from benchmarks.charts import Line, Panel, draw_panels

    exponents = {(row["what"], row["over"]): f"{row['exponent']:.2f}" for row in result["slopes"]}

    def lines(value: Callable[[Point], float]) -> list[Line]:
        return [
            Line(
                label=f"over {key}",
                x=[point[name] for point in result[key]],
                y=[Spread.of([max(value(point), 1e-9)]) for point in result[key]],
            )
            for key, name in (("frames", "num_frames"), ("episodes", "num_episodes"))
        ]

    panels = [
        Panel(
            title=f"{what.split(',')[0]}: b = {exponents[what, 'frames']} and {exponents[what, 'episodes']}",
            x_axis="frames, episodes",
            y_axis=f"{what.split(', ')[-1]}, log scale",
            lines=lines(value),
        )
        for what, value in CURVES
    ]
    peaks = Line(
        label="conversion, over frames",
        x=[point["num_frames"] for point in result["conversion"]],
        y=[Spread.of([point["peak_mb"]]) for point in result["conversion"]],
    )
    panels.append(
        Panel(
            title=f"peak memory of a conversion: b = {exponents['peak memory of a conversion, MB', 'frames']}",
            x_axis="frames",
            y_axis="MB, libraries included",
            lines=[peaks],
            log_y=False,
        )
    )
    where = result["machine"]
    note = (
        f"frames of 8x8; b: fitted exponent of cost ~ size^b, over frames and over episodes; {where['cpus']} cores of "
        f"{where['processor']}"
    )
    draw_panels(folder / CHART, panels, title="How cost grows with the dataset", note=note)
