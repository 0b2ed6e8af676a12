"""What the commands show on a terminal: tables of findings and plans, and a progress bar. All of it on stderr."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from lewm_data.conversion.inspect import Inspection
from lewm_data.conversion.plan import MEBIBYTE, Plan
from lewm_data.resources import resident_memory_bytes
from lewm_data.schema import Finding, camera_name
from lewm_data.terminal import escape

MAX_ROWS = 40
"""Findings shown in the table; the rest is counted, and all are in --json."""

_HANDLED = {
    "refused": "refuses the dataset",
    "dropped": "episode dropped",
    "kept": "kept and marked",
    "recorded": "recorded",
}


def show_inspection(console: Console, inspection: Inspection) -> None:
    """Prints what a source is, what is wrong with it, and what converting it takes."""
    dataset = inspection.dataset
    if dataset is not None:
        table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
        revision = dataset.revision[:12] if dataset.revision else "local folder"
        steps = int(dataset.episodes.length.sum())
        minutes = steps / dataset.fps / 60
        cameras = ", ".join(
            camera_name(key) + next((f" → {c}" for c, k in inspection.cameras.items() if k == key), "")
            for key in dataset.cameras
        )
        depth = ", ".join(camera_name(key) for key in dataset.depth_cameras)
        for label, value in (
            ("dataset", f"{dataset.repo_id} ({dataset.codebase_version}, {revision})"),
            (
                "content",
                f"{len(dataset.episodes):,} episodes, {steps:,} steps, {minutes:,.1f} min at {dataset.fps:g} fps",
            ),
            ("cameras", cameras or "none"),
            ("left out", f"{depth} (depth)" if depth else ""),
            ("done from", dataset.done_source.replace("_", " ")),
        ):
            if value:
                table.add_row(f"[bold]{label}[/]", escape(value))
        console.print(table)
    show_findings(console, inspection.decision.findings)
    if inspection.plan is not None:
        show_plan(console, inspection.plan)


def show_findings(console: Console, findings: Iterable[Finding]) -> None:
    """Prints findings as a table, errors first."""
    ordered = sorted(findings, key=lambda found: found.severity != "error")
    if not ordered:
        console.print("[green]No findings: the dataset is clean.[/]")
        return
    table = Table(title=f"{len(ordered)} findings", title_justify="left", show_lines=False)
    for name in ("severity", "code", "episode", "what"):
        table.add_column(name, overflow="fold")
    for found in ordered[:MAX_ROWS]:
        colour = "red" if found.severity == "error" else "yellow"
        where = f"\n[dim]{escape(found.file)}[/]" if found.file else ""
        table.add_row(
            f"[{colour}]{found.severity}[/]\n[dim]{_HANDLED[found.handling]}[/]",
            found.code,
            "all" if found.episode is None else str(found.episode),
            f"expected {escape(found.expected)}, found {escape(found.found)}{where}\n[dim]{escape(found.remedy)}[/]",
        )
    console.print(table)
    if len(ordered) > MAX_ROWS:
        counts = Counter(found.code for found in ordered[MAX_ROWS:])
        listed = ", ".join(f"{code} x{count}" for code, count in counts.most_common())
        console.print(f"and {len(ordered) - MAX_ROWS} more: {listed} (all of them with --json)")


def show_plan(console: Console, plan: Plan) -> None:
    """Prints what a conversion takes."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    frame = f"{plan.height}x{plan.width}, {plan.bytes_per_frame / 1024:,.0f} KiB each"
    for label, value in (
        ("frames", f"{plan.num_frames:,} of {frame} (measured on {plan.sample_frames})"),
        ("output", f"{plan.output_bytes / MEBIBYTE:,.0f} MB"),
        ("disk", f"{plan.temporary_bytes / MEBIBYTE:,.0f} MB at the peak, in {plan.num_shards} shard(s)"),
        ("memory", f"{plan.peak_memory_bytes / MEBIBYTE:,.0f} MB at the peak"),
        ("time", f"about {duration(plan.seconds)}"),
    ):
        table.add_row(f"[bold]{label}[/]", value)
    console.print(table)


def duration(seconds: float) -> str:
    """Seconds in words for people, such as ``2 min 5 s``."""
    whole = max(1, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def progress_bar(console: Console) -> Progress:
    """The progress bar of every command."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )


class ConversionDisplay:
    """Draws a conversion's progress; a ``pipeline.Reporter``.

    Args:
        console: Where to draw.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = progress_bar(console)
        self._task: TaskID | None = None
        self._what = ""

    def __enter__(self) -> ConversionDisplay:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def inspecting(self, what: str, done: int, total: int) -> None:
        """A file was read while inspecting."""
        self._show(f"inspect {what}", done, total)

    def planned(self, inspection: Inspection) -> None:
        """The inspection is done."""
        self._clear()
        show_inspection(self._console, inspection)
        assert inspection.plan is not None
        self._show("convert", 0, inspection.plan.num_frames)

    def resumed(self, num_frames: int) -> None:
        """An earlier run's frames are used."""
        self._console.print(f"going on from an earlier run: {num_frames:,} frames are there already")
        self._advance(num_frames)

    def frames(self, episode: int, camera: str, count: int) -> None:
        """So many more frames are written."""
        self._advance(count, f"episode {episode} {camera_name(camera)}")

    def merging(self, done: int, total: int) -> None:
        """So many of all shards are copied."""
        self._show("merge shards", done, total)

    def waiting(self) -> None:
        """Another process is at it."""
        self._console.print("another process is converting to the same output; waiting for it")

    def _show(self, what: str, done: int, total: int) -> None:
        if what != self._what:
            self._clear()
            self._task = self._progress.add_task(what, total=total, note="")
            self._what = what
        assert self._task is not None
        self._progress.update(self._task, completed=done, total=total)

    def _advance(self, count: int, note: str = "") -> None:
        if self._task is None:
            return
        task = self._progress.tasks[self._progress.task_ids.index(self._task)]
        rate = f"{task.speed:,.0f} frames/s, " if task.speed else ""
        memory = f"{resident_memory_bytes() / MEBIBYTE:,.0f} MB"
        self._progress.update(self._task, advance=count, note=escape(f"{note}, {rate}{memory}"))

    def _clear(self) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task, self._what = None, ""
