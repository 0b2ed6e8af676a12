"""What happens to a shard whose process is gone, without a cluster."""

from __future__ import annotations

import contextlib
import shutil
import socket
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from lewm_data.config import ConvertConfig
from lewm_data.conversion import engine_ray
from lewm_data.conversion.engine_ray import MAX_TRIES, ShardTask
from lewm_data.conversion.pipeline import convert
from lewm_data.errors import LewmDataError, ResourceError, StalledError, UsageError
from tests.conversion.test_pipeline import assert_equal_contents, header_of


class Lost(Exception):
    pass


class OutOfMemory(Lost):
    pass


RAY = SimpleNamespace(exceptions=SimpleNamespace(OutOfMemoryError=OutOfMemory))


def task(**facts) -> ShardTask:
    return ShardTask(number=3, path=Path("shard-00003.h5"), episodes=[7, 8, 9], **facts)


def test_a_lost_shard_starts_again_a_few_times():
    lost = task(tries=1, heartbeat="alive")
    engine_ray.check_lost(RAY, lost, Lost("node died\nand more"), 120)
    assert lost.heartbeat == ""
    with pytest.raises(LewmDataError, match=rf"shard 3 \(episodes 7 to 9\) was lost {MAX_TRIES} times \(node died\)"):
        engine_ray.check_lost(RAY, task(tries=MAX_TRIES), Lost("node died"), 120)
    with pytest.raises(ResourceError):
        engine_ray.check_lost(RAY, task(tries=MAX_TRIES), OutOfMemory("killed"), 120)


def test_a_shard_that_was_silent_for_the_watchdogs_time_has_stalled():
    silent = task(tries=1, heartbeat="alive", changed=time.monotonic() - 121)
    with pytest.raises(StalledError, match=r"shard 3 \(episodes 7 to 9\) made no progress for 120 s"):
        engine_ray.check_lost(RAY, silent, Lost("died"), 120)
    engine_ray.check_lost(RAY, task(tries=1, heartbeat="alive", changed=silent.changed - 1000), Lost("died"), 0)


def test_a_restarted_task_counts_only_frames_beyond_the_first_one(tmp_path):
    reported: list[tuple[int, str, int]] = []
    running = task(tries=1)

    def say(number: int, text: str) -> None:
        (tmp_path / f"shard-00003.try-{number}.heartbeat.json").write_text(text)
        engine_ray.read_heartbeats([running], tmp_path, lambda *facts: reported.append(facts))

    say(1, '{"frames": 0}')
    say(1, '{"frames": 64, "episode": 7, "camera": "top"}')
    running.tries = 2
    say(2, '{"frames": 20, "episode": 7, "camera": "top"}')
    say(2, '{"frames": 80, "episode": 8, "camera": "top"}')
    say(2, "{broken")
    assert reported == [(7, "top", 64), (8, "top", 16)]


def test_without_ray_the_remedy_is_named(recorded, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install 'lewm_data\[ray\]'"):
        convert(str(recorded), tmp_path / "a.h5", ConvertConfig(camera="front", image_size=16, engine="ray"))


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "ray://127.0.0.1:{}"])
def test_an_address_at_which_nothing_answers_is_refused_at_once(form, recorded_images, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: False))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = form.format(taken.getsockname()[1])
    config = ConvertConfig(camera="front", image_size=16, engine="ray", address=address)
    with pytest.raises(UsageError, match=f"address is '{address}', but no Ray cluster answers there .*refused"):
        convert(str(recorded_images), tmp_path / "a.h5", config)


class HereRay:
    """A stand-in that runs each task at once, in this process and in the working folder of a node."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.exceptions = SimpleNamespace(RayTaskError=Lost, RayError=Lost)

    def is_initialized(self) -> bool:
        return True

    def put(self, value):
        return value

    def remote(self, **options):
        return lambda function: SimpleNamespace(remote=lambda *a, **k: Outcome(self._run(function, a, k)))

    def _run(self, function, arguments, options):
        with contextlib.chdir(self.folder):
            return function(*arguments, **options)

    def wait(self, references, timeout):
        return references, []

    def get(self, reference):
        return reference.value


class Outcome:
    def __init__(self, value) -> None:
        self.value = value


def test_relative_paths_reach_nodes_with_another_working_folder(recorded_images, tmp_path, monkeypatch):
    shutil.copytree(recorded_images, tmp_path / "here" / "arm")
    (tmp_path / "node").mkdir()
    monkeypatch.setitem(sys.modules, "ray", HereRay(tmp_path / "node"))
    monkeypatch.chdir(tmp_path / "here")
    settings = {"camera": "front", "image_size": 32, "min_episode_steps": 1}
    convert("arm", "a.h5", ConvertConfig(**settings, engine="ray", shard_bytes=20_000))
    local = convert("arm", "b.h5", ConvertConfig(**settings))
    again = convert("arm", "c.h5", ConvertConfig(**settings, engine="ray", shard_bytes=20_000, reuse="a.h5"))
    assert again.num_reused == local.num_episodes
    for name in ("a.h5", "c.h5"):
        assert_equal_contents(Path(name), local.path)
        assert header_of(Path(name)) == local.header
    assert list((tmp_path / "node").iterdir()) == []
