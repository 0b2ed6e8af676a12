"""Datasets on a stand-in for the Hub's HTTP interface: which files are downloaded, and the message of each failure."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import h5py
import pytest

from tests.hub import StandIn, serve
from tests.recording import record_v3


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset with two cameras and separate files for each episode."""
    return record_v3(
        tmp_path_factory.mktemp("hub") / "data",
        episode_lengths=(4, 5, 6),
        cameras=("front", "top"),
        episodes_per_video_file=1,
        episodes_per_data_file=1,
    )


@pytest.fixture
def hub(dataset: Path) -> Iterator[StandIn]:
    with serve(StandIn(dataset)) as stand_in:
        yield stand_in


class Machine:
    """A home folder, and the address of its Hub."""

    def __init__(self, home: Path, endpoint: str) -> None:
        self.home = home
        self.environment = {**os.environ, "HF_HOME": str(home), "HF_LEROBOT_HOME": str(home / "lerobot")}
        self.environment |= {"HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_TELEMETRY": "1"}

    def convert(self, *arguments: str, offline: bool = False) -> tuple[int, dict]:
        environment = {**self.environment, "HF_HUB_OFFLINE": "1" if offline else "0"}
        output = self.home / f"{len(list(self.home.glob('*.h5')))}.h5"
        command = [sys.executable, "-m", "lewm_data", "convert", arguments[0], str(output), *arguments[1:]]
        done = subprocess.run(
            [*command, "--json", "--image_size=32"], capture_output=True, text=True, env=environment, timeout=120
        )
        return done.returncode, json.loads(done.stdout)


@pytest.fixture
def machine(hub: StandIn, tmp_path: Path) -> Machine:
    return Machine(tmp_path, hub.endpoint)


def test_only_files_of_the_chosen_episodes_and_camera_are_downloaded(hub: StandIn, machine: Machine) -> None:
    status, result = machine.convert(hub.repo_id, "--camera=front", "--episodes=1")
    assert status == 0, result
    assert result["num_steps"] == 5
    fetched = [name for name in hub.downloads if not name.startswith("meta/")]
    assert sorted(fetched) == [
        "data/chunk-000/file-001.parquet",
        "videos/observation.images.front/chunk-000/file-001.mp4",
    ]
    assert hub.downloads[0].startswith("meta/")


def test_all_files_of_one_camera_are_downloaded_and_the_commit_is_recorded(hub: StandIn, machine: Machine) -> None:
    status, result = machine.convert(hub.repo_id, "--camera=top")
    assert (status, result.get("num_episodes")) == (0, 3)
    assert not any("front" in name for name in hub.downloads)
    with h5py.File(result["path"]) as file:
        record = json.loads(file.attrs["sources"])[0]
    assert (record["repo_id"], record["revision"]) == (hub.repo_id, hub.sha)


def test_without_a_network_the_cache_is_used(hub: StandIn, machine: Machine) -> None:
    assert machine.convert(hub.repo_id, "--camera=front")[0] == 0
    requests = len(hub.requests)
    status, result = machine.convert(hub.repo_id, "--camera=front", offline=True)
    assert (status, result.get("num_episodes")) == (0, 3)
    assert len(hub.requests) == requests


def test_a_recording_on_this_machine_is_found_by_its_repo_id(dataset: Path, hub: StandIn, machine: Machine) -> None:
    folder = machine.home / "lerobot" / "me" / "mine"
    folder.parent.mkdir(parents=True)
    folder.symlink_to(dataset)
    assert machine.convert("me/mine", "--camera=front")[0] == 0
    assert hub.requests == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("robot/unknown",), "robot/unknown: no such dataset on the Hub, or it is private"),
        (("robot/gated",), "robot/gated: the repo is gated and this account has no access yet"),
        (("robot/dataset", "--revision=v9"), "robot/dataset: no revision 'v9' on the Hub"),
    ],
)
def test_a_refusal_by_the_hub_is_one_sentence(machine: Machine, arguments: tuple[str, ...], words: str) -> None:
    status, result = machine.convert(*arguments, "--camera=front")
    assert status == 2
    assert result["error"]["message"].startswith(words)
    assert not list(machine.home.glob("*.h5*"))


def test_without_network_and_cache_the_error_says_both(machine: Machine) -> None:
    machine.environment["HF_ENDPOINT"] = "http://127.0.0.1:9"  # the discard port, on which nothing answers
    for offline in (False, True):
        status, result = machine.convert("robot/dataset", "--camera=front", offline=offline)
        assert status == 2
        assert "the Hub cannot be reached, and the dataset is not in the cache" in result["error"]["message"]


def test_a_local_folder_with_missing_files_sends_no_request(
    dataset: Path, copy_of, hub: StandIn, machine: Machine
) -> None:
    folder = copy_of(dataset)
    (folder / "data" / "chunk-000" / "file-001.parquet").unlink()
    status, result = machine.convert(str(folder), "--camera=front")
    assert status == 3
    assert {found["code"] for found in result["error"]["findings"] if found["severity"] == "error"} == {"file_missing"}
    assert hub.requests == []
