from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from lewm_data.errors import UsageError
from lewm_data.loading.concat_dataset import concat_datasets
from lewm_data.loading.dataset import WindowDataset
from lewm_data.loading.full_datasets import open_datasets
from tests.loading import files

LENGTHS = (30, 25, 21)
ASKED = ("episode_idx", "step_idx", "task_idx", "task", "dataset_idx")
TASK_OF_EPISODE = np.array([7, 2, 7])


def write(path, tasks=None, **options):
    task_index = np.repeat(TASK_OF_EPISODE, LENGTHS).astype(np.int64)
    tasks = {2: "push", 7: "lift"} if tasks is None else tasks
    return files.write(path, LENGTHS, extra={"task_index": task_index}, tasks=tasks, height=4, width=4, **options)


def test_a_window_says_where_it_comes_from(tmp_path):
    written = write(tmp_path / "a.h5")
    dataset = WindowDataset(written.path, num_steps=2, frameskip=3, columns=["pixels", *ASKED])
    places = written.starts(6)
    batch = dataset.read(np.arange(len(places)))
    for window, (episode, start) in enumerate(places):
        assert batch["episode_idx"][window].tolist() == [episode] * 2
        assert batch["step_idx"][window].tolist() == [start, start + 3]
        assert batch["task_idx"][window].tolist() == [TASK_OF_EPISODE[episode]] * 2
        assert batch["task"][window] == {2: "push", 7: "lift"}[TASK_OF_EPISODE[episode]]
    assert batch["dataset_idx"].tolist() == [0] * len(places)
    assert batch["episode_idx"].dtype == batch["step_idx"].dtype == torch.int32
    assert dataset[3]["task"] == "lift"
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(dataset)).read([40])["episode_idx"], batch["episode_idx"][[40]]
    )


def test_numbers_of_several_files_go_on_and_tasks_are_joined_by_their_texts(tmp_path):
    first = write(tmp_path / "a.h5")
    second = write(tmp_path / "b.h5", tasks={2: "lift", 7: "stack"}, sources=files.sources("me/b", 3))
    datasets = open_datasets([first.path, second.path], num_steps=1, frameskip=1, columns=ASKED)
    assert datasets[0].numbering.tasks == {0: "push", 1: "lift", 2: "stack"}
    joined = concat_datasets(datasets)
    order = np.random.default_rng(0).permutation(len(joined))
    batch = joined.read(order)
    rows = order % 76
    np.testing.assert_array_equal(batch["dataset_idx"], order // 76)
    np.testing.assert_array_equal(batch["episode_idx"][:, 0], first.data["episode_idx"][rows] + 3 * (order // 76))
    texts = np.array([["lift", "push", "lift"], ["stack", "lift", "stack"]])
    assert batch["task"] == texts[order // 76, first.data["episode_idx"][rows]].tolist()


def test_a_single_task_needs_no_column(tmp_path):
    path = files.write(tmp_path / "a.h5", LENGTHS, tasks={4: "lift"}, height=4, width=4).path
    batch = WindowDataset(path, columns=["task"]).read([0, 5])
    assert batch["task"] == ["lift", "lift"]
    assert batch["task_idx"].tolist() == [[4] * 4] * 2


def test_tasks_that_the_file_does_not_store_are_refused_with_the_flag(tmp_path):
    path = files.write(tmp_path / "a.h5", LENGTHS, tasks={4: "lift", 5: "push"}, height=4, width=4).path
    with pytest.raises(UsageError, match="does not store the task of each step.*--extra_columns task_index"):
        WindowDataset(path, columns=["task_idx"])
    with pytest.raises(UsageError, match="task_index 7 has no text in the file"):
        WindowDataset(write(tmp_path / "b.h5", tasks={2: "push"}).path, columns=["task"])
    with pytest.raises(UsageError, match=r"there is no column 'tusk'. A batch can have: .*task_idx"):
        WindowDataset(path, columns=["tusk"])


def test_columns_of_another_program_keep_their_meaning(tmp_path):
    """A file may store a number under a name that this package makes."""
    extra = {"task": np.arange(76.0), "dataset_idx": np.arange(76)}
    written = files.write(tmp_path / "a.h5", LENGTHS, ours=False, extra=extra, height=4, width=4)
    batch = WindowDataset(written.path, num_steps=1, frameskip=1).read([3])
    assert (batch["task"].item(), batch["dataset_idx"].item()) == (3, 3)
    assert "task_idx" not in batch
