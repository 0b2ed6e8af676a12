"""Measures a world model on whole episodes: its predictions, its latents, and its plans."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lewm_data.training.diagnosis import Diagnosis, effective_rank, ridge_r2
from lewm_data.training.latents import Anchors, EpisodeLatents, Predictor, errors, plan_ranks, roll_out


def diagnose(
    module: Predictor,
    train: list[EpisodeLatents],
    val: list[EpisodeLatents],
    anchors: Anchors,
    *,
    plan_horizon: int = 5,
    state_names: tuple[str, ...] = (),
    moving: NDArray[np.bool_] | None = None,
    random: np.random.Generator,
) -> Diagnosis:
    """Measures a model on encoded episodes.

    Args:
        module: In evaluation mode.
        train: Training episodes.
        val: Validation episodes.
        anchors: Cut from the validation episodes.
        plan_horizon: Kept frames to the goal of a plan; fewer if no episode is long enough.
        state_names: Names of the state's dimensions; numbers if there are none.
        moving: (S,) which dimensions of the state move; None for all. The probe leaves the others out.
        random: Chooses actions from elsewhere.

    Returns:
        The diagnosis.
    """
    horizon = anchors.futures.shape[1]
    train_latents, train_states, val_latents, val_states = (
        torch.cat([getattr(episode, name) for episode in side]).numpy()
        for side in (train, val)
        for name in ("latents", "states")
    )
    others = torch.from_numpy(random.permutation(len(anchors.history)))
    width = val_states.shape[1]
    r2 = ridge_r2(train_latents, train_states, val_latents, val_states) if width else np.empty(0)
    copy_errors = _errors(anchors.history[:, -1:], anchors)
    reach = min(plan_horizon, sum(map(math.isfinite, copy_errors)))
    ranks = plan_ranks(module, anchors, horizon=reach, random=random) if reach else np.empty(0)
    return Diagnosis(
        num_episodes=len(val),
        num_anchors=len(anchors.history),
        model_errors=_errors(roll_out(module, anchors.history, anchors.actions, horizon=horizon), anchors),
        copy_errors=copy_errors,
        mean_errors=_errors(torch.from_numpy(train_latents.mean(axis=0)), anchors),
        shuffled_errors=_errors(roll_out(module, anchors.history, anchors.actions[others], horizon=horizon), anchors),
        plan_horizon=reach,
        plan_ranks=_numbers(ranks),
        effective_rank=effective_rank(val_latents),
        variances=_numbers(val_latents.astype(np.float64).var(axis=0)),
        probe_r2=_numbers(r2 if moving is None else np.where(moving, r2, np.nan)) if width else (),
        state_names=state_names if len(state_names) == width else tuple(str(number) for number in range(width)),
    )


def _errors(predicted: torch.Tensor, anchors: Anchors) -> tuple[float, ...]:
    return _numbers(errors(predicted, anchors.futures)) if len(anchors.history) else ()


def _numbers(values: NDArray[np.floating[Any]]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
