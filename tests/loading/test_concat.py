from __future__ import annotations

import json
import pickle
import warnings

import h5py
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lewm_data.errors import DamagedChunkError, UsageError
from lewm_data.loading.concat_dataset import ConcatDataset, concat_datasets
from lewm_data.loading.dataset import WindowDataset
from lewm_data.loading.full_datasets import check_alike
from lewm_data.loading.loader import WindowLoader
from lewm_data.loading.mixture import Mixture
from lewm_data.loading.ram_cache import cache_frames
from lewm_data.loading.sampler import WindowOrder, WindowSampler
from lewm_data.loading.store import FrameStore
from lewm_data.resources import silent
from tests.loading import files

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

LENGTHS = ([30, 25, 7], [22, 40], [5, 21])
CODECS = ("lzf", "none", "zstd")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("joined")
    return [
        files.write(folder / f"{codec}.h5", lengths, codec=codec, cameras=["wrist"], seed=10 * number)
        for number, (lengths, codec) in enumerate(zip(LENGTHS, CODECS, strict=True))
    ]


@pytest.fixture(scope="module")
def parts(written):
    return [WindowDataset(file.path) for file in written]


def windows_one_by_one(parts, windows):
    places = [(part, local) for part in parts for local in range(len(part))]
    return [places[window][0][places[window][1]] for window in windows]


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 42), min_size=1, max_size=12))
def test_batches_hold_each_parts_windows_in_the_order_asked_for(parts, windows):
    joined = ConcatDataset(parts)
    assert len(joined) == 11 + 6 + 3 + 21 + 2
    batch = joined.read(windows)
    for name, values in batch.items():
        expected = torch.stack([sample[name] for sample in windows_one_by_one(parts, windows)])
        assert values.dtype == expected.dtype
        assert torch.equal(values, expected), name


def test_one_dataset_stays_itself(parts):
    assert concat_datasets(parts[:1]) is parts[0]


def test_windows_outside_are_refused(parts):
    for window in (-44, 43):
        with pytest.raises(IndexError, match="outside"):
            ConcatDataset(parts)[window]
    assert torch.equal(ConcatDataset(parts)[-1]["state"], parts[-1][-1]["state"])


def test_windows_are_described_and_damage_names_its_file(parts, tmp_path):
    joined = ConcatDataset(parts)
    assert joined.describe(0).endswith("lzf.h5, episode 0, step 0")
    assert joined.describe(42).endswith("zstd.h5, episode 1, step 1")
    spoilt = files.write(tmp_path / "spoilt.h5", [30, 30])
    files.damage(spoilt.path, 30)
    plain = WindowDataset(files.write(tmp_path / "plain.h5", [30]).path)
    joined = ConcatDataset([plain, WindowDataset(FrameStore(spoilt.path, verify_checksums=True))])
    with pytest.raises(DamagedChunkError, match=r"spoilt\.h5: column 'pixels', episode 1, step 0"):
        joined.read([3, 11 + 11, 5])


@pytest.mark.parametrize("cache", ["none", "ram"])
def test_all_workers_give_the_same_mixed_epoch_in_the_same_order(written, parts, cache):
    stores = [FrameStore(file.path) for file in written]
    assert cache_frames(*stores, mode=cache, progress=silent) is (cache == "ram")
    joined = ConcatDataset([WindowDataset(store) for store in stores])
    mixture = Mixture.weighted([len(part) for part in joined.datasets], [1, 1, 2])
    order = WindowOrder(num_windows=43, batch_size=8, seed=4, mixture=mixture)
    expected = [ConcatDataset(parts).read(order.batch(0, 8 * step)) for step in range(5)]
    kinds = [("thread", 3, None), ("process", 1, "spawn") if cache == "ram" else ("process", 2, "fork")]
    for worker_type, num_workers, context in kinds:
        loader = WindowLoader(
            joined,
            WindowSampler(order),
            num_workers=num_workers,
            worker_type=worker_type,
            multiprocessing_context=context,
        )
        got = list(loader)
        assert len(got) == len(expected)
        for batch, wanted in zip(got, expected, strict=True):
            assert all(torch.equal(batch[name], wanted[name]) for name in wanted)
        loader.close()


def test_the_hdf5_librarys_reader_puts_frames_in_their_places(tmp_path, parts):
    options = {"codec": "none", "frame_filters": {"compression": "gzip"}, "cameras": ["wrist"]}
    slow = files.write(tmp_path / "gzip.h5", [24], **options)
    with pytest.warns(UserWarning, match="slower"):
        store = FrameStore(slow.path)
    joined = ConcatDataset([WindowDataset(store), parts[0]])
    batch = joined.read([6, 2, 0, 9])
    for row, sample in enumerate(windows_one_by_one(joined.datasets, [6, 2, 0, 9])):
        assert torch.equal(batch["pixels"][row], sample["pixels"])


def test_sending_it_is_cheap(parts):
    sent = pickle.dumps(ConcatDataset(parts))
    assert len(sent) < 18_000
    assert torch.equal(pickle.loads(sent)[42]["pixels"], parts[2][1]["pixels"])


def rewrite(path, **attributes):
    with h5py.File(path, "r+") as file:
        file.attrs.update(attributes)
    return path


def test_datasets_that_differ_are_refused_and_each_is_named(tmp_path, written):
    other = files.write(
        tmp_path / "other.h5",
        [30],
        height=30,
        extra={"action": np.zeros((30, 7), np.float32), "reward": np.zeros(30, np.float32)},
    )
    rewrite(other.path, fps=30.0)
    with pytest.raises(UsageError, match="These files cannot be joined") as caught:
        check_alike([WindowDataset(written[0].path), WindowDataset(other.path)])
    words = str(caught.value)
    first, second = written[0].path, other.path
    for trait in (
        f"columns: action, done, pixels, pixels_wrist, state in {first}, but action, done, pixels, reward, state in "
        f"{second}",
        f"pixels: 24x20 pixels in {first}, but 30x20 pixels in {second}",
        f"action: 2 wide (float32) in {first}, but 7 wide (float32) in {second}",
        f"fps: 10 in {first}, but 30 in {second}",
        "convert all of them with the same settings",
    ):
        assert trait in words
    assert "state:" not in words


def test_names_in_another_order_are_refused_and_other_names_are_said(tmp_path):
    def named(name, *names):
        path = files.write(tmp_path / name, [21], height=8, width=8).path
        return WindowDataset(rewrite(path, feature_names=json.dumps({"action": names})))

    first = named("a.h5", "x", "y")
    with pytest.raises(UsageError, match=r"dimensions of action: x, y in .*a\.h5, but y, x in .*b\.h5"):
        check_alike([first, named("b.h5", "y", "x")])
    with pytest.warns(UserWarning, match=r"x, y in .*a\.h5, but x, gripper in .*c\.h5. Make sure"):
        check_alike([first, named("c.h5", "x", "gripper")])
    with warnings.catch_warnings(action="error"):
        check_alike([first, named("d.h5", "x", "y")])
