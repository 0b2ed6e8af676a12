"""The root attributes of a file, typed: where it came from, how it was made and what was found."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lewm_data.config import FORMAT_VERSION
from lewm_data.errors import FormatError
from lewm_data.findings import Finding
from lewm_data.format.attributes import as_integers, as_list, as_object, hash_attributes, integer, number, parse
from lewm_data.format.hdf5 import HDF5_ERRORS
from lewm_data.format.schema import camera_name
from lewm_data.format.statistics import ColumnStatistics
from lewm_data.machine_errors import raise_machine_error
from lewm_data.notation import MAX_IMAGE_SIDE

ATTRIBUTES_CHECKSUM = "attributes_sha256"
"""Root attribute with the names of the others and a hash of their values: HDF5 has no checksum for attributes."""


READING = "reading"
"""Root attribute of files whose frames neither h5py nor hdf5plugin decodes: how to read them."""

_HOW_TO_READ = {
    "jpeg": (
        "h5py fails on the frames until HDF5 filter 32019 is registered: from lewm_data.format import jpeg_filter; "
        "jpeg_filter.register(). Without lewm_data: mask, data = dataset.id.read_direct_chunk((row, 0, 0, 0)). Without "
        "its last 4 bytes, data is a JPEG stream, or the raw frame if mask is odd."
    )
}


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceRecord:
    """Where a run of consecutive episodes came from.

    Attributes:
        repo_id: Hub repo id, or the folder's name for a local dataset.
        revision: Commit sha on the Hub; None for a local folder.
        codebase_version: LeRobot's layout version, such as ``v3.0``.
        episodes: The source's own episode_index of each episode, in file order.
        shifts: Frame column to its shift in frames, where a camera was out of step: step t of the source is paired
            with frame t + shift. Cameras that were in step are left out.
        kept_steps: Of each episode, the source's steps [start, stop) that are in the file; empty if nothing was cut.
        digests: Digest of the stored bytes that the frames of each episode were decoded from; empty text where a later
            conversion must decode it again.
    """

    repo_id: str
    revision: str | None
    codebase_version: str
    episodes: tuple[int, ...]
    shifts: dict[str, int] = field(default_factory=dict)
    kept_steps: tuple[tuple[int, int], ...] = ()
    digests: tuple[str, ...] = ()

    def first_step(self, position: int) -> int:
        """The source's step at which the episode at a position of ``episodes`` begins in the file."""
        return self.kept_steps[position][0] if self.kept_steps else 0


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
        scaler_version: How frames were made from the source; see ``lewm_data.source.scale``. Files without this
            attribute have version 1; 0 stands for a merged file whose parts have different versions.
        compression: Codec of the frame chunks.
        lossy_quality: Quality that a lossy codec encoded with; 0, also if the attribute is absent, for lossless frames.
        done_source: ``next.done``, ``is_terminal`` or ``is_last``; ``run`` if such a flag is set on several last steps
            of an episode; ``last_step`` if the source has no flag.
        columns: Column to the LeRobot keys that make it up, in order; empty in files of older versions.
        feature_names: Names of the dimensions of each column that has them in the source.
        tasks: The source's task_index to its text.
        statistics: Statistics of each numeric column.
        dirty_episode_policy: The policy of the conversion.
        findings: What was found wrong and what was done about it.
        dropped_episodes: Source episode_index of every episode that was left out.
        fingerprint: Hash of source revision and content settings; equal fingerprints mean equal content.
        part: ``i/n`` if the file holds only part i of the n that one fingerprint stands for; else empty.
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
    columns: dict[str, tuple[str, ...]] = field(default_factory=dict)
    feature_names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    tasks: dict[int, str] = field(default_factory=dict)
    statistics: dict[str, ColumnStatistics] = field(default_factory=dict)
    dirty_episode_policy: str = "fail"
    findings: tuple[Finding, ...] = ()
    dropped_episodes: tuple[int, ...] = ()
    fingerprint: str = ""
    part: str = ""
    scaler_version: int = 1
    lossy_quality: int = 0
    format_version: int = FORMAT_VERSION

    @property
    def codec_words(self) -> str:
        """The codec and whether it loses anything: ``lzf, lossless`` or ``jpeg of quality 90, lossy``."""
        if not self.lossy_quality:
            return f"{self.compression}, lossless"
        return f"{self.compression} of quality {self.lossy_quality}, lossy"

    def kept_episodes(self) -> dict[int, tuple[str, ...]]:
        """Episodes that were kept although they have errors: the source's episode_index to the codes found."""
        kept: dict[int, list[str]] = {}
        for found in self.findings:
            if found.handling == "kept" and found.episode is not None:
                kept.setdefault(found.episode, []).append(found.code)
        return {episode: tuple(dict.fromkeys(codes)) for episode, codes in sorted(kept.items())}

    def corrections(self, most: int = 20) -> list[tuple[str, str]]:
        """What was corrected, as pairs of label and value for people; empty if nothing was.

        Args:
            most: Episodes of each source whose kept steps are listed.
        """
        pairs = []
        for record in self.sources:
            where = f" in {record.repo_id}" if len(self.sources) > 1 else ""
            for column, shift in record.shifts.items():
                name = camera_name(self.cameras.get(column, column))
                pairs.append(
                    (f"shift of camera {name}{where}", f"{shift:+d} {'frame' if abs(shift) == 1 else 'frames'}")
                )
            kept = zip(record.episodes[:most], record.kept_steps, strict=False)
            listed = [f"{index}: {start} to {stop - 1}" for index, (start, stop) in kept]
            if listed:
                more = f", and {len(record.episodes) - most:,} more" if len(record.episodes) > most else ""
                pairs.append((f"kept steps of each source episode{where}", ", ".join(listed) + more))
        return pairs

    def to_attributes(self) -> dict[str, int | float | str]:
        """Root attributes: numbers and text as they are, everything with structure as JSON text."""
        plain = dataclasses.asdict(self)
        attributes = {
            key: value if isinstance(value, (int, float, str)) else json.dumps(value) for key, value in plain.items()
        }
        if self.compression in _HOW_TO_READ:
            attributes[READING] = _HOW_TO_READ[self.compression]
        checksum = {"of": sorted(attributes), "sha256": hash_attributes(attributes, sorted(attributes))}
        return {**attributes, ATTRIBUTES_CHECKSUM: json.dumps(checksum)}

    @staticmethod
    def is_as_written(attributes: Mapping[str, Any]) -> bool:
        """Whether root attributes match their checksum. True for a file without one.

        Args:
            attributes: The root attributes of an open file.
        """
        try:
            if ATTRIBUTES_CHECKSUM not in attributes:
                return True
            stated = parse(attributes, ATTRIBUTES_CHECKSUM, dict)
            return bool(stated["sha256"] == hash_attributes(attributes, [str(name) for name in as_list(stated["of"])]))
        except HDF5_ERRORS as error:
            raise_machine_error(error, "the root attributes")
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
            is_ours = "lewm_data_version" in attributes and "format_version" in attributes
            version = integer(attributes, "format_version") if is_ours else None
        except HDF5_ERRORS as error:
            raise_machine_error(error, path)
            raise FormatError(f"{path}: the root attributes cannot be read; the file is damaged ({error}).") from error
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
            header = cls._from(attributes, version)
            header._check()
            return header
        except HDF5_ERRORS as error:
            raise_machine_error(error, path)
            raise FormatError(
                f"{path}: root attributes of format version {version} are incomplete or malformed "
                f"({type(error).__name__}: {error}). Convert the dataset again."
            ) from error

    @classmethod
    def _from(cls, attributes: Mapping[str, Any], version: int) -> FileHeader:
        """Raises KeyError for an attribute that is missing and ValueError for one that is malformed."""
        columns = parse(attributes, "columns", dict) if "columns" in attributes else {}
        return cls(
            format_version=version,
            lewm_data_version=str(attributes["lewm_data_version"]),
            sources=tuple(_source(item) for item in parse(attributes, "sources", list)),
            fps=number(attributes, "fps"),
            cameras=parse(attributes, "cameras", dict),
            image_height=integer(attributes, "image_height"),
            image_width=integer(attributes, "image_width"),
            resize=str(attributes["resize"]),
            compression=str(attributes["compression"]),
            done_source=str(attributes["done_source"]),
            columns={name: tuple(map(str, as_list(keys))) for name, keys in columns.items()},
            feature_names={
                name: tuple(map(str, as_list(names)))
                for name, names in parse(attributes, "feature_names", dict).items()
            },
            tasks={int(index): str(text) for index, text in parse(attributes, "tasks", dict).items()},
            statistics={
                name: ColumnStatistics.from_json(item) for name, item in parse(attributes, "statistics", dict).items()
            },
            dirty_episode_policy=str(attributes["dirty_episode_policy"]),
            findings=tuple(_finding(item) for item in parse(attributes, "findings", list)),
            dropped_episodes=as_integers(parse(attributes, "dropped_episodes", list)),
            fingerprint=str(attributes["fingerprint"]),
            part=str(attributes.get("part", "")),
            scaler_version=integer(attributes, "scaler_version") if "scaler_version" in attributes else 1,
            lossy_quality=integer(attributes, "lossy_quality") if "lossy_quality" in attributes else 0,
        )

    def _check(self) -> None:
        """Raises ValueError for values that no file of this format has."""
        if not all(isinstance(key, str) for key in self.cameras.values()):
            raise ValueError("cameras do not map columns to keys")
        if not all(1 <= side <= MAX_IMAGE_SIDE for side in (self.image_height, self.image_width)):
            raise ValueError(f"frames of {self.image_height}x{self.image_width}")
        if not 0 < self.fps < float("inf"):
            raise ValueError(f"fps {self.fps}")


def _source(value: Any) -> SourceRecord:
    record = as_object(value)
    return SourceRecord(
        repo_id=str(record["repo_id"]),
        revision=None if record["revision"] is None else str(record["revision"]),
        codebase_version=str(record["codebase_version"]),
        episodes=as_integers(record["episodes"]),
        shifts=_shifts(record.get("shifts", {})),
        kept_steps=tuple(_steps(pair) for pair in as_list(record.get("kept_steps", []))),
        digests=tuple(map(str, as_list(record.get("digests", [])))),
    )


def _shifts(value: Any) -> dict[str, int]:
    shifts = as_object(value)
    if not all(isinstance(shift, int) for shift in shifts.values()):
        raise ValueError(f"shifts: {value!r} does not map columns to whole numbers")
    return shifts


def _steps(value: Any) -> tuple[int, int]:
    pair = as_integers(value)
    if len(pair) != 2 or not 0 <= pair[0] < pair[1]:
        raise ValueError(f"kept_steps: {value!r} is not a range of steps")
    return pair[0], pair[1]


def _finding(value: Any) -> Finding:
    try:
        return Finding.from_json(as_object(value))
    except TypeError as error:  # a field is missing
        raise ValueError(f"findings: {error}") from error
