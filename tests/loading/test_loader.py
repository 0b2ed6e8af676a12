from __future__ import annotations

import gc
import threading
import time
import warnings

import h5py
import numpy as np
import pytest
import torch

from lewm_data.errors import DamagedChunkError, UsageError
from lewm_data.loading import buffer_pool as buffers
from lewm_data.loading.buffer_pool import BufferPool
from lewm_data.loading.dataset import WindowDataset
from lewm_data.loading.loader import WindowLoader
from lewm_data.loading.sampler import WindowOrder, WindowSampler
from lewm_data.loading.thread_pipeline import ThreadPipeline
from tests.loading import files

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@pytest.fixture(autouse=True)
def no_thread_left():
    before = set(threading.enumerate())
    yield
    gc.collect()
    left = [thread for thread in set(threading.enumerate()) - before if "lewm_data" in thread.name]
    assert left == []


@pytest.fixture
def written(tmp_path):
    return files.write(tmp_path / "a.h5", [30, 25, 7, 40], cameras=["wrist"])


@pytest.fixture
def dataset(written):
    return WindowDataset(written.path)


def make(dataset, *, batch_size=4, seed=5, drop_last=True, rank=0, world_size=1, **options):
    order = WindowOrder(
        num_windows=len(dataset),
        batch_size=batch_size,
        seed=seed,
        drop_last=drop_last,
        rank=rank,
        world_size=world_size,
    )
    return WindowLoader(dataset, WindowSampler(order), **options)


def same(left, right):
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        assert set(a) == set(b)
        for name in a:
            assert a[name].dtype == b[name].dtype
            assert torch.equal(a[name], b[name]), name


def naive(written, order, epoch):
    """The same epoch by a plain loop over the file with h5py, one window at a time."""
    places = written.starts(20)
    batches = []
    with h5py.File(written.path) as file:
        data = {name: file[name][:] for name in written.data}
        copy = files.Written(written.path, file["ep_len"][:].astype(int), data)
    for step in range(order.num_batches()):
        windows = [copy.window(*places[w], 4, 5) for w in order.batch(epoch, step * order.batch_size).tolist()]
        batch = {name: torch.from_numpy(np.stack([w[name] for w in windows])) for name in windows[0]}
        batches.append({k: v.permute(0, 1, 4, 2, 3) if k.startswith("pixels") else v for k, v in batch.items()})
    return batches


@pytest.mark.parametrize(
    "options",
    [
        {"num_workers": 0},
        {"num_workers": 1},
        {"num_workers": 5, "num_ahead": 2},
        {"num_workers": 2, "worker_type": "process"},
        {"num_workers": 0, "worker_type": "process"},
    ],
    ids=str,
)
def test_all_kinds_and_numbers_of_workers_give_what_a_naive_loop_gives(written, dataset, options):
    loader = make(dataset, drop_last=False, **options)
    assert len(loader) == 10
    for epoch in range(2):
        same(list(loader), naive(written, loader.batch_sampler.order, epoch))
    loader.close()


def test_spawned_processes_give_the_same(written, dataset):
    loader = make(dataset, num_workers=1, worker_type="process", multiprocessing_context="spawn")
    same(list(loader), naive(written, loader.batch_sampler.order, 0))
    loader.close()


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_resuming_equals_no_interruption_whatever_the_workers(dataset, kind):
    whole = list(make(dataset))
    first = make(dataset, num_workers=2, worker_type=kind)
    batches = iter(first)
    begun = [next(batches) for _ in range(4)]
    state = first.state_dict()
    del batches
    first.close()
    rest = make(dataset, num_workers=1, worker_type="thread" if kind == "process" else "process")
    rest.load_state_dict(state)
    assert len(rest) == len(whole)
    same(begun + list(rest), whole)
    assert rest.state_dict() | {"order": 0} == {"epoch": 1, "position": 0, "order": 0}
    rest.close()


def test_a_new_iteration_is_a_new_epoch(dataset):
    loader = make(dataset)
    first, second = next(iter(loader)), next(iter(loader))
    assert not torch.equal(first["state"], second["state"])
    assert loader.batch_sampler.epoch == 1


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_tensors_that_are_kept_are_never_overwritten(dataset, monkeypatch, kind):
    monkeypatch.setattr(buffers, "_SMALL_BYTES", 0)
    kept = []
    loader = make(dataset, num_workers=2, worker_type=kind)
    for _ in range(3):
        for batch in loader:
            view = batch["pixels"][1:2, ::2]  # the batch dies, a view of it lives on
            kept.append((view, view.clone(), batch["state"].numpy(), batch["state"].clone()))
    for view, copy, array, array_copy in kept:
        assert torch.equal(view, copy)
        np.testing.assert_array_equal(array, array_copy)
    loader.close()


