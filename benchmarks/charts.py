"""Charts that stay legible when a README shows them 850 pixels wide, on a light page and on a dark one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import Spread

COLORS = {"limit": "#8c8c8c", "ours": "#1b7f5c", "peer": "#c2571a", "mp4": "#7a3b8f"}
"""Told apart also by those who see no red or no green: they differ in lightness."""

_LINES = ("#1b7f5c", "#c2571a", "#7a3b8f", "#3b6fb5", "#8c8c8c", "#b59a1b")
_MARKS = ("o", "s", "^", "D", "v", "P")
_WIDTH_INCHES = 9.0
_DPI = 120

_NAME_PLACES = (
    (7, 4, "left", "bottom"), (7, -4, "left", "top"), (-7, 4, "right", "bottom"), (-7, -4, "right", "top"),
    (0, 8, "center", "bottom"), (0, -8, "center", "top"), (24, 20, "left", "bottom"), (24, -20, "left", "top"),
)  # fmt: skip
"""Where a point's name may stand, the best first: its offset in points, and which of its edges lies there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """One bar.

    Attributes:
        label: What stands beside it.
        group: A key of ``COLORS``.
        value: Its length, and the whisker's ends.
    """

    label: str
    group: str
    value: Spread


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One line, or points without one.

    Attributes:
        label: What the legend calls it.
        x: Where its points lie.
        y: How high; with the whiskers' ends where there are some.
        joined: Whether the points are joined.
        names: Words beside each point; empty for none.
    """

    label: str
    x: Sequence[float]
    y: Sequence[Spread]
    joined: bool = True
    names: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """One of the axes that stand side by side in a figure.

    Attributes:
        title: What it shows.
        x_axis: What its x-axis counts.
        y_axis: What its y-axis counts.
        lines: What is in it.
        log_x: Whether the x-axis is logarithmic.
        log_y: Whether the y-axis is.
        ticks: Places of the x-axis's ticks; None leaves that to matplotlib.
    """

    title: str
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
    groups: dict[str, str],
    note: str,
    log: bool = True,
    show: Callable[[float], str] = lambda value: f"{value:,.0f}",
) -> None:
    """Draws horizontal bars, the first on top.

    Args:
        path: The PNG to write.
        bars: From top to bottom.
        title: What is shown.
        axis: What the axis counts.
        groups: Group to its words in the legend.
        note: One small line below: circumstances.
        log: Whether the axis is logarithmic.
        show: A value in words.
    """
    with _figure(path, 1.8 + 0.33 * len(bars), note) as (pyplot, figure):
        from matplotlib.patches import Patch

        axes = figure.subplots()
        least, most = min(bar.value.min for bar in bars), max(bar.value.max for bar in bars)
        for place, bar in enumerate(reversed(bars)):
            value = bar.value
            axes.barh(place, value.median, color=COLORS[bar.group], height=0.72)
            axes.plot([value.min, value.max], [place, place], color="black", linewidth=1.2, solid_capstyle="butt")
            beside = value.max * 1.1 if log else value.max + 0.015 * most
            axes.text(beside, place, show(value.median), va="center", fontsize=11)
        axes.set_yticks(range(len(bars)), [bar.label for bar in reversed(bars)], fontsize=11)
        if log:
            _make_logarithmic(axes.set_xscale, axes.xaxis, [least, most])
            axes.set_xlim(least / 3, most * 3)
        else:
            axes.set_xlim(0, most * 1.15)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 1 or value == 0 else f"{value:g}")
        axes.set_xlabel(axis, fontsize=11)
        _quieten(axes, grid="x")
        handles = [Patch(color=COLORS[group], label=words) for group, words in groups.items()]
        figure.legend(
            handles=handles, loc="outside upper left", fontsize=10, ncols=2, frameon=False, title=title,
            title_fontsize=13, alignment="left",
        )  # fmt: skip


def draw_panels(path: Path, panels: Sequence[Panel], *, title: str, note: str) -> None:
    """Draws axes side by side, in rows of two, with one legend for all.

    Args:
        path: The PNG to write.
        panels: From left to right, from top to bottom.
        title: What is shown.
        note: One small line below: circumstances.
    """
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    with _figure(path, 1.1 + 3.0 * rows, note) as (pyplot, figure):
        grid = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
        labels: dict[str, Any] = {}
        for axes, panel in zip(grid, panels, strict=False):
            _draw_panel(axes, panel, labels)
        for axes in grid[len(panels) :]:
            axes.remove()
        named = [
            (axes, panel) for axes, panel in zip(grid, panels, strict=False) if any(line.names for line in panel.lines)
        ]
        figure.legend(
            labels.values(), labels.keys(), loc="outside upper left", fontsize=10, ncols=3 if len(labels) > 2 else 2,
            frameon=False, title=title, title_fontsize=13, alignment="left",
        )  # fmt: skip
        if named:
            figure.canvas.draw()  # what overlaps is known when everything has its place
        for axes, panel in named:
            _name_points(axes, panel)


