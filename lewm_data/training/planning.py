"""Can the model plan? Does it find the recorded actions among others, given only where they led?"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from lewm_data.training.latents import Anchors, Predictor, roll_out
from lewm_data.training.metrics import rank_of_first

STILL_SHARE = 0.05
"""An anchor whose squared distance to its goal is below this share of the mean has nothing to plan for."""


def plan_ranks(
    module: Predictor,
    anchors: Anchors,
    *,
    horizon: int,
    num_candidates: int = 256,
    max_anchors: int = 64,
    random: np.random.Generator,
) -> NDArray[np.float64]:
    """Ranks the recorded actions of each anchor among actions from elsewhere, as a sampling planner would.

    The goal is the latent ``horizon`` frames ahead. Each candidate replaces the actions from the anchor on. Candidates
    are ordered by the squared distance of their predicted last latent to the goal, which is LeWM's cost.

    Args:
        module: In evaluation mode.
        anchors: All anchors. Those that do not reach ``horizon`` frames ahead, or that do not move, are left out.
        horizon: Kept frames to the goal, at most as many as the anchors look ahead.
        num_candidates: Action sequences to compare for each anchor, with the recorded one.
        max_anchors: Limit on the anchors to try, chosen at random.
        random: Chooses anchors and candidates.

    Returns:
        (N,) in [0, 1]: 0 if the recorded actions come first, 0.5 for chance. Empty if nothing moves.
    """
    size = anchors.history.shape[1]
    goals = anchors.futures[:, horizon - 1]
    reaches = np.flatnonzero(np.asarray(goals.isfinite().all(dim=1)))
    if len(reaches) < 2:
        return np.empty(0)
    distances = np.asarray((goals - anchors.history[:, -1]).double().square().mean(dim=1))[reaches]
    moving = reaches[(distances > STILL_SHARE * distances.mean()) & (distances > 0)]
    chosen = np.sort(random.permutation(moving)[:max_anchors])
    num_others = min(num_candidates, len(reaches)) - 1
    ranks = []
    for anchor in chosen:
        others = random.choice(reaches[reaches != anchor], num_others, replace=False)
        candidates = torch.from_numpy(np.concatenate([[anchor], others]))
        past = anchors.actions[anchor, : size - 1].expand(len(candidates), -1, -1)
        actions = torch.cat([past, anchors.actions[candidates, size - 1 : size - 1 + horizon]], dim=1)
        history = anchors.history[anchor].expand(len(candidates), -1, -1)
        predicted = roll_out(module, history, actions, horizon=horizon)[:, -1]
        distance = (predicted - goals[anchor]).double().square().sum(dim=1)
        ranks.append(rank_of_first(distance.numpy()[None]))
    return np.concatenate(ranks) if ranks else np.empty(0)
