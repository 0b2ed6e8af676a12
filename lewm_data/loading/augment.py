"""Augmentation of batches on their device: one draw for each window, the same for all its frames, cameras and its goal.

Each operation takes one value per window, so a batch of any size takes the same few kernels: 24 to shift it, 64 with
three color changes. Torchvision's transforms draw once per call; a call for each of 32 windows took 225 and 1,665. The
arithmetic is torchvision's.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lewm_data.errors import UsageError
from lewm_data.format.schema import columns_of_batch, is_pixels
from lewm_data.loading.batches import Batch
from lewm_data.loading.permutation import hash_u64

_DRAWN = ("shift_y", "shift_x", "crop", "crop_y", "crop_x", "brightness", "contrast", "saturation", "hue")
_GRAY = (0.2989, 0.587, 0.114)
"""Red, green and blue in torchvision's gray."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Augmentation:
    """How strongly each window is changed; 0 leaves it as it is.

    Attributes:
        shift: Moves frames by whole pixels, up to this share of the height and width, in [0, 0.5]. Pixels at the edge
            repeat, as in DrQ.
        crop: Cuts frames down by up to this share of the height and width, in [0, 0.9], and scales them up again.
        brightness: Multiplies colors by a factor in [1 - brightness, 1 + brightness].
        contrast: Multiplies the distance to each frame's mean gray, likewise.
        saturation: Multiplies the distance to each pixel's gray, likewise.
        hue: Turns colors by up to this share of the color circle, in [0, 0.5].
    """

    shift: float = 0.0
    crop: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    def __post_init__(self) -> None:
        for name, most in {
            "shift": 0.5,
            "crop": 0.9,
            "brightness": 1,
            "contrast": 1,
            "saturation": 1,
            "hue": 0.5,
        }.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= most:
                raise UsageError(
                    f"augment gives {name} the strength {value!r}, but it must be a number in [0, {most}]."
                )

    @classmethod
    def parse(cls, strengths: Mapping[str, float]) -> Augmentation:
        """Parses names and strengths.

        Args:
            strengths: Some of the attributes, by name.

        Raises:
            UsageError: A name is unknown, or a strength is out of range.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        example = 'such as {"shift": 0.05, "brightness": 0.2}'
        if not isinstance(strengths, Mapping):
            hint = " For a function of your own, use train_transform." if callable(strengths) else ""
            raise UsageError(f"augment is {strengths!r}, but must map names to strengths, {example}.{hint}")
        for name in strengths:
            if name not in known:
                raise UsageError(f"augment names {name!r}, but can only name {', '.join(known)}; {example}.")
        return cls(**strengths)

    def strengths(self) -> dict[str, float]:
        """The strengths above 0, by name."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value}

    def apply(self, batch: Batch, draws: NDArray[np.uint64]) -> Batch:
        """Changes the frames of a batch.

        Args:
            batch: A batch on any device; frames (B, T, 3, H, W) uint8, or floating point in [0, 1].
            draws: (B,) uint64, a random number for each window. Equal numbers change frames equally.

        Returns:
            The batch. Frames are uint8 if they were and are only shifted, and otherwise float32 in [0, 1].
        """
        frames = [key for key, column in columns_of_batch(batch).items() if is_pixels(column)]
        if not frames or not self.strengths():
            return batch
        device = batch[frames[0]].device
        values = torch.from_numpy(np.stack([_uniform(draws, number) for number in range(len(_DRAWN))]))
        if device.type == "cuda":
            values = values.pin_memory()  # otherwise the copy would make the host wait for the device
        drawn = dict(zip(_DRAWN, values.to(device, non_blocking=True), strict=True))
        return batch | {key: self._change(batch[key], drawn) for key in frames}

    def _change(self, frames: Tensor, drawn: dict[str, Tensor]) -> Tensor:
        """Changes frames (B, T, 3, H, W) by the drawn numbers, (B,) each in [0, 1)."""
        num_windows, num_frames = frames.shape[:2]
        drawn = {name: values.repeat_interleave(num_frames) for name, values in drawn.items()}
        flat = frames.flatten(0, 1)
        shift_y, shift_x = (
            _whole_pixels(drawn[name], self.shift * size)
            for name, size in zip(("shift_y", "shift_x"), flat.shape[-2:], strict=True)
        )
        if self.crop:
            flat = _resized_crop(
                flat / 255 if flat.dtype == torch.uint8 else flat.float(), self.crop, drawn, shift_y, shift_x
            )
        elif self.shift:
            flat = _shifted(flat, shift_y, shift_x)
        if self.brightness or self.contrast or self.saturation or self.hue:
            flat = flat / 255 if flat.dtype == torch.uint8 else flat.float().clone()  # changed in place from here on
        if self.brightness:
            flat.mul_(_factor(drawn["brightness"], self.brightness)).clamp_(0, 1)
        if self.contrast:
            mean = _gray(flat).mean((-2, -1), keepdim=True)
            _blend(flat, mean, _factor(drawn["contrast"], self.contrast))
        if self.saturation:
            _blend(flat, _gray(flat), _factor(drawn["saturation"], self.saturation))
        if self.hue:
            flat = _hue_turned(flat, (2 * drawn["hue"] - 1) * self.hue)
        return flat.unflatten(0, (num_windows, num_frames))


