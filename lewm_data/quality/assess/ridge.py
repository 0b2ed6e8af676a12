"""Ridge regression that leaves out one episode at a time, for all penalties from a single eigendecomposition."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lewm_data.quality.assess.footage import episode_blocks

type Floats = NDArray[np.float64]

PENALTIES = 10.0 ** np.arange(-4, 3.1)
"""Penalties to choose from, relative to the mean eigenvalue of the inputs' covariance."""

_MAX_COLUMNS = 256
_FEW_EPISODES = 4


class Fit(NamedTuple):
    """Predictions for held-out episodes, and how good they are.

    Attributes:
        predicted: (n, D) each row predicted from the other episodes.
        r2: (D,) share of the variance that is explained, against the other episodes' mean.
        r2_within: (D,) the same after each episode's own mean is removed from both sides: slow drift between episodes
            explains nothing here.
        r2_without: (E, D) ``r2`` over all episodes except one, for each of them: how much hangs on a single episode.
    """

    predicted: Floats
    r2: Floats
    r2_within: Floats
    r2_without: Floats


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
    eigenvalues, basis = _decomposed(_standardized(inputs))
    fits: list[Fit] = []
    for group in _grouped(targets):
        predictions = _all_penalties(eigenvalues, basis, np.concatenate(group, axis=1), blocks)
        ends = np.cumsum([values.shape[1] for values in group])
        fits += [
            _fit(predictions[:, :, end - values.shape[1] : end], values, blocks)
            for values, end in zip(group, ends, strict=True)
        ]
    return fits


def _grouped(targets: list[Floats]) -> Iterator[list[Floats]]:
    """Consecutive targets of at most ``_MAX_COLUMNS`` columns together: predictions for all penalties need memory."""
    group: list[Floats] = []
    for values in targets:
        if group and sum(v.shape[1] for v in group) + values.shape[1] > _MAX_COLUMNS:
            yield group
            group = []
        group.append(values)
    yield group


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
    error = np.stack([errors[chosen[block], block] for block in range(len(blocks))])
    left_error, left_variance = error.sum(axis=0) - error, variances.sum(axis=0) - variances
    centered, residual = centered_by_episode(targets, blocks), centered_by_episode(targets - predicted, blocks)
    return Fit(
        predicted=predicted,
        r2=1 - error.sum(axis=0) / (variances.sum(axis=0) + 1e-12),
        r2_within=1 - (residual**2).sum(axis=0) / ((centered**2).sum(axis=0) + 1e-12),
        r2_without=1 - left_error / (left_variance + 1e-12),
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
    return _paired(blocks, np.roll(np.arange(len(blocks)), -distance))


def controls(blocks: list[NDArray[np.int64]], most: int) -> list[NDArray[np.int64]]:
    """Ways to pair each episode with the rows of another one, as ``from_another_episode`` does.

    What one such pairing explains by chance depends on a few slow movements, so that it takes many to know it. A few
    episodes can only be paired in a few ways. There, the rows of the other episode also begin later or run backward.

    Args:
        blocks: The rows of each episode, in order; two episodes or more.
        most: Ways to return at most.
    """
    partners = _derangements(len(blocks), most)
    turns = [(begin, step) for step in (1, -1) for begin in (0.0, 0.5, 0.25, 0.75)]
    return [_paired(blocks, partner, begin, step) for begin, step in turns for partner in partners][:most]


def _derangements(count: int, most: int) -> list[NDArray[np.int64]]:
    """Permutations that leave nothing in its place: those that shift all by the same distance, then random ones."""
    found = [np.roll(np.arange(count), -distance) for distance in range(1, count)]
    if count <= _FEW_EPISODES:
        every = map(np.array, itertools.permutations(range(count)))
        return [order for order in every if (order != np.arange(count)).all()][:most]
    random = np.random.default_rng(0)
    while len(found) < most:
        order = random.permutation(count)
        if (order != np.arange(count)).all() and not any((order == known).all() for known in found):
            found.append(order)
    return found[:most]


def _paired(
    blocks: list[NDArray[np.int64]], partner: NDArray[np.int64], begin: float = 0.0, step: int = 1
) -> NDArray[np.int64]:
    """The rows of each episode's partner, stretched to its length, from a share of them on, and around their end."""
    order = np.empty(sum(map(len, blocks)), np.int64)
    for rows, number in zip(blocks, partner, strict=True):
        other = np.roll(blocks[number], -int(begin * len(blocks[number])))[::step]
        order[rows] = other[np.arange(len(rows)) * len(other) // len(rows)]
    return order


def _standardized(inputs: Floats) -> Floats:
    centered = inputs - inputs.mean(axis=0)
    std = centered.std(axis=0)
    varies = std > 1e-6 * max(float(std.max(initial=0.0)), 1e-12)
    if not varies.any():
        return np.zeros((len(inputs), 1))
    return np.asarray(centered[:, varies] / (std[varies] + 1e-3 * std.max()))


def _decomposed(inputs: Floats) -> tuple[Floats, Floats]:
    """The eigenvalues of the inputs' covariance, and their left singular vectors."""
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
    return eigenvalues, basis


def _all_penalties(eigenvalues: Floats, basis: Floats, targets: Floats, blocks: list[NDArray[np.int64]]) -> Floats:
    """(penalties, n, D) left-out predictions, by the block form of the leave-one-out identity."""
    num_rows = len(basis)
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
