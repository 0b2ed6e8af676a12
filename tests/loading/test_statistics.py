from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lewm_data.errors import UsageError
from lewm_data.loading.full_datasets import open_datasets
from lewm_data.loading.normalizer import normalize_batch
from lewm_data.loading.statistics import Statistics
from tests.loading import files

LENGTHS = (60, 40)


def write(path, state, **options):
    return files.write(path, LENGTHS, extra={"state": state.astype(np.float32)}, height=4, width=4, **options).path


def smooth(width=3, scale=20.0, seed=0):
    rng = np.random.default_rng(seed)
    phase, speed = rng.uniform(0, 6, width), rng.uniform(0.05, 0.2, width)
    return scale * np.sin(np.arange(100)[:, None] * speed + phase)


def statistics(*paths, **options):
    datasets = open_datasets(paths, num_steps=2, frameskip=2, columns=["dataset_idx"])
    return Statistics.of(datasets, [1.0] * len(datasets), **options)


@pytest.mark.parametrize("noise", ["flicker", "gaussian", "constant"])
def test_a_dimension_that_never_moves_is_centered_and_said(tmp_path, noise):
    rng = np.random.default_rng(1)
    state = smooth()
    state[:, 1] = (
        5
        + {
            "flicker": 0.09 * rng.integers(0, 2, 100),
            "gaussian": rng.normal(0, 0.02, 100),
            "constant": np.zeros(100),
        }[noise]
    )
    path = write(tmp_path / "a.h5", state, feature_names={"state": ("pan", "roll", "lift")})
    found = statistics(path)
    values = found.normalizers["state"].normalize(torch.from_numpy(state.astype(np.float32)))
    np.testing.assert_allclose(values[:, 1], state[:, 1] - state[:, 1].mean(), atol=1e-5)
    np.testing.assert_allclose(values[:, [0, 2]].std(0, correction=0), 1, rtol=1e-5)
    assert found.unscaled == ("state dimension 1 (roll) never moves in the training episodes: centered, not scaled.",)


def test_random_actions_and_small_motions_are_scaled(tmp_path):
    state = smooth()
    state[:, 0] = 0.02 * np.sin(np.arange(100) * 0.1)  # small, but smooth
    found = statistics(write(tmp_path / "a.h5", state))
    assert found.unscaled == ()  # the action of these files is drawn at random at each step
    assert found.normalizers["state"].is_scaled.all()


@given(st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(0.01, 100)), min_size=2, max_size=3), st.integers(0, 99))
@settings(max_examples=8, deadline=None)
def test_statistics_of_each_dataset_normalize_its_windows_and_invert(tmp_path_factory, shapes, seed):
    folder = tmp_path_factory.mktemp("files")
    states = [mean + smooth(scale=scale, seed=number) for number, (mean, scale) in enumerate(shapes)]
    paths = [
        write(folder / f"{number}.h5", state, seed=number, sources=files.sources(f"me/{number}", 2))
        for number, state in enumerate(states)
    ]
    datasets = open_datasets(paths, num_steps=2, frameskip=2, columns=["dataset_idx"])
    found = Statistics.of(datasets, [1.0] * len(paths), normalize="per_dataset")
    rng = np.random.default_rng(seed)
    for number, dataset in enumerate(datasets):
        batch = dataset.read(rng.integers(0, len(dataset), 4))
        normal = normalize_batch(batch, found.normalizers)
        mean, std = states[number].mean(0), states[number].std(0)
        expected = (batch["state"].numpy() - mean) / std
        rounding = 2 * np.finfo(np.float32).eps * np.abs(mean) / std  # of the stored values and of their mean
        np.testing.assert_array_less(
            np.abs(normal["state"].numpy() - expected), np.broadcast_to(1e-3 + rounding, expected.shape)
        )
        for name in ("action", "state"):
            normalizer = found.normalizers[name]
            for of_dataset in (number, batch["dataset_idx"]):
                back = normalizer.denormalize(normal[name], of_dataset)
                torch.testing.assert_close(back, batch[name], rtol=1e-4, atol=1e-3)
            back = normalizer.of_dataset(number).denormalize(normal[name])
            torch.testing.assert_close(back, batch[name], rtol=1e-4, atol=1e-3)
    with pytest.raises(UsageError, match=r"Each dataset has its own statistics.*batch\['dataset_idx'\]"):
        normalizer.denormalize(normal["state"])
    assert repr(normalizer).endswith(f"for each of {len(paths)} datasets)")
    with pytest.raises(UsageError, match=f"no dataset 7. The datasets are numbered from 0 to {len(paths) - 1}"):
        normalizer.of_dataset(7)


def test_a_dataset_without_training_episodes_has_no_statistics_of_its_own(tmp_path):
    paths = [write(tmp_path / f"{n}.h5", smooth(), sources=files.sources(f"me/{n}", 2)) for n in range(2)]
    first, second = open_datasets(paths, num_steps=2, frameskip=2)
    with pytest.raises(UsageError, match=r"1\.h5: normalize is 'per_dataset', but no episode of this file trains"):
        Statistics.of([first, second.restrict([])], [1.0, 1.0], normalize="per_dataset")