def _name_points(axes: Any, panel: Panel) -> None:
    """Writes each point's name beside it, where it covers no point and no other name, as far as there is room."""
    from matplotlib.transforms import Bbox

    points = [
        (x, y.median, name) for line in panel.lines for x, y, name in zip(line.x, line.y, line.names, strict=False)
    ]
    centres = [axes.transData.transform((x, y)) for x, y, _ in points]
    taken = [Bbox.from_extents(x - 7, y - 7, x + 7, y + 7) for x, y in centres]

    def covered(box: Any) -> float:
        shared = [Bbox.intersection(box, other) for other in taken]
        inside = Bbox.intersection(box, axes.bbox)
        area = float(box.width * box.height)
        outside = area - (float(inside.width * inside.height) if inside is not None else 0.0)
        return outside + sum(float(both.width * both.height) for both in shared if both is not None)

    for x, y, name in points:
        tried = []
        for right, up, horizontal, vertical in _NAME_PLACES:
            text = axes.annotate(
                name, (x, y), xytext=(right, up), textcoords="offset points", fontsize=10, ha=horizontal, va=vertical,
                arrowprops={"arrowstyle": "-", "color": "#999999", "linewidth": 0.8} if right > 20 else None,
            )  # fmt: skip
            text.set_in_layout(False)
            tried.append((covered(text.get_window_extent().padded(4)), text))
        best = min(tried, key=lambda pair: pair[0])
        for pair in tried:
            if pair is not best:
                pair[1].remove()
        taken.append(best[1].get_window_extent())


def _draw_panel(axes: Any, panel: Panel, labels: dict[str, Any]) -> None:
    for line in panel.lines:
        number = list(labels).index(line.label) if line.label in labels else len(labels)
        style = {"color": _LINES[number % len(_LINES)], "marker": _MARKS[number % len(_MARKS)], "markersize": 6}
        medians = [value.median for value in line.y]
        below = [max(0.0, value.median - value.min) for value in line.y]
        above = [max(0.0, value.max - value.median) for value in line.y]
        drawn = axes.errorbar(
            line.x, medians, yerr=[below, above], linestyle="-" if line.joined else "none", linewidth=1.6,
            elinewidth=1.2, **style,
        )  # fmt: skip
        labels.setdefault(line.label, drawn)
    if any(line.names for line in panel.lines):
        axes.margins(x=0.2, y=0.15)
    if panel.log_x:
        _make_logarithmic(axes.set_xscale, axes.xaxis, [x for line in panel.lines for x in line.x])
    if panel.log_y:
        values = [value for line in panel.lines for spread in line.y for value in (spread.min, spread.max)]
        _make_logarithmic(axes.set_yscale, axes.yaxis, values)
        middle = math.sqrt(min(values) * max(values))
        if max(values) < 8 * min(values):  # a decade at least, or a tenth would look like a multiple
            axes.set_ylim(middle / math.sqrt(10), middle * math.sqrt(10))
    else:
        axes.set_ylim(0, 1.15 * max(value.max for line in panel.lines for value in line.y))
    if panel.ticks is not None:
        axes.set_xticks(panel.ticks)
        axes.minorticks_off()
    for side in (axes.xaxis, axes.yaxis):
        side.set_major_formatter(lambda value, _: short(value))
    axes.set_title(panel.title, fontsize=11, loc="left")
    axes.set_xlabel(panel.x_axis, fontsize=11)
    axes.set_ylabel(panel.y_axis, fontsize=11)
    _quieten(axes, grid="both")


def _make_logarithmic(set_scale: Callable[[str], Any], axis: Any, values: Sequence[float]) -> None:
    """Makes an axis logarithmic, with a tick at 1, 2 and 5 where there are few decades."""
    from matplotlib.ticker import LogLocator, NullFormatter

    set_scale("log")
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if max(values) < 50 * min(values) else (1,)))
    axis.set_minor_formatter(NullFormatter())


def _quieten(axes: Any, *, grid: str) -> None:
    axes.tick_params(labelsize=11)
    axes.grid(axis=grid, color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


@contextmanager
def _figure(path: Path, height: float, note: str) -> Iterator[tuple[Any, Any]]:
    """A figure on a white card, which a dark page shows as one; written when the context ends."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure = pyplot.figure(figsize=(_WIDTH_INCHES, height), dpi=_DPI, layout="constrained", facecolor="white")
    try:
        yield pyplot, figure
        figure.text(0.01, -0.005, note, ha="left", va="top", fontsize=9, color="#555555", wrap=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, bbox_inches="tight", pad_inches=0.12, facecolor="white")
    finally:
        pyplot.close(figure)
