"""The camera-like recording: from a seed, moving, noisy, and sound for the conversion."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.synthetic import STATE_DIM, Recording, Scene, cartoon, record
from lewm_data.conversion.encode import encoder
from lewm_data.conversion.source import open_source


def test_the_same_seed_gives_the_same_frame() -> None:
    first, second = (Scene(48, 64, 3).frame(1, 2) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert (first.shape, first.dtype) == ((48, 64, 3), np.uint8)
    assert not np.array_equal(first, Scene(48, 64, 4).frame(1, 2))


def test_things_move_and_the_sensor_is_noisy() -> None:
    scene = Scene(120, 160, 0)
    here, later = scene.frame(0, 0).astype(int), scene.frame(0, 20).astype(int)
    changed = np.abs(here - later).max(axis=-1)
    assert (changed > 30).mean() > 0.02  # where a thing was, or is
    assert (changed > 0).mean() > 0.5  # noise and light everywhere
    assert np.abs(scene.state(0, 20) - scene.state(0, 0)).max() > 0.1


def test_state_is_within_its_range_and_differs_by_episode() -> None:
    scene = Scene(48, 64, 0)
    states = np.stack([scene.state(episode, step) for episode in range(3) for step in range(50)])
    assert states.shape == (150, STATE_DIM)
    assert states.min() >= 0
    assert states.max() <= 1
    assert not np.allclose(states[:50], states[50:100])


def test_drawn_frames_compress_far_better_than_a_camera_s() -> None:
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
