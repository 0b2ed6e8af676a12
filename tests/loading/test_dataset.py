from __future__ import annotations

import pickle
import re

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from lewm_data.errors import UsageError
from lewm_data.loading.concat_dataset import ConcatDataset
from lewm_data.loading.dataset import WindowDataset, whole_batch
from lewm_data.loading.store import FrameStore
from tests.loading import files

EXTRA = {"reward": np.arange(83, dtype=np.float64), "pose": np.arange(83 * 4, dtype=np.int16).reshape(83, 2, 2)}


@pytest.fixture
def written(tmp_path):
    return files.write(tmp_path / "a.h5", cameras=["wrist"], extra=EXTRA)


def assert_is_window(sample, expected):
    assert set(sample) == set(expected)
    for name, values in expected.items():
        got = sample[name].numpy()
        got = np.moveaxis(got, 1, -1) if name.startswith("pixels") else got
        np.testing.assert_array_equal(got, values, err_msg=name)


@pytest.mark.parametrize(("num_steps", "frameskip"), [(4, 5), (1, 1), (3, 1), (1, 7), (2, 4)])
def test_every_window_is_what_the_schema_says(written, num_steps, frameskip):
    dataset = WindowDataset(written.path, num_steps=num_steps, frameskip=frameskip)
    places = written.starts(num_steps * frameskip)
    assert len(dataset) == len(places)
    for window in range(0, len(places), 3):
        assert_is_window(dataset[window], written.window(*places[window], num_steps, frameskip))


def test_a_batch_has_the_contracts_shapes_dtypes_and_layout(written):
    batch = WindowDataset(written.path).__getitems__([3, 0, 3])
    assert {name: (tuple(t.shape), t.dtype) for name, t in batch.items()} == {
        "pixels": ((3, 4, 3, 24, 20), torch.uint8),
        "pixels_wrist": ((3, 4, 3, 12, 20), torch.uint8),
        "action": ((3, 4, 10), torch.float32),
        "state": ((3, 4, 3), torch.float32),
        "done": ((3, 4), torch.bool),
        "reward": ((3, 4), torch.float64),
        "pose": ((3, 4, 2, 2), torch.int16),
    }
    assert batch["pixels"].permute(0, 1, 3, 4, 2).is_contiguous()  # NHWC underneath
    places = written.starts(20)
    for row, window in enumerate([3, 0, 3]):
        assert_is_window({k: v[row] for k, v in batch.items()}, written.window(*places[window], 4, 5))


def test_done_is_true_where_the_episode_ends_within_the_interval(written):
    dataset = WindowDataset(written.path, columns=["done"])
    places = written.starts(20)
    for window in range(len(places)):
        episode, start = places[window]
        is_last = start + 20 == written.lengths[episode]
        assert dataset[window]["done"].tolist() == [False, False, False, is_last]


def test_columns_and_episodes_are_chosen(written):
    dataset = WindowDataset(written.path, columns=["action", "step_idx"], episodes=[3, 1])
    assert len(dataset) == 6 + 2
    sample = dataset[6]
    assert list(sample) == ["action", "step_idx"]
    assert sample["step_idx"].tolist() == [0, 5, 10, 15]
    np.testing.assert_array_equal(sample["action"], written.window(3, 0, 4, 5)["action"])
    assert len(dataset.restrict([0])) == 11
    assert dataset.restrict([0])._values is dataset._values


def test_what_cannot_be_a_column_is_refused(written):
    with pytest.raises(UsageError, match="no column 'depth'. A batch can have: action"):
        WindowDataset(written.path, columns=["depth"])


def test_text_columns_of_other_writers_are_left_out(tmp_path):
    written = files.write(tmp_path / "a.h5", ours=False, extra={"task": np.array([b"push"] * 83)})
    assert "task" not in WindowDataset(written.path)[0]
    with pytest.raises(UsageError, match=r"'task' is \|S4, and only numbers become tensors"):
        WindowDataset(written.path, columns=["task"])


def test_columns_of_one_number_work(tmp_path):
    written = files.write(tmp_path / "a.h5", ours=False, extra={"action": np.arange(83.0)})
    sample = WindowDataset(written.path)[1]
    assert sample["action"].tolist() == np.arange(1.0, 21.0).reshape(4, 5).tolist()
    assert sample["action"].dtype == torch.float32


def test_windows_outside_are_refused(written):
    dataset = WindowDataset(FrameStore(written.path))
    for window in (len(dataset), -len(dataset) - 1):
        with pytest.raises(IndexError, match="outside"):
            dataset[window]
    assert len(list(dataset)) == len(dataset)