def _uniform(draws: NDArray[np.uint64], number: int) -> NDArray[np.float32]:
    """The windows' n-th random numbers, (B,) in [0, 1)."""
    return ((hash_u64(draws, number) >> np.uint64(40)).astype(np.float32)) * np.float32(2.0**-24)


def _whole_pixels(uniform: Tensor, most: float) -> Tensor:
    """A shift of each frame, (n,) int64 in [-most, most]."""
    limit = round(most)
    return (uniform * (2 * limit + 1)).long() - limit


def _factor(uniform: Tensor, strength: float) -> Tensor:
    return (1 + (2 * uniform - 1) * strength).view(-1, 1, 1, 1)


def _shifted(frames: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Frames (n, 3, H, W) with pixel (y, x) taken from (y + down, x + right), as near as the frame has one."""
    height, width = frames.shape[-2:]
    rows = (torch.arange(height, device=frames.device) + down[:, None]).clamp_(0, height - 1)
    columns = (torch.arange(width, device=frames.device) + right[:, None]).clamp_(0, width - 1)
    number = torch.arange(len(frames), device=frames.device)[:, None, None]
    return frames.permute(0, 2, 3, 1)[number, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _resized_crop(frames: Tensor, strength: float, drawn: Mapping[str, Tensor], down: Tensor, right: Tensor) -> Tensor:
    """Frames (n, 3, H, W), shifted, then cut to a box of whole pixels that is scaled to the whole frame."""
    axes = []
    for size, place, shift in zip(frames.shape[-2:], (drawn["crop_y"], drawn["crop_x"]), (down, right), strict=True):
        cut = (drawn["crop"] * (math.floor(size * strength) + 1)).floor()  # pixels cut away
        start = (place * (cut + 1)).floor()
        kept = size - cut
        centers = (torch.arange(size, device=frames.device) + 0.5) * (kept / size)[:, None]
        within = torch.minimum(centers.clamp_(min=0.5), (kept - 0.5)[:, None])
        axes.append(2 * (within + (start + shift)[:, None]) / size - 1)
    y, x = axes
    grid = torch.stack(torch.broadcast_tensors(x[:, None, :], y[:, :, None]), dim=-1)
    layout: Any = torch.channels_last
    found = torch.nn.functional.grid_sample(frames, grid, padding_mode="border", align_corners=False)
    return found.contiguous(memory_format=layout)


def _gray(frames: Tensor) -> Tensor:
    """The gray of each pixel, (n, 1, H, W)."""
    red, green, blue = frames.split(1, dim=-3)
    return (_GRAY[0] * red).add_(green, alpha=_GRAY[1]).add_(blue, alpha=_GRAY[2])


def _blend(frames: Tensor, other: Tensor, factor: Tensor) -> None:
    """Moves frames in place from ``other`` (factor 0) to themselves (1) or beyond."""
    frames.mul_(factor).add_(other * (1 - factor)).clamp_(0, 1)


def _hue_turned(frames: Tensor, turn: Tensor) -> Tensor:
    """Frames (n, 3, H, W) with their hue turned by (n,) shares of the color circle.

    With v the largest channel and c its distance to the smallest, channel k of a hue h in sixths of the circle is
    v - c * max(0, min(q, 4 - q, 1)), where q = (k + h) mod 6 and k is 5, 3 and 1 for red, green and blue.
    """
    red, green, blue = frames.unbind(-3)
    value, smallest = frames.amax(-3), frames.amin(-3)
    chroma = value - smallest
    scale = chroma.clamp(min=1e-12)
    hue = torch.where(
        value == red,
        (green - blue) / scale,
        torch.where(value == green, (blue - red) / scale + 2, (red - green) / scale + 4),
    )
    hue = hue + 6 * turn.view(-1, 1, 1)
    channels = []
    for offset in (5, 3, 1):
        place = (offset + hue).remainder(6)
        channels.append(value - chroma * torch.minimum(place, 4 - place).clamp_(0, 1))
    layout: Any = torch.channels_last
    return torch.stack(channels, dim=-3).contiguous(memory_format=layout)
