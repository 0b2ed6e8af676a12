"""The meeting point of the two wings: file format version 1 and the batch contract.

One HDF5 file holds all steps of all episodes, episode after episode, along the first axis N. Its root holds
column datasets of shape (N, ...), ``ep_len`` and ``ep_offset`` of shape (E,), and root attributes; no groups and
no other datasets, so that stable-worldmodel's ``HDF5Dataset`` reads it as it is.

=============================  =======  ==============  =========================================
dataset                        dtype    shape           chunk
=============================  =======  ==============  =========================================
``pixels``, ``pixels_<name>``  uint8    (N, H, W, 3)    (1, H, W, 3): one RGB frame
``action``                     float32  (N, A)          many rows
``state``                      float32  (N, S)          many rows
``done``                       bool     (N,)            many rows
``episode_idx``, ``step_idx``  int32    (N,)            many rows; position in this file, 0-based
extra columns                  any      (N, ...)        many rows
``ep_len``                     int32    (E,)
``ep_offset``                  int64    (E,)
=============================  =======  ==============  =========================================

A frame chunk passes through its codec, then through HDF5's fletcher32 filter. A chunk that the codec could not
shrink is stored raw, with the codec's bit set in its filter mask.

A batch of windows (``num_steps`` = T, ``frameskip`` = K, first step t0 of one episode):

==========  =======  ==================================  ==================================================
key         dtype    shape                               meaning
==========  =======  ==================================  ==================================================
``pixels``  uint8    (B, T, 3, H, W), channels last      frames at t0 + k*K
``action``  float32  (B, T, K*A)                         all actions of [t0 + k*K, t0 + (k+1)*K), in order
``state``   float32  (B, T, S)                           at the kept frames
``done``    bool     (B, T)                              the episode ends within [t0 + k*K, t0 + (k+1)*K)
==========  =======  ==================================  ==================================================
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lewm_data.config import FORMAT_VERSION, MAX_IMAGE_SIDE
from lewm_data.errors import FormatError
from lewm_data.findings import Finding

ATTRIBUTES_CHECKSUM = "attributes_sha256"
"""Root attribute with the names of all others and a hash of their values, which HDF5 has no checksum of its own for."""

PIXELS = "pixels"
ACTION = "action"
STATE = "state"
DONE = "done"
EPISODE_IDX = "episode_idx"
STEP_IDX = "step_idx"
EP_LEN = "ep_len"
EP_OFFSET = "ep_offset"

ROW_DTYPES: dict[str, str] = {
    ACTION: "float32",
    STATE: "float32",
    DONE: "bool",
    EPISODE_IDX: "int32",
    STEP_IDX: "int32",
}
"""dtype of every column that each file has besides its frames."""

EPISODE_DTYPES: dict[str, str] = {EP_LEN: "int32", EP_OFFSET: "int64"}
RESERVED_NAMES = frozenset({PIXELS, *ROW_DTYPES, *EPISODE_DTYPES})
ROWS_PER_CHUNK = 4096
"""Most rows in a chunk of a small column: a few hundred kilobytes for wide states, one chunk for a short episode."""

CHUNK_BYTES = 1 << 20
"""What a chunk of a small column takes at most, unless one row takes more: HDF5's cache of chunks holds as much, and a
chunk that it cannot hold is read, checked and written again for every episode."""


CODEC_FILTER_IDS: dict[str, int | None] = {
    "lzf": 32000,
    "none": None,
    "lz4": 32004,
    "zstd": 32015,
    "blosc2": 32026,
}
"""HDF5's registered filter number of each codec."""

FLETCHER32_FILTER_ID = 3
FLETCHER32_BYTES = 4
CODEC_SKIPPED_MASK = 0b1
"""Filter mask of a chunk that was stored raw: bit 0 stands for the first filter, which is the codec."""


