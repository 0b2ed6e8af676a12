"""Pushing through huggingface_hub's own code to a stand-in: uploads, refusals and interruptions."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
from pathlib import Path

import h5py
import pytest

import lewm_data
from lewm_data.errors import FormatError, OutputError, UsageError, VerificationError
from lewm_data.hub.push import push
from tests.hub import READ_TOKEN, StandIn, wait_until
from tests.hub.fixtures import finish, running
from tests.loading.files import damage

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # huggingface_hub's own


def test_a_file_and_its_card_arrive_in_one_commit_in_a_private_repo(converted: Path, online: StandIn) -> None:
    pushed = push(converted, "me/demo")
    repo = online.repos["me/demo"]
    assert repo.private
    assert (pushed.is_private, pushed.was_there, pushed.revision) == (True, False, repo.sha)
    assert pushed.url == f"{online.endpoint}/datasets/me/demo"
    assert set(repo.files) == {".gitattributes", "README.md", "demo.h5"}
    assert set(repo.commits[-2][1]) == {".gitattributes"}
    assert online.content("me/demo", "demo.h5") == converted.read_bytes()
    assert "# demo" in online.content("me/demo", "README.md").decode()


def test_the_flag_public_makes_a_public_repo(converted: Path, online: StandIn) -> None:
    assert not push(converted, "me/open", public=True).is_private
    assert not online.repos["me/open"].private


@pytest.mark.parametrize("files", [{}, {"notes.txt": b"mine"}], ids=["empty", "with other content"])
def test_a_public_repo_is_refused_without_the_flag_public(
    files: dict[str, bytes], converted: Path, online: StandIn
) -> None:
    online.put("me/lab", files)
    before = online.repos["me/lab"].sha
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="^me/lab: the repo is public, .*Add --public") as refused:
            push(converted, "me/lab", overwrite=overwrite)
    assert refused.value.exit_status == 2
    assert (online.uploaded_bytes, online.repos["me/lab"].sha) == (0, before)
    assert not push(converted, "me/lab", public=True, overwrite=True).is_private


def test_a_repo_that_becomes_public_during_the_upload_gets_no_commit(converted: Path, online: StandIn) -> None:
    online.after_upload = lambda: setattr(online.repos["me/lab"], "private", False)
    with pytest.raises(OutputError, match="^me/lab: the repo is public, .*Add --public"):
        push(converted, "me/lab")
    assert online.uploaded_bytes == converted.stat().st_size
    assert set(online.repos["me/lab"].files) == {".gitattributes"}


def test_a_repo_that_becomes_public_with_the_commit_is_reported(converted: Path, online: StandIn) -> None:
    online.after_commit = lambda: setattr(online.repos["me/lab"], "private", False)
    with pytest.raises(OutputError, match="^me/lab: the repo became public during the upload"):
        push(converted, "me/lab")


def test_pushing_the_same_file_again_changes_nothing(converted: Path, online: StandIn) -> None:
    first = push(converted, "me/demo")
    sent, commits = online.uploaded_bytes, len(online.repos["me/demo"].commits)
    online.put("me/demo", {"README.md": b"edited by hand"})
    again = push(converted, "me/demo")
    assert again.was_there
    assert (online.uploaded_bytes, len(online.repos["me/demo"].commits)) == (sent, commits + 1)
    assert online.content("me/demo", "README.md") == b"edited by hand"
    assert first.revision != again.revision == online.repos["me/demo"].sha


def test_overwrite_replaces_other_content_and_keeps_it_in_the_history(
    converted: Path, online: StandIn, tmp_path: Path
) -> None:
    online.put("me/demo", {"demo.h5": b"older" * 10_000, "notes.txt": b"kept"}, private=True)
    with pytest.raises(OutputError, match=r"^me/demo: the repo exists and holds other content \(demo.h5, notes.txt\)"):
        push(converted, "me/demo")
    before = online.repos["me/demo"].sha
    push(converted, "me/demo", overwrite=True)
    repo = online.repos["me/demo"]
    assert online.content("me/demo", "demo.h5") == converted.read_bytes()
    assert online.content("me/demo", "notes.txt") == b"kept"
    assert before in [sha for sha, _ in repo.commits]


def test_without_a_token_no_request_is_made(converted: Path, online: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(OutputError, match="this machine is not logged in .* hf auth login") as caught:
        push(converted, "me/demo")
    assert caught.value.exit_status == 2
    assert online.requests == []


@pytest.mark.parametrize(
    ("token", "repo_id", "words"),
    [
        ("hf_wrong", "me/demo", "rejects this machine's token .*Invalid credentials.*hf auth login"),
        (READ_TOKEN, "me/demo", "this account may not write to the repo .*write access"),
        (
            "hf_write",
            "somebody/demo",
            "may not write to the repo .*under your own name instead of 'somebody'",
        ),
    ],
)
def test_missing_permission_is_reported(
    token: str, repo_id: str, words: str, converted: Path, online: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(OutputError, match=f"^{repo_id}: .*{words}"):
        push(converted, repo_id)
    assert online.repos == {}


def test_another_users_repo_cannot_be_written(converted: Path, online: StandIn) -> None:
    online.put("somebody/demo", {}, private=True)
    with pytest.raises(OutputError, match="^somebody/demo: this account may not write to the repo"):
        push(converted, "somebody/demo")
    assert len(online.repos["somebody/demo"].commits) == 2


def test_an_unreachable_hub_is_reported(converted: Path, online: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # the discard port, where nothing listens
    with pytest.raises(OutputError, match="^me/demo: the Hub cannot be reached .*Run the same command again to resume"):
        push(converted, "me/demo")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(OutputError, match="^me/demo: HF_HUB_OFFLINE turns the Hub off"):
        push(converted, "me/demo")


def test_an_invalid_repo_id_is_a_usage_error(converted: Path, online: StandIn) -> None:
    with pytest.raises(UsageError, match="not a valid Hub repo id"):
        push(converted, "me/my demo")


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (412, r"^me/demo: the repo changed during the upload \(the Hub's own words\)"),
        (413, r"^me/demo: the file is too large for the Hub \(the Hub's own words\)\. Convert fewer --episodes"),
        (
            500,
            r"^me/demo: the Hub failed \(the Hub's own words\)\. Run the same command again later",
        ),
    ],
)
def test_a_refused_commit_does_not_change_the_repo(status: int, words: str, converted: Path, online: StandIn) -> None:
    online.refuse_commits = status, "the Hub's own words"
    with pytest.raises(OutputError, match=words):
        push(converted, "me/demo")
    assert set(online.repos["me/demo"].files) == {".gitattributes"}


def test_a_damaged_or_foreign_file_is_not_pushed(converted: Path, online: StandIn, tmp_path: Path) -> None:
    spoilt = Path(shutil.copy(converted, tmp_path / "spoilt.h5"))
    damage(spoilt, 20)
    with pytest.raises(
        VerificationError, match="not pushed, because the file is damaged: 1 problem, .*episode 0 step 20"
    ) as caught:
        push(spoilt, "me/demo")
    assert caught.value.exit_status == 6
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["x"] = [1]
    with pytest.raises(FormatError, match="not a lewm_data file"):
        push(tmp_path / "foreign.h5", "me/demo")
    with pytest.raises(FormatError, match="no such file"):
        push(tmp_path / "none.h5", "me/demo")
    assert online.requests == []


def test_a_file_that_refers_to_others_is_not_pushed(recorded: Path, online: StandIn, tmp_path: Path) -> None:
    sharded = tmp_path / "sharded.h5"
    lewm_data.convert(recorded, sharded, camera="front", image_size=16, layout="sharded", shard_bytes=1)
    with pytest.raises(FormatError, match="this file is incomplete by itself. Merge it"):
        push(sharded, "me/demo")
    assert online.requests == []


def test_an_interrupted_upload_changes_nothing_and_the_next_run_completes_it(converted: Path, hub: StandIn) -> None:
    hub.stall_after_parts = 2
    with running(hub, "push", converted, "me/demo") as process:
        wait_until(lambda: hub.uploaded_bytes >= 100_000)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130, err
    assert "interrupted; the repo has not changed. Run the same command again" in " ".join(err.split())
    assert set(hub.repos["me/demo"].files) == {".gitattributes"}
    hub.stall_after_parts = None
    status, out, err = finish(hub, "push", converted, "me/demo", "--json")
    assert status == 0, err
    assert json.loads(out)["revision"] == hub.repos["me/demo"].sha
    assert hub.content("me/demo", "demo.h5") == converted.read_bytes()
    assert "\x1b" not in err
    assert "\r" not in err


def test_a_file_uploaded_before_a_failed_commit_is_not_sent_again(converted: Path, online: StandIn) -> None:
    online.refuse_commits = 500, "Internal error"
    with pytest.raises(OutputError):
        push(converted, "me/demo")
    assert online.uploaded_bytes == converted.stat().st_size
    online.refuse_commits = None
    push(converted, "me/demo")
    assert online.uploaded_bytes == converted.stat().st_size
    assert online.content("me/demo", "demo.h5") == converted.read_bytes()


def test_xet_storage_is_used_and_sends_no_byte_twice(converted: Path, hub: StandIn, tmp_path: Path) -> None:
    pytest.importorskip("hf_xet")
    hub.xet = tmp_path / "xet"
    hub.refuse_commits = 500, "Internal error"
    status, _, err = finish(hub, "push", converted, "me/demo")
    assert (status, "the Hub failed" in err) == (2, True), err
    stored = [path.name for path in hub.xet.rglob("*") if path.suffix != ".redb" and path.stat().st_size > 10_000]
    assert stored != []
    hub.refuse_commits = None
    status, _, err = finish(hub, "push", converted, "me/demo")
    assert status == 0, err
    assert hub.repos["me/demo"].files["demo.h5"] == hashlib.sha256(converted.read_bytes()).hexdigest()
    assert hub.uploaded_bytes == 0
    after = [path.name for path in hub.xet.rglob("*") if path.suffix != ".redb" and path.stat().st_size > 10_000]
    assert sorted(after) == sorted(stored)


def test_a_file_with_another_suffix_gets_the_suffix_h5(converted: Path, online: StandIn, tmp_path: Path) -> None:
    named = Path(shutil.copy(converted, tmp_path / "my data.v2"))
    assert push(named, "me/demo").file == "my data.v2.h5"
    assert "lewm-data pull me/demo 'my data.v2.h5'\n" in online.content("me/demo", "README.md").decode()


def test_a_missing_column_counts_as_damage(converted: Path, online: StandIn, tmp_path: Path) -> None:
    spoilt = Path(shutil.copy(converted, tmp_path / "spoilt.h5"))
    with h5py.File(spoilt, "a") as file:
        del file["ep_len"]
    with pytest.raises(VerificationError, match="dataset 'ep_len' is missing"):
        push(spoilt, "me/demo")
