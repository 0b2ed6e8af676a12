"""Draw the charts of every benchmark from its result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.blocks import CAMERA, CURVES, DRAWN, chunk_name, loaders
from benchmarks.charts import GROUPS, Bar, Line, Panel, draw_bars, draw_panels, draw_points
from benchmarks.harness import Spread
from benchmarks.remote_table import delay
from benchmarks.tables import Result, count

_NOT_CHARTED = ("cached_batch", "swm_on_lzf_plain")
"""The first would push all others together; the second differs from its neighbor by a tenth."""


def _throughput(result: Result, folder: Path, machine: str) -> None:
    settings = result["settings"]
    note = f"{result['source']}; {machine}; page cache warm"
    bars = [
        Bar(row["label"], row["group"], Spread(**row["windows_per_second"]))
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
        lines.append(Line(label, [point["num_workers"] for point in points], rates))
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
            [Bar(label, group, Spread.of(values)) for label, group, values in bars],
            title="Conversion: frames per second", axis="frames per second (line: slowest to fastest run)", note=note,
            log=False, groups=GROUPS | {"ours": "lewm_data"},
        )  # fmt: skip
    if result.get("sources"):
        rows = [row for row in result["sources"] if row["codec"] == "av1"]
        heights = [row["height"] for row in rows]
        common: dict[str, Any] = {"x_axis": "rows of a source frame (AV1)", "ticks": heights}
        lines = [
            Line(label, heights, [Spread.of(row[key]) for row in rows])
            for label, key in (("convert", "convert_fps"), ("decode only", "decode_fps"))
        ]
        memory = [Spread.of([row["peak_memory_bytes"] / 1e6]) for row in rows]
        panels = [
            Panel(title="Speed", y_axis="frames/s, log scale", lines=lines, **common),
            Panel(title="Memory", y_axis="peak MB, libraries included", log_y=False,
                  lines=[Line("convert", heights, memory)], **common),
        ]  # fmt: skip
        title, from_seed = "Conversion of larger and larger videos", f"synthetic recordings; {machine}"
        draw_panels(folder / "conversion_sources.png", panels, title=title, note=from_seed)
    if chunks := result.get("chunks"):
        lines = []
        for chunk in dict.fromkeys(row["chunk_frames"] for row in chunks):
            points = [row for row in chunks if row["chunk_frames"] == chunk]
            rates = [Spread.of(row["fps"]) for row in points]
            lines.append(Line(chunk_name(chunk), [row["micro_batch"] for row in points], rates))
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
                Line(row["codec"], [row["bytes_per_frame"] / 1000], [Spread.of(row[key])])
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
                f"over {key}",
                [point[f"num_{key}"] for point in result[key]],
                [Spread.of([max(value(point), 1e-9)]) for point in result[key]],
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
            lines=[Line("conversion, over frames", [point["num_frames"] for point in length], peaks)],
        )
    )  # fmt: skip
    note = f"frames of 8x8; b: fitted exponent of cost ~ size^b, over frames and over episodes; {machine}"
    draw_panels(folder / "scaling.png", panels, title="How cost grows with the dataset", note=note)


def _training(result: Result, folder: Path, machine: str) -> None:
    model = {"label": f"LeWM consumes ({result['device_type']})", **result}
    steps = result.get("variants", []) if len(result.get("variants", [])) > 1 else [model]
    rows = *({"group": "limit", **row} for row in steps), *loaders(result)
    bars = [Bar(row["label"], row["group"], Spread(**row["windows_per_second"])) for row in rows]
    draw_bars(
        folder / "training.png", bars, title="How many windows does LeWM consume?", show=count,
        axis="windows per second, log scale (line: slowest to fastest round)", groups=GROUPS | {"limit": "the model"},
        note=f"LeWM: batch {result['batch_size']} on {result['device']}",
    )  # fmt: skip


def _assess_prediction(result: Result, folder: Path, machine: str) -> None:
    rows = result["rows"]
    contrasts = {"arm in plain sight": (0.5, 2.0), "faint": (0.05, 0.5), "hardly or not visible": (-1.0, 0.05)}
    points = {
        label: [(row["score"] or 0.0, row["error"]) for row in rows if low <= row["grade"]["contrast"] < high]
        for label, (low, high) in contrasts.items()
    }
    draw_points(
        folder / "assess_prediction.png", points, title="Does the score tell how well a model will predict?",
        x_axis="score of assess", y_axis="error of LeWM on new episodes (1: blind)",
        note=f"{len(rows)} drawn recordings; rank correlation {result['rank_correlation']:.2f}; {machine}",
    )  # fmt: skip


def _remote(result: Result, folder: Path, machine: str) -> None:
    bars = []
    for part in result["parts"]:
        for row in sorted(part["rows"], key=lambda row: -row["windows_per_second"]["median"]):
            group = "ours" if row["name"].startswith("ours") else "peer"
            bars.append(Bar(f"{row['label']}; {delay(part)}", group, Spread(**row["windows_per_second"])))
    settings = result["settings"]
    draw_bars(
        folder / "remote.png", bars, show=count,
        title=f"From object storage: windows of {settings['num_steps']} frames, batch {settings['batch_size']}",
        axis="windows per second, log scale (line: slowest to fastest round)", groups=GROUPS | {"ours": "lewm_data"},
        note=f"{result['source']}; {machine}",
    )  # fmt: skip


_CHARTS: Mapping[str, Callable[[Result, Path, str], None]] = {
    "throughput": _throughput,
    "conversion": _conversion,
    "codecs": _codecs,
    "scaling": _scaling,
    "training": _training,
    "assess_prediction": _assess_prediction,
    "remote": _remote,
}


def draw(name: str, result: Result, folder: Path) -> None:
    """Draws all charts of a benchmark's result into a folder."""
    where = result["machine"]
    _CHARTS.get(name, lambda *_: None)(result, folder, f"{where['cpus']} cores of {where['processor']}")
