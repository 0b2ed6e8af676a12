"""The PushT demo is a real LeRobot dataset, appears whole or not at all, and is recorded once."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from lewm_data import demo
from lewm_data.errors import OutputError, UsageError

NUM_EPISODES, MAX_STEPS = 2, 60


def record(root: Path, **changes: int) -> Path:
    options = {"num_episodes": NUM_EPISODES, "max_episode_steps": MAX_STEPS, "image_size": 64, **changes}
    return demo.record_demo(root, **options)


@pytest.fixture(scope="module")
def pusht(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("demo") / "pusht")


def rows(root: Path) -> dict[str, np.ndarray]:
    table = pq.read_table(next((root / "data").rglob("*.parquet")))
    return {name: np.array(table[name].to_pylist()) for name in table.column_names}


def test_lerobot_reads_it(pusht: Path) -> None:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    dataset = LeRobotDataset("lewm_data/pusht_demo", root=pusht, video_backend="pyav", return_uint8=True)
    assert dataset.num_episodes == NUM_EPISODES
    first = dataset[0]["observation.image"].permute(1, 2, 0).float()
    assert first.shape == (64, 64, 3)
    green = (first[..., 1] - first[..., 0] > 40) & (first[..., 1] - first[..., 2] > 40)
    blue = first[..., 2] - first[..., 0] > 90
    assert green.sum() > 50, "PushT's goal is green"
    assert blue.sum() > 3, "PushT's finger is blue"


def test_episodes_end_where_pusht_ends_them(pusht: Path) -> None:
    data = rows(pusht)
    last = np.flatnonzero(np.diff(data["episode_index"], append=NUM_EPISODES))
    np.testing.assert_array_equal(np.flatnonzero(data["next.done"]), last)
    for step in last:
        assert data["next.success"][step] or data["frame_index"][step] == MAX_STEPS - 1


def test_the_finger_follows_its_targets_and_pushes(pusht: Path) -> None:
    data = rows(pusht)
    within = data["frame_index"][1:] > 0
    lag = np.linalg.norm(data["observation.state"][1:] - data["action"][:-1], axis=1)[within]
    assert np.median(lag) < 40
    assert data["next.reward"].max() > 0.2, "the block comes to lie over a part of its goal"


def test_a_complete_recording_is_left_alone(pusht: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "_record", lambda *_: pytest.fail("recorded again"))
    assert record(pusht) == pusht


def test_another_folder_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="exists, but is not a PushT demo of 2 episodes"):
        record(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("trouble", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_recording_leaves_nothing(
    trouble: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    acts = []

    def act(self: object) -> np.ndarray:
        acts.append(1)
        if len(acts) > MAX_STEPS + 20:
            raise trouble
        return np.array([256, 256], np.float32)

    monkeypatch.setattr(demo.PushPolicy, "act", act)
    with pytest.raises(trouble):
        record(tmp_path / "pusht")
    assert not list(tmp_path.iterdir())


def test_remains_of_a_killed_recording_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dead, alive = tmp_path / ".pusht.recording-999999999", tmp_path / f".pusht.recording-{os.getppid()}"
    for folder in (dead, alive):
        (folder / "meta").mkdir(parents=True)
    monkeypatch.setattr(demo, "_record", lambda scratch, *_: scratch.mkdir())
    record(tmp_path / "pusht")
    assert not dead.exists()
    assert alive.exists()


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gym_pusht", None)
    with pytest.raises(UsageError, match=r"needs gym-pusht.*pip install 'lewm_data\[demo\]'"):
        record(tmp_path / "pusht")
    assert not list(tmp_path.iterdir())


def test_importing_the_module_loads_no_recorder() -> None:
    import subprocess

    code = "import sys, lewm_data.demo; print([m for m in ('torch', 'lerobot', 'pygame') if m in sys.modules])"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert output.stdout.strip() == "[]"
