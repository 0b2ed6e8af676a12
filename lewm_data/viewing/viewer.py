"""Shows an episode of a converted file in Rerun, the viewer that LeRobot uses too (extra ``view``).

Timelines have the names of LeRobot's own viewer (``frame_index``, ``timestamp``), and cameras have LeRobot's keys.
Frames are lossless PNGs of the stored ones.
"""

from __future__ import annotations

import io
import os
import sys
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image

from lewm_data.conversion.output import check_output, output_place
from lewm_data.conversion.watchdog import raise_if_interrupted
from lewm_data.errors import FormatError, UsageError
from lewm_data.format.header import FileHeader
from lewm_data.format.schema import ACTION, DONE, STATE
from lewm_data.format.writer import replace_durably
from lewm_data.loading.store import FrameStore
from lewm_data.resources import Progress, silent

SUFFIX = ".rrd"
_FRAMES_AT_ONCE = 8
_FLUSH_SECONDS = 60.0
_SCREENS = ("DISPLAY", "WAYLAND_DISPLAY")
_SAVE = f"Save the episode with --save episode{SUFFIX}, then open it on a machine with a screen: rerun episode{SUFFIX}"
_INSTALL = "Install it with: pip install 'lewm_data[view]'"


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewResult:
    """An episode that was shown or saved.

    Attributes:
        path: The saved Rerun recording; None if a window was opened.
        episode: The episode's number in the file.
        num_steps: Its number of steps.
        cameras: The Rerun entity of each camera.
    """

    path: Path | None
    episode: int
    num_steps: int
    cameras: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The object that ``lewm-data view --json`` prints."""
        return {
            "path": None if self.path is None else str(self.path),
            "episode": self.episode,
            "num_steps": self.num_steps,
            "cameras": list(self.cameras),
        }


def view_episode(
    path: str | Path,
    episode: int,
    *,
    save: Path | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
) -> ViewResult:
    """Shows an episode in Rerun's window, or saves it as a Rerun recording.

    Args:
        path: A converted file, or its address in object storage.
        episode: The episode's number in the file.
        save: The recording (``.rrd``) to write; None opens a window.
        overwrite: Replace an existing recording.
        progress: Called with ``"frames"``, the number of frames read, and their total.

    Raises:
        UsageError: Rerun is not installed, there is no screen, there is no such episode, or the recording exists or
            does not end in ``.rrd``.
        DamagedChunkError: A stored frame is damaged.
    """
    rerun = _rerun()
    if save is not None and save.suffix != SUFFIX:
        raise UsageError(f"{save}: a Rerun recording ends in {SUFFIX}. Give a name such as {save.with_suffix(SUFFIX)}.")
    if save is not None:
        check_output(save, overwrite=overwrite)
    elif sys.platform == "linux" and not any(os.environ.get(name) for name in _SCREENS):
        raise UsageError(
            f"Rerun's window needs a screen, and there is none ({' and '.join(_SCREENS)} are not set). {_SAVE}"
        )
    store = FrameStore(path)
    header = store.header
    if header is None:
        raise FormatError(f"{store.path}: not a lewm_data file. Make one with: lewm-data convert SOURCE OUTPUT.h5")
    if not 0 <= episode < len(store.ep_len):
        last = len(store.ep_len) - 1
        raise UsageError(f"{store.path}: there is no episode {episode}. Choose one from 0 to {last}.")
    recording = rerun.RecordingStream(
        "lewm_data", recording_id=f"{PurePosixPath(str(store.path)).name}, episode {episode}"
    )
    cameras = {column: header.cameras.get(column, column) for column in store.frame_columns}
    if save is None:
        try:
            recording.spawn()
            _log(rerun, recording, store, header, episode, cameras, progress)
            recording.flush(timeout_sec=_FLUSH_SECONDS)  # by default, it waits forever for a window that never answers
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0]
            raise UsageError(f"Rerun's window did not open or was closed ({reason}). {_SAVE}") from error
    else:
        with output_place(save, overwrite=overwrite):
            temporary = save.with_name(save.name + ".tmp")
            try:
                recording.save(temporary)
                _log(rerun, recording, store, header, episode, cameras, progress)
                recording.disconnect()
                replace_durably(temporary, save)
            finally:
                recording.disconnect()
                temporary.unlink(missing_ok=True)
    return ViewResult(path=save, episode=episode, num_steps=int(store.ep_len[episode]), cameras=tuple(cameras.values()))


def _rerun() -> ModuleType:
    try:
        import rerun
    except ImportError as error:
        raise UsageError(f"Viewing an episode needs Rerun ({error}). {_INSTALL}") from error
    return rerun


def _log(
    rerun: ModuleType,
    recording: Any,
    store: FrameStore,
    header: FileHeader,
    episode: int,
    cameras: dict[str, str],
    progress: Progress,
) -> None:
    """Sends an episode to Rerun: the layout, the curves, then the frames."""
    start, length = int(store.ep_offset[episode]), int(store.ep_len[episode])
    recording.send_blueprint(_layout(rerun, list(cameras.values())))
    for column in (ACTION, STATE, DONE):
        values = store.read_column(column, start, start + length).reshape(length, -1).astype(np.float64)
        names = header.feature_names.get(column, ())
        if len(names) == values.shape[1]:
            recording.log(column, rerun.SeriesLines(names=list(names)), static=True)
        recording.send_columns(
            column,
            indexes=[
                rerun.TimeColumn("frame_index", sequence=np.arange(length)),
                rerun.TimeColumn("timestamp", duration=np.arange(length) / header.fps),
            ],
            columns=rerun.Scalars.columns(scalars=values.reshape(-1)).partition([values.shape[1]] * length),
        )
    total = length * len(cameras)
    for number, (column, camera) in enumerate(cameras.items()):
        for first in range(0, length, _FRAMES_AT_ONCE):
            raise_if_interrupted()
            steps = np.arange(first, min(first + _FRAMES_AT_ONCE, length))
            frames = np.empty((len(steps), *store.columns[column].shape), np.uint8)
            store.read_frames(column, start + steps, frames)
            for step, frame in zip(steps.tolist(), frames, strict=True):
                recording.set_time("frame_index", sequence=step)
                recording.set_time("timestamp", duration=step / header.fps)
                recording.log(camera, rerun.EncodedImage(contents=_png(frame), media_type="image/png"))
            progress("frames", number * length + int(steps[-1]) + 1, total)


def _layout(rerun: ModuleType, cameras: list[str]) -> Any:
    """Places cameras on the left and curves on the right."""
    views = rerun.blueprint
    pictures = [views.Spatial2DView(origin=camera, name=camera) for camera in cameras]
    curves = [views.TimeSeriesView(origin=column, name=column) for column in (ACTION, STATE, DONE)]
    return views.Blueprint(
        views.Horizontal(views.Vertical(*pictures), views.Vertical(*curves, row_shares=[3, 3, 1])), collapse_panels=True
    )


def _png(frame: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "PNG", compress_level=1)
    return file.getvalue()
