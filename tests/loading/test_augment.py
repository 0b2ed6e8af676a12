from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as torchvision

from lewm_data.errors import UsageError
from lewm_data.loading.augment import Augmentation

ALL = {"shift": 0.1, "crop": 0.3, "brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.2}
words = st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=4)


def frames(num_windows, num_frames=3, height=20, width=16, seed=0):
    """Frames as batches have them: (B, T, 3, H, W) over channels-last memory."""
    shape = (num_windows, num_frames, height, width, 3)
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, shape, np.uint8)).permute(0, 1, 4, 2, 3)


def draws_of(*words):
    return np.array(words, np.uint64)


def apply(strengths, pixels, draws):
    return Augmentation.parse(strengths).apply({"pixels": pixels}, draws)["pixels"]


@settings(max_examples=30, deadline=None)
@given(words, st.sets(st.sampled_from(sorted(ALL)), min_size=1))
def test_all_frames_and_cameras_of_a_window_and_its_goal_change_alike(words, names):
    draws, strengths = draws_of(*words), {name: ALL[name] for name in names}
    one = frames(len(words), num_frames=1)
    still = one.expand(-1, 3, -1, -1, -1)
    batch = {"pixels": still, "pixels_wrist": still, "goal_pixels": one, "goal_steps": torch.ones(len(words))}
    changed = Augmentation.parse(strengths).apply(batch | {"state": torch.zeros(len(words), 3, 2)}, draws)
    for values in (changed["pixels"], changed["pixels_wrist"], changed["goal_pixels"]):
        assert torch.equal(values, changed["pixels"][:, :1].expand_as(values))
    assert torch.equal(changed["state"], torch.zeros(len(words), 3, 2))


@settings(max_examples=20, deadline=None)
@given(words, st.data())
def test_a_window_changes_in_the_same_way_in_any_batch(words, data):
    pixels, draws = frames(len(words)), draws_of(*words)
    order = data.draw(st.permutations(range(len(words))))
    together = apply(ALL, pixels[order], draws[order])
    for row, window in enumerate(order):
        alone = apply(ALL, pixels[window : window + 1], draws[window : window + 1])
        torch.testing.assert_close(together[row], alone[0], atol=1e-6, rtol=0)


def test_windows_change_differently():
    pixels = frames(1).expand(8, -1, -1, -1, -1)
    for name, strength in ALL.items():
        changed = apply({name: strength}, pixels, np.arange(8, dtype=np.uint64))
        assert len({bytes(window.numpy().tobytes()) for window in changed}) >= 4, name


def test_a_shift_moves_whole_pixels_and_repeats_the_edge():
    pixels = frames(40, height=20, width=30)
    shifted = apply({"shift": 0.1}, pixels, np.arange(40, dtype=np.uint64))
    assert shifted.dtype == torch.uint8
    assert shifted.permute(0, 1, 3, 4, 2).is_contiguous()
    padded = torch.nn.functional.pad(pixels.flatten(0, 1).float(), (3, 3, 2, 2), mode="replicate").to(torch.uint8)
    padded = padded.unflatten(0, (40, 3))
    found = set()
    for window in range(40):
        places = [
            (y, x)
            for y in range(5)
            for x in range(7)
            if torch.equal(padded[window, ..., y : y + 20, x : x + 30], shifted[window])
        ]
        assert len(places) == 1
        found.add(places[0])
    assert {y for y, _ in found} == set(range(5))
    assert {x for _, x in found} == set(range(7))


def test_a_crop_is_one_of_torchvisions_resized_crops():
    pixels = frames(30, num_frames=1, height=12, width=12)
    changed = apply({"crop": 0.25}, pixels, np.arange(30, dtype=np.uint64))
    sizes = set()
    for window in range(30):
        errors = {
            (size, top, left): torchvision.resized_crop(
                pixels[window] / 255, top, left, size, size, [12, 12], antialias=False
            )
            .sub(changed[window])
            .abs()
            .max()
            .item()
            for size in range(9, 13)
            for top in range(13 - size)
            for left in range(13 - size)
        }
        best = min(errors, key=errors.__getitem__)
        assert errors[best] < 1e-5
        sizes.add(best[0])
    assert sizes == {9, 10, 11, 12}


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
def test_colors_change_as_in_torchvision(name):
    pixels = frames(6)
    pixels[0, 0] = 77  # a gray frame has no hue
    changed = apply({name: ALL[name]}, pixels, np.arange(6, dtype=np.uint64))
    assert changed.dtype == torch.float32
    adjust = getattr(torchvision, f"adjust_{name}")
    middle = 0.0 if name == "hue" else 1.0
    for window in range(6):
        # The strength bounds the factor; a search finds which one was drawn.
        candidates = np.linspace(middle - ALL[name], middle + ALL[name], 801)
        near = min(candidates, key=lambda f: float((adjust(pixels[window] / 255, f) - changed[window]).square().mean()))
        fine = np.linspace(near - ALL[name] / 400, near + ALL[name] / 400, 401)
        factor = min(fine, key=lambda f: float((adjust(pixels[window] / 255, f) - changed[window]).square().mean()))
        assert (adjust(pixels[window] / 255, float(factor)) - changed[window]).abs().max() < 2e-4


def test_several_changes_follow_each_other_and_stay_within_the_range():
    pixels = frames(16)
    changed = apply(dict.fromkeys(ALL, 0.5), pixels, np.arange(16, dtype=np.uint64))
    assert changed.shape == pixels.shape
    assert changed.min() >= 0
    assert changed.max() <= 1


def test_floating_point_frames_change_like_bytes():
    pixels = frames(4)
    draws = np.arange(4, dtype=np.uint64)
    given = pixels / 255
    torch.testing.assert_close(apply(ALL, given, draws), apply(ALL, pixels, draws))
    assert torch.equal(given, pixels / 255)


def test_no_strength_changes_nothing():
    pixels = frames(2)
    assert apply({"shift": 0, "hue": 0.0}, pixels, draws_of(1, 2)) is pixels
    assert apply({}, pixels, draws_of(1, 2)) is pixels


@pytest.mark.parametrize(
    ("strengths", "words"),
    [
        ({"flip": 0.5}, "augment names 'flip', but can only name shift, crop, brightness, contrast, saturation, hue"),
        ({"shift": 0.6}, r"gives shift the strength 0\.6, but it must be a number in \[0, 0\.5\]"),
        ({"hue": -0.1}, r"gives hue the strength -0\.1"),
        ({"crop": float("nan")}, "gives crop the strength nan"),
        ({"shift": "much"}, "gives shift the strength 'much'"),
        (["shift"], r"augment is \['shift'\], but must map names to strengths"),
        (print, "For a function of your own, use train_transform"),
    ],
)
def test_other_augmentations_are_refused(strengths, words):
    with pytest.raises(UsageError, match=words):
        Augmentation.parse(strengths)
