"""Noise of the pictures; that of the numbers is in ``lewm_data.format.motion``."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lewm_data.format.motion import moving_dimensions as moving_dimensions
from lewm_data.format.motion import noise_floor as noise_floor
from lewm_data.format.motion import value_range as value_range


def change_over_noise(thumbnails: NDArray[np.uint8], episode: NDArray[np.int64], gap: int) -> float | None:
    """How much more a picture changes over ``gap`` frames than from one frame to the next.

    Motion adds up over time, and sensor noise does not: it is as large from one frame to the next as over a second.

    Args:
        thumbnails: (N, h, w, 3) uint8.
        episode: (N,) the episode of each step.
        gap: In frames, more than 1 to mean anything.

    Returns:
        The ratio of the mean squared changes of the pixels that change most; about 1 where all is noise. None where
        nothing changes at all, or there is too little to compare.
    """
    steps = np.flatnonzero(episode[gap:] == episode[:-gap]) if len(episode) > gap > 1 else np.empty(0, np.int64)
    if len(steps) < 50:
        return None
    steps = steps[np.linspace(0, len(steps) - 1, min(len(steps), 500)).astype(np.int64)]

    def gray(rows: NDArray[np.int64]) -> NDArray[np.float64]:
        return thumbnails[rows].sum(axis=-1, dtype=np.float64).reshape(len(rows), -1)

    far, near = ((gray(steps + distance) - gray(steps)) ** 2 for distance in (gap, 1))
    busiest = np.argsort(-far.mean(axis=0))[: max(1, far.shape[1] // 20)]
    if near[:, busiest].mean() < 1.0:
        return None
    return float(far[:, busiest].mean() / near[:, busiest].mean())
