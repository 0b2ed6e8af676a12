"""Draw charts that stay legible when a README shows them 850 pixels wide, on a light or a dark page."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.harness import Spread

COLORS = {"limit": "#8c8c8c", "ours": "#1b7f5c", "peer": "#c2571a", "mp4": "#7a3b8f"}
"""They differ in lightness, for color-blind readers."""
GROUPS = {
    "limit": "physical limit",
    "ours": "lewm_data (codec of the file, or RAM cache)",
    "peer": "stable-worldmodel (PyPI)",
    "mp4": "LeRobotDataset, MP4 seek (PyPI)",
}
_LINES = ("#1b7f5c", "#c2571a", "#7a3b8f", "#3b6fb5", "#8c8c8c", "#b59a1b")
_MARKS = ("o", "s", "^", "D", "v", "P")
_LEGEND: dict[str, Any] = {
    "loc": "outside upper left", "fontsize": 10, "frameon": False, "title_fontsize": 13, "alignment": "left",
}  # fmt: skip


class Bar(NamedTuple):
    """One bar, of a group of ``COLORS``; its whisker runs from minimum to maximum."""

    label: str
    group: str
    value: Spread


class Line(NamedTuple):
    """One line with whiskers. Lines with the same label share a color and an entry in the legend."""

    label: str
    x: Sequence[float]
    y: Sequence[Spread]


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """One of the axes of a figure; ``ticks`` are those of its x-axis."""

    title: str = ""
    x_axis: str
    y_axis: str
    lines: Sequence[Line]
    log_x: bool = True
    log_y: bool = True
    ticks: Sequence[float] | None = None


def short(value: float) -> str:
    """A number in few letters: 1,500 is ``1500``, 15,000 is ``15k``, 10,000,000 is ``10M``."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= max(size, 1e4):
            return f"{value / size:.3g}{letter}"
    return f"{value:.4g}"


def draw_bars(
    path: Path,
    bars: Sequence[Bar],
    *,
    title: str,
    axis: str,
    note: str,
    log: bool = True,
    groups: Mapping[str, str] = GROUPS,
    show: Callable[[float], str] = lambda value: f"{value:,.0f}",
) -> None:
    """Draws horizontal bars, the first at the top, with a small ``note`` below."""
    with _figure(path, 1.8 + 0.33 * len(bars), note) as figure:
        from matplotlib.patches import Patch

        axes = figure.subplots()
        least, most = min(bar.value.min for bar in bars), max(bar.value.max for bar in bars)
        for place, bar in enumerate(reversed(bars)):
            value = bar.value
            axes.barh(place, value.median, color=COLORS[bar.group], height=0.72)
            axes.plot([value.min, value.max], [place, place], color="black", linewidth=1.2, solid_capstyle="butt")
            right = value.max * 1.1 if log else value.max + 0.015 * most
            axes.text(right, place, show(value.median), va="center", fontsize=11)
        axes.set_yticks(range(len(bars)), [bar.label for bar in reversed(bars)], fontsize=11)
        if log:
            _make_logarithmic(axes.set_xscale, axes.xaxis, [least, most])
        axes.set_xlim((least / 3, most * 3) if log else (0, most * 1.15))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 1 or value == 0 else f"{value:g}")
        axes.set_xlabel(axis, fontsize=11)
        _simplify(axes, grid="x")
        present = {bar.group for bar in bars}
        handles = [Patch(color=COLORS[group], label=words) for group, words in groups.items() if group in present]
        figure.legend(handles=handles, ncols=2, title=title, **_LEGEND)


def draw_panels(path: Path, panels: Sequence[Panel], *, title: str, note: str) -> None:
    """Draws panels in rows of two, with one legend and a small ``note`` below."""
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    with _figure(path, 1.1 + 3.0 * rows, note) as figure:
        grid = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
        labels: dict[str, Any] = {}
        for axes, panel in zip(grid, panels, strict=False):
            _draw_panel(axes, panel, labels)
        for axes in grid[len(panels) :]:
            axes.remove()
        figure.legend(labels.values(), labels.keys(), ncols=3 if len(labels) > 2 else 2, title=title, **_LEGEND)


