"""Conversion for a trainer: made once, found again, and its failures as exceptions."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lewm_data.config import ConvertConfig
from lewm_data.conversion import prepare
from lewm_data.conversion.prepare import prepare_file, prepared_file
from lewm_data.conversion.verify import verify_file
from lewm_data.errors import DirtyDataError, LewmDataError, OutputError, StalledError, UsageError

CONFIG = ConvertConfig(camera="front", image_size=32)


def refuse_to_convert(*arguments: object) -> None:
    raise AssertionError("converted again")


def test_the_second_call_does_nothing(recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepare_file(str(recorded), tmp_path / "data", CONFIG)
    assert verify_file(first) == []
    monkeypatch.setattr(prepare, "_convert_in_child", refuse_to_convert)
    assert prepare_file(str(recorded), tmp_path / "data", CONFIG) == first
    assert prepared_file(str(recorded), tmp_path / "data", CONFIG) == first
    assert sorted(path.suffix for path in (tmp_path / "data").iterdir()) == [".h5", ".json"]


def test_other_settings_or_changed_data_make_another_file(recorded: Path, copy_of, tmp_path: Path) -> None:
    root = copy_of(recorded)
    first = prepare_file(str(root), tmp_path / "data", CONFIG)
    other = prepare_file(str(root), tmp_path / "data", ConvertConfig(camera="top", image_size=32))
    os.utime(next((root / "videos" / "observation.images.front").rglob("*.mp4")), (1, 1))
    changed = prepare_file(str(root), tmp_path / "data", CONFIG)
    assert len({first, other, changed}) == 3
    assert prepared_file(str(root), tmp_path / "data", CONFIG) == changed


def test_a_missing_preparation_is_reported(recorded: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="not converted yet"):
        prepared_file(str(recorded), tmp_path, CONFIG)


def test_a_refusal_in_the_child_is_an_exception_here(recorded: Path, copy_of, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has 2 cameras"):
        prepare_file(str(recorded), tmp_path / "data", ConvertConfig())
    root = copy_of(recorded)
    video = next((root / "videos" / "observation.images.front").rglob("*.mp4"))
    video.write_bytes(video.read_bytes()[:-1000])
    with pytest.raises(DirtyDataError, match="video_truncated") as refused:
        prepare_file(str(root), tmp_path / "data", CONFIG)
    assert {found["code"] for found in refused.value.findings} >= {"video_truncated"}
    assert os.listdir(tmp_path / "data") == []


def test_a_child_that_dies_silently_is_an_error(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = subprocess.Popen

    def dying(command: list[str], **options: object) -> subprocess.Popen:
        return real([sys.executable, "-c", death], **options)

    monkeypatch.setattr(prepare.subprocess, "Popen", dying)
    death = "import os; os._exit(5)"
    with pytest.raises(StalledError, match="made no progress"):
        prepare_file(str(recorded), tmp_path, CONFIG)
    death = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    with pytest.raises(LewmDataError, match="probably out of memory"):
        prepare_file(str(recorded), tmp_path, CONFIG)
    assert os.listdir(tmp_path) == []


def test_two_processes_prepare_it_once(recorded: Path, tmp_path: Path) -> None:
    code = f"""
import pathlib
from lewm_data.config import ConvertConfig
from lewm_data.conversion.prepare import prepare_file
print(prepare_file({str(recorded)!r}, pathlib.Path({str(tmp_path)!r}), ConvertConfig(camera="front", image_size=32)))
"""
    processes = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    results = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], results
    assert results[0][0] == results[1][0]
    assert sum("5 episodes" in err for _, err in results) == 1  # one of them converted


def test_a_data_dir_that_is_an_address_is_refused(recorded: Path) -> None:
    with pytest.raises(UsageError, match="^data_dir is s3://bucket/data, an address"):
        prepare_file(str(recorded), "s3://bucket/data", CONFIG)  # type: ignore[arg-type]


def test_a_prepared_folder_serves_without_a_lock_or_a_write(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepare_file(str(recorded), tmp_path / "data", CONFIG)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}

    def locked(*arguments: object, **options: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(prepare, "exclusive", locked)
    monkeypatch.setattr(Path, "mkdir", locked)
    assert prepare_file(str(recorded), tmp_path / "data", CONFIG) == first
    assert prepared_file(str(recorded), tmp_path / "data", CONFIG) == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    with pytest.raises(OutputError, match=r"data: cannot be written \(Read-only file system\)"):
        prepare_file(str(recorded), tmp_path / "data", ConvertConfig(camera="top", image_size=32))