def test_memory_is_used_again_once_nobody_looks_at_it(monkeypatch):
    monkeypatch.setattr(buffers, "_SMALL_BYTES", 0)
    pool = BufferPool(8, most_idle=1)
    shape = (8, 4), np.dtype(np.float32)
    first = pool.empty(*shape)
    place = first.data_ptr()
    part = first[2:].numpy()
    del first
    second = pool.empty(*shape)
    assert second.data_ptr() != place  # part still looks at the first one's memory
    del part
    smaller = pool.empty((5, 4), np.dtype(np.float32))
    assert smaller.data_ptr() == place
    assert smaller.shape == (5, 4)
    del smaller, second
    [idle] = pool._idle.values()
    assert idle.qsize() == 1


def test_a_whole_epoch_takes_a_bounded_number_of_buffers(dataset, monkeypatch):
    monkeypatch.setattr(buffers, "_SMALL_BYTES", 20_000)  # frames of the first camera
    taken = []
    take = np.empty
    monkeypatch.setattr(buffers.np, "empty", lambda *a: taken.append(a) or take(*a))
    loader = make(dataset, num_workers=2, num_ahead=2)
    for _ in range(5):
        for batch in loader:
            del batch
    assert 0 < len([a for a in taken if a[0] == (4, 4, 24, 20, 3)]) <= 2 + 2


def test_processes_fill_a_few_slots_again_and_again(dataset):
    loader = make(dataset, num_workers=2, num_ahead=2, worker_type="process")
    for _ in range(3):
        next(iter(loader))  # abandoned with batches in work
    places = {batch["state"].data_ptr() for _ in range(3) for batch in loader}
    assert len(places) <= 4
    assert loader._processes._free.qsize() == 4
    loader.close()


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_damage_reaches_the_trainer_with_episode_and_step(written, kind):
    files.damage(written.path, 35)
    from lewm_data.loading.store import FrameStore

    loader = make(WindowDataset(FrameStore(written.path, verify_checksums=True)), num_workers=2, worker_type=kind)
    with pytest.raises(DamagedChunkError, match="episode 1, step 5"):
        list(loader)
    loader.close()


def test_other_errors_say_where_they_happened(dataset, monkeypatch):
    def fail(*_):
        raise OSError("the disk is on fire")

    monkeypatch.setattr(dataset, "fill", fail)
    with pytest.raises(OSError, match="on fire") as caught:
        next(iter(make(dataset, num_workers=2)))
    assert "a.h5, episode " in caught.value.__notes__[0]


def test_stopping_early_leaves_no_thread(dataset):
    loader = make(dataset, num_workers=3)
    for _ in loader:
        break
    batches = iter(loader)
    next(batches)
    assert threading.active_count() > 1
    loader.close()
    with pytest.raises(RuntimeError, match="closed while it was being iterated"):
        next(batches)


def test_interrupting_leaves_no_thread(dataset):
    loader = make(dataset, num_workers=3)

    def train():
        for _ in loader:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train()


def test_no_more_is_read_ahead_than_allowed():
    begun, release = [], threading.Event()

    def work(number):
        begun.append(number)
        release.wait(5)
        return number

    pipeline = ThreadPipeline(work, 100, num_threads=8, num_ahead=3)
    time.sleep(0.2)
    assert sorted(begun) == [0, 1, 2]
    release.set()
    assert [pipeline.take() for _ in range(10)] == list(range(10))
    time.sleep(0.2)
    assert len(begun) == 13
    pipeline.close()
    pipeline.close()


def test_results_come_in_order_even_when_late_ones_are_ready_first():
    def work(number):
        time.sleep(0.02 * (number % 3 == 0))
        return number

    pipeline = ThreadPipeline(work, 30, num_threads=4, num_ahead=6)
    assert [pipeline.take() for _ in range(30)] == list(range(30))
    pipeline.close()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"worker_type": "fibre"}, "worker_type is 'fibre', but must be thread or process"),
        ({"num_workers": -1}, "num_workers is -1"),
        ({"num_ahead": 0}, "num_ahead is 0"),
    ],
)
def test_impossible_loaders_are_refused(dataset, options, words):
    with pytest.raises(UsageError, match=words):
        make(dataset, **options)


def test_the_global_random_state_is_left_alone(dataset):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    with warnings.catch_warnings(action="ignore"):
        for kind in ("thread", "process"):
            loader = make(dataset, num_workers=1, worker_type=kind)
            list(loader)
            loader.close()
    assert torch.equal(torch.get_rng_state(), before)
