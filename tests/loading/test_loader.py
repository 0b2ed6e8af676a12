from __future__ import annotations

import gc
import itertools
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
import warnings

import h5py
import numpy as np
import pytest
import torch

from lewm_data.errors import DamagedChunkError, LoaderError, UsageError
from lewm_data.loading.batches import BufferPool
from lewm_data.loading.dataset import WindowDataset
from lewm_data.loading.loader import WindowLoader
from lewm_data.loading.sampler import WindowOrder, WindowSampler
from tests.loading import files

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@pytest.fixture(autouse=True)
def no_worker_left():
    """Abandoned threads and processes end soon, and nothing waits for them."""
    gc.freeze()  # a collection then looks only at what the test made: 20 ms instead of a second
    yield
    gc.collect()
    gc.unfreeze()
    end = time.monotonic() + 10
    while (left := workers()) and time.monotonic() < end:
        time.sleep(0.01)
    assert left == []


def workers():
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("lewm_data-loader")]
    return threads + multiprocessing.active_children()


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
        {"num_workers": 5, "prefetch": 2},
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


KINDS = pytest.mark.parametrize("kind", ["thread", "process"])


@pytest.fixture
def large(tmp_path):
    """Frames large enough for a batch of them to be worth recycling."""
    return WindowDataset(files.write(tmp_path / "large.h5", [30, 28], height=160, width=140).path)


@KINDS
def test_tensors_that_are_kept_are_never_overwritten(large, kind):
    kept = []
    loader = make(large, num_workers=2, worker_type=kind)
    for _ in range(3):
        for batch in loader:
            view = batch["pixels"][1:2, ::2]  # the batch dies, a view of it lives on
            kept.append((view, view.clone(), batch["state"].numpy(), batch["state"].clone()))
    for view, copy, array, array_copy in kept:
        assert torch.equal(view, copy)
        np.testing.assert_array_equal(array, array_copy)
    loader.close()


def test_the_pool_recycles_memory_once_the_last_view_of_it_is_gone():
    pool = BufferPool(8, max_idle=1, small_bytes=0)
    shape = (8, 4), np.dtype(np.float32)
    first = pool.empty(*shape)
    address = first.data_ptr()
    part = first[2:].numpy()
    del first
    second = pool.empty(*shape)
    assert second.data_ptr() != address  # `part` still views the first one's memory
    del part
    smaller = pool.empty((5, 4), np.dtype(np.float32))
    assert smaller.data_ptr() == address
    assert smaller.shape == (5, 4)


def test_epochs_take_a_bounded_number_of_buffers(large, monkeypatch):
    taken = []
    take = np.empty
    monkeypatch.setattr(np, "empty", lambda *a, **k: taken.append(a) or take(*a, **k))
    loader = make(large, num_workers=2, prefetch=2)
    for _ in range(5):
        for batch in loader:
            del batch
    assert 0 < len([a for a in taken if a[0] == (4, 4, 160, 140, 3)]) <= 2 + 2


def test_processes_fill_a_few_slots_again_and_again(dataset):
    loader = make(dataset, num_workers=2, prefetch=2, worker_type="process")
    for _ in range(3):
        next(iter(loader))  # abandoned with batches in progress
    addresses = {batch["state"].data_ptr() for _ in range(3) for batch in loader}
    assert len(addresses) <= 4
    assert len(multiprocessing.active_children()) == 2
    loader.close()


@KINDS
def test_zipped_and_nested_passes_are_complete(dataset, kind):
    whole = list(make(dataset))
    loader = make(dataset, num_workers=2, worker_type=kind)
    pairs = list(zip(loader, loader, strict=True))
    same([one for one, _ in pairs], whole)
    same([other for _, other in pairs], whole)
    loader = make(dataset, num_workers=2, worker_type=kind)
    outer = []
    for batch in loader:
        outer.append(batch)
        if len(outer) == 3:
            same(list(loader), whole)
            assert loader.state_dict()["position"] == 3 * 4
    same(outer, whole)
    same(list(loader), list(itertools.islice(make_at(dataset, epoch=1), 99)))
    loader.close()


def make_at(dataset, epoch):
    loader = make(dataset)
    loader.batch_sampler.set_epoch(epoch)
    return loader


