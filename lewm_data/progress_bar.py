"""The one progress display of this package, on stderr: a bar on a terminal, now and then a line in a log file."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from lewm_data import resources
from lewm_data.errors import printable
from lewm_data.notation import duration

LOG_SECONDS = 30.0
"""Time between two lines in a log file. A stage that takes less leaves none."""


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
        disable=not _draws_bars(console),  # no control characters in log files
    )


def _draws_bars(console: Console) -> bool:
    return console.is_terminal and not console.is_dumb_terminal


class StagedProgress:
    """A ``Progress`` callback that draws one bar at a time, or writes a line every ``LOG_SECONDS`` into a log file.

    A bar exists only while its stage lasts, so that the bars of other libraries can use the terminal in between.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bar: Progress | None = None
        self._log: _StageLog | None = None
        self._what = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def __call__(self, what: str, done: int, total: int, note: str = "", unit: str = "") -> None:
        """Updates the display of a stage; the first call starts it, and the last one ends it.

        Args:
            what: The stage.
            done: How much of it is done.
            total: The total.
            note: Text next to the bar.
            unit: Unit of ``done``, to show the speed; empty shows none.
        """
        if not _draws_bars(self.console):
            self._write_line(what, done, total, note, unit)
            return
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

    def _write_line(self, what: str, done: int, total: int, note: str, unit: str) -> None:
        if self._log is None or what != self._what:
            self._log, self._what = _StageLog(done), what
        elif self._log.is_due():
            line = self._log.line(what, done, total, note, unit)
            self.console.print(printable(line), markup=False, highlight=False, soft_wrap=True)

    def stop(self) -> None:
        """Removes the bar."""
        self._log = None
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class _StageLog:
    """When the next line of a stage is due, and what it says.

    Args:
        done: How much of the stage was done when it began.
    """

    def __init__(self, done: int) -> None:
        self._started = self._last = time.monotonic()
        self._done_before = done

    def is_due(self) -> bool:
        """Whether ``LOG_SECONDS`` have passed since the last line. If so, they begin again."""
        now = time.monotonic()
        if now - self._last < LOG_SECONDS:
            return False
        self._last = now
        return True

    def line(self, what: str, done: int, total: int, note: str, unit: str) -> str:
        """How far the stage is, how fast, and how long it will take."""
        rate = (done - self._done_before) / max(time.monotonic() - self._started, 1e-9)
        parts = [
            f"{what}: {done:,} of {total:,}{unit and f' {unit}'}",
            note,
            f"{rate:,.0f} {unit}/s" if unit else "",
            f"{duration((total - done) / rate)} left" if rate > 0 and done < total else "",
        ]
        return ", ".join(filter(None, parts))


@contextmanager
def shown(progress: resources.Progress | None) -> Iterator[resources.Progress]:
    """Yields a caller's callback; or, for None, one that shows the progress as long as the context lasts."""
    if progress is not None:
        yield progress
        return
    with StagedProgress(Console(stderr=True)) as bar:
        yield bar
