"""Puts the charts of the benchmarks, which lie outside docs/, on the site."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

_FOLDER = "benchmarks/results"


def on_files(files: Files, config: Any) -> Files:
    """Adds every chart under the path that it has in the repository."""
    root = Path(config.config_file_path).parent
    for picture in sorted((root / _FOLDER).glob("*.png")):
        name = picture.relative_to(root).as_posix()
        files.append(File(name, str(root), config.site_dir, config.use_directory_urls))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Points the links at that path, which begins one folder further down on the site."""
    return markdown.replace(f"](../{_FOLDER}/", f"]({_FOLDER}/")
