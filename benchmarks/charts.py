"""Draw charts that stay legible when a README shows them 850 pixels wide, on a light or a dark page."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.blocks import CAMERA, CURVES, DRAWN, chunk_name, loaders
from benchmarks.harness import Spread
from benchmarks.tables import Result, count

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
_NOT_CHARTED = ("cached_batch", "swm_on_lzf_plain")
"""The first would push all others together; the second differs from its neighbor by a tenth."""
_LEGEND: dict[str, Any] = {
    "loc": "outside upper left", "fontsize": 10, "frameon": False, "title_fontsize": 13, "alignment": "left",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """One bar, of a group of ``COLORS``; its whisker runs from minimum to maximum."""

    label: str
    group: str
    value: Spread


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
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


def draw(name: str, result: Result, folder: Path) -> None:
    """Draws all charts of a benchmark's result into a folder."""
    where = result["machine"]
    _CHARTS.get(name, lambda *_: None)(result, folder, f"{where['cpus']} cores of {where['processor']}")


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


def _throughput(result: Result, folder: Path, machine: str) -> None:
    settings = result["settings"]
    note = f"{result['source']}; {machine}; page cache warm"
    bars = [
        Bar(label=row["label"], group=row["group"], value=Spread(**row["windows_per_second"]))
        for row in sorted(result["rows"], key=lambda row: -row["windows_per_second"]["median"])
        if row["name"] not in _NOT_CHARTED
    ]
    title = (
        f"Shuffled windows of {settings['num_steps']} frames, batch {settings['batch_size']}, "
        f"{settings['num_workers']} workers"
    )
    axis = "windows per second, log scale (line: slowest to fastest round)"
    draw_bars(folder / "throughput.png", bars, title=title, axis=axis, note=note)
    lines = []
    for label in dict.fromkeys(row["label"] for row in result["workers"]):
        points = sorted((r for r in result["workers"] if r["label"] == label), key=lambda row: row["num_workers"])
        rates = [Spread(**point["windows_per_second"]) for point in points]
        lines.append(Line(label=label, x=[point["num_workers"] for point in points], y=rates))
    if lines:
        panel = Panel(
            x_axis="workers (0: in the trainer's own thread)", y_axis="windows per second, log scale", lines=lines,
            log_x=False, ticks=sorted({row["num_workers"] for row in result["workers"]}),
        )  # fmt: skip
        title = "Windows per second by number of workers"
        draw_panels(folder / "throughput_workers.png", [panel], title=title, note=note)


def _conversion(result: Result, folder: Path, machine: str) -> None:
    note = f"{result['source']}; {machine}"
    rows, peer = result.get("rows", []), {row["name"]: row for row in result.get("peer", {}).get("rows", [])}
    bars = [("lewm_data, " + row["compression"], "ours", row["convert_fps"]) for row in rows]
    if rows:
        bars.insert(0, ("only decode the same video", "limit", [rate for row in rows for rate in row["decode_fps"]]))
    for name, label, group in (
        ("ours_native", "lewm_data, none, native size", "ours"),
        ("theirs", "stable-worldmodel, native size", "peer"),
    ):
        bars += [(label, group, peer[name]["fps"])] if name in peer else []
    if bars:
        draw_bars(
            folder / "conversion.png",
            [Bar(label=label, group=group, value=Spread.of(values)) for label, group, values in bars],
            title="Conversion: frames per second", axis="frames per second (line: slowest to fastest run)", note=note,
            log=False, groups=GROUPS | {"ours": "lewm_data"},
        )  # fmt: skip
    if result.get("sources"):
        rows = [row for row in result["sources"] if row["codec"] == "av1"]
        heights = [row["height"] for row in rows]
        common: dict[str, Any] = {"x_axis": "rows of a source frame (AV1)", "ticks": heights}
        lines = [
            Line(label=label, x=heights, y=[Spread.of(row[key]) for row in rows])
            for label, key in (("convert", "convert_fps"), ("decode only", "decode_fps"))
        ]
        memory = [Spread.of([row["peak_memory_bytes"] / 1e6]) for row in rows]
        panels = [
            Panel(title="Speed", y_axis="frames/s, log scale", lines=lines, **common),
            Panel(title="Memory", y_axis="peak MB, libraries included", log_y=False,
                  lines=[Line(label="convert", x=heights, y=memory)], **common),
        ]  # fmt: skip
        title, from_seed = "Conversion of larger and larger videos", f"synthetic recordings; {machine}"
        draw_panels(folder / "conversion_sources.png", panels, title=title, note=from_seed)
    if chunks := result.get("chunks"):
        lines = []
        for chunk in dict.fromkeys(row["chunk_frames"] for row in chunks):
            points = [row for row in chunks if row["chunk_frames"] == chunk]
            rates = [Spread.of(row["fps"]) for row in points]
            lines.append(Line(label=chunk_name(chunk), x=[row["micro_batch"] for row in points], y=rates))
        panel = Panel(
            x_axis="frames written at once (micro-batch)", y_axis="frames per second, log scale", lines=lines,
            ticks=sorted({row["micro_batch"] for row in chunks}),
        )  # fmt: skip
        title = "Writing alone: the cost of a mismatch of micro-batch and chunk"
        draw_panels(folder / "conversion_chunks.png", [panel], title=title, note=f"lzf, one thread; {note}")


