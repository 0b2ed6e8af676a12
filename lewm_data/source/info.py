"""``meta/info.json``: features, path templates and versions. Unsafe values are refused."""

from __future__ import annotations

import math
import re
import string
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lewm_data.findings import finding
from lewm_data.paths import is_file, is_folder
from lewm_data.source.files import UnusableError, unreadable

INFO_FILE = "meta/info.json"

_PATH_FIELDS = {"chunk_index", "file_index", "episode_chunk", "episode_index", "video_key"}

_DEFAULT_PATHS = {
    "v3": {
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    },
    "v2": {
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    },
}
"""LeRobot's own templates, for an ``info.json`` without them."""

NUMBER_DTYPES = frozenset(
    {"bool", "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"}
)
"""Dtypes of ``meta/info.json`` that stand for numbers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Feature:
    """One feature of ``meta/info.json``.

    Attributes:
        key: LeRobot's key, such as ``observation.state``.
        dtype: ``video``, ``image``, or a number's dtype such as ``float32``.
        shape: As declared. A camera's shape may be channel-first or channel-last, so the decoded size is trusted.
        names: Names of the dimensions, if ``info.json`` gives them as a flat list.
        is_depth: A depth camera, which holds no RGB pictures.
    """

    key: str
    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...] = ()
    is_depth: bool = False

    @property
    def is_camera(self) -> bool:
        """Whether it holds RGB pictures."""
        return self.dtype in ("video", "image") and not self.is_depth

    @property
    def is_number(self) -> bool:
        """Whether its rows hold numbers, one or more."""
        return self.dtype in NUMBER_DTYPES and self.width > 0

    @property
    def width(self) -> int:
        """Numbers in one row: the product of the shape."""
        return math.prod(self.shape)


def read_mapping(info: dict[str, Any], key: str) -> dict[str, Any]:
    """An object of objects in ``info.json``, such as ``features``.

    Raises:
        UnusableError: It is absent or something else.
    """
    value = info.get(key)
    if not isinstance(value, dict) or not all(isinstance(item, dict) for item in value.values()):
        raise unreadable(INFO_FILE, f"an object {key!r}", repr(value))
    return value


def read_feature(key: str, spec: dict[str, Any]) -> Feature:
    """Reads one feature of ``info.json``. A missing dtype or shape matters only where the feature is used.

    Args:
        key: LeRobot's key.
        spec: The object under that key.

    Returns:
        The feature. Its dtype is ``""`` and its shape ``(0,)`` if ``info.json`` has no usable one.

    Raises:
        UnusableError: It is a camera whose name would lead out of the folder.
    """
    dtype, shape = spec.get("dtype"), spec.get("shape")
    is_shape = isinstance(shape, list) and all(isinstance(side, int) and 0 <= side < 1 << 31 for side in shape)
    if dtype in ("video", "image") and (re.search(r"[/\\]", key) or ".." in key or not key.isprintable()):
        raise UnusableError(finding("path_unsafe", file=INFO_FILE, expected="a plain camera name", found=f"{key!r}"))
    return Feature(
        key=key,
        dtype=dtype if isinstance(dtype, str) else "",
        shape=tuple(shape) if is_shape and shape is not None else (0,),
        names=_names(spec.get("names")),
        is_depth=_is_depth(spec),
    )


def _names(names: Any) -> tuple[str, ...]:
    """Names of a feature's dimensions; empty if they are in a form that LeRobot never wrote."""
    if isinstance(names, dict) and all(isinstance(place, int) for place in names.values()):
        names = sorted(names, key=lambda name: names[name])  # {"delta_x": 0, "delta_y": 1}
    elif isinstance(names, dict):  # before LeRobot v2.1 they were nested under one key: {"motors": [...]}
        names = next(iter(names.values()))
    is_flat = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return tuple(names) if is_flat else ()


def _is_depth(spec: dict[str, Any]) -> bool:
    """Like LeRobot's ``LeRobotDatasetMetadata.depth_keys``: the flag has been in three places over time."""
    blocks = [block for block in (spec.get("info"), spec.get("video_info")) if isinstance(block, dict)]
    return any(block.get("is_depth_map") or block.get("video.is_depth_map") for block in blocks)


def read_template(info: dict[str, Any], key: str) -> str:
    """Reads a path template, and refuses one that could leave the folder or reach into Python objects.

    Args:
        info: ``meta/info.json``.
        key: ``data_path`` or ``video_path``. If it is absent, LeRobot's default is used.

    Raises:
        UnusableError: It is unsafe.
    """
    template = info.get(key)
    if template is None:
        return _DEFAULT_PATHS[str(info.get("codebase_version"))[:2]][key]
    try:
        parts = list(string.Formatter().parse(template)) if isinstance(template, str) else []
    except ValueError:
        parts = []
    literal = "".join(text for text, *_ in parts)
    is_safe = bool(parts) and all(
        field is None or (field in _PATH_FIELDS and not conversion and re.fullmatch(r"(\d{1,2}d)?", spec or ""))
        for _, field, spec, conversion in parts
    )
    if (
        not is_safe
        or not literal.isprintable()
        or literal.startswith(("/", "~"))
        or ".." in literal
        or re.search(r"[\\:]", literal)
    ):
        raise UnusableError(
            finding(
                "path_unsafe",
                file=INFO_FILE,
                expected=f"{key} inside the dataset's folder, made of {', '.join(sorted(_PATH_FIELDS))}",
                found=repr(template)[:120],
            )
        )
    return str(template)


def check_layout(root: Path, version: str) -> None:
    """Refuses a folder whose layout is not that of the version in ``info.json``.

    Raises:
        UnusableError: The version says v2.x and the folder has v3.0's episode table, or the reverse.
    """
    v3 = is_folder(root / "meta" / "episodes")
    v2 = is_file(root / "meta" / "episodes.jsonl")
    if (version == "v3.0" and not v3 and v2) or (version != "v3.0" and v3 and not v2):
        raise UnusableError(
            finding(
                "version_mismatch",
                file=INFO_FILE,
                expected=f"the layout of {version}",
                found="meta/episodes/ as in v3.0" if v3 else "meta/episodes.jsonl as in v2.x",
            )
        )


def read_count(info: dict[str, Any], key: str) -> int | None:
    """Reads a whole number of 0 or more; None if it is absent.

    Raises:
        UnusableError: It is something else.
    """
    value = info.get(key)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if value is None or (isinstance(value, int) and 0 <= value < 1 << 62):
        return value
    raise unreadable(INFO_FILE, f"{key} as a whole number", repr(value))
