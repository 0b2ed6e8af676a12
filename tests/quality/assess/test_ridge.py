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


@pytest.mark.parametrize("count", [2, 3, 4, 7])
def test_no_control_pairs_an_episode_with_itself(count: int) -> None:
    episode = np.repeat(np.arange(count), np.arange(count) + 5)
    pairings = ridge.controls(episode_blocks(episode), 12)
    assert len({tuple(rows) for rows in pairings}) == len(pairings) == (8 if count == 2 else 12)
    for rows in pairings:
        partner = episode[rows]
        assert (partner != episode).all()
        assert {len(np.unique(partner[own])) for own in episode_blocks(episode)} == {1}
        assert len(np.unique(partner)) == count


def test_many_targets_are_fitted_as_one_is(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    episode = np.repeat(np.arange(4), 15)
    inputs, targets = random.normal(size=(60, 8)), [random.normal(size=(60, width)) for width in (1, 3, 2, 2)]
    together = ridge.leave_one_episode_out(inputs, targets, episode)
    monkeypatch.setattr(ridge, "_MAX_COLUMNS", 4)
    apart = ridge.leave_one_episode_out(inputs, targets, episode)
    for first, second in zip(together, apart, strict=True):
        np.testing.assert_allclose(first.predicted, second.predicted, atol=1e-9)


def test_the_score_without_an_episode_is_that_of_the_others_rows() -> None:
    random = np.random.default_rng(2)
    episode = np.repeat(np.arange(3), [20, 25, 30])
    inputs = random.normal(size=(75, 4))
    targets = inputs[:, :2] + random.normal(size=(75, 2))
    (fit,) = ridge.leave_one_episode_out(inputs, targets, episode)
    for left_out in range(3):
        errors = variances = 0.0
        for rows in episode_blocks(episode):
            if episode[rows[0]] != left_out:
                errors = errors + ((targets[rows] - fit.predicted[rows]) ** 2).sum(axis=0)
                others = np.setdiff1d(np.arange(75), rows)
                variances = variances + ((targets[rows] - targets[others].mean(axis=0)) ** 2).sum(axis=0)
        np.testing.assert_allclose(fit.r2_without[left_out], 1 - errors / variances)
