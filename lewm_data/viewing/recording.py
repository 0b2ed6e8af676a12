"""The one interface through which previews read a dataset, before its conversion or after, and the verdict on it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lewm_data.findings import Finding, Verdict, advised_policy
from lewm_data.notation import count_of, output_name
from lewm_data.quality.assess.footage import Footage
from lewm_data.resources import Progress

type Rows = dict[str, NDArray[np.float64]]
"""``action``, ``state``, ``done`` and, if present, ``task_index`` to (L, width) float64."""

type Picture = NDArray[np.uint8]
"""(height, width, 3) RGB."""


class Recording(Protocol):
    """A converted file, or a LeRobot dataset before its conversion.

    Attributes:
        name: The dataset's name, without a path.
        handle: What to pass to a command or to the data module. An absolute path would tell others about this
            machine, so that only its last part is here.
        is_converted: Whether this is a converted file.
        refused: Whether a conversion with the default settings refuses the dataset.
        fps: Steps per second.
        cameras: Key of each camera to its short name.
        numbers: (E,) int64, the number of each episode on the command line.
        source_numbers: (E,) int64, the episode_index of each episode in the source.
        sources: (E,) the source of each episode: its Hub repo id, or the folder's name.
        lengths: (E,) int64, the number of steps of each episode.
        dimensions: ``action`` and, if there is one, ``state`` to the names of their dimensions; empty if rows cannot be
            read.
        frame_size: (height, width) of a frame in a training batch.
        shifts: Short name of each camera that the conversion shifted to its shift in frames.
        tasks: task_index to text.
        facts: Where the dataset comes from, as pairs of label and value.
    """

    name: str
    handle: str
    is_converted: bool
    refused: bool
    fps: float
    cameras: dict[str, str]
    numbers: NDArray[np.int64]
    source_numbers: NDArray[np.int64]
    sources: list[str]
    lengths: NDArray[np.int64]
    dimensions: dict[str, tuple[str, ...]]
    frame_size: tuple[int, int] | None
    shifts: dict[str, int]
    tasks: dict[int, str]
    facts: list[tuple[str, str]]

    @property
    def findings(self) -> Sequence[Finding]:
        """The findings so far; decoding may add some."""

    def position(self, found: Finding) -> int | None:
        """Returns the position in ``numbers`` of a finding's episode; None if it concerns no single episode."""

    def rows(self, position: int) -> Rows | None:
        """Reads the rows of the episode at a position; None if they cannot be read."""

    def frames(self, position: int, camera: str, steps: Sequence[int], height: int) -> Iterator[Picture | None]:
        """Reads frames of one episode, scaled down to a height; yields None for a frame that cannot be read.

        Args:
            position: The episode's position in ``numbers``.
            camera: Key of the camera.
            steps: Steps of the episode, ascending.
            height: Height in pixels. The width keeps the aspect ratio; smaller frames keep their size.
        """

    def footage(self, max_frames: int, progress: Progress) -> Footage | None:
        """Reads rows and small frames for a judgment; None where that would take long, or nothing can be read.

        Args:
            max_frames: Frames to look at, over all cameras.
            progress: Called after each episode.
        """

    def close(self) -> None:
        """Closes the dataset's files."""


def verdict(recording: Recording) -> Verdict:
    """Judges a recording by its findings."""
    errors = [found for found in recording.findings if found.severity == "error"]
    num_warnings = len(recording.findings) - len(errors)
    source = shlex.quote(recording.handle)
    if recording.is_converted:
        open_it = f"LeWMDataModule(h5_path={json.dumps(recording.handle)})"
        if errors:
            kept = [found for found in errors if found.handling == "kept"]
            dropped = {found.episode for found in errors if found.handling == "dropped"}
            parts = [f"{count_of(len(dropped), 'episode')} with errors left out"] * bool(dropped)
            parts += [f"{count_of(len(kept), 'error')} kept as requested"] * bool(kept)
            return Verdict("fair", f"Converted, {' and '.join(parts) or 'with errors recorded'}.", open_it)
        if num_warnings:
            return Verdict("fair", f"Whole, with {count_of(num_warnings, 'warning')} worth a look.", open_it)
        return Verdict("good", "Clean: the conversion found nothing wrong.", open_it)
    camera = f" --camera {shlex.quote(next(iter(recording.cameras.values())))}" if len(recording.cameras) > 1 else ""
    convert = f"lewm-data convert {source} {shlex.quote(output_name(recording.handle))}{camera}"
    if recording.refused:
        policy = advised_policy(recording.findings, len(recording.numbers))
        command = f"{convert} --dirty_episode_policy {policy}" if policy else f"lewm-data inspect {source}"
        sentence = f"Do not train on it as it is: {count_of(len(errors), 'error')} in {_where(errors)}."
        return Verdict("bad", sentence, command)
    if errors or num_warnings:
        return Verdict(
            "fair", f"It can be converted; {count_of(len(recording.findings), 'finding')} worth a look.", convert
        )
    return Verdict("good", "Clean: nothing is wrong in the metadata, the rows and the video headers.", convert)


def _where(errors: Sequence[Finding]) -> str:
    episodes = {found.episode for found in errors}
    if None in episodes:
        return "the dataset as a whole"
    if len(episodes) == 1:
        return f"episode {next(iter(episodes))}"
    return count_of(len(episodes), "episode")
