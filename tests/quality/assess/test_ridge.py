"""Leave-one-episode-out ridge against the slow way: fitting again without each episode."""

from __future__ import annotations

import numpy as np
import pytest

from lewm_data.quality.assess import ridge
from lewm_data.quality.assess.footage import episode_blocks


@pytest.mark.parametrize("width", [5, 80])
def test_predictions_equal_those_of_fitting_without_the_episode(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(width)
    episode = np.repeat(np.arange(5), [12, 9, 15, 8, 16])
    inputs = random.normal(size=(60, width))
    targets = inputs[:, :2] @ random.normal(size=(2, 3)) + 0.1 * random.normal(size=(60, 3))
    penalty = 0.1
    monkeypatch.setattr(ridge, "PENALTIES", np.array([penalty]))
    (fit,) = ridge.leave_one_episode_out(inputs, targets, episode)

    standard = ridge._standardized(inputs)  # scaled over all episodes, as the function does
    eigenvalues = np.linalg.eigvalsh(standard.T @ standard / width)
    strength = penalty * eigenvalues.sum() / 10 * width
    mean = targets.mean(axis=0)
    for rows in episode_blocks(episode):
        kept = np.setdiff1d(np.arange(60), rows)
        # the identity of leaving out holds for the centered problem with an unpenalized column of ones
        ones = np.c_[standard, np.ones(60)]
        shrink = np.diag(np.r_[np.full(width, strength), 0.0])
        weights = np.linalg.solve(ones[kept].T @ ones[kept] + shrink, ones[kept].T @ (targets[kept] - mean))
        np.testing.assert_allclose(fit.predicted[rows], ones[rows] @ weights + mean, atol=1e-6)


def test_the_mean_explains_nothing_and_the_truth_everything() -> None:
    random = np.random.default_rng(0)
    episode = np.repeat(np.arange(6), 30)
    truth = random.normal(size=(180, 2))
    right, wrong = ridge.leave_one_episode_out(
        truth, [truth @ random.normal(size=(2, 2)), random.normal(size=(180, 2))], episode
    )
    assert (right.r2 > 0.999).all()
    assert (wrong.r2 < 0.05).all()


def test_drift_between_episodes_explains_nothing_within_them() -> None:
    random = np.random.default_rng(0)
    episode = np.repeat(np.arange(8), 40)
    drift = episode[:, None] * 1.0
    targets = drift + 0.1 * random.normal(size=(320, 1))
    (fit,) = ridge.leave_one_episode_out(drift, targets, episode)
    assert fit.r2[0] > 0.9
    assert fit.r2_within[0] < 0.1
