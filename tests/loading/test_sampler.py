from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lewm_data.errors import UsageError
from lewm_data.loading.mixture import Mixture
from lewm_data.loading.sampler import WindowOrder, WindowSampler


def epoch_of(order, epoch=0, position=0):
    step = order.global_batch_size
    return [order.batch(epoch, position + step * i) for i in range(order.num_batches(position))]


sizes = {"num_windows": st.integers(1, 400), "batch_size": st.integers(1, 50), "world_size": st.integers(1, 5)}


@given(**sizes, seed=st.integers(), epoch=st.integers(0, 1000), shuffle=st.booleans(), drop_last=st.booleans())
def test_ranks_share_an_epoch_without_overlap_in_equal_steps(
    num_windows, batch_size, world_size, seed, epoch, shuffle, drop_last
):
    orders = [
        WindowOrder(
            num_windows=num_windows,
            batch_size=batch_size,
            seed=seed,
            rank=rank,
            world_size=world_size,
            shuffle=shuffle,
            drop_last=drop_last,
        )
        for rank in range(world_size)
    ]
    epochs = [epoch_of(order, epoch) for order in orders]
    assert len({len(batches) for batches in epochs}) == 1
    seen = np.concatenate([batch for batches in epochs for batch in [*batches, np.empty(0, np.int64)]])
    assert len(np.unique(seen)) == len(seen)
    left_out = num_windows - len(seen)
    assert 0 <= left_out < (orders[0].global_batch_size if drop_last else world_size)
    for batches in epochs:
        assert all(len(batch) == batch_size for batch in batches[: None if drop_last else -1])
        assert all(len(batch) >= 1 for batch in batches)


@given(st.integers(1, 300), st.integers(1, 40), st.integers())
def test_one_rank_sees_every_window_exactly_once(num_windows, batch_size, seed):
    order = WindowOrder(num_windows=num_windows, batch_size=batch_size, seed=seed, drop_last=False)
    assert sorted(np.concatenate(epoch_of(order)).tolist()) == list(range(num_windows))


def test_epochs_and_seeds_differ_and_repeat():
    order = WindowOrder(num_windows=500, batch_size=100, seed=1)
    again = WindowOrder(num_windows=500, batch_size=100, seed=1)
    other = WindowOrder(num_windows=500, batch_size=100, seed=2)
    np.testing.assert_array_equal(order.batch(3, 200), again.batch(3, 200))
    assert not np.array_equal(order.batch(0, 0), order.batch(1, 0))
    assert not np.array_equal(order.batch(0, 0), other.batch(0, 0))


def test_unshuffled_windows_come_in_the_files_order():
    order = WindowOrder(num_windows=7, batch_size=3, shuffle=False, drop_last=False)
    assert np.concatenate(epoch_of(order)).tolist() == list(range(7))


@given(st.integers(1, 50), st.integers(1, 20), st.integers(1, 4))
def test_drawing_with_replacement_takes_the_given_number_of_steps(num_windows, steps, world_size):
    orders = [
        WindowOrder(num_windows=num_windows, batch_size=8, rank=r, world_size=world_size, steps_per_epoch=steps)
        for r in range(world_size)
    ]
    for order in orders:
        batches = epoch_of(order)
        assert len(batches) == steps
        assert all(((batch >= 0) & (batch < num_windows)).all() and len(batch) == 8 for batch in batches)


def test_draws_with_replacement_are_uniform_and_differ_between_ranks():
    orders = [WindowOrder(num_windows=10, batch_size=5000, rank=r, world_size=2, steps_per_epoch=2) for r in (0, 1)]
    first, second = (order.batch(0, 0) for order in orders)
    assert 400 < np.bincount(first, minlength=10).min() < np.bincount(first, minlength=10).max() < 600
    assert not np.array_equal(first, second)


