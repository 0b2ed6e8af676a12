"""Pure numbers: do latents hold anything, can the state be read from them, and where does a plan rank?"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

_RIDGE = 1e-3


def effective_rank(latents: NDArray[np.floating[Any]]) -> float:
    """How many dimensions a cloud of points uses: exp of the entropy of its normalized singular values.

    Roy and Vetterli, "The effective rank", 2007; of the centered points, as in RankMe (Garrido et al., 2023).

    Args:
        latents: (N, D).

    Returns:
        In [1, min(N, D)]; 0 if all points are the same.
    """
    singular = np.linalg.svd(latents - latents.mean(axis=0), compute_uv=False).astype(np.float64)
    if len(latents) < 2 or singular.sum() <= 1e-6 * np.sqrt(latents.size) * max(1.0, float(np.abs(latents).max())):
        return 0.0
    shares = singular / singular.sum()
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()))


def ridge_r2(
    train_latents: NDArray[np.floating[Any]],
    train_states: NDArray[np.floating[Any]],
    val_latents: NDArray[np.floating[Any]],
    val_states: NDArray[np.floating[Any]],
) -> NDArray[np.float64]:
    """How well a linear map reads the state from a latent: ridge regression (Hoerl and Kennard, 1970) in closed form.

    W = (Z'Z + lambda N I)^-1 Z'Y on standardized training latents, lambda 0.001. R2 = 1 - residual over total sum of
    squares on validation, about the validation mean.

    Args:
        train_latents: (N, D).
        train_states: (N, S).
        val_latents: (M, D).
        val_states: (M, S).

    Returns:
        (S,) float64, 1 at best; NaN for a dimension that does not vary on both sides.
    """
    inputs, targets = (array.astype(np.float64) for array in (train_latents, train_states))
    center, scale = inputs.mean(axis=0), inputs.std(axis=0) + 1e-8
    inputs = (inputs - center) / scale
    mean = targets.mean(axis=0)
    gram = inputs.T @ inputs + _RIDGE * len(inputs) * np.eye(inputs.shape[1])
    weights = np.linalg.solve(gram, inputs.T @ (targets - mean))
    residual = np.square(val_states - ((val_latents - center) / scale @ weights + mean)).sum(axis=0)
    total = np.square(val_states - val_states.mean(axis=0)).sum(axis=0)
    varies = (total > 1e-9 * len(val_states)) & (targets.std(axis=0) > 1e-6)
    return np.where(varies, 1 - residual / np.where(varies, total, 1.0), np.nan)


def rank_of_first(distances: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Where the first of several candidates ranks by its distance. Ties count half.

    Args:
        distances: (N, C) of C candidates, in N cases; C is 2 or more.

    Returns:
        (N,) share of the other candidates that are nearer: 0 if the first is the nearest, 1 if it is the farthest,
        0.5 if all are equally far.
    """
    first, others = distances[:, :1], distances[:, 1:]
    nearer = (others < first).sum(axis=1) + 0.5 * (others == first).sum(axis=1)
    return np.asarray(nearer / others.shape[1], np.float64)


def ratio(errors: tuple[float, ...], others: tuple[float, ...], *, ahead: int = 1) -> float:
    """An error over another one, ``ahead`` frames ahead; NaN if either is unknown, or both are 0."""
    if len(errors) < ahead or len(others) < ahead:
        return float("nan")
    error, other = errors[ahead - 1], others[ahead - 1]
    if not (math.isfinite(error) and math.isfinite(other)):
        return float("nan")
    if other == 0:
        return float("inf") if error > 0 else float("nan")
    return error / other
