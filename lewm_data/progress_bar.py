"""The one progress bar of this package: on stderr, and only if it is a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from lewm_data import resources
from lewm_data.errors import printable


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


@contextmanager
def shown(progress: resources.Progress | None) -> Iterator[resources.Progress]:
    """Yields a caller's callback; or, for None, one that draws a bar as long as the context lasts."""
    if progress is not None:
        yield progress
        return
    with StagedProgress(Console(stderr=True)) as bar:
        yield bar
