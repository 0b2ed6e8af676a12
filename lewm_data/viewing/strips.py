"""What a page shows of single episodes: film strips, curves, and examples to cut windows from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lewm_data.config import PreviewConfig
from lewm_data.format.schema import DONE
from lewm_data.viewing.choice import StripShape, run_steps, strip_steps
from lewm_data.viewing.curves import packed, thinned
from lewm_data.viewing.pictures import side_by_side, webp
from lewm_data.viewing.recording import Recording
from lewm_data.viewing.survey import Survey
from lewm_data.viewing.tables import MAX_DIMENSIONS

MAX_PICTURE_BYTES = 20 << 20
"""Pictures of a page, in base64. A page of this size opens at once on a phone."""

EXAMPLE_FRAMES = 60
EXAMPLE_HEIGHT = 112
_MAX_ENDS = 100


class PictureBook:
    """Pictures of a page, up to a size."""

    def __init__(self) -> None:
        self.pictures: list[str] = []
        self.is_full = False
        self._bytes = 0

    def strip(
        self, recording: Recording, position: int, camera: str, steps: Sequence[int], height: int
    ) -> dict[str, Any]:
        """Puts frames of one episode and camera into the book, side by side.

        Returns:
            ``picture``: its number, or None where there is none; ``absent``: which of the frames could not be read;
            ``aspect``: width by height of a frame.
        """
        if self.is_full:
            return {"picture": None, "absent": []}
        frames = list(recording.frames(position, camera, steps, height))
        picture = side_by_side(frames)
        absent = [number for number, frame in enumerate(frames) if frame is None]
        if picture is None:
            return {"picture": None, "absent": absent}
        self.pictures.append(webp(picture))
        self._bytes += len(self.pictures[-1])
        self.is_full = self._bytes > MAX_PICTURE_BYTES
        aspect = round(picture.shape[1] / len(frames) / picture.shape[0], 4)
        return {"picture": len(self.pictures) - 1, "absent": absent, "aspect": aspect}


def episode_detail(
    recording: Recording,
    surveyed: Survey,
    position: int,
    shape: StripShape,
    marks: Sequence[int],
    book: PictureBook,
) -> dict[str, Any]:
    """Film strips and curves of one episode."""
    steps = strip_steps(int(recording.lengths[position]), shape.num_frames, marks)
    detail: dict[str, Any] = {
        "steps": steps,
        "strips": [book.strip(recording, position, camera, steps, shape.height) for camera in recording.cameras],
    }
    rows = recording.rows(position) if surveyed.num_rows[position] else None
    if rows is not None:
        detail["done"] = np.flatnonzero(rows[DONE][:, 0])[:_MAX_ENDS].tolist()
        for column, scale in surveyed.scales.items():
            curves = thinned(rows[column][:, :MAX_DIMENSIONS])
            detail[column] = packed(curves, scale.min[:MAX_DIMENSIONS], scale.max[:MAX_DIMENSIONS])
            detail["numPoints"] = len(curves)
    return detail


def example_run(
    recording: Recording, surveyed: Survey, position: int, config: PreviewConfig, book: PictureBook
) -> dict[str, Any]:
    """An example to cut windows from: neighbouring frames of one episode, and all values beside them."""
    length = int(recording.lengths[position])
    first, steps = run_steps(length, config.num_steps, config.frameskip, EXAMPLE_FRAMES)
    rows = recording.rows(position)
    assert rows is not None
    stop = min(length, first + max(config.span, EXAMPLE_FRAMES))
    run: dict[str, Any] = {
        "position": position,
        "first": first,
        "length": stop - first,
        "steps": steps,
        "strips": [
            book.strip(recording, position, camera, [first + step for step in steps], EXAMPLE_HEIGHT)
            for camera in recording.cameras
        ],
        "done": np.flatnonzero(rows[DONE][first:stop, 0]).tolist(),
    }
    for column, scale in surveyed.scales.items():
        values = rows[column][first:stop, :MAX_DIMENSIONS]
        run[column] = packed(values, scale.min[:MAX_DIMENSIONS], scale.max[:MAX_DIMENSIONS])
    return run
