"""Progress bars of the commands; on stderr, and only where it is a terminal."""

from __future__ import annotations

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

from lewm_data.cli.tables import show_inspection
from lewm_data.cli.terminal import escape
from lewm_data.conversion.inspect import Inspection
from lewm_data.conversion.pipeline import Reporter
from lewm_data.conversion.plan import MEGABYTE
from lewm_data.format.schema import camera_name
from lewm_data.resources import resident_memory_bytes


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
        disable=not console.is_terminal or console.is_dumb_terminal,  # a log file shall hold no control characters
    )


class StagedProgress:
    """One bar at a time, there only while its stage lasts, so that other libraries' bars have the terminal between.

    Args:
        console: Where to draw.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress: Progress | None = None
        self._what = ""

    def __enter__(self) -> StagedProgress:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop()

    def __call__(self, what: str, done: int, total: int) -> None:
        """So much of a stage is done."""
        if what != self._what or self._progress is None:
            self._stop()
            self._progress, self._what = progress_bar(self._console), what
            self._progress.add_task(what, total=total, note="")
            self._progress.start()
        self._progress.update(self._progress.task_ids[0], completed=done)
        if done >= total:
            self._stop()

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def quiet_hub_bars(console: Console) -> None:
    """Keeps huggingface_hub's own progress bars out of log files."""
    if not console.is_terminal:
        from huggingface_hub.utils.tqdm import disable_progress_bars

        disable_progress_bars()


class ConversionDisplay(Reporter):
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

    def joining(self, what: str, done: int, total: int) -> None:
        """So many of all shards are copied."""
        self._show(what, done, total)

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
        memory = f"{resident_memory_bytes() / MEGABYTE:,.0f} MB"
        self._progress.update(self._task, advance=count, note=escape(f"{note}, {rate}{memory}"))

    def _clear(self) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task, self._what = None, ""
