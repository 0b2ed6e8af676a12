from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from lewm_data.errors import UsageError
from lewm_data.loading.concat_dataset import ConcatDataset
from lewm_data.loading.dataset import WindowDataset, whole_batch
from lewm_data.loading.goals import Goal
from lewm_data.loading.loader import WindowLoader
from lewm_data.loading.permutation import hash_u64
from lewm_data.loading.ram_cache import cache_frames
from lewm_data.loading.sampler import WindowOrder, WindowSampler
from lewm_data.loading.store import FrameStore
from lewm_data.resources import silent
from tests.loading import files

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

words = st.integers(0, 2**64 - 1)
goals = st.one_of(st.just(Goal()), st.floats(1e-6, 1 - 1e-6).map(Goal))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return files.write(tmp_path_factory.mktemp("data") / "a.h5", [30, 25, 7, 20, 21], cameras=["wrist"])


@given(goals, st.lists(st.tuples(words, st.integers(0, 2**40)), min_size=1))
def test_a_goal_is_one_of_the_steps_that_are_left(goal, cases):
    draws, left = np.array([draw for draw, _ in cases], np.uint64), np.array([left for _, left in cases])
    steps = goal.steps(draws, left)
    assert steps.dtype == np.int64
    assert (steps <= left).all()
    assert ((steps >= 1) == (left >= 1)).all()


def test_uniform_goals_are_as_often_at_each_step():
    steps = Goal().steps(hash_u64(np.arange(40_000, dtype=np.uint64), 3), np.full(40_000, 8))
    counts = np.bincount(steps, minlength=9)[1:]
    assert np.abs(counts - 5000).max() < 4 * 5000**0.5


def test_geometric_goals_follow_numpys_distribution_up_to_the_episodes_end():
    steps = Goal(0.8).steps(hash_u64(np.arange(40_000, dtype=np.uint64), 3), np.full(40_000, 12))
    numpys = np.minimum(np.random.default_rng(0).geometric(0.2, 40_000), 12)
    ours, theirs = (np.bincount(values, minlength=13) for values in (steps, numpys))
    assert np.abs(ours - theirs).max() < 4 * (2 * theirs.max()) ** 0.5


@pytest.mark.parametrize("text", ["uniform", "geometric:0.98"])
def test_a_goal_prints_as_it_is_given(text):
    assert str(Goal.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    ["far", "geometric", "geometric:", "geometric:1", "geometric:0", "geometric:nan", "uniform:3", "", 0.98, True],
)
def test_other_goals_are_refused(text):
    with pytest.raises(UsageError, match='must be "uniform", or "geometric:DISCOUNT"'):
        Goal.parse(text)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([(4, 5), (1, 1), (3, 1), (1, 7), (2, 4)]),
    st.sampled_from(["uniform", "geometric:0.9"]),
    st.lists(st.tuples(st.integers(0, 10**6), words), min_size=1, max_size=8),
)
def test_goals_lie_in_their_windows_episode(written, window, goal, cases):
    num_steps, frameskip = window
    columns = ["pixels", "pixels_wrist", "action", "state", "done", "episode_idx", "step_idx"]
    dataset = WindowDataset(written.path, num_steps=num_steps, frameskip=frameskip, goal=goal, columns=columns)
    places = written.starts(num_steps * frameskip)
    windows = [number % len(places) for number, _ in cases]
    batch = dataset.read(windows, draws=np.array([draw for _, draw in cases], np.uint64))
    for row, window in enumerate(windows):
        episode, start = places[window]
        last = start + (num_steps - 1) * frameskip
        steps = int(batch["goal_steps"][row])
        assert batch["goal_episode_idx"][row].tolist() == [episode]
        assert batch["goal_step_idx"][row].tolist() == [last + steps]
        assert last + steps < written.lengths[episode]
        assert steps >= 1 or last == written.lengths[episode] - 1
        at = written.offsets[episode] + last + steps
        assert "goal_action" not in batch
        assert "goal_done" not in batch
        np.testing.assert_array_equal(batch["goal_state"][row, 0], written.data["state"][at])
        for camera in ("pixels", "pixels_wrist"):
            np.testing.assert_array_equal(
                batch[f"goal_{camera}"][row, 0].permute(1, 2, 0), written.data[camera][at], err_msg=camera
            )


def test_a_batch_with_goals_has_the_contracts_shapes_and_the_same_windows(written):
    plain, goals = WindowDataset(written.path), WindowDataset(written.path, goal="uniform")
    batch = goals.read([3, 0, 3])
    for name, values in plain.read([3, 0, 3]).items():
        assert torch.equal(batch.pop(name), values)
    assert {name: (tuple(t.shape), t.dtype) for name, t in batch.items()} == {
        "goal_pixels": ((3, 1, 3, 24, 20), torch.uint8),
        "goal_pixels_wrist": ((3, 1, 3, 12, 20), torch.uint8),
        "goal_state": ((3, 1, 3), torch.float32),
        "goal_steps": ((3,), torch.int64),
    }


def batches_of(dataset, *, batch_size=4, shuffle=True, **options):
    order = WindowOrder(num_windows=len(dataset), batch_size=batch_size, seed=5, shuffle=shuffle, drop_last=False)
    loader = WindowLoader(dataset, WindowSampler(order), **options)
    try:
        return [{name: values.clone() for name, values in batch.items()} for batch in loader]
    finally:
        loader.close()


