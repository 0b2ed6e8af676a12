"""The arguments of the public functions: settings by name, places as people type them, a callback for progress."""

from __future__ import annotations

import dataclasses
import difflib
import os
from pathlib import Path
from typing import Any

from lewm_data.config import AssessConfig, ConvertConfig, PreviewConfig
from lewm_data.conversion.inspect import Inspection
from lewm_data.conversion.pipeline import Reporter
from lewm_data.errors import UsageError
from lewm_data.paths import expand, is_address
from lewm_data.resources import Progress

type StrPath = str | os.PathLike[str]


def merged_config[C: (AssessConfig, ConvertConfig, PreviewConfig)](
    cls: type[C], config: C | None, settings: dict[str, Any]
) -> C:
    """Applies settings to a configuration.

    Raises:
        UsageError: There is no setting of that name, or its value is invalid.
    """
    names = [field.name for field in dataclasses.fields(cls)]
    for name in settings:
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            raise UsageError(f"there is no setting {name!r}.{f' Did you mean {near[0]!r}?' if near else ''}")
    return dataclasses.replace(config or cls(), **settings)


def place_of(path: StrPath) -> str | Path:
    """Returns a path on this machine with ``~`` expanded, or an address as it is."""
    return os.fspath(path) if is_address(path) else expand(path)


def source_of(source: StrPath) -> str:
    """Returns a folder, a file, an address or a Hub repo id; only a path can begin with ``~``."""
    text = os.fspath(source)
    return str(expand(text)) if text.startswith("~") else text


class ProgressReporter(Reporter):
    """Passes the steps of a conversion on to a ``Progress`` callback."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._done = 0
        self._total = 0

    def inspecting(self, what: str, done: int, total: int) -> None:
        """Counts inspected files."""
        self._progress(f"inspect {what}", done, total)

    def planned(self, inspection: Inspection) -> None:
        """Learns the number of frames."""
        assert inspection.plan is not None
        self._total = inspection.plan.num_frames

    def resumed(self, num_frames: int) -> None:
        """Counts the frames of an earlier run."""
        self.frames(0, "", num_frames)

    def frames(self, episode: int, camera: str, count: int) -> None:
        """Counts frames."""
        self._done += count
        self._progress("convert", self._done, self._total)

    def joining(self, what: str, done: int, total: int) -> None:
        """Counts copied shards."""
        self._progress(what, done, total)
