"""Faults of a video or a picture, as opposed to failures of the machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lewm_data.resources import available_memory_bytes

MAX_FRAME_PIXELS = 1 << 26
"""Most pixels in a frame: 8192x8192, twice 8K video. A decoder holds about twenty frames at a time."""

_PROBE_BYTES = 1 << 28
"""More than the largest frame takes in any common pixel format."""

_READ_BYTES = 1 << 20


class MediaError(Exception):
    """A video or a picture that cannot be used as it is.

    Attributes:
        code: Code of the finding.
        expected: What should be there.
        found: What is there.
    """

    def __init__(self, code: str, expected: str, found: str) -> None:
        super().__init__(f"{code}: expected {expected}, found {found}")
        self.code, self.expected, self.found = code, expected, found


def require_readable(path: Path) -> None:
    """Reads a file through once, before the caller reports it as damaged.

    FFmpeg reports a read error of the disk or the mount as the end of the data, or as invalid data.

    Raises:
        OSError: The machine cannot read the file.
    """
    with path.open("rb", buffering=0) as file:
        while file.read(_READ_BYTES):
            pass


def lacks_memory() -> bool:
    """Whether an allocation failed because the machine lacks memory, not because the file is damaged.

    FFmpeg reports both as ENOMEM: a damaged count asks for more memory than any machine has. Ask before you free
    anything.
    """
    if available_memory_bytes() < _PROBE_BYTES:
        return True
    try:
        np.empty(_PROBE_BYTES, np.uint8)  # takes only address space, which can have a limit of its own
    except MemoryError:
        return True
    return False
