from __future__ import annotations

import numpy as np
import pytest

from lewm_data.quality.pictures import PictureCheck

SIZE = (64, 48, 3)


def noise(count: int, *, seed: int = 0, size: tuple[int, int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *size), np.uint8)


def look(*batches: np.ndarray, fps: float = 5) -> dict[str, str]:
    check = PictureCheck("pixels", fps)
    for batch in batches:
        check.look(batch)
    return {found.code: found.found for found in check.findings(episode=1, file="video.mp4")}


def flat(count: int, *color: int) -> np.ndarray:
    return np.broadcast_to(np.array(color, np.uint8), (count, *SIZE)).copy()


def test_differing_pictures_have_no_findings() -> None:
    assert look(noise(20)) == {}


def test_zero_frames_have_no_findings() -> None:
    assert look() == {}


def test_dark_picture_with_detail_is_not_black() -> None:
    dark = flat(3, 0, 0, 0)
    dark[:, 32, 24] = 40
    assert look(dark, noise(3)) == {}


@pytest.mark.parametrize("level", [0, 1, 7])
def test_black_frames_are_counted(level: int) -> None:
    assert look(noise(3), flat(2, level, level, level)) == {"frames_black": "2 black frames"}


@pytest.mark.parametrize("color", [(200, 30, 90), (255, 255, 255), (0, 0, 9)])
def test_one_color_frames_are_counted_despite_coding_noise(color: tuple[int, int, int]) -> None:
    frames = flat(2, *color)
    frames[:, ::3] -= np.uint8(1) * (frames[:, ::3] > 0)
    assert look(noise(3), frames) == {"frames_constant": "2 frames of one color"}


def test_gradient_is_not_one_color() -> None:
    frames = flat(2, 100, 100, 100)
    frames[:, :, :, 1] += np.linspace(0, 20, 48).astype(np.uint8)
    assert look(noise(3), frames) == {}


def test_two_seconds_of_the_same_picture_are_a_frozen_camera() -> None:
    still = np.repeat(noise(1), 10, axis=0)
    assert look(still) == {}
    assert look(still, still[:1]) == {"camera_frozen": "11 equal ones in a row"}


def test_one_different_picture_ends_a_freeze() -> None:
    still = np.repeat(noise(1), 9, axis=0)
    assert look(still, noise(1, seed=1), still) == {}


def test_batch_buffer_may_be_reused() -> None:
    check = PictureCheck("pixels", 5)
    buffer = np.empty((8, *SIZE), np.uint8)
    for seed in range(4):
        buffer[:] = noise(8, seed=seed)
        check.look(buffer)
    assert list(check.findings(episode=1, file="video.mp4")) == []


def test_small_pictures_are_checked_in_full() -> None:
    assert look(noise(20, size=(4, 4, 3))) == {}


def test_findings_give_the_first_step_across_batches() -> None:
    check = PictureCheck("pixels", 5)
    for batch in (noise(4), flat(3, 0, 0, 0), noise(5, seed=1), flat(2, 0, 0, 0), flat(1, 90, 9, 9)):
        check.look(batch)
    check.look(np.repeat(noise(1, seed=2), 8, axis=0))  # a pause at step 15, then
    still = np.repeat(noise(1, seed=3), 14, axis=0)  # the longest one, at step 23
    check.look(still[:5])
    check.look(still[5:])
    found = {found.code: (found.step, found.found) for found in check.findings(episode=1, file="video.mp4")}
    assert found == {
        "frames_black": (4, "5 black frames"),
        "frames_constant": (14, "1 frame of one color"),
        "camera_frozen": (23, "14 equal ones in a row"),
    }