@given(
    st.integers(20, 300),
    st.integers(1, 9),
    st.integers(1, 3),
    st.integers(1, 9),
    st.integers(1, 3),
    st.integers(0, 6),
)
def test_resuming_with_other_ranks_and_batch_sizes_goes_on_with_the_very_next_window(
    num, batch_size, world_size, new_batch_size, new_world_size, steps
):
    def samplers(size, world):
        return [
            WindowSampler(
                WindowOrder(num_windows=num, batch_size=size, rank=r, world_size=world, seed=9, drop_last=False)
            )
            for r in range(world)
        ]

    old, new = samplers(batch_size, world_size), samplers(new_batch_size, new_world_size)
    seen = []
    steps = min(steps, (num - max(world_size, new_world_size)) // old[0].order.global_batch_size)
    for sampler in old:
        sampler.set_epoch(4)
        batches = iter(sampler)
        for _ in range(steps):
            seen.append(next(batches))
            sampler.advance()
    assert len({str(sampler.state_dict()) for sampler in old}) == 1
    for sampler in new:
        sampler.load_state_dict(old[0].state_dict())
        sampler.begin()
        seen += list(sampler)
    seen = np.concatenate(seen)
    assert len(np.unique(seen)) == len(seen)
    assert num - len(seen) < new_world_size
    assert new[0].epoch == 4


def place(sampler):
    state = sampler.state_dict()
    return state["epoch"], state["position"]


def test_going_on_in_the_middle_of_an_epoch_of_other_windows_is_said():
    def sampler(**changes):
        return WindowSampler(WindowOrder(**({"num_windows": 10, "batch_size": 4, "seed": 1} | changes)))

    before = sampler()
    at_start = before.state_dict()
    before.begin()
    before.advance()
    for same in ({}, {"batch_size": 2}, {"world_size": 2}):
        sampler(**same).load_state_dict(before.state_dict())
    for other in ({"num_windows": 11}, {"seed": 2}, {"mixture": Mixture((4, 6), (5, 5))}):
        with pytest.warns(UserWarning, match="in the middle of epoch 0, but its windows, their weights or the seed"):
            sampler(**other).load_state_dict(before.state_dict())
        sampler(**other).load_state_dict(at_start)


mixtures = st.lists(st.tuples(st.integers(1, 90), st.floats(0.01, 9)), min_size=1, max_size=4).map(
    lambda parts: Mixture.weighted(*zip(*parts, strict=True))
)


@given(mixtures, st.integers(1, 20), st.integers(1, 4), st.integers(), st.integers(0, 5))
def test_ranks_and_resumed_runs_share_a_mixed_epoch(mixture, batch_size, world_size, seed, position):
    num = mixture.num_draws
    orders = [
        WindowOrder(
            num_windows=num, batch_size=batch_size, seed=seed, rank=rank, world_size=world_size, mixture=mixture
        )
        for rank in range(world_size)
    ]
    whole = WindowOrder(num_windows=num, batch_size=num, seed=seed, mixture=mixture).batch(3, 0)
    position = min(position, num)
    epochs = [epoch_of(order, 3, position) for order in orders]
    assert len({len(batches) for batches in epochs}) == 1
    steps = [np.stack(batches, axis=1).reshape(-1) for batches in zip(*epochs, strict=True)]
    seen = np.concatenate([np.empty(0, np.int64), *steps])
    np.testing.assert_array_equal(seen, whole[position : position + len(seen)])
    visits = np.bincount(whole, minlength=num)
    for part, n, quota in zip(np.split(visits, np.cumsum(mixture.num_windows)[:-1]), *parts_of(mixture), strict=True):
        assert part.sum() == quota
        assert set(part.tolist()) <= {quota // n, -(-quota // n)}


def parts_of(mixture):
    return mixture.num_windows, mixture.quotas


def test_drawing_with_replacement_keeps_the_weights():
    mixture = Mixture.weighted([30, 3000], [3, 1])
    order = WindowOrder(num_windows=3030, batch_size=4000, steps_per_epoch=1, mixture=mixture)
    drawn = order.batch(0, 0)
    assert abs((drawn < 30).sum() - 3000) < 5 * np.sqrt(4000 * 0.75 * 0.25)


def test_a_sampler_moves_on_by_itself_and_follows_a_trainer():
    sampler = WindowSampler(WindowOrder(num_windows=10, batch_size=4))
    sampler.begin()
    assert (sampler.epoch, sampler.position) == (0, 0)
    sampler.begin()  # nothing was drawn: still the same epoch
    assert sampler.epoch == 0
    sampler.advance()
    assert place(sampler) == (0, 4)
    sampler.set_epoch(0)
    assert sampler.position == 4
    sampler.advance()
    assert place(sampler) == (1, 0)  # two windows are left over
    sampler.begin()
    assert (sampler.epoch, sampler.position) == (1, 0)
    sampler.advance()
    sampler.set_epoch(5)
    assert (sampler.epoch, sampler.position) == (5, 0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"num_windows": 0}, "num_windows is 0"),
        ({"rank": 2, "world_size": 2}, r"rank is 2, but must lie in \[0, 2\)"),
        ({"steps_per_epoch": 0}, "steps_per_epoch is 0"),
        ({"mixture": Mixture((4, 5), (5, 4))}, "num_windows is 10, but the mixture has 9 draws"),
    ],
)
def test_impossible_orders_are_refused(changes, words):
    with pytest.raises(UsageError, match=words):
        WindowOrder(**({"num_windows": 10, "batch_size": 2} | changes))