def test_workers_of_a_collected_loader_leave_at_once(dataset):
    loader = make(dataset, num_workers=2, worker_type="process")
    batches = iter(loader)
    next(batches)
    assert len(multiprocessing.active_children()) == 2
    cycle = [loader, batches]
    cycle.append(cycle)
    del loader, batches, cycle
    began = time.monotonic()
    with threading._active_limbo_lock:  # as while any thread starts or ends
        gc.collect()
    assert time.monotonic() - began < 4  # joining workers that were not stopped takes five seconds each


def test_a_worker_outlives_the_signals_that_are_for_the_trainer(dataset):
    whole = list(make(dataset))
    loader = make(dataset, num_workers=2, worker_type="process")
    got = []
    for batch in loader:
        got.append(batch)
        if len(got) < 2:  # the second worker may not have started yet
            continue
        for process in multiprocessing.active_children():
            os.kill(process.pid, signal.SIGINT)
            os.kill(process.pid, signal.SIGTERM)
    same(got, whole)
    loader.close()
    assert multiprocessing.active_children() == []


def test_the_death_of_a_worker_is_an_error_and_the_next_pass_starts_new_ones(dataset):
    loader = make(dataset, num_workers=2, worker_type="process")
    batches = iter(loader)
    next(batches)
    for process in multiprocessing.active_children():
        process.kill()
    with pytest.raises(LoaderError, match=r"worker process of the loader died .*exit status -9.*lower num_workers"):
        list(batches)
    assert list(batches) == []
    loader.batch_sampler.set_epoch(7)
    same(list(loader), list(make_at(dataset, epoch=7)))
    loader.close()


class Unpicklable(Exception):
    def __init__(self, one, two):
        super().__init__(one)


def test_an_error_that_cannot_be_pickled_still_says_what_happened(dataset, monkeypatch):
    def fail(*_):
        raise Unpicklable("the camera melted", 2)

    monkeypatch.setattr(dataset, "fill", fail)
    loader = make(dataset, num_workers=1, worker_type="process")
    with pytest.raises(LoaderError, match=r"(?s)Unpicklable: the camera melted.*a\.h5, episode.*in fail"):
        list(loader)
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
    assert workers() == []
    with pytest.raises(RuntimeError, match="closed while it was being iterated"):
        next(batches)


def test_interrupting_leaves_no_thread(dataset):
    loader = make(dataset, num_workers=3)

    def train():
        for _ in loader:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"worker_type": "fibre"}, "worker_type is 'fibre', but must be one of thread, process"),
        ({"num_workers": -1}, "num_workers is -1"),
        ({"prefetch": 0}, "prefetch is 0"),
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


def test_an_abandoned_iteration_no_longer_moves_the_position_once_it_is_set(dataset):
    whole = [list(make_at(dataset, epoch)) for epoch in range(2)]
    loader = make(dataset)
    abandoned = iter(loader)
    next(abandoned)
    loader.batch_sampler.set_epoch(1)
    same(list(loader), whole[1])
    assert loader.state_dict()["epoch"] == 2
    next(abandoned)
    assert (loader.state_dict()["epoch"], loader.state_dict()["position"]) == (2, 0)
    loader.load_state_dict({"epoch": 0, "position": 8})
    same(list(loader), whole[0][2:])


def test_repeating_an_epoch_next_to_an_abandoned_iteration_warns(dataset):
    loader = make(dataset)
    abandoned = iter(loader)
    next(abandoned)
    first = list(loader)
    with pytest.warns(UserWarning, match="An earlier iteration over this loader is unfinished.*call close"):
        same(list(loader), first)
    loader.close()
    assert not torch.equal(next(iter(loader))["state"], first[0]["state"])


SCRIPT = """
import sys
import numpy as np
from lewm_data.loading.dataset import WindowDataset
from lewm_data.loading.loader import WindowLoader
from lewm_data.loading.sampler import WindowOrder, WindowSampler

dataset = WindowDataset(sys.argv[1])
sampler = WindowSampler(WindowOrder(num_windows=len(dataset), batch_size=4))
loader = WindowLoader(dataset, sampler, num_workers=1, worker_type="process", multiprocessing_context="spawn")
next(iter(loader))
"""


@pytest.mark.slow
def test_a_script_without_a_guard_is_told_pythons_own_remedy(written, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, "script.py", str(written.path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "bootstrapping phase" in done.stderr  # Python's own words, from the worker
    assert re.search(r"LoaderError: A worker process of the loader ended while it started.*__main__", done.stderr)
    assert "memory ran out" not in done.stderr
