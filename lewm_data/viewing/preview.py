"""A preview of a dataset, as a page or a contact sheet: from a name to a file that is whole or not there."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lewm_data.config import PreviewConfig
from lewm_data.conversion.output import check_output, output_place
from lewm_data.errors import UsageError
from lewm_data.format.writer import replace_durably
from lewm_data.resources import Progress
from lewm_data.viewing import html, sheet
from lewm_data.viewing.opening import open_recording
from lewm_data.viewing.summary import Preview, summarise

PAGES = (".html", ".htm")
SHEET = ".png"


@dataclass(frozen=True, kw_only=True, slots=True)
class Previewed:
    """What came of it.

    Attributes:
        path: The file.
        file_bytes: Its size.
        preview: What it shows.
    """

    path: Path
    file_bytes: int
    preview: Preview

    def to_json(self) -> dict[str, Any]:
        """What ``lewm-data preview --json`` prints."""
        data = self.preview.data
        return {
            "path": str(self.path),
            "file_bytes": self.file_bytes,
            "name": data["name"],
            "num_episodes": len(data["episodes"]["number"]),
            "num_episodes_shown": len(data["shown"]),
            "num_findings": data["numFindings"],
            "verdict": data["verdict"]["level"],
        }


def make_preview(
    target: str,
    output: Path,
    config: PreviewConfig,
    *,
    progress: Progress = lambda what, done, total: None,
    waiting: Callable[[], None] = lambda: None,
) -> Previewed:
    """Makes a preview.

    Args:
        target: A converted file, the folder of a LeRobot dataset, or a Hub repo id.
        output: The page (``.html``) or the contact sheet (``.png``) to make.
        config: What it shows.
        progress: Called with what is being read, how much is done, and how much there is.
        waiting: Called once if another process is making the same output.

    Returns:
        What was made.

    Raises:
        UsageError: The target or the output is not as it must be.
        DamagedChunkError: A frame of a converted file cannot be read as it was written.
    """
    if output.suffix.lower() not in (*PAGES, SHEET):
        raise UsageError(f"{output}: a preview is a page (.html) or a contact sheet (.png). Give a name that ends so.")
    check_output(output, overwrite=config.overwrite)
    is_sheet = output.suffix.lower() == SHEET
    if is_sheet:
        config = dataclasses.replace(config, max_episodes=min(config.max_episodes, sheet.MAX_EPISODES))
    recording = open_recording(target, config, progress)
    try:
        preview = summarise(recording, config, progress)
    finally:
        recording.close()
    with output_place(output, overwrite=config.overwrite, waiting=waiting):
        temporary = output.with_name(output.name + ".tmp")
        try:
            if is_sheet:
                temporary.write_bytes(sheet.contact_sheet(preview))
            else:
                with temporary.open("w", encoding="utf-8", errors="replace") as file:
                    file.writelines(html.page(preview))
            replace_durably(temporary, output)
        finally:
            temporary.unlink(missing_ok=True)
    return Previewed(path=output, file_bytes=output.stat().st_size, preview=preview)
