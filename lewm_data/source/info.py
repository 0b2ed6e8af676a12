"""``meta/info.json``: features, path templates and versions, each refused where it cannot be trusted."""

from __future__ import annotations

import json
import re
import string
from pathlib import Path
from typing import Any

from lewm_data.findings import Finding, finding
from lewm_data.source.metadata import Feature

INFO_FILE = "meta/info.json"

_MOST_TEXT_BYTES = 1 << 30
"""A million episodes take a tenth of it as JSON lines."""

_LFS_PREFIX = b"version https://git-lfs"
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


class Unusable(Exception):
    """Metadata without which nothing can be said; carries the finding."""

    def __init__(self, found: Finding) -> None:
        super().__init__(found.sentence())
        self.finding = found


def unreadable(file: str, expected: str, found: str) -> Unusable:
    """Metadata that is there but cannot be understood."""
    return Unusable(finding("metadata_unreadable", file=file, expected=expected, found=found[:120]))


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its name if it has none."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def is_lfs_pointer(path: Path) -> bool:
    """Whether a file is what Git LFS leaves in a checkout that was never pulled."""
    with path.open("rb") as file:
        return file.read(len(_LFS_PREFIX)) == _LFS_PREFIX


def leads_out(root: Path, path: Path) -> bool:
    """Whether a path, links followed, ends outside of the dataset's folder (of a Hub snapshot: of its repo's cache)."""
    home = root.resolve()
    if home.parent.name == "snapshots":  # whose files are links into the cache's "blobs"
        home = home.parent.parent
    try:
        return not path.resolve().is_relative_to(home)
    except (OSError, RuntimeError, ValueError):  # links in a circle, names that no file can have
        return True


def check_inside(root: Path, name: str) -> None:
    """Refuses a file that is a link out of the dataset's folder.

    Raises:
        Unusable: It is.
    """
    if leads_out(root, root / name):
        raise Unusable(
            finding("path_unsafe", file=name, expected="a file in the dataset's folder", found="a link that leads out")
        )


def is_file(path: Path) -> bool:
    """Whether there is a regular file; a name that no file can have (too long, say) is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def read_json(root: Path, name: str) -> dict[str, Any]:
    """Reads a JSON object.

    Args:
        root: The dataset's folder.
        name: The file, relative to it.

    Raises:
        Unusable: It is missing, a Git LFS pointer, or no JSON object.
    """
    text = read_text(root, name)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise unreadable(name, "a JSON object", str(error)) from error
    if not isinstance(value, dict):
        raise unreadable(name, "a JSON object", type(value).__name__)
    return value


def read_text(root: Path, name: str) -> str:
    """Reads a text file; arguments and errors as for ``read_json``."""
    path = root / name
    if not path.is_file():
        raise Unusable(finding("metadata_missing", file=name, expected="the file", found="no such file"))
    check_inside(root, name)
    try:
        if path.stat().st_size > _MOST_TEXT_BYTES:
            raise unreadable(name, f"{_MOST_TEXT_BYTES:,} bytes at most", f"{path.stat().st_size:,}")
        if is_lfs_pointer(path):
            raise Unusable(finding("lfs_pointer", file=name, expected="the file itself", found="a Git LFS pointer"))
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(name, "UTF-8 text", str(error)) from error


def read_mapping(info: dict[str, Any], key: str) -> dict[str, Any]:
    """An object of objects in ``info.json``, such as ``features``.

    Raises:
        Unusable: It is absent or something else.
    """
    value = info.get(key)
    if not isinstance(value, dict) or not all(isinstance(item, dict) for item in value.values()):
        raise unreadable(INFO_FILE, f"an object {key!r}", repr(value))
    return value


def read_feature(key: str, spec: dict[str, Any]) -> Feature:
    """One feature of ``info.json``; a dtype or shape that it lacks matters only to who needs the feature.

    Args:
        key: LeRobot's key.
        spec: What stands under it.

    Returns:
        The feature; without a usable dtype it has ``""``, without a usable shape ``(0,)``.

    Raises:
        Unusable: It is a camera whose name would lead out of the folder.
    """
    dtype, shape = spec.get("dtype"), spec.get("shape")
    is_shape = isinstance(shape, list) and all(isinstance(side, int) and 0 <= side < 1 << 31 for side in shape)
    if dtype in ("video", "image") and (re.search(r"[/\\]", key) or ".." in key or not key.isprintable()):
        raise Unusable(finding("path_unsafe", file=INFO_FILE, expected="a plain camera name", found=f"{key!r}"))
    return Feature(
        key=key,
        dtype=dtype if isinstance(dtype, str) else "",
        shape=tuple(shape) if is_shape and shape is not None else (0,),
        names=_names(spec.get("names")),
        is_depth=_is_depth(spec),
    )


def _names(names: Any) -> tuple[str, ...]:
    """Names of a feature's dimensions; empty where they are given in a way that LeRobot never wrote."""
    if isinstance(names, dict) and all(isinstance(place, int) for place in names.values()):
        names = sorted(names, key=lambda name: names[name])  # {"delta_x": 0, "delta_y": 1}
    elif isinstance(names, dict):  # before LeRobot v2.1 they were nested under one key: {"motors": [...]}
        names = next(iter(names.values()))
    is_flat = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return tuple(names) if is_flat else ()


def _is_depth(spec: dict[str, Any]) -> bool:
    """As LeRobot's ``LeRobotDatasetMetadata.depth_keys``: the flag had three places."""
    blocks = [block for block in (spec.get("info"), spec.get("video_info")) if isinstance(block, dict)]
    return any(block.get("is_depth_map") or block.get("video.is_depth_map") for block in blocks)


def read_template(info: dict[str, Any], key: str) -> str:
    """A path template, refused where formatting it could leave the folder or reach into objects.

    Args:
        info: ``meta/info.json``.
        key: ``data_path`` or ``video_path``; where it is absent, LeRobot's default is taken.

    Raises:
        Unusable: It is unsafe.
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
        raise Unusable(
            finding(
                "path_unsafe",
                file=INFO_FILE,
                expected=f"{key} inside the dataset's folder, made of {', '.join(sorted(_PATH_FIELDS))}",
                found=repr(template)[:120],
            )
        )
    return str(template)


def check_layout(root: Path, version: str) -> None:
    """Version and folder must agree: nobody can tell which of them is right.

    Raises:
        Unusable: They do not.
    """
    v3 = (root / "meta" / "episodes").is_dir()
    v2 = (root / "meta" / "episodes.jsonl").is_file()
    if (version == "v3.0" and not v3 and v2) or (version != "v3.0" and v3 and not v2):
        raise Unusable(
            finding(
                "version_mismatch",
                file=INFO_FILE,
                expected=f"the layout of {version}",
                found="meta/episodes/ as in v3.0" if v3 else "meta/episodes.jsonl as in v2.x",
            )
        )


def read_count(info: dict[str, Any], key: str) -> int | None:
    """A whole number of ``info.json``; None where it is absent.

    Raises:
        Unusable: It is something else.
    """
    value = info.get(key)
    if value is None or (isinstance(value, int) and 0 <= value < 1 << 62):
        return value
    raise unreadable(INFO_FILE, f"{key} as a whole number", repr(value))
