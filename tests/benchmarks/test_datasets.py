"""Recordings: laid out many times over, drawn from a seed, recorded through LeRobot."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.datasets import decoded_frames, once, repeat_dataset
from benchmarks.scenes import Scene, cartoon
from benchmarks.synthetic import Recording, check_encoded, record
from lewm_data.format.codecs import encoder
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


def test_a_missing_camera_is_named(recorded: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no camera 'wrist', only front, top"):
        repeat_dataset(recorded, tmp_path / "out", 2, camera="wrist")


def test_an_existing_file_is_not_built_again(tmp_path: Path) -> None:
    path = once(tmp_path / "deep" / "file", lambda out: out.write_text("first"))
    assert once(path, lambda out: out.write_text("second")).read_text() == "first"


def test_a_failed_build_leaves_nothing_behind(tmp_path: Path) -> None:
    def build(out: Path) -> None:
        out.mkdir()
        (out / "part").write_text("half")
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        once(tmp_path / "folder", build)
    assert list(tmp_path.iterdir()) == []


def test_decoded_frames_are_those_of_a_conversion(recorded: Path, tmp_path: Path) -> None:
    frames = decoded_frames(recorded, "front", side=96, num_frames=3, folder=tmp_path)
    assert frames.shape == (3, 96, 96, 3)
    assert read_code(frames[0]) == (0, 0)
    assert read_code(frames[-1]) == (4, 8)
    assert list(tmp_path.iterdir()) == []


def test_a_repeated_recording_converts(recorded: Path, tmp_path: Path) -> None:
    out = repeat_dataset(recorded, tmp_path / "out", 2, camera="front")
    frames = decoded_frames(out, "front", side=96, num_frames=1000, folder=tmp_path)
    assert [read_code(frame) for frame in (frames[0], frames[54], frames[-1])] == [(0, 0), (0, 0), (4, 8)]


def test_videos_are_copied_to_another_disk(recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*paths: Path) -> None:
        raise OSError("Invalid cross-device link")

    monkeypatch.setattr("os.link", refuse)
    out = repeat_dataset(recorded, tmp_path / "out", 2, camera="front")
    original = next((recorded / "videos" / "observation.images.front").rglob("*.mp4")).read_bytes()
    copies = list(out.rglob("*.mp4"))
    assert len(copies) == 2
    assert all(path.read_bytes() == original and not path.is_symlink() for path in copies)


def test_the_same_seed_gives_the_same_frame() -> None:
    first, second = (Scene(48, 64, 3).frame(1, 2) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert (first.shape, first.dtype) == ((48, 64, 3), np.uint8)
    assert not np.array_equal(first, Scene(48, 64, 4).frame(1, 2))


def test_things_move_and_the_sensor_is_noisy() -> None:
    scene = Scene(120, 160, 0)
    changed = np.abs(scene.frame(0, 0).astype(int) - scene.frame(0, 20)).max(axis=-1)
    assert (changed > 30).mean() > 0.02, "where a thing was, or is"
    assert (changed > 0).mean() > 0.5, "noise and light everywhere"


def test_drawn_frames_compress_far_better_than_camera_like_ones() -> None:
    encode = encoder("zstd")
    drawn, camera = encode(cartoon(0, 96, 96)), encode(Scene(96, 96, 0).frame(0, 0))
    assert 10 * len(drawn.data) < len(camera.data)
    assert not np.array_equal(cartoon(0, 96, 96), cartoon(10, 96, 96))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"codec": "vp9"}, "codec is 'vp9', but must be one of h264, hevc, av1"),
        ({"height": 97}, "height is 97, but must be an even number of 48 or more"),
        ({"num_steps": 0}, "num_steps is 0, but must be 1 or more"),
    ],
)
def test_impossible_recordings_are_refused(wrong: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Recording(**wrong)  # type: ignore[arg-type]


def test_a_recording_has_no_errors(tmp_path: Path) -> None:
    recording = Recording(num_episodes=2, num_steps=8, height=48, width=64, codec="h264")
    root = record(tmp_path / recording.name, recording)
    info = json.loads((root / "meta" / "info.json").read_text())
    assert (info["total_episodes"], info["total_frames"]) == (2, 16)
    opened = open_source(str(root))
    assert opened.dataset is not None
    assert not [finding for finding in opened.findings if finding.severity == "error"]


def test_dropped_frames_are_noticed(tmp_path: Path) -> None:
    recording = Recording(num_episodes=1, num_steps=8, height=48, width=64, codec="h264")
    record(tmp_path / "short", recording)
    with pytest.raises(RuntimeError, match="8 of 9 frames are in the video"):
        check_encoded(tmp_path / "short", replace(recording, num_steps=9), 1)
