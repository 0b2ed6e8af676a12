from __future__ import annotations

import numpy as np
import pytest
import torch

from lewm_data.loading import normalizer as module
from lewm_data.loading.normalizer import Normalizer, Sample, normalize_pixels


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(module, "_ROWS_AT_ONCE", 7)


def test_statistics_are_those_of_the_chosen_rows():
    values = np.random.default_rng(0).normal(1e4, 3, (100, 3)).astype(np.float32)
    rows = np.arange(100) % 3 > 0
    normalizer = Normalizer.fit(Sample(values, rows))
    np.testing.assert_allclose(normalizer.mean, values[rows].astype(np.float64).mean(0), rtol=1e-7)
    np.testing.assert_allclose(normalizer.std, values[rows].astype(np.float64).std(0), rtol=1e-6)


def test_several_columns_count_by_their_weights():
    rng = np.random.default_rng(1)
    columns = [rng.normal(size, 1, (size, 2)) for size in (20, 50)]
    normalizer = Normalizer.fit(
        *(Sample(c, np.ones(len(c), bool), w) for c, w in zip(columns, (3.0, 1.0), strict=True))
    )
    repeated = np.concatenate([columns[0]] * 3 + [columns[1]])
    np.testing.assert_allclose(normalizer.mean, repeated.mean(0), rtol=1e-6)
    np.testing.assert_allclose(normalizer.std, repeated.std(0), rtol=1e-6)


def test_dimensions_that_never_vary_stay_finite():
    values = np.full((50, 3), 0.1, np.float32) * [1, 0, 1e6]
    normalizer = Normalizer.fit(Sample(values, np.ones(50, bool)))
    assert normalizer.std.tolist() == [1, 1, 1]
    assert torch.equal(normalizer.normalize(torch.from_numpy(values.astype(np.float32))), torch.zeros(50, 3))


def test_values_that_are_not_finite_do_not_count():
    values = np.array([[1.0, np.nan], [3.0, np.nan], [np.inf, np.nan]])
    normalizer = Normalizer.fit(Sample(values, np.ones(3, bool)))
    assert normalizer.mean.tolist() == [2, 0]
    assert normalizer.std.tolist() == [1, 1]


@pytest.mark.parametrize("shape", [(5, 3), (2, 4, 3), (2, 4, 15)])
def test_normalizing_can_be_undone_also_for_steps_side_by_side(shape):
    data = np.random.default_rng(0).normal([1, 2, 3], [4, 5, 6], (1000, 3)).astype(np.float32)
    normalizer = Normalizer.fit(Sample(data, np.ones(1000, bool)))
    values = torch.randn(shape)
    normal = normalizer.normalize(values)
    assert normal.shape == shape
    torch.testing.assert_close(normalizer.denormalize(normal), values, atol=1e-5, rtol=1e-5)
    steps = values.reshape(*shape[:-1], -1, 3)
    torch.testing.assert_close(normal.reshape(steps.shape), (steps - normalizer.mean) / normalizer.std)


def test_columns_of_one_number_normalize():
    normalizer = Normalizer.fit(Sample(np.arange(10.0), np.ones(10, bool)))
    torch.testing.assert_close(normalizer.normalize(torch.full((2, 4), 4.5)), torch.zeros(2, 4))


@torch.inference_mode()
def _as_in_validation(normalizer: Normalizer) -> None:
    normalizer.normalize(torch.zeros(2, 3, dtype=torch.bfloat16))
    normalize_pixels(torch.zeros(1, 3, 4, 4, dtype=torch.uint8), torch.float64)


def test_a_planner_may_differentiate_through_it_after_a_validation() -> None:
    normalizer = Normalizer(np.zeros(3), np.ones(3))
    _as_in_validation(normalizer)
    actions = torch.zeros(2, 3, dtype=torch.bfloat16, requires_grad=True)
    normalizer.denormalize(actions).sum().backward()
    assert actions.grad is not None
    frames = torch.zeros(1, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    normalize_pixels(frames, torch.float64).sum().backward()
    assert frames.grad is not None
