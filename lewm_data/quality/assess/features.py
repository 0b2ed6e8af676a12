"""Pictures as numbers that a linear model can read: random convolutions of one frame, and the motion between two.

Random filters need no training and no downloaded weights. On a CR5 arm they explain 0.68 of the state's variance in
left-out episodes, histograms of gradients 0.61, and principal components of the pixels 0.41.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_SCALES = ((48, 6, 2), (24, 4, 1))
"""(side of the picture, side of the pooled map, stride) of each scale."""

_NUM_FILTERS = 8
_FILTER_SIZE = 5
_BATCH = 64
_FLOW_CELLS = 6
_MAX_FLOW = 4.0

type Thumbnails = NDArray[np.uint8]


def frame_features(thumbnails: Thumbnails, *, seed: int = 0) -> NDArray[np.float64]:
    """832 numbers for each frame.

    Filters are random patches of the frames themselves, of zero mean and unit norm. Positive and negative responses are
    pooled apart, on two scales, and their square roots taken.

    Args:
        thumbnails: (n, 48, 48, 3) uint8 RGB.
        seed: Chooses the patches.

    Returns:
        (n, 832) float64.
    """
    random = np.random.default_rng(seed)
    features = []
    for side, pooled, stride in _SCALES:
        filters = _patches(thumbnails, side, random)
        scale = [
            _responses(_centered(thumbnails[begin : begin + _BATCH], side), filters, pooled, stride)
            for begin in range(0, len(thumbnails), _BATCH)
        ]
        features.append(np.concatenate(scale))
    return np.concatenate(features, axis=1).astype(np.float64)


def motion_features(before: Thumbnails, after: Thumbnails) -> NDArray[np.float64]:
    """Optical flow and change between two frames, in 6x6 cells on two scales (Lucas and Kanade, 1981).

    Args:
        before: (n, 48, 48, 3) uint8 RGB.
        after: The frames some steps later, likewise.

    Returns:
        (n, 216) float64: both components of the flow, in pixels, and the root of the change of each cell.
    """
    features = []
    for side, _, _ in _SCALES:
        first, second = _gray(before, side), _gray(after, side)
        mean, change = (first + second) / 2, second - first
        along, down = np.zeros_like(mean), np.zeros_like(mean)
        along[:, :, 1:-1] = (mean[:, :, 2:] - mean[:, :, :-2]) / 2
        down[:, 1:-1] = (mean[:, 2:] - mean[:, :-2]) / 2
        ridge = 4e-3 * (side // _FLOW_CELLS) ** 2 / 36
        xx, yy = _by_cell(along * along) + ridge, _by_cell(down * down) + ridge
        xy, xt, yt = _by_cell(along * down), _by_cell(along * change), _by_cell(down * change)
        determinant = xx * yy - xy * xy
        flow_x, flow_y = -(yy * xt - xy * yt) / determinant, -(xx * yt - xy * xt) / determinant
        features += [flow.clip(-_MAX_FLOW, _MAX_FLOW) for flow in (flow_x, flow_y)]
        features.append(np.sqrt(_by_cell(np.abs(change))))
    return np.concatenate(features, axis=1).astype(np.float64)


def _responses(
    pictures: NDArray[np.float32], filters: NDArray[np.float32], pooled: int, stride: int
) -> NDArray[np.float32]:
    """(n, 16 * pooled ** 2) root mean positive and negative responses of (n, 3, side, side) pictures in each cell."""
    margin = _FILTER_SIZE // 2
    padded = np.pad(pictures, ((0, 0), (0, 0), (margin, margin), (margin, margin)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (_FILTER_SIZE, _FILTER_SIZE), axis=(2, 3))  # type: ignore[call-overload]
    response = np.tensordot(windows[:, :, ::stride, ::stride], filters, axes=((1, 4, 5), (1, 2, 3)))
    both = np.concatenate([response.clip(min=0), (-response).clip(min=0)], axis=-1)
    count, side, _, channels = both.shape
    size = side // pooled
    cells = both.reshape(count, pooled, size, pooled, size, channels).mean(axis=(2, 4))
    return np.sqrt(cells.reshape(count, -1) + np.float32(1e-4))


def _patches(thumbnails: Thumbnails, side: int, random: np.random.Generator) -> NDArray[np.float32]:
    """(8, 3, 5, 5) random patches, among the half with more contrast."""
    num_drawn = 20 * _NUM_FILTERS
    frames = _centered(thumbnails[random.integers(0, len(thumbnails), num_drawn)], side)
    tops, lefts = random.integers(0, side - _FILTER_SIZE, (2, num_drawn))
    drawn = np.stack(
        [f[:, y : y + _FILTER_SIZE, x : x + _FILTER_SIZE] for f, y, x in zip(frames, tops, lefts, strict=True)]
    )
    drawn -= drawn.mean(axis=(2, 3), keepdims=True)
    norms = np.sqrt((drawn**2).sum(axis=(1, 2, 3)))
    chosen = np.argsort(-norms, kind="stable")[: num_drawn // 2][random.permutation(num_drawn // 2)[:_NUM_FILTERS]]
    return (drawn[chosen] / (norms[chosen, None, None, None] + 1e-3)).astype(np.float32)


def _centered(thumbnails: Thumbnails, side: int) -> NDArray[np.float32]:
    """(n, 3, side, side) in [0, 1], minus each frame's mean color: exposure changes say nothing about the robot."""
    pictures = _shrunk((thumbnails / np.float32(255)).astype(np.float32), side).transpose(0, 3, 1, 2)
    return np.ascontiguousarray(pictures - pictures.mean(axis=(2, 3), keepdims=True))


def _gray(thumbnails: Thumbnails, side: int) -> NDArray[np.float32]:
    weights = np.array([0.299, 0.587, 0.114], np.float32)
    gray = (thumbnails.astype(np.float32) @ weights) / np.float32(255)
    return _shrunk(gray[..., None].astype(np.float32), side)[..., 0]


def _shrunk(pictures: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """(n, side, side, channels) by averaging whole blocks of pixels."""
    count, height, width, channels = pictures.shape
    blocks = pictures.reshape(count, side, height // side, side, width // side, channels)
    return np.asarray(blocks.mean(axis=(2, 4)))


def _by_cell(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """(n, side, side) summed over cells: (n, 36)."""
    count, side, _ = values.shape
    size = side // _FLOW_CELLS
    cells = values.reshape(count, _FLOW_CELLS, size, _FLOW_CELLS, size).sum(axis=(2, 4))
    return np.asarray(cells.reshape(count, -1))
