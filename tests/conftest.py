"""Datasets that are recorded once per test session, and private copies for tests that spoil theirs."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

# huggingface_hub, datasets and lerobot read these when they are first imported.
_HOME = tempfile.mkdtemp(prefix="lewm-data-tests-")
os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_HOME=f"{_HOME}/hf",
    HF_LEROBOT_HOME=f"{_HOME}/lerobot",
    SVT_LOG="1",
)
os.environ.pop("HF_TOKEN", None)

from tests.recording import record_v3, reencode, to_v20, to_v21  # noqa: E402

SHARED_SO101 = Path(__file__).parents[2] / "shared" / "data" / "so101-sim"


def pytest_unconfigure() -> None:
    shutil.rmtree(_HOME, ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if SHARED_SO101.is_dir():
        return
    absent = pytest.mark.skip(reason=f"the team's recorded dataset is not there ({SHARED_SO101})")
    for item in items:
        if "shared" in item.keywords:
            item.add_marker(absent)


@pytest.fixture(scope="session")
def so101() -> Path:
    """The team's recorded dataset, two AV1 cameras of 640x480; its tests carry the ``shared`` marker."""
    return SHARED_SO101


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """h264, cameras ``front`` and ``top``, five episodes in one MP4 per camera and one Parquet file."""
    return record_v3(tmp_path_factory.mktemp("v3") / "recorded", cameras=("front", "top"))


@pytest.fixture(scope="session")
def recorded_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """h264 with B-frames, camera ``front``; episodes 2 to 4 begin in later files of each kind."""
    return record_v3(
        tmp_path_factory.mktemp("v3") / "recorded_files",
        bframes=3,
        episodes_per_video_file=2,
        episodes_per_data_file=1,
        episodes_per_meta_file=1,
    )


@pytest.fixture(scope="session")
def recorded_hevc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """HEVC with B-frames, camera ``front``."""
    return record_v3(tmp_path_factory.mktemp("v3") / "recorded_hevc", vcodec="hevc", bframes=3)


@pytest.fixture(scope="session")
def recorded_av1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """AV1, camera ``front``, two episodes per MP4."""
    return record_v3(tmp_path_factory.mktemp("v3") / "recorded_av1", vcodec="av1", episodes_per_video_file=2)


@pytest.fixture(scope="session")
def recorded_reencoded(recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``recorded`` with B-frames over the episodes' borders: most episodes begin without a keyframe."""
    root = tmp_path_factory.mktemp("v3") / "recorded_reencoded"
    shutil.copytree(recorded, root)
    return reencode(root)


@pytest.fixture(scope="session")
def recorded_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``dtype: image``: PNG in Parquet, camera ``front``."""
    return record_v3(tmp_path_factory.mktemp("v3") / "recorded_images", use_videos=False)


@pytest.fixture(scope="session")
def recorded_v21(recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``recorded`` in the layout of v2.1."""
    return to_v21(recorded, tmp_path_factory.mktemp("v21") / "recorded_v21")


@pytest.fixture(scope="session")
def recorded_v20(recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``recorded`` in the layout of v2.0."""
    return to_v20(recorded, tmp_path_factory.mktemp("v20") / "recorded_v20")


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[Path], Path]:
    """``copy_of(dataset)`` gives a private copy of a dataset folder, to be changed at will."""
    number = count()

    def copy(dataset: Path) -> Path:
        return Path(shutil.copytree(dataset, tmp_path / f"copy-{next(number)}" / dataset.name))

    return copy