def draw_points(
    path: Path,
    points: Mapping[str, Sequence[tuple[float, float]]],
    *,
    title: str,
    x_axis: str,
    y_axis: str,
    note: str,
) -> None:
    """Draws points of several kinds, with a small ``note`` below."""
    with _figure(path, 4.6, note) as figure:
        axes = figure.subplots()
        for number, (label, some) in enumerate(points.items()):
            x, y = [point[0] for point in some], [point[1] for point in some]
            axes.scatter(x, y, s=60, color=_LINES[number], marker=_MARKS[number], label=label)
        axes.axhline(1.0, color="#8c8c8c", linewidth=1.2, linestyle="--")
        axes.set_xlabel(x_axis, fontsize=11)
        axes.set_ylabel(y_axis, fontsize=11)
        axes.set_ylim(bottom=0)
        _simplify(axes, grid="both")
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, ncols=3, title=title, **_LEGEND)


def _draw_panel(axes: Any, panel: Panel, labels: dict[str, Any]) -> None:
    for line in panel.lines:
        number = list(labels).index(line.label) if line.label in labels else len(labels)
        medians = [value.median for value in line.y]
        whiskers = [
            [max(0.0, value.median - value.min) for value in line.y],
            [max(0.0, value.max - value.median) for value in line.y],
        ]
        drawn = axes.errorbar(
            line.x, medians, yerr=whiskers, color=_LINES[number % len(_LINES)], marker=_MARKS[number % len(_MARKS)],
            markersize=7, linewidth=1.6, elinewidth=1.2,
        )  # fmt: skip
        labels.setdefault(line.label, drawn)
    if panel.log_x:
        _make_logarithmic(axes.set_xscale, axes.xaxis, [x for line in panel.lines for x in line.x])
    values = [value for line in panel.lines for spread in line.y for value in (spread.min, spread.max)]
    if panel.log_y:
        _make_logarithmic(axes.set_yscale, axes.yaxis, values)
        middle = math.sqrt(min(values) * max(values))
        if max(values) < 8 * min(values):  # show a decade at least, or a tenth would look like a multiple
            axes.set_ylim(middle / math.sqrt(10), middle * math.sqrt(10))
    else:
        axes.set_ylim(0, 1.15 * max(values))
    if panel.ticks is not None:
        axes.set_xticks(panel.ticks)
        axes.minorticks_off()
    for side in (axes.xaxis, axes.yaxis):
        side.set_major_formatter(lambda value, _: short(value))
    axes.set_title(panel.title, fontsize=11, loc="left")
    axes.set_xlabel(panel.x_axis, fontsize=11)
    axes.set_ylabel(panel.y_axis, fontsize=11)
    _simplify(axes, grid="both")


def _make_logarithmic(set_scale: Callable[[str], Any], axis: Any, values: Sequence[float]) -> None:
    """Makes an axis logarithmic, with ticks at 1, 2 and 5 if there are few decades."""
    from matplotlib.ticker import LogLocator, NullFormatter

    set_scale("log")
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if max(values) < 50 * min(values) else (1,)))
    axis.set_minor_formatter(NullFormatter())


def _simplify(axes: Any, *, grid: str) -> None:
    axes.tick_params(labelsize=11)
    axes.grid(axis=grid, color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


@contextmanager
def _figure(path: Path, height: float, note: str) -> Iterator[Any]:
    """A figure on white, which a dark page shows as a card; written when the context ends."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure = pyplot.figure(figsize=(9.0, height), dpi=120, layout="constrained", facecolor="white")
    try:
        yield figure
        figure.text(0.01, -0.005, note, ha="left", va="top", fontsize=9, color="#555555", wrap=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, bbox_inches="tight", pad_inches=0.12, facecolor="white")
    finally:
        pyplot.close(figure)
