"""Pulling from a stand-in for the Hub: complete or absent, resumed, checked, and refused with a sentence."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import h5py
import pytest

from lewm_data.errors import FormatError, OutputError, ResourceError, SourceError, VerificationError
from lewm_data.hub import pull as pulling
from lewm_data.hub.pull import pull
from lewm_data.hub.push import push
from tests.hub import StandIn, wait_until
from tests.hub.fixtures import running
from tests.loading.files import damage, write

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # huggingface_hub's own


def test_a_pushed_file_comes_back_bit_by_bit_without_leftovers(
    converted: Path, online: StandIn, tmp_path: Path
) -> None:
    pushed = push(converted, "me/demo")
    output = tmp_path / "new" / "mine.h5"
    pulled = pull("me/demo", output, checksums=True)
    assert output.read_bytes() == converted.read_bytes()
    assert (pulled.file, pulled.revision, pulled.file_bytes) == ("demo.h5", pushed.revision, pushed.file_bytes)
    assert os.listdir(output.parent) == ["mine.h5"]


def test_an_old_revision_can_be_pulled(converted: Path, online: StandIn, tmp_path: Path) -> None:
    old = online.put("me/demo", {"demo.h5": converted.read_bytes()}).sha
    online.put("me/demo", {"demo.h5": b"newer" * 10_000})
    assert pull("me/demo", tmp_path / "old.h5", revision=old).revision == old
    with pytest.raises(SourceError, match="me/demo: no revision 'v9' on the Hub"):
        pull("me/demo", tmp_path / "none.h5", revision="v9")


def test_an_interrupted_download_leaves_nothing_behind(converted: Path, hub: StandIn, tmp_path: Path) -> None:
    hub.put("me/demo", {"demo.h5": converted.read_bytes()})
    hub.hang_download_after = 60_000
    output = tmp_path / "new" / "out.h5"
    with running(hub, "pull", "me/demo", output) as process:
        wait_until(lambda: hub.downloaded_bytes == 60_000)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130, err
    assert "interrupted; nothing is left behind. Run the same command again" in " ".join(err.split())
    assert not output.parent.exists()


def test_leftovers_of_a_killed_download_are_removed(converted: Path, online: StandIn, tmp_path: Path) -> None:
    online.put("me/demo", {"demo.h5": converted.read_bytes()})
    (tmp_path / "out.h5.download" / ".cache" / "huggingface").mkdir(parents=True)
    (tmp_path / "out.h5.download" / "demo.h5").write_text("half of it")
    pull("me/demo", tmp_path / "out.h5")
    assert sorted(os.listdir(tmp_path)) == ["hub", "out.h5"]
    (tmp_path / "two.h5.download").mkdir()
    with pytest.raises(OutputError, match="two.h5.download: the download needs this name"):
        pull("me/demo", tmp_path / "two.h5")
    assert (tmp_path / "two.h5.download").is_dir()


def test_a_broken_connection_is_resumed(online: StandIn, tmp_path: Path) -> None:
    large = write(tmp_path / "large.h5", codec="none", height=224, width=224).path.read_bytes()
    online.put("me/demo", {"demo.h5": large})
    online.break_download_after = 11 << 20  # huggingface_hub writes to the disk every 10 MiB
    pull("me/demo", tmp_path / "out.h5")
    assert (tmp_path / "out.h5").read_bytes() == large
    assert online.downloaded_bytes == len(large) + (1 << 20)


@pytest.mark.parametrize(
    ("repo_id", "files", "words"),
    [
        ("me/unknown", None, "me/unknown: no such dataset on the Hub, or it is private"),
        ("robot/gated", None, "robot/gated: the repo is gated"),
        ("not a repo", None, "not a valid Hub repo id"),
        ("me/demo", {"data.parquet": b"x"}, "me/demo: the repo holds no .h5 file"),
        (
            "me/demo",
            {"meta/info.json": b"{}"},
            "this is a LeRobot dataset, not a converted file. .*lewm-data convert me/demo",
        ),
        ("me/demo", {"a.h5": b"x", "b.h5": b"x"}, "the repo holds 2 files: a.h5, b.h5. Choose one with --file NAME"),
    ],
)
def test_an_impossible_pull_is_one_sentence(
    repo_id: str, files: dict[str, bytes] | None, words: str, online: StandIn, tmp_path: Path
) -> None:
    if files is not None:
        online.put(repo_id, files)
    with pytest.raises(SourceError, match=words):
        pull(repo_id, tmp_path / "out.h5")
    assert os.listdir(tmp_path) == ["hub"]


def test_one_of_several_files_can_be_chosen(converted: Path, online: StandIn, tmp_path: Path) -> None:
    online.put("me/demo", {"a.h5": b"x", "b.h5": converted.read_bytes()})
    assert pull("me/demo", tmp_path / "out.h5", file="b.h5").file == "b.h5"
    with pytest.raises(SourceError, match="there is no file 'c.h5'. The repo holds: a.h5, b.h5"):
        pull("me/demo", tmp_path / "other.h5", file="c.h5")


def test_a_private_repo_needs_an_account(
    converted: Path, online: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(converted, "me/demo")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(SourceError, match="or it is private. .*hf auth login"):
        pull("me/demo", tmp_path / "out.h5")


def test_an_unreachable_hub_is_reported(online: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # the discard port, where nothing listens
    with pytest.raises(SourceError, match="me/demo: the Hub cannot be reached. Connect to the network"):
        pull("me/demo", tmp_path / "out.h5")


def test_an_error_of_xet_storage_is_reported_and_leaves_nothing(
    converted: Path, online: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import HfApi

    def broken(*arguments: object, **options: object) -> str:
        raise RuntimeError("CAS service error")

    online.put("me/demo", {"demo.h5": converted.read_bytes()})
    monkeypatch.setattr(HfApi, "hf_hub_download", broken)
    with pytest.raises(SourceError, match="^me/demo: the Hub gave an unexpected answer .*CAS service error.*later"):
        pull("me/demo", tmp_path / "out.h5")
    assert os.listdir(tmp_path) == ["hub"]


def test_an_output_that_exists_stays_unless_overwritten(converted: Path, online: StandIn, tmp_path: Path) -> None:
    online.put("me/demo", {"demo.h5": converted.read_bytes()})
    (tmp_path / "out.h5").write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        pull("me/demo", tmp_path / "out.h5")
    assert online.requests == []
    assert (tmp_path / "out.h5").read_text() == "mine"
    pull("me/demo", tmp_path / "out.h5", overwrite=True)
    assert (tmp_path / "out.h5").read_bytes() == converted.read_bytes()


def test_a_full_disk_is_reported_before_the_download(
    converted: Path, online: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    online.put("me/demo", {"demo.h5": converted.read_bytes()})
    monkeypatch.setattr(pulling, "free_disk_bytes", lambda output: 1000)
    with pytest.raises(ResourceError, match="the download takes 0 MB, but only 0 MB are free"):
        pull("me/demo", tmp_path / "out.h5")
    assert online.downloads == []


def test_a_foreign_file_does_not_get_the_output_name(converted: Path, online: StandIn, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["x"] = [1]
    newer = Path(shutil.copy(converted, tmp_path / "newer.h5"))
    with h5py.File(newer, "a") as file:
        file.attrs["format_version"] = 2
    cut = converted.read_bytes()[:-30_000]
    for name, data, words in (
        ("text", b"not HDF5", "not a readable HDF5 file"),
        ("cut", cut, "not a readable HDF5 file"),
        ("foreign", (tmp_path / "foreign.h5").read_bytes(), "not a lewm_data file"),
        ("newer", newer.read_bytes(), "format version 2, but this lewm_data reads"),
    ):
        online.put(f"me/{name}", {"demo.h5": data})
        with pytest.raises(FormatError, match=f"^me/{name}: demo.h5: .*{words}"):
            pull(f"me/{name}", tmp_path / "out.h5")
        assert not list(tmp_path.glob("out.h5*"))


def test_checksums_are_compared_on_demand(converted: Path, online: StandIn, tmp_path: Path) -> None:
    spoilt = Path(shutil.copy(converted, tmp_path / "spoilt.h5"))
    damage(spoilt, 40)
    online.put("me/demo", {"demo.h5": spoilt.read_bytes()})
    with pytest.raises(VerificationError, match="the downloaded file is damaged: 1 problem, .*episode 1 step 10"):
        pull("me/demo", tmp_path / "out.h5", checksums=True)
    assert not list(tmp_path.glob("out.h5*"))
    pull("me/demo", tmp_path / "out.h5")


def test_a_missing_column_is_always_found(converted: Path, online: StandIn, tmp_path: Path) -> None:
    spoilt = Path(shutil.copy(converted, tmp_path / "spoilt.h5"))
    with h5py.File(spoilt, "a") as file:
        del file["done"]
    online.put("me/demo", {"demo.h5": spoilt.read_bytes()})
    with pytest.raises(VerificationError, match="dataset 'done' is missing"):
        pull("me/demo", tmp_path / "out.h5")
