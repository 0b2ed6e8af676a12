"""From a recording to the plain values that a page shows: numbers, words, curves, and small pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

import lewm_data
from lewm_data.config import PreviewConfig, parse_episodes
from lewm_data.conversion import interrupts
from lewm_data.conversion.validate import Progress
from lewm_data.schema import ACTION, DONE, STATE
from lewm_data.sharing.choice import StripShape, choose_episodes, examples, run_steps, strip_shape, strip_steps
from lewm_data.sharing.curves import packed, thinned
from lewm_data.sharing.metrics import ODD_SCORE, STILL_DEVIATIONS, STILL_SECONDS, odd
from lewm_data.sharing.pictures import side_by_side, webp
from lewm_data.sharing.recording import Recording
from lewm_data.sharing.survey import Survey, survey
from lewm_data.sharing.verdict import verdict

MAX_PICTURE_BYTES = 20 << 20
"""Pictures of a page, in base64. A page of this size opens at once on a phone."""

MAX_FINDINGS = 1000
MAX_DIMENSIONS = 64
MAX_MARKS = 8
"""Frames of one episode that are shown on top of its strip because findings are about them."""

NUM_EXAMPLES = 3
EXAMPLE_FRAMES = 60
EXAMPLE_HEIGHT = 112


@dataclass(frozen=True, kw_only=True, slots=True)
class Preview:
    """What a page shows.

    Attributes:
        data: Everything but the pictures, ready for JSON; pictures are named by their number.
        pictures: WebP in base64.
    """

    data: dict[str, Any]
    pictures: list[str] = field(default_factory=list)


def summarise(
    recording: Recording, config: PreviewConfig, progress: Progress = lambda what, done, total: None
) -> Preview:
    """Looks at a recording.

    Args:
        recording: What to look at.
        config: What to show of it.
        progress: Called with what is being read, how much is done, and how much there is.

    Returns:
        What a page shows of it.
    """
    surveyed = survey(recording, progress)
    table = _episode_table(recording, surveyed)
    shown = _choose(recording, config, table)
    book = _PictureBook()
    shape = strip_shape(len(shown) * len(recording.cameras))
    marks = _marks(recording)
    details = {}
    for done, position in enumerate(shown):
        interrupts.check()
        details[str(position)] = _detail(recording, surveyed, position, shape, marks.get(position, []), book)
        progress("pictures", done + 1, len(shown))
    usable = [p for p in shown if surveyed.num_rows[p] == recording.lengths[p] >= config.span]
    runs = [_run(recording, surveyed, position, config, book) for position in examples(usable, NUM_EXAMPLES)]
    findings = sorted(recording.findings, key=lambda found: found.severity != "error")
    data = {
        "version": lewm_data.__version__,
        "name": recording.name,
        "isConverted": recording.is_converted,
        "verdict": verdict(recording)._asdict(),
        "facts": recording.facts,
        "fps": recording.fps,
        "numSteps": config.num_steps,
        "frameskip": config.frameskip,
        "frameSize": recording.frame_size,
        "cameras": list(recording.cameras.values()),
        "columns": {column: _column(recording, surveyed, column) for column in surveyed.scales},
        "numDone": surveyed.num_done,
        "episodes": table,
        "tasks": {str(index): text[:500] for index, text in recording.tasks.items()},
        "findings": [{**f.to_json(), "position": recording.position(f)} for f in findings[:MAX_FINDINGS]],
        "numFindings": len(findings),
        "shown": details,
        "runs": runs,
        "isCutShort": book.is_full,
        "oddScore": ODD_SCORE,
        "still": {"seconds": STILL_SECONDS, "deviations": STILL_DEVIATIONS},
    }
    return Preview(data=data, pictures=book.pictures)


class _PictureBook:
    """Pictures of a page, up to a size."""

    def __init__(self) -> None:
        self.pictures: list[str] = []
        self.is_full = False
        self._bytes = 0

    def strip(
        self, recording: Recording, position: int, camera: str, steps: Sequence[int], height: int
    ) -> dict[str, Any]:
        """Puts frames into the book, side by side; tells its number, and the size and the absence of frames."""
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


def _episode_table(recording: Recording, surveyed: Survey) -> dict[str, list[Any]]:
    """One list per column, one entry per episode: short in JSON, quick to sort."""
    metrics = surveyed.metrics
    peaks = {"extreme": [m.extreme for m in metrics], "jump": [m.jump for m in metrics]}
    values = {
        "length": recording.lengths.astype(np.float64),
        "still": np.array([m.still for m in metrics]),
        **{name: np.array([peak.deviations for peak in found]) for name, found in peaks.items()},
    }
    table: dict[str, list[Any]] = {
        "number": recording.numbers.tolist(),
        "source": recording.source_numbers.tolist(),
        "task": surveyed.tasks.tolist(),
        "readable": (surveyed.num_rows > 0).tolist(),
        "length": recording.lengths.tolist(),
        **{name: [_rounded(value) for value in values[name].tolist()] for name in ("still", "extreme", "jump")},
        **{f"{name}Odd": odd(values[name]).tolist() for name in values},
    }
    offset = {ACTION: 0, STATE: len(recording.dimensions.get(ACTION, ()))}
    for name, found in peaks.items():
        table[f"{name}Dimension"] = [offset[peak.column] + peak.dimension for peak in found]
        table[f"{name}Step"] = [peak.step for peak in found]
    return table


def _choose(recording: Recording, config: PreviewConfig, table: dict[str, list[Any]]) -> list[int]:
    """Positions of the episodes that are shown with pictures: those with findings, then the odd ones, then evenly."""
    candidates: NDArray[np.int64] = np.arange(len(recording.numbers))
    if config.episodes is not None:
        ranges = parse_episodes(config.episodes)
        candidates = candidates[[any(number in part for part in ranges) for number in recording.numbers.tolist()]]
    places = {found: recording.position(found) for found in recording.findings}
    errors = [place for found, place in places.items() if found.severity == "error" and place is not None]
    warnings = [place for place in places.values() if place is not None]
    odds = [
        position
        for name, wrong_side in (("length", 0), ("still", -1), ("extreme", -1), ("jump", -1))
        for position, side in enumerate(table[f"{name}Odd"])
        if side not in (0, wrong_side)
    ]
    return choose_episodes(candidates, [*errors, *odds, *warnings], config.max_episodes)


def _marks(recording: Recording) -> dict[int, list[int]]:
    """Position of an episode to the steps that findings are about."""
    marks: dict[int, list[int]] = {}
    for found in recording.findings:
        position = recording.position(found)
        if position is not None and found.step is not None:
            steps = marks.setdefault(position, [])
            if len(steps) < MAX_MARKS:
                steps.append(found.step)
    return marks


def _detail(
    recording: Recording,
    surveyed: Survey,
    position: int,
    shape: StripShape,
    marks: Sequence[int],
    book: _PictureBook,
) -> dict[str, Any]:
    """Film strips and curves of one episode."""
    steps = strip_steps(int(recording.lengths[position]), shape.num_frames, marks)
    detail: dict[str, Any] = {
        "steps": steps,
        "strips": [book.strip(recording, position, camera, steps, shape.height) for camera in recording.cameras],
    }
    rows = recording.rows(position) if surveyed.num_rows[position] else None
    if rows is not None:
        detail["done"] = np.flatnonzero(rows[DONE][:, 0])[:100].tolist()
        for column, scale in surveyed.scales.items():
            curves = thinned(rows[column][:, :MAX_DIMENSIONS])
            detail[column] = packed(curves, scale.min[:MAX_DIMENSIONS], scale.max[:MAX_DIMENSIONS])
            detail["numPoints"] = len(curves)
    return detail


def _run(
    recording: Recording, surveyed: Survey, position: int, config: PreviewConfig, book: _PictureBook
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


def _column(recording: Recording, surveyed: Survey, column: str) -> dict[str, Any]:
    scale = surveyed.scales[column]
    part = slice(MAX_DIMENSIONS)
    return {
        "width": len(recording.dimensions[column]),
        "names": list(recording.dimensions[column][part]),
        **{
            name: [_rounded(value, 6) for value in getattr(scale, name)[part].tolist()]
            for name in ("mean", "std", "min", "max")
        },
        "histogram": surveyed.histograms[column][part].tolist(),
    }


def _rounded(value: float, digits: int = 4) -> float | None:
    """To so many significant digits; None for what JSON has no number for."""
    return float(f"{value:.{digits}g}") if np.isfinite(value) else None