@pytest.mark.parametrize("place", ["lzf", "none", "ram", "library", "several"])
def test_every_reader_and_worker_draws_the_same_goals(written, tmp_path, place):
    codec = place if place in ("lzf", "none") else "lzf"
    options = {"codec": "none", "frame_filters": {"compression": "gzip"}} if place == "library" else {"codec": codec}
    again = files.write(tmp_path / "a.h5", [30, 25, 7, 20, 21], cameras=["wrist"], **options)
    if place == "library":
        with pytest.warns(UserWarning, match="slower"):
            store = FrameStore(again.path)
    else:
        store = FrameStore(again.path)
    if place == "ram":
        cache_frames(store, mode="ram", progress=silent)
    dataset = WindowDataset(store, goal="geometric:0.9")
    if place == "several":
        dataset = ConcatDataset([dataset.restrict([0]), dataset.restrict([1, 2, 3, 4])])
    expected = batches_of(WindowDataset(written.path, goal="geometric:0.9"), num_workers=0)
    for worker_type in ("thread", "process"):
        got = batches_of(dataset, num_workers=2, worker_type=worker_type)
        for batch, wanted in zip(got, expected, strict=True):
            assert all(torch.equal(batch[name], wanted[name]) for name in wanted)


def test_goals_depend_on_the_windows_place_in_the_run_and_not_on_the_batch(written):
    dataset = WindowDataset(written.path, goal="uniform", columns=["state"])
    small, large = (batches_of(dataset, batch_size=size, num_workers=1) for size in (3, 8))
    for name in ("state", "goal_state", "goal_steps"):
        assert torch.equal(*(torch.cat([batch[name] for batch in batches]) for batches in (small, large)))


def test_each_epoch_draws_other_goals_in_training_and_the_same_in_validation():
    shuffled, in_order = (WindowOrder(num_windows=50, batch_size=50, shuffle=shuffle) for shuffle in (True, False))
    assert not np.array_equal(shuffled.draws(0, 0), shuffled.draws(1, 0))
    assert not np.array_equal(shuffled.draws(0, 0), WindowOrder(num_windows=50, batch_size=50, seed=1).draws(0, 0))
    np.testing.assert_array_equal(in_order.draws(0, 0), in_order.draws(1, 0))


@pytest.mark.parametrize("together", [False, True])
def test_a_loader_without_goals_computes_no_draws(written, monkeypatch, together):
    def refuse(*args):
        raise AssertionError("draws were computed")

    monkeypatch.setattr(WindowOrder, "draws", refuse)
    plain, with_goals = (WindowDataset(written.path, columns=["state"], goal=goal) for goal in (None, "uniform"))
    parts = [[dataset.restrict([0]), dataset.restrict([1])] for dataset in (plain, with_goals)]
    without, needing = map(ConcatDataset, parts) if together else (plain, with_goals)
    assert batches_of(without, num_workers=1)
    with pytest.raises(AssertionError, match="draws were computed"):
        batches_of(needing, num_workers=1)


def test_ranks_draw_for_their_own_windows():
    ranks = [WindowOrder(num_windows=50, batch_size=5, rank=rank, world_size=2) for rank in range(2)]
    alone = WindowOrder(num_windows=50, batch_size=10)
    together = np.stack([order.draws(2, 10) for order in ranks], axis=1).reshape(-1)
    np.testing.assert_array_equal(together, alone.draws(2, 10))


def test_torchs_seed_repeats_the_goals_of_torchs_loader(written):
    dataset = WindowDataset(written.path, goal="uniform", columns=["state"])

    def steps():
        torch.manual_seed(3)
        loader = DataLoader(dataset, batch_size=8, num_workers=2, collate_fn=whole_batch)
        return torch.cat([batch["goal_steps"] for batch in loader]), torch.cat([b["goal_steps"] for b in loader])

    (first, second), (again, _) = steps(), steps()
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


def test_a_column_that_looks_like_a_goal_is_refused(tmp_path):
    written = files.write(tmp_path / "a.h5", extra={"goal_state": np.zeros((83, 2), np.float32)})
    with pytest.raises(UsageError, match="there is a column 'goal_state'. Leave it out of columns"):
        WindowDataset(written.path, goal="uniform")
    dataset = WindowDataset(written.path, goal="uniform", columns=["pixels", "state"])
    assert dataset.read([0])["goal_state"].shape == (1, 1, 3)


def test_a_goal_costs_one_more_frame_to_read(written, monkeypatch):
    num_reads = 0
    original = os.preadv

    def preadv(*arguments):
        nonlocal num_reads
        num_reads += 1
        return original(*arguments)

    monkeypatch.setattr(os, "preadv", preadv)
    counts = []
    for goal in (None, "geometric:0.9"):
        dataset, num_reads = WindowDataset(written.path, columns=["pixels"], goal=goal), 0
        dataset.read(np.arange(12), draws=hash_u64(np.arange(12, dtype=np.uint64), 1))
        counts.append(num_reads)
    assert counts[0] == 12 * 4
    assert counts[0] < counts[1] <= 12 * 5


def test_a_whole_episode_has_no_goal(written):
    assert "goal_steps" not in WindowDataset(written.path, goal="uniform").read_episode(0, max_frames=9)
