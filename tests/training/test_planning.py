"""Where the recorded actions rank, in worlds where the answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lewm_data.training.diagnosis import rank_of_first
from lewm_data.training.latents import Anchors, EpisodeLatents, cut_anchors, plan_ranks
from tests.training.worlds import Copy, NoisySum, Sum, walk

HORIZON = 5


def anchors_of(*episodes: EpisodeLatents) -> Anchors:
    return cut_anchors(episodes, history_size=3, horizon=8)


def ranks(model: object, anchors: Anchors, **settings: int) -> np.ndarray:
    options = {"horizon": HORIZON, **settings}
    return plan_ranks(model, anchors, random=np.random.default_rng(0), **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def walks() -> Anchors:
    return anchors_of(*(walk(60, seed) for seed in range(8)))


def test_a_perfect_model_ranks_the_recorded_actions_first(walks: Anchors) -> None:
    found = ranks(Sum(), walks)
    assert len(found) == 64
    assert (found == 0).all()


def test_a_model_that_ignores_actions_ranks_at_chance(walks: Anchors) -> None:
    assert (ranks(Copy(), walks) == 0.5).all()


def test_a_model_that_guesses_ranks_at_chance(walks: Anchors) -> None:
    found = ranks(NoisySum(noise=1000.0), walks, max_anchors=1000)
    assert found.mean() == pytest.approx(0.5, abs=0.05)


def test_the_rank_grows_with_the_errors_of_the_model(walks: Anchors) -> None:
    means = [ranks(NoisySum(noise=noise), walks, max_anchors=200).mean() for noise in (0.0, 0.5, 2.0, 8.0)]
    assert means == sorted(means)
    assert means[1] < 0.2 < means[3]


def test_anchors_where_nothing_moves_are_left_out() -> None:
    still = EpisodeLatents(9, torch.ones(60, 3) + 0.01 * torch.randn(60, 3), torch.randn(60, 3), torch.zeros(60, 1))
    moving = walk(60)
    assert len(ranks(Sum(), anchors_of(still, moving), max_anchors=1000)) <= len(moving.latents) - 3 - HORIZON + 1
    frozen = still._replace(latents=torch.ones(60, 3))
    assert len(ranks(Sum(), anchors_of(frozen))) == 0


def test_only_anchors_that_reach_the_goal_are_tried() -> None:
    assert len(ranks(Copy(), anchors_of(walk(10), walk(7, seed=1)))) == 3
    assert len(ranks(Copy(), anchors_of(walk(8)))) == 0  # a single anchor has no rivals
    assert len(ranks(Copy(), anchors_of(walk(5), walk(6)))) == 0


@given(st.lists(st.integers(0, 5), min_size=2, max_size=12))
def test_a_rank_is_the_mean_over_all_orders_of_equal_candidates(distances: list[int]) -> None:
    first, others = distances[0], distances[1:]
    best = sum(other < first for other in others)
    worst = sum(other <= first for other in others)
    assert rank_of_first(np.array([distances]))[0] == pytest.approx((best + worst) / 2 / len(others))