def _codecs(result: Result, folder: Path, machine: str) -> None:
    panels = [
        Panel(
            title=f"{content} frames, {what}",
            x_axis="KB per frame" + (", log scale" if content == DRAWN else ""),
            y_axis="frames per second, log scale",
            lines=[
                Line(label=row["codec"], x=[row["bytes_per_frame"] / 1000], y=[Spread.of(row[key])])
                for row in result["rows"]
                if row["content"] == content
            ],
            log_x=content == DRAWN,
        )
        for content in (CAMERA, DRAWN)
        for what, key in (("decoding", "decode_fps"), ("encoding", "encode_fps"))
    ]
    note = f"{result['side']}x{result['side']}, {result['source']}; one of {machine}"
    title = "Codecs: how small, and how fast on one core? (smaller to the left, faster to the top)"
    draw_panels(folder / "codecs.png", panels, title=title, note=note)


def _scaling(result: Result, folder: Path, machine: str) -> None:
    fitted = {(row["what"], row["over"]): f"{row['exponent']:.2f}" for row in result["slopes"]}
    panels = []
    for what, value in CURVES:
        lines = [
            Line(
                label=f"over {key}",
                x=[point[f"num_{key}"] for point in result[key]],
                y=[Spread.of([max(value(point), 1e-9)]) for point in result[key]],
            )
            for key in ("frames", "episodes")
        ]
        title = f"{what.split(',')[0]}: b = {fitted[what, 'frames']} and {fitted[what, 'episodes']}"
        y_axis = f"{what.split(', ')[-1]}, log scale"
        panels.append(Panel(title=title, x_axis="frames, episodes", y_axis=y_axis, lines=lines))
    length = result["conversion"]
    peaks = [Spread.of([point["peak_mb"]]) for point in length]
    panels.append(
        Panel(
            title=f"peak memory of a conversion: b = {fitted['peak memory of a conversion, MB', 'frames']}",
            x_axis="frames", y_axis="MB, libraries included", log_y=False,
            lines=[Line(label="conversion, over frames", x=[point["num_frames"] for point in length], y=peaks)],
        )
    )  # fmt: skip
    note = f"frames of 8x8; b: fitted exponent of cost ~ size^b, over frames and over episodes; {machine}"
    draw_panels(folder / "scaling.png", panels, title="How cost grows with the dataset", note=note)


def _training(result: Result, folder: Path, machine: str) -> None:
    model = {"label": f"LeWM consumes ({result['device_type']})", "group": "limit", **result}
    bars = [
        Bar(label=row["label"], group=row["group"], value=Spread(**row["windows_per_second"]))
        for row in (model, *loaders(result))
    ]
    draw_bars(
        folder / "training.png", bars, title="Is the data or the model the limit?", show=count,
        axis="windows per second, log scale (line: slowest to fastest round)", groups=GROUPS | {"limit": "the model"},
        note=f"LeWM: batch {result['batch_size']} on {result['device']}; loaders: the last throughput result",
    )  # fmt: skip


_CHARTS: Mapping[str, Callable[[Result, Path, str], None]] = {
    "throughput": _throughput,
    "conversion": _conversion,
    "codecs": _codecs,
    "scaling": _scaling,
    "training": _training,
}
