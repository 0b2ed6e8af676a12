"""Ridge regression that leaves out one episode at a time, for all penalties from a single eigendecomposition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lewm_data.quality.assess.footage import episode_blocks

type Floats = NDArray[np.float64]

PENALTIES = 10.0 ** np.arange(-4, 3.1)
"""Penalties to choose from, relative to the mean eigenvalue of the inputs' covariance."""


class Fit(NamedTuple):
    """Predictions for held-out episodes, and how good they are.

    Attributes:
        predicted: (n, D) each row predicted from the other episodes.
        r2: (D,) share of the variance that is explained, against the other episodes' mean.
        r2_within: (D,) the same after each episode's own mean is removed from both sides: slow drift between episodes
            explains nothing here.
    """

    predicted: Floats
    r2: Floats
    r2_within: Floats


def leave_one_episode_out(inputs: Floats, targets: Floats | Sequence[Floats], episode: NDArray[np.int64]) -> list[Fit]:
    """Predicts each episode from all others; the penalty is chosen by the errors on the other episodes.

    Several targets cost little more than one, since they share the decomposition of the inputs.

    Args:
        inputs: (n, p).
        targets: (n, D) each; every one gets a penalty of its own.
        episode: (n,) ascending; the episode of each row. There must be two or more.

    Returns:
        For each target, the predictions and their scores: 0 or less where the inputs never vary.
    """
    targets = [targets] if isinstance(targets, np.ndarray) else list(targets)
    blocks = episode_blocks(episode)
    together = np.concatenate(targets, axis=1)
    predictions = _all_penalties(_standardized(inputs), together, blocks)
    ends = np.cumsum([values.shape[1] for values in targets])
    return [
        _fit(predictions[:, :, end - values.shape[1] : end], values, blocks)
        for values, end in zip(targets, ends, strict=True)
    ]


def _fit(predictions: Floats, targets: Floats, blocks: list[NDArray[np.int64]]) -> Fit:
    """Chooses penalties and scores one target; ``predictions`` is (penalties, n, D)."""
    num_rows = len(targets)
    errors = np.stack([((predictions[:, rows] - targets[rows]) ** 2).sum(axis=1) for rows in blocks], axis=1)
    total = targets.sum(axis=0)
    variances = np.stack(
        [((targets[r] - (total - targets[r].sum(axis=0)) / (num_rows - len(r))) ** 2).sum(axis=0) for r in blocks]
    )
    weighted = (errors / (targets.var(axis=0) + 1e-12)).sum(axis=2)  # (penalties, episodes)
    chosen = [int((weighted.sum(axis=1) - weighted[:, block]).argmin()) for block in range(len(blocks))]
    predicted = np.empty_like(targets)
    for block, rows in enumerate(blocks):
        predicted[rows] = predictions[chosen[block], rows]
    error = np.sum([errors[chosen[block], block] for block in range(len(blocks))], axis=0)
    centered, residual = centered_by_episode(targets, blocks), centered_by_episode(targets - predicted, blocks)
    return Fit(
        predicted=predicted,
        r2=1 - error / (variances.sum(axis=0) + 1e-12),
        r2_within=1 - (residual**2).sum(axis=0) / ((centered**2).sum(axis=0) + 1e-12),
    )


def centered_by_episode(values: Floats, blocks: list[NDArray[np.int64]]) -> Floats:
    """Values minus the mean of their episode."""
    centered = np.array(values, np.float64)
    for rows in blocks:
        centered[rows] -= centered[rows].mean(axis=0)
    return centered


def from_another_episode(blocks: list[NDArray[np.int64]], distance: int) -> NDArray[np.int64]:
    """Row numbers that pair each episode with the rows of another one: a control that keeps everything but the pairing.

    Args:
        blocks: The rows of each episode, in order.
        distance: How many episodes further on.
    """
    order = np.empty(sum(map(len, blocks)), np.int64)
    for position, rows in enumerate(blocks):
        other = blocks[(position + distance) % len(blocks)]
        order[rows] = other[np.arange(len(rows)) * len(other) // len(rows)]
    return order


def _standardized(inputs: Floats) -> Floats:
    centered = inputs - inputs.mean(axis=0)
    std = centered.std(axis=0)
    varies = std > 1e-6 * max(float(std.max(initial=0.0)), 1e-12)
    if not varies.any():
        return np.zeros((len(inputs), 1))
    return np.asarray(centered[:, varies] / (std[varies] + 1e-3 * std.max()))


def _all_penalties(inputs: Floats, targets: Floats, blocks: list[NDArray[np.int64]]) -> Floats:
    """(penalties, n, D) left-out predictions, by the block form of the leave-one-out identity."""
    num_rows, width = inputs.shape
    if width < num_rows:
        eigenvalues, vectors = np.linalg.eigh(inputs.T @ inputs / width)
        keep = eigenvalues > 1e-9 * max(float(eigenvalues[-1]), 1e-30)
        eigenvalues = eigenvalues[keep]
        basis = inputs @ vectors[:, keep] / np.sqrt(eigenvalues * width)
    else:
        eigenvalues, vectors = np.linalg.eigh(inputs @ inputs.T / width)
        keep = eigenvalues > 1e-9 * max(float(eigenvalues[-1]), 1e-30)
        eigenvalues, basis = eigenvalues[keep], vectors[:, keep]
    mean_target = targets.mean(axis=0)
    centered = targets - mean_target
    projected = basis.T @ centered
    predictions = np.empty((len(PENALTIES), *targets.shape))
    for number, penalty in enumerate(PENALTIES):
        shrunk = eigenvalues / (eigenvalues + penalty * (eigenvalues.sum() / num_rows + 1e-30) * num_rows / 10)
        fitted = basis @ (shrunk[:, None] * projected)
        for rows in blocks:
            leverage = (basis[rows] * shrunk) @ basis[rows].T + 1.0 / num_rows
            residual = np.linalg.solve(np.eye(len(rows)) - leverage, centered[rows] - fitted[rows])
            predictions[number, rows] = centered[rows] - residual
    return predictions + mean_target
