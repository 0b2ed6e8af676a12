"""From a name to a finished preview: a page or a contact sheet that appears whole or not at all."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lewm_data.config import PreviewConfig
from lewm_data.conversion.output import check_output, output_place
from lewm_data.errors import FormatError, UsageError
from lewm_data.findings import Verdict
from lewm_data.format.writer import replace_durably
from lewm_data.notation import count_of
from lewm_data.paths import expand, is_address
from lewm_data.resources import Progress, silent
from lewm_data.viewing import html, sheet
from lewm_data.viewing.converted import ConvertedFile
from lewm_data.viewing.raw import RawDataset
from lewm_data.viewing.recording import Recording
from lewm_data.viewing.summary import Preview, summarize

PAGE_SUFFIXES = (".html", ".htm")
SHEET_SUFFIX = ".png"


@dataclass(frozen=True, kw_only=True, repr=False)
class PreviewResult:
    """A finished preview.

    Attributes:
        path: The page or the contact sheet.
        file_bytes: Its size.
        preview: What it shows.
    """

    path: Path
    file_bytes: int
    preview: Preview

    @property
    def verdict(self) -> Verdict:
        """What the findings amount to, in one sentence."""
        return Verdict(**self.preview.data["verdict"])

    def __repr__(self) -> str:
        """One line: the file and what it shows."""
        data = self.preview.data
        episodes = f"{len(data['shown']):,} of {count_of(len(data['episodes']['number']), 'episode')} with pictures"
        return f"{self.path}: {episodes}, {count_of(data['numFindings'], 'finding')}, {self.file_bytes / 1e6:,.1f} MB"

    def to_dict(self) -> dict[str, Any]:
        """The object that ``lewm-data preview --json`` prints."""
        data = self.preview.data
        return {
            "path": str(self.path),
            "file_bytes": self.file_bytes,
            "name": data["name"],
            "num_episodes": len(data["episodes"]["number"]),
            "num_episodes_shown": len(data["shown"]),
            "num_findings": data["numFindings"],
            "verdict": data["verdict"]["level"],
            "judgment": data["judgment"] and data["judgment"]["verdict"],
        }


def make_preview(
    source: str,
    output: Path,
    config: PreviewConfig,
    *,
    progress: Progress = silent,
    waiting: Callable[[], None] = lambda: None,
) -> PreviewResult:
    """Makes a preview of a dataset, before its conversion or after.

    Args:
        source: A converted file or its address in object storage, the folder of a LeRobot dataset, or a Hub repo id.
        output: The page (``.html``) or the contact sheet (``.png``) to write.
        config: The settings of the preview.
        progress: Called with what is being read, how much is done, and the total.
        waiting: Called once if another process is making the same output.

    Raises:
        UsageError: The source cannot be opened, or the output exists or has another suffix.
        DamagedChunkError: A stored frame of a converted file is damaged.
    """
    suffix = output.suffix.lower()
    if suffix not in (*PAGE_SUFFIXES, SHEET_SUFFIX):
        raise UsageError(
            f"{output}: a preview is a page (.html) or a contact sheet (.png). Choose a name with one of these endings."
        )
    check_output(output, overwrite=config.overwrite)
    is_sheet = suffix == SHEET_SUFFIX
    if is_sheet:
        config = dataclasses.replace(config, max_episodes=min(config.max_episodes, sheet.MAX_EPISODES), assess=False)
    recording = open_recording(source, config, progress)
    try:
        preview = summarize(recording, config, progress, max_strip_frames=sheet.FRAMES if is_sheet else None)
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
    return PreviewResult(path=output, file_bytes=output.stat().st_size, preview=preview)


def open_recording(source: str, config: PreviewConfig, progress: Progress = silent) -> Recording:
    """Opens a dataset for a preview.

    Args:
        source: A converted file or its address in object storage, the folder of a LeRobot dataset, or a Hub repo id.
        config: The settings of the preview.
        progress: Called while a LeRobot dataset is inspected.

    Raises:
        UsageError: There is no such file or dataset, or the file is not in lewm_data's format.
    """
    if is_address(source):
        return ConvertedFile(source)
    path = expand(source)
    if path.is_file():
        return ConvertedFile(path)
    if path.suffix in (".h5", ".hdf5") and not path.exists():
        raise FormatError(f"{source}: no such file. Convert a dataset first: lewm-data convert SOURCE OUTPUT.h5")
    return RawDataset(source, min_episode_steps=config.span, progress=progress)
