"""What a model knows, in numbers."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lewm_data.training.metrics import ratio

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
        effective_rank: See ``metrics.effective_rank``.
        variances: Of each dimension of the latents.
        probe_r2: See ``metrics.ridge_r2``. For each dimension of the state; NaN if it never moves.
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
