"""``meta/info.json``: features, path templates and versions, each refused where it cannot be trusted."""

from __future__ import annotations

import json
import re
import string
from pathlib import Path
from typing import Any

from lewm_data.conversion.catalogue import finding
from lewm_data.conversion.layout import Feature
from lewm_data.schema import Finding

_LFS_PREFIX = b"version https://git-lfs"
_PATH_FIELDS = {"chunk_index", "file_index", "episode_chunk", "episode_index", "video_key"}


class Unusable(Exception):
    """Metadata without which nothing can be said; carries the finding."""

    def __init__(self, found: Finding) -> None:
        super().__init__(found.sentence())
        self.finding = found


def is_lfs_pointer(path: Path) -> bool:
    """Whether a file is what Git LFS leaves in a checkout that was never pulled."""
    with path.open("rb") as file:
        return file.read(len(_LFS_PREFIX)) == _LFS_PREFIX


def read_json(root: Path, name: str) -> dict[str, Any]:
    text = read_text(root, name)
    try:
        value = json.loads(text)
    except ValueError as error:
        raise Unusable(finding("metadata_unreadable", file=name, expected="a JSON object", found=f"{error}")) from error
    if not isinstance(value, dict):
        raise Unusable(finding("metadata_unreadable", file=name, expected="a JSON object", found=type(value).__name__))
    return value


def read_text(root: Path, name: str) -> str:
    path = root / name
    if not path.is_file():
        raise Unusable(finding("metadata_missing", file=name, expected="the file", found="no such file"))
    if is_lfs_pointer(path):
        raise Unusable(finding("lfs_pointer", file=name, expected="the file itself", found="a Git LFS pointer"))
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Unusable(finding("metadata_unreadable", file=name, expected="UTF-8 text", found=f"{error}")) from error


def read_mapping(info: dict[str, Any], key: str) -> dict[str, Any]:
    value = info.get(key)
    if not isinstance(value, dict) or not all(isinstance(item, dict) for item in value.values()):
        raise Unusable(
            finding(
                "metadata_unreadable",
                file="meta/info.json",
                expected=f"an object {key!r}",
                found=repr(value)[:80],
            )
        )
    return value


def read_feature(key: str, spec: dict[str, Any]) -> Feature:
    shape = spec.get("shape")
    dtype = spec.get("dtype")
    if (
        not isinstance(dtype, str)
        or not isinstance(shape, (list, tuple))
        or not all(isinstance(side, int) and 0 <= side < 1 << 31 for side in shape)
    ):
        raise Unusable(
            finding(
                "metadata_unreadable",
                file="meta/info.json",
                expected=f"dtype and shape of feature {key!r}",
                found=f"dtype {dtype!r}, shape {shape!r}"[:120],
            )
        )
    if dtype in ("video", "image") and ("/" in key or "\\" in key or ".." in key or "\0" in key):
        raise Unusable(finding("path_unsafe", file="meta/info.json", expected="a plain camera name", found=f"{key!r}"))
    info = spec.get("info") or spec.get("video_info") or {}
    names = spec.get("names")
    if isinstance(names, dict):  # LeRobot before 0.2 nested them under one key: {"motors": [...]}
        names = next(iter(names.values()), None)
    flat = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return Feature(
        key=key,
        dtype=dtype,
        shape=tuple(shape),
        names=tuple(names) if flat and names else (),
        is_depth=bool(info.get("is_depth_map") or info.get("video.is_depth_map")),
    )


def read_template(info: dict[str, Any], key: str) -> str:
    """A path template, refused where formatting it could leave the folder or reach into objects."""
    template = info.get(key)
    try:
        parts = list(string.Formatter().parse(template)) if isinstance(template, str) else []
    except ValueError:
        parts = []
    literal = "".join(text for text, *_ in parts)
    safe = bool(parts) and all(
        field is None or (field in _PATH_FIELDS and not conversion and re.fullmatch(r"(\d{1,2}d)?", spec or ""))
        for _, field, spec, conversion in parts
    )
    if not safe or literal.startswith(("/", "\\", "~")) or ".." in literal or re.search(r"[\\:\0]", literal):
        raise Unusable(
            finding(
                "path_unsafe",
                file="meta/info.json",
                expected=f"{key} inside the dataset's folder, made of {', '.join(sorted(_PATH_FIELDS))}",
                found=repr(template)[:120],
            )
        )
    return str(template)


def check_layout(root: Path, version: str) -> None:
    """Version and folder must agree: nobody can tell which of them is right."""
    v3 = (root / "meta" / "episodes").is_dir()
    v2 = (root / "meta" / "episodes.jsonl").is_file()
    if (version == "v3.0" and not v3 and v2) or (version != "v3.0" and v3 and not v2):
        raise Unusable(
            finding(
                "version_mismatch",
                file="meta/info.json",
                expected=f"the layout of {version}",
                found="meta/episodes/ as in v3.0" if v3 else "meta/episodes.jsonl as in v2.x",
            )
        )


def optional_int(value: Any) -> int | None:
    return value if isinstance(value, int) else None
