"""Which files LeRobot reads, and which stray files are among them: those of a Mac, a notebook or a browser."""

from __future__ import annotations

import os
import re
import string
from collections.abc import Iterator
from pathlib import Path

from lewm_data.findings import Finding, finding
from lewm_data.machine_errors import machine_errors
from lewm_data.source.metadata import DatasetPaths

EPISODES_FILE = re.compile(r"chunk-\d+/file-\d+\.parquet")
"""Name of a file below ``meta/episodes`` (v3.0)."""

_MAX_NAMED = 5
_CHECKPOINTS = ".ipynb_checkpoints/"

# "._x": a Mac on another file system; "x (1)": a browser; "x copy" and "x - Copy": file managers
_COPY = re.compile(r"\._.*|.*( \(\d+\)| copy( \d+)?| - Copy( \(\d+\))?)\.\w+")


def parquet_files(root: Path, folder: str, pattern: re.Pattern[str]) -> list[Path]:
    """The Parquet files below a folder that LeRobot reads, in order.

    Args:
        root: The dataset's folder.
        folder: Relative to it, such as ``meta/episodes``.
        pattern: Of a path relative to ``folder``, such as ``EPISODES_FILE``.
    """
    names = (name for name in _walk(root / folder, "", pattern.pattern.count("/") + 1) if pattern.fullmatch(name))
    return sorted(root / folder / name for name in names)


def data_files(root: Path, template: str) -> list[str]:
    """The files of a local folder that match a path template, relative to the folder, in order."""
    folder, pattern = template.split("/", 1)[0], data_pattern(template)
    if "{" in folder:
        return []
    return [name for name in _walk(root / folder, f"{folder}/", template.count("/")) if pattern.fullmatch(name)]


def data_pattern(template: str) -> re.Pattern[str]:
    """The pattern of paths that a template of ``info.json`` produces, relative to the dataset's folder."""
    return re.compile(
        "".join(
            re.escape(text) + ("" if field is None else r"[^/]+" if field == "video_key" else r"\d+")
            for text, field, *_ in string.Formatter().parse(template)
        )
    )


def stray_files(root: Path, paths: DatasetPaths, *, is_legacy: bool) -> list[Finding]:
    """Reports files of a local folder that look like the dataset's but are read neither by LeRobot nor by us.

    Args:
        root: The dataset's folder.
        paths: Its path templates.
        is_legacy: Whether it is v2.x.

    Returns:
        One warning that names some of them; nothing if there are none.
    """
    found: list[str] = []
    if not is_legacy:
        names = _walk(root / "meta/episodes", "", 3)
        found += [f"meta/episodes/{name}" for name in names if _is_like(name, ".parquet", EPISODES_FILE)]
    found += [f"meta/{name}" for name in _walk(root / "meta", "", 2) if _COPY.fullmatch(name) or _CHECKPOINTS in name]
    for template in (paths.data, paths.video):
        folder, suffix = template.split("/", 1)[0], os.path.splitext(template)[1]
        if "{" in folder or folder == "meta":
            continue
        pattern, depth = data_pattern(template), template.count("/") + 1
        found += [name for name in _walk(root / folder, f"{folder}/", depth) if _is_like(name, suffix, pattern)]
    if not found:
        return []
    found.sort()
    named = ", ".join(found[:_MAX_NAMED]) + (f" and {len(found) - _MAX_NAMED:,} more" if found[_MAX_NAMED:] else "")
    return [finding("files_ignored", file=found[0], expected="only files that LeRobot writes", found=named)]


def _is_like(name: str, suffix: str, pattern: re.Pattern[str]) -> bool:
    return name.endswith(suffix) and not pattern.fullmatch(name)


def _walk(folder: Path, prefix: str, depth: int) -> Iterator[str]:
    """Paths of the files in ``depth`` levels of folders, after ``prefix``. Links to folders are not followed."""
    try:
        with machine_errors(folder):
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        if not entry.is_dir(follow_symlinks=False):
            yield prefix + entry.name
        elif depth > 1:
            yield from _walk(Path(entry.path), f"{prefix}{entry.name}/", depth - 1)
