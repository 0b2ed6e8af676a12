"""From a recording to the plain values that a page shows: numbers, words, curves, and small pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

import lewm_data
from lewm_data.config import PreviewConfig
from lewm_data.conversion.watchdog import raise_if_interrupted
from lewm_data.format.schema import ACTION, DONE, PIXELS, STATE, pixels_column
from lewm_data.notation import parse_episodes
from lewm_data.resources import Progress, silent
from lewm_data.viewing.advice import judge_recording, verdict_with_advice
from lewm_data.viewing.metrics import ODD_SCORE, odd
from lewm_data.viewing.recording import Recording
from lewm_data.viewing.split import split_table
from lewm_data.viewing.strips import (
    MAX_PICTURE_BYTES,
    PictureBook,
    StripShape,
    choose_episodes,
    evenly,
    packed,
    run_steps,
    strip_shape,
    strip_steps,
    thinned,
)
from lewm_data.viewing.survey import Survey, survey

MAX_DIMENSIONS = 64
"""Dimensions of a column that are shown."""

MAX_FINDINGS = 1000
MAX_MARKS = 8
"""Frames that an episode's strip gets on top because findings are about them."""

NUM_EXAMPLES = 3
EXAMPLE_FRAMES = 60
EXAMPLE_HEIGHT = 112
MAX_TASKS = 10_000
MAX_TASK_LETTERS = 300
_MAX_ENDS = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Preview:
    """What a page shows.

    Attributes:
        data: Everything but the pictures, ready for JSON; it refers to pictures by their number.
        pictures: WebP in base64.
    """

    data: dict[str, Any]
    pictures: list[str] = field(default_factory=list)


def summarize(
    recording: Recording,
    config: PreviewConfig,
    progress: Progress = silent,
    *,
    max_picture_bytes: int = MAX_PICTURE_BYTES,
    max_strip_frames: int | None = None,
) -> Preview:
    """Reads a recording and gathers what a page shows of it.

    Args:
        recording: The recording.
        config: The settings of the preview.
        progress: Called with what is being read, how much is done, and the total.
        max_picture_bytes: Size of all pictures, in base64, after which the remaining episodes go without.
        max_strip_frames: Evenly spread frames of a film strip; None takes as many as the page has room for.
    """
    split = split_table(recording, config)
    surveyed = survey(recording, progress)
    table = episode_table(recording, surveyed)
    shown = _choose(recording, config, table)
    usable = [p for p in shown if surveyed.num_rows[p] == recording.lengths[p] >= config.span]
    book = PictureBook(max_picture_bytes)
    runs = [_example_run(recording, surveyed, position, config, book) for position in evenly(usable, NUM_EXAMPLES)]
    shape = strip_shape(len(shown) * len(recording.cameras))
    if max_strip_frames is not None:
        shape = shape._replace(num_frames=max_strip_frames)
    marks = _marks(recording)
    details = {}
    for done, position in enumerate(shown):
        raise_if_interrupted()
        details[str(position)] = _episode_detail(recording, surveyed, position, shape, marks.get(position, []), book)
        progress("pictures", done + 1, len(shown))
    judged = judge_recording(recording, config, progress) if config.assess else None
    findings = sorted(recording.findings, key=lambda found: found.severity != "error")
    data = {
        "version": lewm_data.__version__,
        "name": recording.name,
        "isConverted": recording.is_converted,
        "verdict": verdict_with_advice(recording, judged),
        "judgment": judged,
        "facts": recording.facts,
        "fps": recording.fps,
        "numSteps": config.num_steps,
        "frameskip": config.frameskip,
        "frameSize": recording.frame_size,
        "cameras": list(recording.cameras.values()),
        "frameColumns": _frame_columns(recording),
        "columns": {column: column_table(recording, surveyed, column) for column in surveyed.scales},
        "numDone": surveyed.num_done,
        "episodes": table,
        "split": split,
        "tasks": _tasks(recording, surveyed),
        "findings": [{**f.to_json(), "position": recording.position(f)} for f in findings[:MAX_FINDINGS]],
        "numFindings": len(findings),
        "shown": details,
        "runs": runs,
        "isCutShort": book.is_full,
        "oddScore": ODD_SCORE,
    }
    return Preview(data=data, pictures=book.pictures)


def episode_table(recording: Recording, surveyed: Survey) -> dict[str, list[Any]]:
    """Lists the episodes: length, metrics, the place of each metric's peak, and whether the episode stands out.

    Args:
        recording: The recording.
        surveyed: The measurements of its episodes.

    Returns:
        Column to one entry per episode, None where there is no value.
    """
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


def column_table(recording: Recording, surveyed: Survey, column: str) -> dict[str, Any]:
    """Lists names, statistics and histograms of the first ``MAX_DIMENSIONS`` dimensions of ``action`` or ``state``."""
    scale = surveyed.scales[column]
    part = slice(MAX_DIMENSIONS)
    return {
        "width": len(recording.dimensions[column]),
        "names": list(recording.dimensions[column][part]),
        **{
            name: [_rounded(value, 6) for value in getattr(scale, name)[part].tolist()]
            for name in ("mean", "std", "min", "max")
        },
        "moves": surveyed.moving[column][part].tolist(),
        "histogram": surveyed.histograms[column][part].tolist(),
    }


def _episode_detail(
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


def _example_run(
    recording: Recording, surveyed: Survey, position: int, config: PreviewConfig, book: PictureBook
) -> dict[str, Any]:
    """Neighboring frames of one episode and all values of the same steps; the page cuts example windows from them."""
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


def _frame_columns(recording: Recording) -> list[str]:
    """Names of the cameras' columns in a batch; a conversion of all cameras names them in this way."""
    if recording.is_converted:
        return list(recording.cameras)
    return [PIXELS if number == 0 else pixels_column(key) for number, key in enumerate(recording.cameras)]


def _tasks(recording: Recording, surveyed: Survey) -> dict[str, str]:
    """Texts of the tasks that episodes have."""
    used = np.unique(surveyed.tasks).tolist()[:MAX_TASKS]
    return {str(index): recording.tasks[index][:MAX_TASK_LETTERS] for index in used if index in recording.tasks}


def _choose(recording: Recording, config: PreviewConfig, table: dict[str, list[Any]]) -> list[int]:
    """Positions of the episodes with pictures: those with errors first, then odd ones, then those with warnings."""
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


def _rounded(value: float, digits: int = 4) -> float | None:
    """Rounds to significant digits; None for NaN and infinity, which JSON cannot hold."""
    return float(f"{value:.{digits}g}") if np.isfinite(value) else None
