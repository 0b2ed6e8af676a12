"""From what a user named to something to look at."""

from __future__ import annotations

from pathlib import Path

from lewm_data.config import PreviewConfig
from lewm_data.errors import FormatError
from lewm_data.resources import Progress
from lewm_data.viewing.converted import ConvertedFile
from lewm_data.viewing.raw import RawDataset
from lewm_data.viewing.recording import Recording


def open_recording(
    target: str, config: PreviewConfig, progress: Progress = lambda what, done, total: None
) -> Recording:
    """Opens what shall be looked at.

    Args:
        target: A converted file, the folder of a LeRobot dataset, or a Hub repo id.
        config: What shall be shown of it.
        progress: Called while a LeRobot dataset is inspected.

    Returns:
        The open recording.

    Raises:
        UsageError: There is no such file or dataset, or the file is not of this format.
    """
    path = Path(target)
    if path.is_file():
        return ConvertedFile(path)
    if path.suffix in (".h5", ".hdf5") and not path.exists():
        raise FormatError(f"{target}: no such file. Convert a dataset first: lewm-data convert SOURCE OUTPUT.h5")
    return RawDataset(target, min_episode_steps=config.span, progress=progress)
