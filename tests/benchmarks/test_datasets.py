"""Laying a recording out many times over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.datasets import decoded_frames, once, repeat_dataset
from lewm_data.source.open import open_source
from tests.recording import read_code


def test_one_camera_of_a_recording_many_times_over(recorded: Path, tmp_path: Path) -> None:
    out = repeat_dataset(recorded, tmp_path / "out", 3, camera="front")
    once, thrice = (json.loads((root / "meta" / "info.json").read_text()) for root in (recorded, out))
    assert thrice["total_frames"] == 3 * once["total_frames"]
    assert [name for name, feature in thrice["features"].items() if feature["dtype"] == "video"] == [
        "observation.images.front"
    ]
    assert {path.parent.parent.name for path in out.rglob("*.mp4")} == {"observation.images.front"}
    opened = open_source(str(out))
    assert opened.dataset is not None
    assert not [finding for finding in opened.findings if finding.severity == "error"]


def test_a_camera_that_is_not_there_is_named(recorded: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no camera 'wrist', only front, top"):
        repeat_dataset(recorded, tmp_path / "out", 2, camera="wrist")


def test_what_is_there_is_not_built_again(tmp_path: Path) -> None:
    path = once(tmp_path / "deep" / "file", lambda out: out.write_text("first"))
    assert once(path, lambda out: out.write_text("second")).read_text() == "first"


def test_what_was_half_built_is_not_there(tmp_path: Path) -> None:
    def build(out: Path) -> None:
        out.mkdir()
        (out / "part").write_text("half")
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        once(tmp_path / "folder", build)
    assert list(tmp_path.iterdir()) == []


def test_frames_come_as_the_conversion_makes_them(recorded: Path, tmp_path: Path) -> None:
    frames = decoded_frames(recorded, "front", side=96, num_frames=3, folder=tmp_path)
    assert frames.shape == (3, 96, 96, 3)
    assert read_code(frames[0]) == (0, 0)
    assert read_code(frames[-1]) == (4, 8)
    assert list(tmp_path.iterdir()) == []


def test_what_is_laid_out_converts(recorded: Path, tmp_path: Path) -> None:
    out = repeat_dataset(recorded, tmp_path / "out", 2, camera="front")
    frames = decoded_frames(out, "front", side=96, num_frames=1000, folder=tmp_path)
    assert [read_code(frame) for frame in (frames[0], frames[54], frames[-1])] == [(0, 0), (0, 0), (4, 8)]


def test_on_another_disk_it_is_a_copy(recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*paths: Path) -> None:
        raise OSError("Invalid cross-device link")

    monkeypatch.setattr("os.link", refuse)
    out = repeat_dataset(recorded, tmp_path / "out", 2, camera="front")
    original = next((recorded / "videos" / "observation.images.front").rglob("*.mp4")).read_bytes()
    copies = list(out.rglob("*.mp4"))
    assert len(copies) == 2
    assert all(path.read_bytes() == original and not path.is_symlink() for path in copies)
