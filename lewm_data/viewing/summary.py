"""From a recording to the plain values that a page shows: numbers, words, curves, and small pictures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

import lewm_data
from lewm_data.config import PreviewConfig, parse_episodes
from lewm_data.conversion.watchdog import raise_if_interrupted
from lewm_data.resources import Progress
from lewm_data.viewing.choice import choose_episodes, examples, strip_shape
from lewm_data.viewing.metrics import ODD_SCORE, STILL_DEVIATIONS, STILL_SECONDS
from lewm_data.viewing.recording import Recording
from lewm_data.viewing.strips import PictureBook, episode_detail, example_run
from lewm_data.viewing.survey import Survey, survey
from lewm_data.viewing.tables import column_table, episode_table
from lewm_data.viewing.verdict import verdict

MAX_FINDINGS = 1000
MAX_MARKS = 8
"""Frames of one episode that are shown on top of its strip because findings are about them."""

NUM_EXAMPLES = 3
MAX_TASKS = 10_000
MAX_TASK_LETTERS = 300


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
    table = episode_table(recording, surveyed)
    shown = _choose(recording, config, table)
    usable = [p for p in shown if surveyed.num_rows[p] == recording.lengths[p] >= config.span]
    book = PictureBook()
    runs = [example_run(recording, surveyed, position, config, book) for position in examples(usable, NUM_EXAMPLES)]
    shape = strip_shape(len(shown) * len(recording.cameras))
    marks = _marks(recording)
    details = {}
    for done, position in enumerate(shown):
        raise_if_interrupted()
        details[str(position)] = episode_detail(recording, surveyed, position, shape, marks.get(position, []), book)
        progress("pictures", done + 1, len(shown))
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
        "columns": {column: column_table(recording, surveyed, column) for column in surveyed.scales},
        "numDone": surveyed.num_done,
        "episodes": table,
        "tasks": _tasks(recording, surveyed),
        "findings": [{**f.to_json(), "position": recording.position(f)} for f in findings[:MAX_FINDINGS]],
        "numFindings": len(findings),
        "shown": details,
        "runs": runs,
        "isCutShort": book.is_full,
        "oddScore": ODD_SCORE,
        "still": {"seconds": STILL_SECONDS, "deviations": STILL_DEVIATIONS},
    }
    return Preview(data=data, pictures=book.pictures)


def _tasks(recording: Recording, surveyed: Survey) -> dict[str, str]:
    """Texts of the tasks that episodes have."""
    used = np.unique(surveyed.tasks).tolist()[:MAX_TASKS]
    return {str(index): recording.tasks[index][:MAX_TASK_LETTERS] for index in used if index in recording.tasks}


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
