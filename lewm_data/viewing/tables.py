"""What a page says of all episodes and of all values, as plain numbers: one list per column, quick to sort."""

from __future__ import annotations

from typing import Any

import numpy as np

from lewm_data.format.schema import ACTION, STATE
from lewm_data.viewing.metrics import odd
from lewm_data.viewing.recording import Recording
from lewm_data.viewing.survey import Survey

MAX_DIMENSIONS = 64
"""Dimensions of a column that are shown."""


def episode_table(recording: Recording, surveyed: Survey) -> dict[str, list[Any]]:
    """The episodes: length, metrics, where each metric peaks, and on which side of the others each episode stands out.

    Args:
        recording: Where they are.
        surveyed: What was measured of them.

    Returns:
        Column to one entry per episode; None for what cannot be told.
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
    """One of ``action`` and ``state``: names, statistics and histograms of its dimensions, up to ``MAX_DIMENSIONS``."""
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
