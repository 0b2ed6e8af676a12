"""Frames like a camera's: from a seed, moving, noisy."""

from __future__ import annotations

import numpy as np

from benchmarks.scenes import STATE_DIM, Scene, cartoon
from lewm_data.format.codecs import encoder


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
