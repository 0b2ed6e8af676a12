"""Paths as people type them."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lewm_data.errors import AccessError, UnreachableError, UsageError
from lewm_data.paths import expand, is_address, is_file, is_folder, local_path, walk_files


def test_a_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/anna")
    assert expand("~/a.h5") == Path("/home/anna/a.h5")
    assert expand(Path("~")) == Path("/home/anna")
    assert expand("data/~/a.h5") == Path("data/~/a.h5")
    assert expand("~no-such-user.h5") == Path("~no-such-user.h5")


def test_without_a_home_folder_a_tilde_is_an_error_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as for a user that the system does not know
    with pytest.raises(
        UsageError, match=r"^~/a\.h5: this user has no home folder\. Set HOME, or give the full path\.$"
    ):
        expand("~/a.h5")


@pytest.mark.parametrize(
    "place", ["s3://bucket/a.h5", "hf://datasets/a/b/c.h5", "https://host/a", "simplecache::s3://a"]
)
def test_an_address_is_refused_where_only_a_path_will_do(place: str) -> None:
    assert is_address(place)
    with pytest.raises(UsageError, match=r"^output is .*, an address, but must be a path on this machine"):
        local_path(place, "output")


def test_an_address_that_became_a_path_is_refused_too() -> None:
    with pytest.raises(UsageError, match="an address"):
        local_path(Path("s3://bucket/a.h5"), "data_dir")


@pytest.mark.parametrize("place", ["a.h5", "/data/a.h5", "./x:y.h5", "a:b"])
def test_a_path_is_a_path(place: str) -> None:
    assert not is_address(place)
    assert local_path(place, "output") == Path(place)


def test_only_what_is_not_there_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    assert is_file(tmp_path / "a")
    assert is_folder(tmp_path)
    for absent in ("b", "a/b", "loop", "x" * 300):
        assert not is_file(tmp_path / absent)
    for code, kind in ((errno.EACCES, AccessError), (errno.ESTALE, UnreachableError)):
        monkeypatch.setattr(Path, "stat", lambda *a, code=code, **k: (_ for _ in ()).throw(OSError(code, "")))
        with pytest.raises(kind, match=f"{tmp_path}/a: .*{errno.errorcode[code]}"):
            is_file(tmp_path / "a")


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "b" / "c").mkdir(parents=True)
    for name in ("b/c/2", "b/1", "a"):
        (tmp_path / name).write_text("")
    assert [path.relative_to(tmp_path).as_posix() for path in walk_files(tmp_path)] == ["a", "b/1", "b/c/2"]
    assert list(walk_files(tmp_path / "nothing")) == []
    monkeypatch.setattr(os, "scandir", lambda path: (_ for _ in ()).throw(PermissionError(errno.EACCES, "")))
    with pytest.raises(AccessError):
        list(walk_files(tmp_path))


ASCII = {"PYTHONUTF8": "0", "LC_ALL": "C"}
"""A cluster's bare environment: Python takes the names of files for ASCII."""


@pytest.mark.skipif(sys.platform != "linux", reason="macOS names files in UTF-8 whatever the environment says")
def test_the_command_works_on_any_name_in_a_bare_environment(recorded: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "données", tmp_path / "ü.h5"
    shutil.copytree(recorded, source)
    command = [sys.executable, "-m", "lewm_data"]
    environment = {**os.environ, **ASCII}
    for words in (["convert", source, output, "--camera=front", "--image_size=16"], ["verify", output]):
        done = subprocess.run([*command, *words], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    code = "import sys; from lewm_data import WindowDataset; WindowDataset(sys.argv[1], num_steps=2, frameskip=2)"
    done = subprocess.run([sys.executable, "-c", code, output], env=environment, capture_output=True, text=True)
    assert "UsageError" in done.stderr.splitlines()[-1]
    assert "this Python takes the names of files for ascii" in done.stderr.splitlines()[-1]
    assert "Set PYTHONUTF8=1" in done.stderr.splitlines()[-1]


def test_a_name_that_is_not_utf8_is_one_sentence() -> None:
    with pytest.raises(UsageError, match=r"the name is not valid UTF-8\. Rename the file or folder\."):
        expand(os.fsdecode(b"/data/\xe9.h5"))
