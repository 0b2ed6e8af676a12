"""A dataset's metadata, independent of its layout on disk: the values that ``source`` passes to later layers."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lewm_data.format.schema import ACTION, DONE, DONE_RUN, STATE, camera_name
from lewm_data.source.info import Feature

NULL = -1
"""Stands for a null in an integer column of the episode table."""

TIMESTAMP_TOLERANCE_SECONDS = 1e-4
"""LeRobot's own tolerance between a row's timestamp and its frame's."""

DONE_KEYS = ("next.done", "is_terminal", "is_last")
"""Columns that may flag the end of an episode, in order of preference."""

LAST_STEP = "last_step"
"""``done_source`` of a dataset that flags no ends: each episode ends at its last step."""

INDEX_COLUMNS = ("episode_index", "frame_index", "timestamp", "index")
"""Columns that LeRobot writes into every Parquet file, and that say which row is which."""


class VideoSpan(NamedTuple):
    """Where one camera's frames of an episode are: ``[start_seconds, stop_seconds)`` of a file."""

    file: str
    start_seconds: float
    stop_seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Episode:
    """One episode, by value.

    Attributes:
        index: The source's episode_index.
        length: Steps, according to the metadata.
        data_file: Parquet file, relative to the dataset's folder; None if the metadata does not say.
        first_index: The value of the ``index`` column in its first row; NULL if unknown.
        videos: Camera key to span, for each camera of dtype ``video`` whose span the metadata states.
    """

    index: int
    length: int
    data_file: str | None
    first_index: int
    videos: dict[str, VideoSpan] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class CameraColumns:
    """Where one video camera's frames are, for all episodes; arrays of shape (E,).

    Attributes:
        chunk: Chunk number in the path, int64; NULL for a null.
        file: File number in the path, int64; NULL for a null.
        start_seconds: Start of the span, float64.
        stop_seconds: End of the span, exclusive, float64. LeRobot's reader does not use it.
        next_seconds: Start of the next span in the same file, float64; Inf for the last one.
    """

    chunk: np.ndarray
    file: np.ndarray
    start_seconds: np.ndarray
    stop_seconds: np.ndarray
    next_seconds: np.ndarray

    def take(self, rows: np.ndarray) -> CameraColumns:
        """The columns of some episodes, given by a mask or by positions."""
        return CameraColumns(**{one.name: getattr(self, one.name)[rows] for one in fields(self)})


@dataclass(frozen=True, kw_only=True, slots=True)
class EpisodeTable:
    """All episodes as arrays of shape (E,), sorted by episode_index. 100,000 episodes take a few megabytes.

    Attributes:
        index: episode_index, int64.
        length: Steps, int64.
        data_chunk: Chunk number in the Parquet path, int64; NULL for a null.
        data_file: File number in the Parquet path, int64; NULL for a null.
        first_index: Value of ``index`` in the first row, int64; NULL if unknown.
        cameras: Video camera key to its columns.
    """

    index: np.ndarray
    length: np.ndarray
    data_chunk: np.ndarray
    data_file: np.ndarray
    first_index: np.ndarray
    cameras: dict[str, CameraColumns]

    def __len__(self) -> int:
        return len(self.index)

    def take(self, rows: np.ndarray) -> EpisodeTable:
        """The table of some episodes, given by a mask or by positions."""
        return EpisodeTable(
            index=self.index[rows],
            length=self.length[rows],
            data_chunk=self.data_chunk[rows],
            data_file=self.data_file[rows],
            first_index=self.first_index[rows],
            cameras={camera: columns.take(rows) for camera, columns in self.cameras.items()},
        )


class DatasetPaths(NamedTuple):
    """Path templates of a layout, with ``str.format`` fields."""

    data: str
    video: str