def test_negative_numbers_and_slices_choose_windows_as_in_a_list(written):
    dataset = WindowDataset(written.path)
    numbers = list(range(len(dataset)))
    for window in (-1, -len(dataset), np.int64(3)):
        assert torch.equal(dataset[window]["state"], dataset[numbers[window]]["state"])
    for chosen in (slice(2, 5), slice(None, None, 4), slice(-3, None), slice(5, 2)):
        batch, expected = dataset[chosen], dataset.read(numbers[chosen])
        assert all(torch.equal(batch[name], expected[name]) for name in expected)
    for window in ([1, 2], 1.0, "1"):
        with pytest.raises(UsageError, match=r"by its number or a slice, but this is .*read\(\[\.\.\.\]\)"):
            dataset[window]


def test_a_dataset_without_a_window_is_refused(written):
    with pytest.raises(UsageError, match=r"100 \* 5 = 500 steps, but the longest of 4 episodes has 30"):
        WindowDataset(written.path, num_steps=100)
    with pytest.raises(UsageError, match="but the longest of 1 episode has 7"):
        WindowDataset(written.path, episodes=[2])
    assert len(WindowDataset(written.path).restrict([2])) == 0


def test_a_dataset_prints_what_it_is(written):
    assert re.fullmatch(
        r"WindowDataset\(.*a\.h5: 19 windows of 4 frames 5 steps apart with uniform goals, from 3 of 4 episodes; "
        r"pixels \(4, 24, 20, 3\), .*action \(4, 10\), .*goal_steps \(\)\)",
        repr(WindowDataset(written.path, goal="uniform")),
    )
    joined = ConcatDataset([WindowDataset(written.path), WindowDataset(written.path, episodes=[0])])
    assert re.search(r"ConcatDataset\(30 windows of 2 datasets:\n  WindowDataset\(.*\n  .* from 1 of 4", repr(joined))


def test_one_column_is_given_in_a_list(written):
    with pytest.raises(UsageError, match=r"columns is 'state', but must be a list: \['state'\]"):
        WindowDataset(written.path, columns="state")


def test_pickling_is_cheap(written):
    dataset = WindowDataset(written.path)
    sent = pickle.dumps(dataset)
    assert len(sent) < 6000
    assert_is_window(pickle.loads(sent)[5], written.window(*written.starts(20)[5], 4, 5))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_torchs_own_loader_takes_it(written):
    dataset = WindowDataset(written.path, num_steps=2, frameskip=2)
    expected = np.stack([written.window(*place, 2, 2)["state"] for place in written.starts(4)])
    for options in ({"collate_fn": whole_batch, "num_workers": 2}, {"num_workers": 2}, {}, {"pin_memory": False}):
        batches = list(DataLoader(dataset, batch_size=16, **options))
        assert {type(batch) for batch in batches} == {dict}
        np.testing.assert_array_equal(torch.cat([batch["state"] for batch in batches]), expected)
    for batch_size in (None, 1):
        samples = list(DataLoader(dataset, batch_size=batch_size))
        np.testing.assert_array_equal(torch.stack([sample["state"].reshape(2, 3) for sample in samples]), expected)


def test_torchs_own_combinations_of_datasets_take_it(written):
    dataset = WindowDataset(written.path, num_steps=2, frameskip=2)
    whole = dataset.read(np.arange(len(dataset)))
    twice = torch.utils.data.ConcatDataset([dataset, dataset])
    parts = torch.utils.data.random_split(dataset, [0.5, 0.5], torch.Generator().manual_seed(1))
    for combined, numbers in ((twice, [*range(len(dataset))] * 2), (parts[0], parts[0].indices)):
        batches = list(DataLoader(combined, batch_size=16))
        for name, values in whole.items():
            assert torch.equal(torch.cat([batch[name] for batch in batches]), values[numbers])
    batch = dataset.__getitems__([0])
    with pytest.raises(KeyError):
        batch["nothing"]


@pytest.mark.slow
def test_stable_worldmodels_reader_gives_the_same_windows(tmp_path):
    formats = pytest.importorskip("stable_worldmodel.data.formats.hdf5")
    written = files.write(tmp_path / "a.h5")
    theirs = formats.HDF5Dataset(path=str(written.path), num_steps=4, frameskip=5)
    ours = WindowDataset(written.path)
    assert len(ours) == len(theirs)
    for window in range(len(ours)):
        expected = theirs[window]
        for name in ("pixels", "action", "state"):
            np.testing.assert_array_equal(ours[window][name], expected[name])
