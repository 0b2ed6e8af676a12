from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lewm_data.errors import UsageError
from lewm_data.loading.episode_split import SplitRule, fold_of, is_validation

fractions = st.floats(0.01, 0.95)
seeds = st.integers(0, 2**63)


@given(st.integers(2, 300), fractions, seeds)
def test_a_complete_recording_is_split_near_its_share_with_episodes_on_both_sides(num, fraction, seed):
    validates = is_validation(np.arange(num), val_fraction=fraction, seed=seed)
    assert abs(validates.sum() - fraction * num) <= 1
    assert 1 <= validates.sum() < num


@given(st.lists(st.integers(0, 2000), max_size=60), fractions, seeds)
def test_a_side_depends_on_the_episode_and_not_on_the_others_or_their_order(episodes, fraction, seed):
    together = is_validation(np.array(episodes, np.int64), val_fraction=fraction, seed=seed)
    alone = [is_validation(np.array([e]), val_fraction=fraction, seed=seed)[0] for e in episodes]
    assert together.tolist() == alone


@given(st.integers(0, 10**12), fractions, seeds)
def test_each_run_of_one_over_the_share_has_one_validation_episode(start, fraction, seed):
    length = int(np.ceil(2 / fraction)) + 2
    validates = is_validation(np.arange(start, start + length), val_fraction=fraction, seed=seed)
    assert 1 <= validates.sum() <= length * fraction + 2


def test_seeds_select_different_splits():
    splits = [is_validation(np.arange(100), val_fraction=0.2, seed=seed) for seed in range(20)]
    assert len({split.tobytes() for split in splits}) == 20


def test_a_share_of_zero_trains_on_everything():
    assert not is_validation(np.arange(5), val_fraction=0, seed=1).any()


@pytest.mark.parametrize("fraction", [-0.1, 1.0])
def test_a_share_out_of_range_is_refused(fraction):
    with pytest.raises(UsageError, match=r"must lie in \[0, 1\)"):
        is_validation(np.arange(5), val_fraction=fraction, seed=1)


folds = st.integers(2, 40)


@given(st.integers(1, 200), folds, seeds)
def test_folds_are_alike_in_size_and_cover_everything(num, num_folds, seed):
    sizes = np.bincount(fold_of(np.arange(num), num_folds=num_folds, seed=seed), minlength=num_folds)
    assert len(sizes) == num_folds
    assert sizes.max() - sizes.min() <= 1


@given(st.lists(st.integers(0, 2000), max_size=60), folds, seeds)
def test_a_fold_depends_on_the_episode_and_not_on_the_others_or_their_order(episodes, num_folds, seed):
    together = fold_of(np.array(episodes, np.int64), num_folds=num_folds, seed=seed)
    alone = [fold_of(np.array([e]), num_folds=num_folds, seed=seed)[0] for e in episodes]
    assert together.tolist() == alone


def test_seeds_select_different_folds():
    assert len({fold_of(np.arange(50), num_folds=5, seed=seed).tobytes() for seed in range(20)}) == 20


@pytest.mark.parametrize("fold", [(0, 5), [0, 5], "0/5", " 0 / 5 "])
def test_a_fold_takes_every_usual_form(fold):
    assert SplitRule(seed=1, fold=fold).fold == (0, 5)


@pytest.mark.parametrize("fold", [(5, 5), (-1, 5), (0, 1), "5", "a/b", (0,), 3, (0, 5, 6)])
def test_an_invalid_fold_is_refused(fold):
    with pytest.raises(UsageError, match=r"fold is .*, but must be \(i, k\) or 'i/k' with k from 2"):
        SplitRule(seed=1, fold=fold)
