"""Reads a converted file for a preview: frames through the loader's store, rows in blocks."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lewm_data.errors import FormatError
from lewm_data.findings import Finding
from lewm_data.format.schema import ACTION, DONE, STATE, camera_name
from lewm_data.loading.store import FrameStore
from lewm_data.quality.assess.footage import Footage
from lewm_data.quality.assess.reading import read_converted, recorded_shifts
from lewm_data.resources import Progress
from lewm_data.viewing.recording import Picture, Rows

_BLOCK_ROWS = 65_536
_FRAMES_AT_ONCE = 8
_TASK_INDEX = "task_index"
_LISTED = 50


class ConvertedFile:
    """A file in lewm_data's format; implements ``recording.Recording``."""

    def __init__(self, path: str | Path) -> None:
        """Opens a file.

        Args:
            path: The file, or its address in object storage.

        Raises:
            FormatError: The file is not in lewm_data's format, or it is damaged.
        """
        self._store = FrameStore(path)
        name = PurePosixPath(str(self._store.path).partition("?")[0]).name
        header = self._store.header
        if header is None:
            raise FormatError(
                f"{self._store.path}: not a lewm_data file (it has no root attribute 'format_version'). "
                "Make one with: lewm-data convert SOURCE OUTPUT.h5"
            )
        self.name = ", ".join(dict.fromkeys(record.repo_id for record in header.sources))
        self.handle = name
        self.is_converted = True
        self.refused = False
        self.fps = header.fps
        self.cameras = {column: camera_name(header.cameras.get(column, column)) for column in self._store.frame_columns}
        self.lengths = self._store.ep_len
        self.numbers: NDArray[np.int64] = np.arange(len(self.lengths), dtype=np.int64)
        listed = [index for record in header.sources for index in record.episodes]
        is_whole = len(listed) == len(self.numbers)  # otherwise another program edited the file
        self.source_numbers = np.array(listed, np.int64) if is_whole else self.numbers
        repo_ids = [record.repo_id for record in header.sources for _ in record.episodes]
        self.sources = repo_ids if is_whole else [name] * len(self.numbers)
        self.dimensions = {
            column: _names(column, self._width(column), header.feature_names.get(column, ()))
            for column in (ACTION, STATE)
            if column in self._store.columns
        }
        self.frame_size: tuple[int, int] | None = (header.image_height, header.image_width)
        self.tasks = header.tasks
        self.shifts = recorded_shifts(header)
        first_steps = [record.first_step(number) for record in header.sources for number in range(len(record.episodes))]
        self._first_steps = first_steps if is_whole else [0] * len(self.numbers)
        self.findings: Sequence[Finding] = [self._in_file(found) for found in header.findings]
        self._columns = [name for name in (ACTION, STATE, DONE, _TASK_INDEX) if name in self._store.columns]
        self._block: dict[str, NDArray[np.float64]] = {}
        self._block_start, self._block_stop = 0, 0
        dropped = ", ".join(map(str, header.dropped_episodes[:_LISTED])) + ", ..." * (
            len(header.dropped_episodes) > _LISTED
        )
        self.facts = [
            ("file", f"{name}, {self._store.data_file.size_bytes / 1e6:,.1f} MB"),
            *(
                (
                    "source",
                    f"{record.repo_id} ({record.codebase_version}, revision {record.revision or 'local folder'})",
                )
                for record in header.sources
            ),
            *((f"camera {camera_name(key)}", column) for column, key in header.cameras.items()),
            ("frames", f"{header.image_height}x{header.image_width}, {header.resize}, {header.codec_words}"),
            ("done from", header.done_source.replace("_", " ")),
            *header.corrections(),
            ("policy for dirty episodes", header.dirty_episode_policy),
            *([("dropped episodes of the source", dropped)] if dropped else []),
            ("written by", f"lewm_data {header.lewm_data_version}, format version {header.format_version}"),
            ("fingerprint", header.fingerprint),
        ]

    def _in_file(self, found: Finding) -> Finding:
        """The finding with its step counted from where its episode begins in this file; None if that is cut off."""
        position = self.position(found)
        if position is None or found.step is None or not self._first_steps[position]:
            return found
        step = found.step - self._first_steps[position]
        return dataclasses.replace(found, step=step if 0 <= step < self.lengths[position] else None)

    def position(self, found: Finding) -> int | None:
        """See ``Recording``. None if several merged sources share the finding's episode_index."""
        if found.episode is None or found.handling == "dropped":
            return None
        [positions] = np.nonzero(self.source_numbers == found.episode)
        return int(positions[0]) if len(positions) == 1 else None

    def rows(self, position: int) -> Rows | None:
        """See ``Recording``."""
        start = int(self._store.ep_offset[position])
        stop = start + int(self.lengths[position])
        if not self._block_start <= start <= stop <= self._block_stop:
            self._block_start = start
            self._block_stop = min(max(stop, start + _BLOCK_ROWS), self._store.num_rows)
            self._block = {
                name: self._store.read_column(name, start, self._block_stop)
                .astype(np.float64)
                .reshape(self._block_stop - start, -1)
                for name in self._columns
            }
        part = slice(start - self._block_start, stop - self._block_start)
        return {name: values[part] for name, values in self._block.items()}

    def frames(self, position: int, camera: str, steps: Sequence[int], height: int) -> Iterator[Picture | None]:
        """See ``Recording``.

        Raises:
            DamagedChunkError: A stored frame is damaged.
        """
        shape = self._store.columns[camera].shape
        rows = int(self._store.ep_offset[position]) + np.asarray(steps, np.int64)
        for start in range(0, len(rows), _FRAMES_AT_ONCE):
            chosen = rows[start : start + _FRAMES_AT_ONCE]
            frames = np.empty((len(chosen), *shape), np.uint8)
            self._store.read_frames(camera, chosen, frames)
            yield from (scaled(frame, height) for frame in frames)

    def footage(self, max_frames: int, progress: Progress) -> Footage | None:
        """See ``Recording``. A file in object storage would have to be downloaded first."""
        if not isinstance(self._store.path, Path):
            return None
        return read_converted(self._store.path, max_frames=max_frames, progress=progress)

    def close(self) -> None:
        """See ``Recording``. The store closes its files when it is collected."""

    def _width(self, column: str) -> int:
        return int(np.prod(self._store.columns[column].shape, dtype=np.int64))


def scaled(frame: Picture, height: int) -> Picture:
    """Scales a picture down to a height and keeps its aspect ratio.

    Args:
        frame: uint8 RGB of shape (H, W, 3).
        height: Height in pixels; a smaller picture stays as it is.

    Returns:
        uint8 RGB of shape (height, width, 3).
    """
    if frame.shape[0] <= height:
        return frame
    width = max(1, round(height * frame.shape[1] / frame.shape[0]))
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BOX))


def _names(column: str, width: int, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(names) if len(names) == width else tuple(f"{column} {number}" for number in range(width))