def rows_per_chunk(row_bytes: int) -> int:
    """Rows in a chunk of a small column.

    Args:
        row_bytes: Bytes of one row.
    """
    return max(1, min(ROWS_PER_CHUNK, CHUNK_BYTES // max(1, row_bytes)))


def is_pixels(column: str) -> bool:
    """Whether a column holds frames: ``pixels`` or ``pixels_<camera>``."""
    return column == PIXELS or column.startswith(PIXELS + "_")


def pixels_column(camera: str) -> str:
    """Column of a further camera.

    Args:
        camera: LeRobot's feature key, such as ``observation.images.top``.

    Returns:
        ``pixels_<name>``, the name being the key's part after ``observation.images.`` (else the whole key), with
        every character other than letters, digits, ``_`` and ``-`` replaced by ``_``.
    """
    return f"{PIXELS}_{safe_name(camera_name(camera))}"


def is_value(column: str) -> bool:
    """Whether a column holds one value per step that was recorded: no frames, no indices, no episode table."""
    return not is_pixels(column) and column not in (EPISODE_IDX, STEP_IDX, *EPISODE_DTYPES)


def camera_name(camera: str) -> str:
    """The short name of a camera key: ``observation.images.top`` is ``top`` (LeRobot's convention)."""
    for prefix in ("observation.images.", "observation.image."):
        if camera.startswith(prefix):
            return camera[len(prefix) :]
    return camera.removeprefix("observation.")


def safe_name(name: str) -> str:
    """Replaces what HDF5 paths and batch keys should not hold with ``_``."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "_" for c in name)


@dataclass(frozen=True, kw_only=True, slots=True)
class ColumnStatistics:
    """Statistics over all N steps of one numeric column, per dimension, in float64.

    Attributes:
        count: Steps that went in; NaN and infinite values are left out of the rest.
        mean: Arithmetic mean, one value per flattened dimension.
        std: Population standard deviation.
        min: Smallest value.
        max: Largest value.
    """

    count: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    min: tuple[float, ...]
    max: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceRecord:
    """Where a run of consecutive episodes came from.

    Attributes:
        repo_id: Hub repo id, or the folder's name for a local dataset.
        revision: Commit sha on the Hub; None for a local folder.
        codebase_version: LeRobot's layout version, such as ``v3.0``.
        episodes: The source's own episode_index of each episode, in file order.
    """

    repo_id: str
    revision: str | None
    codebase_version: str
    episodes: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class FileHeader:
    """The root attributes of a file, typed.

    Attributes:
        lewm_data_version: Version of this package that wrote the file.
        sources: Where the episodes came from, in file order.
        fps: Steps per second.
        cameras: Frame column to LeRobot camera key.
        image_height: Rows of a frame, in pixels.
        image_width: Columns of a frame, in pixels.
        resize: How frames were brought to that size.
        compression: Codec of the frame chunks.
        done_source: ``next.done``, ``is_terminal``, ``is_last`` or ``last_step``.
        feature_names: Names of the dimensions of each column that had some in the source.
        tasks: The source's task_index to its text.
        statistics: Statistics of each numeric column.
        dirty_episode_policy: The policy that was in force.
        findings: What was found wrong and what was done about it.
        dropped_episodes: Source episode_index of every episode that was left out.
        fingerprint: Hash of source revision and content settings; equal fingerprints mean equal content.
        part: ``i/n`` where the file holds only one of n parts of what the fingerprint stands for; else empty.
        format_version: Always ``FORMAT_VERSION`` in files written by this package.
    """

    lewm_data_version: str
    sources: tuple[SourceRecord, ...]
    fps: float
    cameras: dict[str, str]
    image_height: int
    image_width: int
    resize: str
    compression: str
    done_source: str
    feature_names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    tasks: dict[int, str] = field(default_factory=dict)
    statistics: dict[str, ColumnStatistics] = field(default_factory=dict)
    dirty_episode_policy: str = "fail"
    findings: tuple[Finding, ...] = ()
    dropped_episodes: tuple[int, ...] = ()
    fingerprint: str = ""
    part: str = ""
    format_version: int = FORMAT_VERSION

    def kept_episodes(self) -> dict[int, tuple[str, ...]]:
        """Episodes that were kept although they have errors: the source's episode_index to the codes found."""
        kept: dict[int, list[str]] = {}
        for found in self.findings:
            if found.handling == "kept" and found.episode is not None:
                kept.setdefault(found.episode, []).append(found.code)
        return {episode: tuple(dict.fromkeys(codes)) for episode, codes in sorted(kept.items())}

    def to_attributes(self) -> dict[str, int | float | str]:
        """Root attributes: numbers and text as they are, everything with structure as JSON text."""
        plain = dataclasses.asdict(self)
        attributes = {
            key: value if isinstance(value, (int, float, str)) else json.dumps(value) for key, value in plain.items()
        }
        checksum = {"of": sorted(attributes), "sha256": _hash(attributes, sorted(attributes))}
        return {**attributes, ATTRIBUTES_CHECKSUM: json.dumps(checksum)}

    @staticmethod
    def is_as_written(attributes: Mapping[str, Any]) -> bool:
        """Whether root attributes are those that were written; of a file without their checksum nobody can tell.

        Args:
            attributes: The root attributes of an open file.
        """
        try:
            if ATTRIBUTES_CHECKSUM not in attributes:
                return True
            told = json.loads(attributes[ATTRIBUTES_CHECKSUM])
            return bool(told["sha256"] == _hash(attributes, told["of"]))
        except (KeyError, OSError, RuntimeError, TypeError, ValueError):
            return False

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any], *, path: str) -> FileHeader:
        """Reads root attributes back.

        Args:
            attributes: The root attributes of an open file, such as ``h5py.File(...).attrs``.
            path: The file's path, for messages.

        Returns:
            The typed header.

        Raises:
            FormatError: The file is not of this format, or of a newer version of it.
        """
        try:
            ours = "lewm_data_version" in attributes
            version = int(attributes["format_version"]) if "format_version" in attributes and ours else None
        except (ArithmeticError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
            raise FormatError(f"{path}: its root attributes cannot be read; the file is damaged ({error}).") from error
        if version is None:
            raise FormatError(
                f"{path}: not a lewm_data file (it has no root attribute 'format_version'). "
                "Make one with: lewm-data convert SOURCE OUTPUT.h5"
            )
        if version > FORMAT_VERSION or version < 1:
            raise FormatError(
                f"{path}: format version {version}, but this lewm_data reads versions 1 to {FORMAT_VERSION}. "
                "Upgrade lewm_data, or convert the dataset again with this one."
            )
        try:
            header = cls(
                format_version=version,
                lewm_data_version=str(attributes["lewm_data_version"]),
                sources=tuple(
                    SourceRecord(**{**record, "episodes": tuple(record["episodes"])})
                    for record in json.loads(attributes["sources"])
                ),
                fps=float(attributes["fps"]),
                cameras=json.loads(attributes["cameras"]),
                image_height=int(attributes["image_height"]),
                image_width=int(attributes["image_width"]),
                resize=str(attributes["resize"]),
                compression=str(attributes["compression"]),
                done_source=str(attributes["done_source"]),
                feature_names={k: tuple(v) for k, v in json.loads(attributes["feature_names"]).items()},
                tasks={int(k): v for k, v in json.loads(attributes["tasks"]).items()},
                statistics={k: _statistics(v) for k, v in json.loads(attributes["statistics"]).items()},
                dirty_episode_policy=str(attributes["dirty_episode_policy"]),
                findings=tuple(Finding.from_json(item) for item in json.loads(attributes["findings"])),
                dropped_episodes=tuple(json.loads(attributes["dropped_episodes"])),
                fingerprint=str(attributes["fingerprint"]),
                part=str(attributes.get("part", "")),
            )
            header._check()
            return header
        except (ArithmeticError, AttributeError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
            raise FormatError(
                f"{path}: root attributes of format version {version} are incomplete or malformed "
                f"({type(error).__name__}: {error}). Convert the dataset again."
            ) from error

    def _check(self) -> None:
        """Raises ValueError for values that no file of this format has."""
        if not all(isinstance(key, str) for key in self.cameras.values()):
            raise ValueError("cameras do not map columns to keys")
        if not all(1 <= side <= MAX_IMAGE_SIDE for side in (self.image_height, self.image_width)):
            raise ValueError(f"frames of {self.image_height}x{self.image_width}")
        if not 0 < self.fps < float("inf"):
            raise ValueError(f"fps {self.fps}")


def _hash(attributes: Mapping[str, Any], names: Iterable[str]) -> str:
    """SHA-256 of attributes, as numbers and text of Python whatever h5py makes of them."""
    values = [[name, getattr(attributes[name], "item", lambda value=attributes[name]: value)()] for name in names]
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def _statistics(data: Mapping[str, Any]) -> ColumnStatistics:
    dimensions = {name: tuple(data[name]) for name in ("mean", "std", "min", "max")}
    return ColumnStatistics(count=int(data["count"]), **dimensions)
