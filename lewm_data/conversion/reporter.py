"""Who is told how a conversion goes."""

from __future__ import annotations

from typing import Any, Protocol

from lewm_data.conversion.inspect import Inspection


class Reporter(Protocol):
    """Told of each step; the command line draws a progress bar from it."""

    def inspecting(self, what: str, done: int, total: int) -> None:
        """A file was read while inspecting."""

    def planned(self, inspection: Inspection) -> None:
        """The inspection is done and nothing stands against it; conversion begins."""

    def resumed(self, num_frames: int) -> None:
        """An earlier run's frames are used."""

    def frames(self, episode: int, camera: str, count: int) -> None:
        """So many more frames are written."""

    def merging(self, done: int, total: int) -> None:
        """So many of all shards are copied into the final file."""

    def waiting(self) -> None:
        """Another process is converting to the same output."""


class Silent:
    """A reporter that says nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args: None
