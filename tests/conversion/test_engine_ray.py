"""A conversion on a real Ray cluster of two nodes on this machine, one of which is lost in mid-run."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lewm_data.config import ConvertConfig
from lewm_data.conversion.pipeline import Reporter, convert
from lewm_data.conversion.verify import verify_file
from lewm_data.errors import DirtyDataError
from tests.conversion.test_pipeline import assert_equal_contents, header_of
from tests.recording import record_v3

ray = pytest.importorskip("ray")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Ray leaves sockets and files open

SETTINGS: dict[str, Any] = {"image_size": 224, "compression": "zstd", "shard_bytes": 12 << 20}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record_v3(tmp_path_factory.mktemp("ray") / "recorded", episode_lengths=(150,) * 8)


@pytest.fixture(scope="module")
def local(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("local") / "out.h5"
    convert(str(dataset), path, ConvertConfig(**SETTINGS))
    return path


@pytest.fixture
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    small = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}
    os.environ["PYTHONPATH"] = str(Path(__file__).parents[2])
    running = Cluster(initialize_head=True, head_node_args=small)
    running.second = running.add_node(**{k: v for k, v in small.items() if k != "include_dashboard"})
    ray.init(address=running.address, log_to_driver=False)
    try:
        yield running
    finally:
        ray.shutdown()
        running.shutdown()


class Counting(Reporter):
    def __init__(self) -> None:
        self.count = 0

    def frames(self, episode: int, camera: str, count: int) -> None:
        self.count += count


@pytest.mark.parametrize("layout", ["single", "sharded"])
def test_a_node_that_is_killed_in_mid_run_costs_nothing(dataset, local, cluster, tmp_path, caplog, layout):
    output = tmp_path / "out.h5"
    lost: list[str] = []

    def kill_second_node() -> None:
        work = tmp_path / "out.h5.partial"
        while len(list(work.glob("*.heartbeat.json"))) < 2:  # both nodes are at work
            time.sleep(0.05)
        cluster.remove_node(cluster.second, allow_graceful=False)
        lost.append("second")

    killer = threading.Thread(target=kill_second_node, daemon=True)
    killer.start()
    counting = Counting()
    with caplog.at_level(logging.WARNING):
        done = convert(str(dataset), output, ConvertConfig(**SETTINGS, engine="ray", layout=layout), reporter=counting)
    killer.join(60)
    assert lost
    assert "was lost and starts again" in caplog.text
    assert_equal_contents(output, local)
    assert header_of(output) == header_of(local)
    assert verify_file(output) == []
    assert done.num_steps == counting.count == 8 * 150
    left = {"out.h5"} | ({"out.h5.shards"} if layout == "sharded" else set())
    assert {path.name for path in tmp_path.iterdir()} == left


def test_what_decoding_finds_on_a_node_is_refused_here(dataset, cluster, tmp_path):
    import shutil

    root = shutil.copytree(dataset, tmp_path / "damaged")
    [video] = root.rglob("*.mp4")
    data = bytearray(video.read_bytes())
    start = data.find(b"mdat") + 8
    middle = start + (len(data) - start) // 2
    data[middle : middle + 2000] = os.urandom(2000)
    video.write_bytes(bytes(data))
    with pytest.raises(DirtyDataError) as caught:
        convert(str(root), tmp_path / "out.h5", ConvertConfig(**SETTINGS, engine="ray"))
    assert caught.value.findings
    assert not (tmp_path / "out.h5.partial").exists()