@dataclass(frozen=True, kw_only=True)
class LeRobotDataset:
    """A dataset whose metadata has been read, but not its rows and videos.

    Attributes:
        root: Its folder.
        repo_id: Hub repo id, or the folder's name.
        revision: Commit sha on the Hub; None for a local folder.
        codebase_version: Such as ``v3.0``.
        fps: Steps per second.
        features: Key to feature.
        paths: Path templates.
        episodes: The chosen episodes.
        tasks: task_index to text.
        total_episodes: According to info.json; None if it does not say.
        total_steps: According to info.json; None if it does not say.
        listed_episodes: Episodes in the metadata, before any selection.
        listed_steps: Their steps.
        chunks_size: Episodes per chunk folder (v2.x).
        action: Keys of the columns that make up ``action``, in order; empty if none was found.
        state: Keys of the columns that make up ``state``, in order; empty if the dataset has no state.
        absent_cameras: Video cameras in info.json that have no file at all in this local folder.
        follow_links: Whether data and video files may be links to places outside the folder.
    """

    root: Path
    repo_id: str
    revision: str | None
    codebase_version: str
    fps: float
    features: dict[str, Feature]
    paths: DatasetPaths
    episodes: EpisodeTable
    tasks: dict[int, str]
    total_episodes: int | None
    total_steps: int | None
    listed_episodes: int
    listed_steps: int
    chunks_size: int
    action: tuple[str, ...]
    state: tuple[str, ...]
    absent_cameras: tuple[str, ...] = ()
    follow_links: bool = False

    @property
    def cameras(self) -> tuple[str, ...]:
        """Keys of the RGB cameras that have pictures, in the order of info.json."""
        return tuple(
            key for key, feature in self.features.items() if feature.is_camera and key not in self.absent_cameras
        )

    @property
    def depth_cameras(self) -> tuple[str, ...]:
        """Keys of the depth cameras, which are left out."""
        return tuple(key for key, feature in self.features.items() if feature.is_depth)

    @property
    def done_source(self) -> str:
        """The key that flags the end of an episode, or ``last_step``."""
        return next((key for key in DONE_KEYS if key in self.features), LAST_STEP)

    def find_camera(self, name: str) -> str | None:
        """The key of a camera, given by its key or its short name. The camera may lack files."""
        declared = (*self.cameras, *self.absent_cameras)
        return next((key for key in declared if name in (key, camera_name(key))), None)

    def row_columns(self, extra_columns: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
        """Numeric columns to read: the column of our file to the LeRobot keys that make it up, in order."""
        columns = {ACTION: self.action, STATE: self.state, DONE: ()}
        if self.done_source != LAST_STEP:
            columns[DONE] = (self.done_source,)
        columns = {name: keys for name, keys in columns.items() if keys}
        return columns | {extra: (extra,) for extra in extra_columns}

    def dimension_names(self, keys: tuple[str, ...]) -> tuple[str, ...]:
        """Names of the dimensions of a column that is made up of these keys; empty if info.json names none.

        If a key's dimensions have no names, the last part of the key is used: ``action.gripper`` is ``gripper``.
        """
        features = [self.features[key] for key in keys]
        if len(features) == 1:
            return features[0].names
        names = [name for feature in features for name in _own_names(feature, is_long=False)]
        if len(set(names)) < len(names):
            names = [name for feature in features for name in _own_names(feature, is_long=True)]
        return tuple(names)

    def is_legacy(self) -> bool:
        """Whether there is one file per episode (v2.x)."""
        return self.codebase_version.startswith("v2")

    def data_path(self, row: int) -> str | None:
        """Parquet file of the episode in a row of the table; None if the metadata does not say."""
        table = self.episodes
        return self._path(self.paths.data, row, int(table.data_chunk[row]), int(table.data_file[row]), None)

    def video_path(self, row: int, camera: str) -> str | None:
        """Video file of the episode in a row of the table; None if the metadata does not say."""
        columns = self.episodes.cameras[camera]
        return self._path(self.paths.video, row, int(columns.chunk[row]), int(columns.file[row]), camera)

    def _path(self, template: str, row: int, chunk: int, file: int, camera: str | None) -> str | None:
        if NULL in (chunk, file):
            return None
        return template.format(
            chunk_index=chunk,
            file_index=file,
            episode_chunk=chunk,
            episode_index=int(self.episodes.index[row]),
            video_key=camera,
        )

    def episode(self, row: int) -> Episode:
        """The episode in a row of the table."""
        table = self.episodes
        videos = {}
        for camera, columns in table.cameras.items():
            path = self.video_path(row, camera)
            if path is not None:
                videos[camera] = VideoSpan(path, float(columns.start_seconds[row]), float(columns.stop_seconds[row]))
        return Episode(
            index=int(table.index[row]),
            length=int(table.length[row]),
            data_file=self.data_path(row),
            first_index=int(table.first_index[row]),
            videos=videos,
        )


def _own_names(feature: Feature, *, is_long: bool) -> list[str]:
    """One name for each dimension of a feature; long ones begin with the feature's own name."""
    own = feature.key.rpartition(".")[2] if not is_long else feature.key
    if len(feature.names) == feature.width:
        return [f"{own}.{name}" for name in feature.names] if is_long else list(feature.names)
    return [own] if feature.width == 1 else [f"{own} {number}" for number in range(feature.width)]


def done_words(done_source: str) -> str:
    """Where ``done`` comes from, in words."""
    words = {LAST_STEP: "each episode's last step", DONE_RUN: "the last step of each episode's run of end flags"}
    return words.get(done_source, done_source)
