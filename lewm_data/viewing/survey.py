"""Two passes over all rows of a recording: statistics of its values, then measurements of its episodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lewm_data.conversion.watchdog import raise_if_interrupted
from lewm_data.format.motion import moving_dimensions
from lewm_data.format.schema import ACTION, DONE
from lewm_data.resources import Progress, silent
from lewm_data.viewing.metrics import EpisodeMetrics, Peak, Scale, ScaleSum, measure, still_shares
from lewm_data.viewing.recording import Recording, Rows
from lewm_data.viewing.strips import evenly

NUM_BINS = 40
MAX_SAMPLE_STEPS = 50_000
"""Steps from which the noise of each dimension is estimated, and that are judged together for rest."""

_TASK_INDEX = "task_index"
_NOTHING = EpisodeMetrics(float("nan"), Peak(float("nan")), Peak(float("nan")))


@dataclass(frozen=True, kw_only=True, slots=True)
class Survey:
    """The measurements of a recording.

    Attributes:
        scales: Scale of ``action`` and of ``state``; empty if no episode has readable rows.
        moving: The same names to (D,) bool, whether each dimension moves more than its noise.
        histograms: The same names to (D, NUM_BINS) int64 counts, from each dimension's smallest value to its largest.
        metrics: (E,) the measurements of each episode.
        num_rows: (E,) int64, the number of rows of each episode; 0 if they cannot be read.
        tasks: (E,) int64, the task_index of each episode; -1 if unknown.
        num_done: Number of steps at which ``done`` is set.
    """

    scales: dict[str, Scale]
    moving: dict[str, NDArray[np.bool_]]
    histograms: dict[str, NDArray[np.int64]]
    metrics: list[EpisodeMetrics]
    num_rows: NDArray[np.int64]
    tasks: NDArray[np.int64]
    num_done: int


def survey(recording: Recording, progress: Progress = silent) -> Survey:
    """Reads all rows twice, holding ``MAX_SAMPLE_STEPS`` of them in memory, or one longer episode.

    Args:
        recording: The recording to measure.
        progress: Called after each episode.
    """
    num_episodes = len(recording.numbers)
    sums = {column: ScaleSum(len(names)) for column, names in recording.dimensions.items()}
    num_rows = np.zeros(num_episodes, np.int64)
    tasks = np.full(num_episodes, -1, np.int64)
    num_done = 0
    sampled = set(_sample(recording.lengths))
    sample: dict[int, Rows] = {}
    for position in range(num_episodes):
        rows = _rows(recording, position)
        if rows is not None:
            if position in sampled:
                sample[position] = {column: rows[column][:MAX_SAMPLE_STEPS] for column in sums}
            num_rows[position] = len(rows[ACTION])
            num_done += int(rows[DONE].sum())
            tasks[position] = _task(rows)
            for column, total in sums.items():
                total.add(rows[column])
        progress("values", position + 1, 2 * num_episodes)
    scales = {column: total.scale() for column, total in sums.items()} if num_rows.any() else {}
    moving = {column: _moving(sample, column, recording.fps) for column in scales}
    judged = {  # a dimension that only shows noise would make every episode restless and jumpy
        column: scale._replace(std=np.where(moving[column], scale.std, 0.0)) for column, scale in scales.items()
    }
    histograms: dict[str, NDArray[np.int64]] = {
        column: np.zeros((len(scale.min), NUM_BINS), np.int64) for column, scale in scales.items()
    }
    metrics = [_NOTHING] * num_episodes
    block: dict[int, Rows] = {}
    num_block_rows = 0
    for position in range(num_episodes):
        rows = _rows(recording, position) if num_rows[position] else None
        if rows is not None:
            metrics[position] = EpisodeMetrics(float("nan"), *measure(rows, judged))
            for column, counts in histograms.items():
                _count(counts, rows[column], scales[column])
            block[position] = {column: rows[column] for column in sums}
            num_block_rows += len(rows[ACTION])
        if block and (position == num_episodes - 1 or num_block_rows >= MAX_SAMPLE_STEPS):
            shares = still_shares(
                list(block.values()), recording.fps, anything_moves=any(moves.any() for moves in moving.values())
            )
            for place, share in zip(block, shares, strict=True):
                metrics[place] = metrics[place]._replace(still=share)
            block.clear()
            num_block_rows = 0
        progress("values", num_episodes + position + 1, 2 * num_episodes)
    return Survey(
        scales=scales,
        moving=moving,
        histograms=histograms,
        metrics=metrics,
        num_rows=num_rows,
        tasks=tasks,
        num_done=num_done,
    )


def _sample(lengths: NDArray[np.int64]) -> list[int]:
    """Positions of evenly spread episodes with about ``MAX_SAMPLE_STEPS`` steps in all, at least one."""
    count = max(1, int(len(lengths) * min(1.0, MAX_SAMPLE_STEPS / max(1, int(lengths.sum())))))
    return evenly(range(len(lengths)), count)


def _moving(sample: Mapping[int, Rows], column: str, fps: float) -> NDArray[np.bool_]:
    """Which dimensions of a column move. An episode with NaN or infinite values says nothing about its dimensions."""
    parts = {position: rows[column] for position, rows in sample.items()}
    values = np.concatenate(list(parts.values()))
    episode = np.repeat(list(parts), [len(part) for part in parts.values()])
    known = np.isfinite(values)
    moving = np.zeros(values.shape[1], np.bool_)
    for dimension in range(values.shape[1]):
        rows = known[:, dimension]
        moving[dimension] = moving_dimensions(values[rows, dimension : dimension + 1], episode[rows], fps)[0]
    return moving


def _rows(recording: Recording, position: int) -> Rows | None:
    """An episode's rows; None if there are none or if their widths contradict the metadata."""
    raise_if_interrupted()
    rows = recording.rows(position)
    if rows is None or not len(rows[ACTION]):
        return None
    return rows if all(rows[column].shape[1] == len(names) for column, names in recording.dimensions.items()) else None


def _task(rows: Rows) -> int:
    return int(rows[_TASK_INDEX][0, 0]) if _TASK_INDEX in rows and np.isfinite(rows[_TASK_INDEX][0, 0]) else -1


def _count(counts: NDArray[np.int64], values: NDArray[np.float64], scale: Scale) -> None:
    """Adds values of shape (L, D) to (D, NUM_BINS) counts, ignoring NaN and infinite values."""
    width = np.where(scale.max > scale.min, scale.max - scale.min, 1.0)
    is_known = np.isfinite(values)
    bins = (np.where(is_known, (values - scale.min) / width, 0) * NUM_BINS).astype(np.int64).clip(0, NUM_BINS - 1)
    for dimension in range(values.shape[1]):
        counts[dimension] += np.bincount(bins[is_known[:, dimension], dimension], minlength=NUM_BINS)
