"""What a model knows, in numbers: how its latents spread, what can be read from them, and where a plan ranks."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
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


MAX_SHOWN_BLINDNESS = 2.0
"""How far above 1 a blindness is says nothing: in the first minute of a run that ends well, it may be 122."""


def blindness_words(blindness: float) -> str:
    """A blindness as people read it: ``0.87``, ``1.30``, ``over 2`` or ``unknown``. Files keep the number itself."""
    if not blindness <= MAX_SHOWN_BLINDNESS:
        return "unknown" if math.isnan(blindness) else f"over {MAX_SHOWN_BLINDNESS:g}"
    return f"{blindness:.2f}"


COLLAPSED_VARIANCE = 0.01
"""Mean variance per dimension below which a latent space has collapsed; SIGReg pulls it to 1."""

COLLAPSED_RANK = 1.5
"""Effective rank below which it has collapsed at any scale: all latents lie on a line."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Diagnosis:
    """What a model knows about whole validation episodes. Errors are mean squared errors of latents, per dimension.

    Attributes:
        num_episodes: Validation episodes that were encoded.
        num_anchors: Frames that predictions start from.
        model_errors: Of the model at each step ahead, when it is fed its own predictions.
        copy_errors: Of predicting that nothing changes.
        mean_errors: Of predicting the training episodes' mean latent.
        shuffled_errors: Of the model, when it is given actions from elsewhere.
        plan_horizon: Kept frames from an anchor to its goal; 0 if no episode is long enough.
        plan_ranks: Where the recorded actions rank among others by predicted distance to the goal, for each anchor
            that was tried: 0 is first, 0.5 is chance. Empty if nothing moves.
        effective_rank: See ``effective_rank``.
        variances: Of each dimension of the latents.
        probe_r2: See ``ridge_r2``. For each dimension of the state; NaN if it never moves.
        state_names: Names of these dimensions.
    """

    num_episodes: int
    num_anchors: int
    model_errors: tuple[float, ...]
    copy_errors: tuple[float, ...]
    mean_errors: tuple[float, ...]
    shuffled_errors: tuple[float, ...]
    plan_horizon: int
    plan_ranks: tuple[float, ...]
    effective_rank: float
    variances: tuple[float, ...]
    probe_r2: tuple[float, ...]
    state_names: tuple[str, ...]

    @property
    def blindness(self) -> float:
        """One-step error over that of repeating the last latent. At 1 or more, the model is blind."""
        return ratio(self.model_errors, self.copy_errors)

    @property
    def versus_mean(self) -> float:
        """One-step error over that of always predicting the mean. At 1 or more, the model is blind."""
        return ratio(self.model_errors, self.mean_errors)

    @property
    def action_gain(self) -> float:
        """How many times larger the one-step error is with actions from elsewhere. At 1, the model ignores actions."""
        return ratio(self.shuffled_errors, self.model_errors)

    @property
    def plan_rank(self) -> float:
        """Mean of ``plan_ranks``: 0 is best, 0.5 is chance. NaN if nothing moves."""
        return float(np.mean(self.plan_ranks)) if self.plan_ranks else float("nan")

    @property
    def mean_variance(self) -> float:
        """Mean variance of the dimensions of the latents."""
        return float(np.mean(self.variances)) if self.variances else float("nan")

    @property
    def mean_r2(self) -> float:
        """Mean R2 of the probe over the dimensions of the state that move."""
        known = [r2 for r2 in self.probe_r2 if math.isfinite(r2)]
        return float(np.mean(known)) if known else float("nan")

    @property
    def is_collapsed(self) -> bool:
        """Whether the encoder gives nearly the same latent for every frame."""
        return self.mean_variance < COLLAPSED_VARIANCE or self.effective_rank < COLLAPSED_RANK

    def error_shares(self) -> tuple[float, ...]:
        """Error at each step ahead over the better of repeating the last frame and predicting the mean."""
        steps = range(1, len(self.model_errors) + 1)
        shares = (
            [ratio(self.model_errors, trivial, ahead=ahead) for trivial in (self.copy_errors, self.mean_errors)]
            for ahead in steps
        )
        return tuple(max(pair) if all(map(math.isfinite, pair)) else float("nan") for pair in shares)

    def gains(self) -> tuple[float, ...]:
        """``action_gain`` at each step ahead."""
        steps = range(1, len(self.model_errors) + 1)
        return tuple(ratio(self.shuffled_errors, self.model_errors, ahead=ahead) for ahead in steps)

    def to_json(self) -> dict[str, Any]:
        """Everything, JSON-ready. NaN becomes null."""
        derived = (
            "blindness",
            "versus_mean",
            "action_gain",
            "plan_rank",
            "mean_variance",
            "mean_r2",
            "is_collapsed",
        )
        values = {**asdict(self), **{name: getattr(self, name) for name in derived}}
        return {name: _without_nan(value) for name, value in values.items()}


def _without_nan(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
