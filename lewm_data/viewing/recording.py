"""What can be looked at, whatever it is stored in: episodes with rows and frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lewm_data.findings import Finding

type Rows = dict[str, NDArray[np.float64]]
"""``action``, ``state``, ``done`` and, where there is one, ``task_index`` to (L, width) float64."""

type Picture = NDArray[np.uint8]
"""(height, width, 3) RGB."""


class Recording(Protocol):
    """A dataset to look at: a converted file, or a LeRobot dataset before its conversion.

    Attributes:
        name: What it is called; holds no path.
        handle: What a command or a program would be given to open it; holds no path either.
        is_converted: Whether it is a converted file.
        refused: Whether a conversion with the default settings refuses it.
        fps: Steps per second.
        cameras: Key of each camera to its name for people.
        numbers: (E,) int64, the number by which the commands know each episode.
        source_numbers: (E,) int64, the source's own episode_index of each.
        lengths: (E,) int64, steps of each.
        dimensions: ``action`` and ``state`` to the names of their dimensions.
        frame_size: (height, width) of a frame that a trainer gets.
        tasks: task_index to text.
        facts: What is known of its origin, as pairs of label and value.
    """

    name: str
    handle: str
    is_converted: bool
    refused: bool
    fps: float
    cameras: dict[str, str]
    numbers: NDArray[np.int64]
    source_numbers: NDArray[np.int64]
    lengths: NDArray[np.int64]
    dimensions: dict[str, tuple[str, ...]]
    frame_size: tuple[int, int] | None
    tasks: dict[int, str]
    facts: list[tuple[str, str]]

    @property
    def findings(self) -> Sequence[Finding]:
        """What was found wrong so far; decoding may add to it."""

    def position(self, found: Finding) -> int | None:
        """The position in ``numbers`` of the episode that a finding is about; None where it is about no single one."""

    def rows(self, position: int) -> Rows | None:
        """The rows of the episode at a position; None where they cannot be read."""

    def frames(self, position: int, camera: str, steps: Sequence[int], height: int) -> Iterator[Picture | None]:
        """Reads frames of one episode, scaled down to a height; None stands for one that cannot be read.

        Args:
            position: Which episode, by its position in ``numbers``.
            camera: Key of the camera.
            steps: Steps of the episode, ascending.
            height: Wanted height in pixels; the width keeps the proportions, and smaller frames stay as they are.
        """

    def close(self) -> None:
        """Closes what is open."""
