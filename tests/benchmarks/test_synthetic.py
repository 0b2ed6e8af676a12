"""The camera-like recording: recorded through LeRobot, and sound for the conversion."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.synthetic import Recording, _check_encoded, record
from lewm_data.source.open import open_source


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"codec": "vp9"}, "codec is 'vp9', but must be one of h264, hevc, av1"),
        ({"height": 97}, "height is 97, but must be an even number of 48 or more"),
        ({"num_steps": 0}, "num_steps is 0, but must be 1 or more"),
    ],
)
def test_a_recording_that_cannot_be_is_refused(wrong: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Recording(**wrong)  # type: ignore[arg-type]


def test_what_lerobot_s_writer_makes_of_it_is_clean(tmp_path: Path) -> None:
    recording = Recording(num_episodes=2, num_steps=8, height=48, width=64, codec="h264")
    done: list[int] = []
    root = record(tmp_path / recording.name, recording, progress=done.append)
    info = json.loads((root / "meta" / "info.json").read_text())
    assert (info["total_episodes"], info["total_frames"]) == (2, recording.num_frames)
    opened = open_source(str(root))
    assert opened.dataset is not None
    assert not [finding for finding in opened.findings if finding.severity == "error"]
    assert done == [0, 1]


def test_frames_that_lerobot_left_out_are_missed(tmp_path: Path) -> None:
    recording = Recording(num_episodes=1, num_steps=8, height=48, width=64, codec="h264")
    record(tmp_path / "short", recording)
    _check_encoded(tmp_path / "short", recording, 1)
    with pytest.raises(RuntimeError, match="8 of 9 frames are in the video"):
        _check_encoded(tmp_path / "short", replace(recording, num_steps=9), 1)
