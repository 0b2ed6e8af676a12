"""Progress bars of the commands: on stderr, and only if it is a terminal."""

from __future__ import annotations

from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from lewm_data.cli.tables import show_inspection
from lewm_data.conversion.inspect import Inspection
from lewm_data.conversion.pipeline import Reporter
from lewm_data.conversion.plan import MEGABYTE
from lewm_data.errors import printable
from lewm_data.format.schema import camera_name
from lewm_data.notation import count_of
from lewm_data.resources import resident_memory_bytes


def progress_bar(console: Console) -> Progress:
    """The progress bar of every command."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal or console.is_dumb_terminal,  # no control characters in log files
    )


class StagedProgress:
    """A ``Progress`` callback that draws one bar at a time.

    A bar exists only while its stage lasts, so that the bars of other libraries can use the terminal in between.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bar: Progress | None = None
        self._what = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def __call__(self, what: str, done: int, total: int, note: str = "", unit: str = "") -> None:
        """Updates the bar of a stage; the first call starts it, and the last one removes it.

        Args:
            what: The stage.
            done: How much of it is done.
            total: The total.
            note: Text next to the bar.
            unit: Unit of ``done``, to show the speed; empty shows none.
        """
        if what != self._what or self._bar is None:
            self.stop()
            self._bar, self._what = progress_bar(self.console), what
            self._bar.add_task(printable(what), total=total, note="")
            self._bar.start()
        [task] = self._bar.tasks
        speed = f"{task.speed:,.0f} {unit}/s" if unit and task.speed else ""
        self._bar.update(task.id, completed=done, total=total, note=printable(", ".join(filter(None, (note, speed)))))
        if done >= total:
            self.stop()

    def stop(self) -> None:
        """Removes the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class ConversionDisplay(StagedProgress, Reporter):
    """Draws the progress of a conversion."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._done = 0
        self._total = 0

    def inspecting(self, what: str, done: int, total: int) -> None:
        """Shows how many files are inspected."""
        self(f"inspect {what}", done, total)

    def planned(self, inspection: Inspection) -> None:
        """Prints the inspection."""
        self.stop()
        show_inspection(self.console, inspection)
        assert inspection.plan is not None
        self._total = inspection.plan.num_frames

    def resumed(self, num_frames: int) -> None:
        """Counts the frames of an earlier run."""
        self.console.print(f"resuming an earlier run: {count_of(num_frames, 'frame')} already converted")
        self._done += num_frames

    def frames(self, episode: int, camera: str, count: int) -> None:
        """Shows how many frames are written."""
        self._done += count
        memory = f"{resident_memory_bytes() / MEGABYTE:,.0f} MB"
        self("convert", self._done, self._total, f"episode {episode} {camera_name(camera)}, {memory}", "frames")

    def joining(self, what: str, done: int, total: int) -> None:
        """Shows how many shards are copied."""
        self(what, done, total)

    def waiting(self) -> None:
        """Says that another process is converting."""
        self.console.print("another process is writing the same output; waiting for it")


def quiet_hub_bars(console: Console) -> None:
    """Keeps huggingface_hub's own progress bars out of log files."""
    if not console.is_terminal:
        from huggingface_hub.utils.tqdm import disable_progress_bars

        disable_progress_bars()
