"""Draw frames like a camera's, and frames like a simulator's.

Camera-like: patches with straight edges, textures with the spectrum of natural scenes, textured things that move with
the state, light that varies, and sensor noise that differs from frame to frame.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

STATE_DIM = 6
NUM_THINGS = STATE_DIM // 2
_NUM_SURFACES = 9
# These three were set so that frames, after the video, compress like those of a recorded arm on a table: to 0.7 by lzf,
# to 0.6 by blosc2.
_TEXTURE_STD = 9.0  # contrast of a surface's texture in gray levels
_DETAIL = 1.05  # the amplitude spectrum is 1/f to this power; natural scenes have about 1 (Field, 1987)
_NOISE_STD = 2.5  # sensor noise of an indoor webcam in gray levels; the encoder removes most of it
_NUM_NOISES, _NOISE_MARGIN = 6, 64


class Scene:
    """Draws frames of ``height`` by ``width`` pixels; the same seed, episode and step give the same frame."""

    def __init__(self, height: int, width: int, seed: int) -> None:
        random = np.random.default_rng([seed, height, width])
        self._size = height, width
        self._seed = seed
        self._background = _surfaces(height, width, random) + _TEXTURE_STD * _texture(height, width, random)
        side = max(16, int(0.3 * min(height, width)))
        self._things = [
            (random.uniform(40, 220, 3) + 2 * _TEXTURE_STD * _texture(side, side, random)).astype(np.float32)
            for _ in range(NUM_THINGS)
        ]
        self._masks = [_blob(side, random) for _ in range(NUM_THINGS)]
        noisy = (_NUM_NOISES, height + _NOISE_MARGIN, width + _NOISE_MARGIN, 3)
        self._noises = (_NOISE_STD * random.standard_normal(noisy, np.float32)).astype(np.float32)

    def state(self, episode: int, step: int) -> NDArray[np.float32]:
        """Row and column of each thing: (STATE_DIM,) in [0, 1]."""
        random = np.random.default_rng([self._seed, episode])
        speed, phase = random.uniform(0.02, 0.09, STATE_DIM), random.uniform(0, 2 * np.pi, STATE_DIM)
        return (0.5 + 0.5 * np.sin(speed * step + phase)).astype(np.float32)

    def frame(self, episode: int, step: int) -> NDArray[np.uint8]:
        """One frame: (height, width, 3) uint8 RGB."""
        height, width = self._size
        light = 1 + 0.04 * np.sin(0.11 * step + episode)
        image = (self._background * np.float32(light)).astype(np.float32)
        places = self.state(episode, step).reshape(NUM_THINGS, 2)
        for thing, mask, (y, x) in zip(self._things, self._masks, places, strict=True):
            side = len(mask)
            top, left = int(y * (height - side)), int(x * (width - side))
            patch = image[top : top + side, left : left + side]
            patch += mask * (thing - patch)
        random = np.random.default_rng([self._seed, episode, step])
        number, down, right = random.integers(0, (_NUM_NOISES, _NOISE_MARGIN, _NOISE_MARGIN)).tolist()
        image += self._noises[number, down : down + height, right : right + width]
        return np.clip(image, 0, 255, out=image).astype(np.uint8)


def cartoon(step: int, height: int, width: int) -> NDArray[np.uint8]:
    """A frame of flat colors, as PushT draws them: (height, width, 3) uint8 RGB."""
    image = np.full((height, width, 3), 255, np.uint8)
    y, x = np.mgrid[0:height, 0:width] / np.reshape((height, width), (2, 1, 1))
    center_y, center_x = 0.5 + 0.3 * np.sin(0.05 * step), 0.5 + 0.3 * np.cos(0.08 * step)
    image[(abs(y - 0.55) < 0.05) & (abs(x - 0.5) < 0.2)] = (144, 238, 144)
    image[(abs(x - 0.5) < 0.05) & (abs(y - 0.7) < 0.15)] = (144, 238, 144)
    image[(abs(y - center_y) < 0.04) & (abs(x - center_x) < 0.16)] = (119, 136, 153)
    image[(y - center_x) ** 2 + (x - center_y) ** 2 < 0.0016] = (65, 105, 225)
    return image


def _texture(height: int, width: int, random: np.random.Generator) -> NDArray[np.float32]:
    """(height, width, 1) of zero mean and unit variance, whose amplitudes fall with frequency."""
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    fall = np.maximum(np.hypot(fy, fx), 1 / max(height, width)) ** -_DETAIL
    layer = np.fft.irfft2(np.fft.rfft2(random.normal(size=(height, width))) * fall, (height, width))
    return ((layer - layer.mean()) / layer.std()).astype(np.float32)[..., None]


def _surfaces(height: int, width: int, random: np.random.Generator) -> NDArray[np.float32]:
    """(height, width, 3): patches of muted colors with straight edges, under light that falls off."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j].astype(np.float32)
    centers = random.uniform(0, 1, (_NUM_SURFACES, 2)).astype(np.float32)
    nearest = np.argmin([(y - cy) ** 2 + (x - cx) ** 2 for cy, cx in centers], axis=0)
    grays = random.uniform(70, 190, (_NUM_SURFACES, 1)) + random.normal(0, 12, (_NUM_SURFACES, 3))
    light = 1.1 - 0.35 * np.hypot(y - 0.4, x - 0.5)
    return (grays.astype(np.float32)[nearest] * light[..., None]).astype(np.float32)


def _blob(side: int, random: np.random.Generator) -> NDArray[np.float32]:
    """(side, side, 1) in [0, 1]: a rounded shape with a soft edge."""
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    power, stretch = random.uniform(2, 6), random.uniform(0.5, 1)
    distance = (abs(y) ** power + abs(x / stretch) ** power) ** (1 / power)
    return np.clip((0.95 - distance) * side / 4, 0, 1).astype(np.float32)[..., None]
