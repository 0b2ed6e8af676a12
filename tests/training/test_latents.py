"""Anchors and rollouts, against a plain loop and a model whose future is known."""

from __future__ import annotations

import math
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lewm_data.datamodule import LeWMDataModule
from lewm_data.training.latents import cut_anchors, encode_episodes, errors, moving_state, roll_out
from tests.training.dots import small_lewm, write_dots
from tests.training.worlds import Sum, walk


@given(st.lists(st.integers(1, 12), min_size=1, max_size=4), st.integers(1, 4), st.integers(1, 5))
def test_anchors_are_every_frame_with_a_history_and_a_next_frame(
    lengths: list[int], history_size: int, horizon: int
) -> None:
    episodes = [walk(length, seed) for seed, length in enumerate(lengths)]
    anchors = cut_anchors(episodes, history_size=history_size, horizon=horizon)
    expected = [(episode, last) for episode in episodes for last in range(history_size - 1, len(episode.latents) - 1)]
    assert len(anchors.history) == len(expected)
    for number, (episode, last) in enumerate(expected):
        assert torch.equal(anchors.history[number], episode.latents[last - history_size + 1 : last + 1])
        for ahead in range(1, horizon + 1):
            future = anchors.futures[number, ahead - 1]
            if last + ahead < len(episode.latents):
                assert torch.equal(future, episode.latents[last + ahead])
                step = history_size - 1 + ahead - 1
                assert torch.equal(anchors.actions[number, step], episode.actions[last + ahead - 1])
            else:
                assert future.isnan().all()


def test_a_model_of_the_truth_has_no_error_at_any_distance() -> None:
    anchors = cut_anchors([walk(20, seed) for seed in range(3)], history_size=3, horizon=6)
    predicted = roll_out(Sum(), anchors.history, anchors.actions, horizon=6)
    np.testing.assert_allclose(errors(predicted, anchors.futures), 0, atol=1e-9)
    copied = errors(anchors.history[:, -1:], anchors.futures)
    assert (np.diff(copied) > 0).all()  # a walk drifts away


def test_errors_leave_out_frames_beyond_an_episodes_end() -> None:
    futures = torch.tensor([[[1.0], [2.0]], [[3.0], [math.nan]]])
    np.testing.assert_allclose(errors(torch.zeros(2, 2, 1), futures), [5, 4])
    assert math.isnan(errors(torch.zeros(1, 1, 1), futures[1:, 1:])[0])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> LeWMDataModule:
    path = write_dots(tmp_path_factory.mktemp("dots") / "dots.h5", num_episodes=8, length=21).path
    data = LeWMDataModule(h5_path=str(path), num_steps=4, frameskip=2, batch_size=4, num_workers=0, val_fraction=0.25)
    data.setup()
    return data


def test_whole_episodes_are_encoded_like_training_batches(data: LeWMDataModule) -> None:
    module = small_lewm()
    module.build(action_dim=4, image_size=(28, 28))
    module.eval()
    [episode] = encode_episodes(module, data, data.val_positions[:1], max_frames=100)
    assert episode.latents.shape == (10, 16)  # 21 steps, every other one
    windows = data.val_dataloader()
    batch = data.normalize_batch(next(iter(windows)))  # the episode's first windows, one step apart
    with torch.no_grad():
        latents = module.encode(batch["pixels"])
    torch.testing.assert_close(episode.latents[:4], latents[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(episode.latents[1:5], latents[2], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(episode.actions[:4], batch["action"][0])
    torch.testing.assert_close(episode.states[1:5], batch["state"][2])


def test_encoding_stops_at_the_limit_of_frames(data: LeWMDataModule) -> None:
    module = small_lewm()
    module.build(action_dim=4, image_size=(28, 28))
    module.eval()
    encoded = encode_episodes(module, data, data.train_positions, max_frames=25)
    assert [len(episode.latents) for episode in encoded] == [10, 10, 5]


def test_dimensions_that_only_show_noise_do_not_move(tmp_path: Path) -> None:
    written = write_dots(tmp_path / "dots.h5", num_episodes=8, length=40)
    with h5py.File(written.path, "r+") as file:
        state = file["state"][:]
        state[:, 1] = 0.5 + 1e-3 * np.random.default_rng(0).normal(size=len(state))
        file["state"][:] = state
    data = LeWMDataModule(h5_path=str(written.path), num_steps=4, frameskip=2, batch_size=4, num_workers=0)
    data.setup()
    moving = moving_state(data, [*data.train_positions, *data.val_positions])
    assert moving is not None
    assert moving.tolist() == [True, False]
