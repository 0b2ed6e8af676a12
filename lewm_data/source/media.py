"""What is wrong with a video or a picture."""

from __future__ import annotations

MAX_FRAME_PIXELS = 1 << 26
"""8192x8192, twice the pixels of 8K video. A decoder holds about twenty frames at a time."""


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
