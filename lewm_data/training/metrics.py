"""Pure numbers: does a latent space hold anything, and does a prediction beat doing nothing?"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

COLLAPSED_VARIANCE = 0.01
"""Mean variance per dimension below which a latent space has collapsed; SIGReg pulls it to 1."""

COLLAPSED_RANK = 1.5
"""Effective rank below which it has, whatever its scale: all latents lie on a line."""

NEARLY_BLIND = 0.9
"""One-step error, as a share of repeating the last frame's, from which a model is hardly worth its training."""

DEAF_GAIN = 1.05
"""Other windows' actions must raise the one-step error at least so many times, or the model does not listen."""

_RIDGE = 1e-3


@dataclass(frozen=True, kw_only=True, slots=True)
class Diagnosis:
    """What a model knows, on whole validation episodes. Errors are mean squared errors of latents, per dimension.

    Attributes:
        num_anchors: Places that were predicted from.
        model_errors: Of the model at each step ahead, its own predictions fed back to it.
        copy_errors: Of predicting that nothing changes.
        mean_errors: Of predicting the training episodes' mean latent.
        shuffled_errors: Of the model when it is given other places' actions.
        effective_rank: See ``effective_rank``.
        variances: Of each dimension of the latents.
        probe_r2: See ``ridge_r2``; of each dimension of the state, NaN where it does not vary.
        state_names: Names of these dimensions.
    """

    num_anchors: int
    model_errors: tuple[float, ...]
    copy_errors: tuple[float, ...]
    mean_errors: tuple[float, ...]
    shuffled_errors: tuple[float, ...]
    effective_rank: float
    variances: tuple[float, ...]
    probe_r2: tuple[float, ...]
    state_names: tuple[str, ...]

    @property
    def blindness(self) -> float:
        """One-step error over that of repeating the last latent: 1 or more is no better than doing so."""
        return _ratio(self.model_errors, self.copy_errors)

    @property
    def versus_mean(self) -> float:
        """One-step error over that of always predicting the mean: 1 or more is no better than doing so."""
        return _ratio(self.model_errors, self.mean_errors)

    @property
    def action_gain(self) -> float:
        """How many times larger the one-step error is with other places' actions; 1 is a model that ignores them."""
        return _ratio(self.shuffled_errors, self.model_errors)

    @property
    def mean_variance(self) -> float:
        """Mean variance of a dimension of the latents."""
        return float(np.mean(self.variances)) if self.variances else float("nan")

    @property
    def mean_r2(self) -> float:
        """Mean R2 of the probe over the state's dimensions that vary."""
        known = [r2 for r2 in self.probe_r2 if math.isfinite(r2)]
        return float(np.mean(known)) if known else float("nan")

    @property
    def is_collapsed(self) -> bool:
        """Whether the encoder says much the same of every frame."""
        return self.mean_variance < COLLAPSED_VARIANCE or self.effective_rank < COLLAPSED_RANK

    def verdict(self) -> str:
        """What it all means, in one sentence."""
        dims = len(self.variances)
        if self.is_collapsed:
            return (
                f"Collapsed: the encoder says much the same of every frame (variance {self.mean_variance:.2g} per "
                f"dimension, where 1 is wanted; effective rank {self.effective_rank:.1f} of {dims}), so no error "
                "below means anything."
            )
        if not math.isfinite(self.blindness):
            return "Unknown: no validation episode has a frame to predict."
        seen = f"its one-step error is {self.blindness:.2f} of repeating the last frame"
        rest = f"the latents use {self.effective_rank:.1f} of {dims} dimensions"
        if math.isfinite(self.mean_r2):
            can = "can" if self.mean_r2 > 0 else "cannot"
            rest += f", and state {can} be read from them (R2 {self.mean_r2:.2f})"
        elif not self.probe_r2:
            rest += ", and the data has no state to read from them"
        if self.blindness >= 1:
            return f"Blind: {seen}, so it predicts no better than that; {rest}."
        if self.versus_mean >= 1:
            return f"Blind: its one-step error is {self.versus_mean:.2f} of always predicting the mean; {rest}."
        if self.action_gain < DEAF_GAIN:
            return (
                f"Deaf to actions: {seen}, but only {self.action_gain:.2f} times larger with actions of other places; "
                f"{rest}."
            )
        if self.blindness > NEARLY_BLIND:
            return f"Nearly blind: {seen}; {rest}. Train longer, or look at the data."
        if self.mean_r2 <= 0:
            return (
                f"It predicts something, but hardly the robot: {seen}, and {self.action_gain:.2f} times larger with "
                f"actions of other places; {rest}. Validate on more episodes, or train longer."
            )
        return f"It predicts: {seen}, and {self.action_gain:.2f} times larger with actions of other places; {rest}."

    def to_json(self) -> dict[str, Any]:
        """Everything, JSON-ready: NaN as null."""
        derived = ("blindness", "versus_mean", "action_gain", "mean_variance", "mean_r2", "is_collapsed")
        values = {**asdict(self), **{name: getattr(self, name) for name in derived}, "verdict": self.verdict()}
        return {name: _without_nan(value) for name, value in values.items()}


def effective_rank(latents: NDArray[np.floating[Any]]) -> float:
    """How many dimensions a cloud of points really uses: exp of the entropy of its normalized singular values.

    Roy and Vetterli, "The effective rank", 2007; of the centred points, as in RankMe (Garrido et al., 2023).

    Args:
        latents: (N, D).

    Returns:
        In [1, min(N, D)]; 0 where all points are the same.
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

    W = (Z'Z + lambda N I)^-1 Z'Y on standardised training latents, lambda 0.001; R2 = 1 - residual over total sum of
    squares on validation, about the validation mean.

    Args:
        train_latents: (N, D).
        train_states: (N, S).
        val_latents: (M, D).
        val_states: (M, S).

    Returns:
        (S,) float64, 1 at best; NaN for a dimension that does not vary on either side.
    """
    inputs, targets = (array.astype(np.float64) for array in (train_latents, train_states))
    centre, scale = inputs.mean(axis=0), inputs.std(axis=0) + 1e-8
    inputs = (inputs - centre) / scale
    mean = targets.mean(axis=0)
    gram = inputs.T @ inputs + _RIDGE * len(inputs) * np.eye(inputs.shape[1])
    weights = np.linalg.solve(gram, inputs.T @ (targets - mean))
    residual = np.square(val_states - ((val_latents - centre) / scale @ weights + mean)).sum(axis=0)
    total = np.square(val_states - val_states.mean(axis=0)).sum(axis=0)
    varies = (total > 1e-9 * len(val_states)) & (targets.std(axis=0) > 1e-6)
    return np.where(varies, 1 - residual / np.where(varies, total, 1.0), np.nan)


def _ratio(errors: tuple[float, ...], others: tuple[float, ...]) -> float:
    """Of the first entries; NaN where there is none or both are 0."""
    if not errors or not others or not (math.isfinite(errors[0]) and math.isfinite(others[0])):
        return float("nan")
    if others[0] == 0:
        return float("inf") if errors[0] > 0 else float("nan")
    return errors[0] / others[0]


def _without_nan(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
