"""Datasets that are recorded once per test session, and private copies for tests that spoil theirs."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import settings

# huggingface_hub, datasets and lerobot read these when they are first imported.
_HOME = tempfile.mkdtemp(prefix="lewm-data-tests-")
os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_HOME=f"{_HOME}/hf",
    HF_LEROBOT_HOME=f"{_HOME}/lerobot",
    SVT_LOG="1",
)
os.environ.pop("HF_TOKEN", None)

from lewm_data.resources import leave_real_time  # noqa: E402
from tests.recording import record_v3, reencode, to_v20, to_v21  # noqa: E402

# A busy machine is slow, not wrong; and the cases are small enough for fifty of them to do. `make test` draws the same
# cases each time, so that a change is judged by what it changes; `make test-all` draws new ones.
settings.register_profile("tests", deadline=None, max_examples=50, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=50)
settings.load_profile("tests")

pytest_plugins = ["tests.browser", "tests.hub.fixtures"]

SHARED_SO101 = Path(__file__).parents[2] / "shared" / "data" / "so101-sim"


def pytest_unconfigure() -> None:
    shutil.rmtree(_HOME, ignore_errors=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    leave_real_time()  # which a fixture may have entered by recording AV1
    try:
        return (yield)
    finally:
        leave_real_time()


@pytest.fixture
def own_signal_handlers() -> Iterator[None]:
    """The commands install handlers for their process; this one is the tests'."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


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


type Record = Callable[[str, Callable[[Path], Path]], Path]


@pytest.fixture(scope="session")
def record_once(tmp_path_factory: pytest.TempPathFactory) -> Record:
    """``record_once(name, make)`` gives a dataset of that name, made once for all processes that run these tests."""
    kept = os.environ.get("LEWM_DATA_TEST_RECORDINGS")
    if kept:  # for people who run parts of the suite many times: recordings stay until tests/recording.py changes
        version = hashlib.sha256((Path(__file__).parent / "recording.py").read_bytes()).hexdigest()[:12]
        common = Path(kept) / version
    else:
        common = tmp_path_factory.getbasetemp()
        if "PYTEST_XDIST_WORKER" in os.environ:
            common = common.parent

    def record(name: str, make: Callable[[Path], Path]) -> Path:
        folder = common / "recordings" / f"of-{name}"
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock"):
            if not (folder / "done").exists():
                make(folder / name)
                leave_real_time()
                (folder / "done").touch()
        return folder / name

    return record


@pytest.fixture(scope="session")
def recorded(record_once: Record) -> Path:
    """h264, cameras ``front`` and ``top``, five episodes in one MP4 per camera and one Parquet file."""
    return record_once("recorded", lambda root: record_v3(root, cameras=("front", "top")))


@pytest.fixture(scope="session")
def recorded_files(record_once: Record) -> Path:
    """h264 with B-frames, camera ``front``; episodes 2 to 4 begin in later files of each kind."""
    files = {"episodes_per_video_file": 2, "episodes_per_data_file": 1, "episodes_per_meta_file": 1}
    return record_once("recorded_files", lambda root: record_v3(root, bframes=3, **files))


@pytest.fixture(scope="session")
def recorded_hevc(record_once: Record) -> Path:
    """HEVC with B-frames, camera ``front``."""
    return record_once("recorded_hevc", lambda root: record_v3(root, vcodec="hevc", bframes=3))


@pytest.fixture(scope="session")
def recorded_av1(record_once: Record) -> Path:
    """AV1, camera ``front``, two episodes per MP4."""
    return record_once("recorded_av1", lambda root: record_v3(root, vcodec="av1", episodes_per_video_file=2))


@pytest.fixture(scope="session")
def recorded_reencoded(recorded: Path, record_once: Record) -> Path:
    """``recorded`` with B-frames over the episodes' borders: most episodes begin without a keyframe."""
    return record_once("recorded_reencoded", lambda root: reencode(Path(shutil.copytree(recorded, root))))


@pytest.fixture(scope="session")
def recorded_images(record_once: Record) -> Path:
    """``dtype: image``: PNG in Parquet, camera ``front``."""
    return record_once("recorded_images", lambda root: record_v3(root, use_videos=False))


@pytest.fixture(scope="session")
def recorded_v21(recorded: Path, record_once: Record) -> Path:
    """``recorded`` in the layout of v2.1."""
    return record_once("recorded_v21", lambda root: to_v21(recorded, root))


@pytest.fixture(scope="session")
def recorded_v20(recorded: Path, record_once: Record) -> Path:
    """``recorded`` in the layout of v2.0."""
    return record_once("recorded_v20", lambda root: to_v20(recorded, root))


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[Path], Path]:
    """``copy_of(dataset)`` gives a private copy of a dataset folder, to be changed at will."""
    number = count()

    def copy(dataset: Path) -> Path:
        return Path(shutil.copytree(dataset, tmp_path / f"copy-{next(number)}" / dataset.name))

    return copy
