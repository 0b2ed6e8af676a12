from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lewm_data.errors import UsageError
from lewm_data.loading.mixture import Mixture

parts = st.lists(st.tuples(st.integers(1, 200), st.floats(1e-3, 1e3)), min_size=1, max_size=6)


@given(parts)
def test_quotas_fill_an_epoch_in_proportion_to_the_weights(parts):
    num_windows, weights = zip(*parts, strict=True)
    mixture = Mixture.weighted(num_windows, weights)
    assert mixture.num_draws == sum(num_windows)
    for quota, weight in zip(mixture.quotas, weights, strict=True):
        assert abs(quota - sum(num_windows) * weight / sum(weights)) < 1 + 1e-6


@given(st.lists(st.integers(1, 200), min_size=1, max_size=6), st.integers())
def test_weights_as_the_windows_visit_each_once(num_windows, key):
    mixture = Mixture.weighted(num_windows, num_windows)
    assert mixture.quotas == tuple(num_windows)
    places = np.arange(sum(num_windows))
    assert sorted(mixture.windows(places, key).tolist()) == places.tolist()


@given(parts, st.integers())
def test_each_window_of_a_dataset_comes_equally_often_give_or_take_one(parts, key):
    num_windows, weights = zip(*parts, strict=True)
    mixture = Mixture.weighted(num_windows, weights)
    visits = np.bincount(mixture.windows(np.arange(mixture.num_draws), key), minlength=sum(num_windows))
    for of_part, num, quota in zip(
        np.split(visits, np.cumsum(num_windows)[:-1]), num_windows, mixture.quotas, strict=True
    ):
        assert of_part.sum() == quota
        assert set(of_part.tolist()) <= {quota // num, -(-quota // num)}


def test_each_epoch_visits_other_windows_of_a_dataset_that_it_does_not_exhaust():
    mixture = Mixture.weighted([1000, 1000], [1, 9])
    first, second = (set(mixture.windows(np.arange(200), key).tolist()) for key in (1, 2))
    assert len(first) == len(second) == 200
    assert 15 < len(first & second) < 70  # by chance 40


def test_a_billion_windows_cost_nothing():
    mixture = Mixture.weighted([10**9, 10], [1e-300, 1e300])
    assert mixture.quotas == (0, 10**9 + 10)
    assert mixture.visits() == (0, 10**8 + 1)
    assert set(mixture.windows(np.arange(10**9 - 50, 10**9), 3).tolist()) == set(range(10**9, 10**9 + 10))


@pytest.mark.parametrize(("num_windows", "weights"), [([], []), ([1], [1, 2]), ([0, 1], [1, 1]), ([1, 1], [1, 0])])
def test_impossible_mixtures_are_refused(num_windows, weights):
    with pytest.raises(UsageError, match="each dataset needs at least 1 window and a weight above 0"):
        Mixture.weighted(num_windows, weights)
