"""Frames and columns as a model takes them: normalized on their device, and back."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from lewm_data.errors import UsageError
from lewm_data.format.schema import columns_of_batch, is_pixels
from lewm_data.loading.columns import DATASET_IDX
from lewm_data.notation import count_of

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""For RGB in [0, 1], as torchvision's models and LeWM's ViT expect."""

_DTYPES = {"16": torch.float16, "bf16": torch.bfloat16, "32": torch.float32, "64": torch.float64}
_ROWS_AT_ONCE = 1 << 16
_LEAST_RELATIVE_STD = {np.dtype(np.float32): 1e-7, np.dtype(np.float64): 1e-14}
"""A smaller spread is the rounding of the column's dtype and of the sums, not signal."""


class Sample(NamedTuple):
    """Rows of a column that go into statistics.

    Attributes:
        values: (N, ...) numbers. NaN and infinite values are left out.
        rows: (N,) whether each row counts.
        weight: How often each of these rows counts.
    """

    values: NDArray[Any]
    rows: NDArray[np.bool_]
    weight: float = 1.0


class Normalizer:
    """``(x - mean) / std`` for each dimension of a column. A dimension that never moves is only centered.

    With statistics for each dataset, ``normalize`` and ``denormalize`` need to know from which dataset values come.

    Attributes:
        mean: (D,) float32, or (G, D) with statistics for each of G datasets; float64 for a column in double precision,
            such as a clock in seconds since 1970.
        std: The same shape and dtype; 1 for a dimension that never moves.
        is_scaled: The same shape, bool; False for a dimension that never moves.
    """

    def __init__(
        self,
        mean: NDArray[np.float64],
        std: NDArray[np.float64],
        *,
        dtype: DTypeLike = np.float32,
        is_still: NDArray[np.bool_] | None = None,
    ) -> None:
        """Makes a normalizer from statistics.

        Args:
            mean: (D,) mean of each dimension.
            std: (D,) population standard deviation of each dimension; 0 for a constant one.
            dtype: float64 for a column in double precision, else float32.
            is_still: (D,) dimensions that never move, although their values vary. None is none.
        """
        varies = std > _LEAST_RELATIVE_STD[np.dtype(dtype)] * np.abs(mean)
        if is_still is not None:
            varies &= ~is_still
        self.mean = torch.from_numpy(np.asarray(mean, dtype))
        self.is_scaled = varies
        self.std = torch.from_numpy(np.where(varies, std, 1.0).astype(dtype))
        self._on_device: dict[Any, tuple[Tensor, Tensor]] = {}

    @classmethod
    def from_tensors(cls, mean: Tensor, std: Tensor) -> Normalizer:
        """Restores a normalizer from its ``mean`` and ``std``."""
        normalizer = cls(np.zeros(0), np.zeros(0))
        normalizer.mean, normalizer.std = mean.cpu(), std.cpu()
        normalizer.is_scaled = (normalizer.std != 1).numpy()
        return normalizer

    @classmethod
    def per_dataset(cls, normalizers: Sequence[Normalizer]) -> Normalizer:
        """Combines the normalizers of several datasets, in their order."""
        return cls.from_tensors(
            torch.stack([normalizer.mean for normalizer in normalizers]),
            torch.stack([normalizer.std for normalizer in normalizers]),
        )

    @property
    def is_per_dataset(self) -> bool:
        """Whether each dataset has its own statistics."""
        return self.mean.ndim == 2

    def __repr__(self) -> str:
        """One line with the dimensions, and whether each dataset has its own statistics."""
        datasets = f" for each of {len(self.mean)} datasets" if self.is_per_dataset else ""
        num_still = int((~self.is_scaled).sum())
        still = f", {num_still} of them only centered" if num_still and not self.is_per_dataset else ""
        return f"Normalizer({count_of(self.mean.shape[-1], 'dimension')}{datasets}{still})"

    def of_dataset(self, dataset: int) -> Normalizer:
        """The normalizer of one dataset, for a planner that works with this one only.

        Raises:
            UsageError: There is no such dataset.
        """
        if self.is_per_dataset and not 0 <= dataset < len(self.mean):
            raise UsageError(
                f"There is no dataset {dataset}. The datasets are numbered from 0 to {len(self.mean) - 1}."
            )
        return Normalizer.from_tensors(self.mean[dataset], self.std[dataset]) if self.is_per_dataset else self

    @classmethod
    def fit(
        cls,
        *samples: Sample,
        is_still: Callable[[NDArray[np.float64]], NDArray[np.bool_]] = lambda std: np.zeros(len(std), np.bool_),
    ) -> Normalizer:
        """Computes statistics in float64, in two passes over pieces of the columns.

        Args:
            *samples: One or more columns of the same width.
            is_still: Decides from the standard deviations (D,) which dimensions never move, (D,) bool.

        Returns:
            The normalizer of the flattened dimensions. A dimension without any finite value gets mean 0 and std 1.
        """
        count, total, squares = np.zeros((3, samples[0].values[:1].size))
        for piece, is_finite, weight in _pieces(samples):
            count += weight * is_finite.sum(axis=0)
            total += weight * piece.sum(axis=0, where=is_finite)
        has_any = np.where(count > 0, count, 1)
        mean = total / has_any
        for piece, is_finite, weight in _pieces(samples):
            squares += weight * np.square(piece - mean).sum(axis=0, where=is_finite)
        is_double = samples[0].values.dtype == np.float64
        std = np.sqrt(squares / has_any)
        return cls(mean, std, dtype=np.float64 if is_double else np.float32, is_still=is_still(std))

    def normalize(self, values: Tensor, dataset: Tensor | int | None = None) -> Tensor:
        """Normalizes values.

        Args:
            values: (..., D), or (..., K*D) for K steps side by side, as in ``action``.
            dataset: With statistics for each dataset: the dataset of all values, or (B,) of each window, as
                ``dataset_idx`` in a batch has it. ``values`` are (B, ..., K*D) then. Without, ignored.

        Returns:
            The same shape, on the same device.

        Raises:
            UsageError: Each dataset has its own statistics, and ``dataset`` is None.
        """
        mean, std = self._constants(values, dataset)
        return ((values.unflatten(-1, (-1, mean.shape[-1])) - mean) / std).flatten(-2)

    def denormalize(self, values: Tensor, dataset: Tensor | int | None = None) -> Tensor:
        """Inverts ``normalize``. A planner needs it to send actions to a robot.

        Args:
            values: (..., D) or (..., K*D).
            dataset: As for ``normalize``.

        Returns:
            The same shape, in the units of the data.

        Raises:
            UsageError: Each dataset has its own statistics, and ``dataset`` is None.
        """
        mean, std = self._constants(values, dataset)
        return (values.unflatten(-1, (-1, mean.shape[-1])) * std + mean).flatten(-2)

    def _constants(self, values: Tensor, dataset: Tensor | int | None) -> tuple[Tensor, Tensor]:
        key = values.device, values.dtype
        if key not in self._on_device:
            with torch.inference_mode(False):  # autograd cannot use tensors that were made in inference mode
                self._on_device[key] = self.mean.to(*key), self.std.to(*key)
        mean, std = self._on_device[key]
        if not self.is_per_dataset:
            return mean, std
        if dataset is None:
            raise UsageError(
                "Each dataset has its own statistics. Say which dataset the values come from: "
                f"denormalize(values, batch['{DATASET_IDX}']), or of_dataset(0).denormalize(values). A train_transform "
                f"must keep batch['{DATASET_IDX}']."
            )
        if isinstance(dataset, int):
            return mean[dataset], std[dataset]
        shape = (-1, *[1] * (values.ndim - 1), mean.shape[-1])  # (B, 1, ..., 1, D)
        return mean[dataset].view(shape), std[dataset].view(shape)


def normalize_batch(
    batch: dict[str, Tensor], normalizers: dict[str, Normalizer], *, precision: str = "32-true"
) -> dict[str, Tensor]:
    """Normalizes a batch on its device.

    Args:
        batch: Column to tensor, with frames as uint8 or as floating point in [0, 1].
        normalizers: Column to normalizer.
        precision: Lightning's name of the precision. Frames take its dtype; action and state do so only under
            ``*-true``, as in Lightning itself.

    Returns:
        Column to tensor. A column without a normalizer is unchanged. Goals are normalized like their columns.
    """
    dtype = _DTYPES.get(precision.split("-")[0], torch.bfloat16)  # the rest are transformer-engine's
    normal = dict(batch)
    columns = columns_of_batch(batch)
    for name, values in batch.items():
        column = columns[name]
        if is_pixels(column):
            normal[name] = normalize_pixels(values, dtype)
        elif column in normalizers:
            values = normalizers[column].normalize(values, batch.get(DATASET_IDX))
            if dtype != torch.float64 and values.dtype == torch.float64:
                values = values.to(torch.float32)  # near 0 and 1, float32 is precise enough
            normal[name] = values.to(dtype) if precision.endswith("true") else values
    return normal


def normalize_pixels(pixels: Tensor, dtype: torch.dtype) -> Tensor:
    """Normalizes frames with ImageNet's mean and standard deviation.

    Args:
        pixels: (..., 3, H, W) RGB, uint8 or floating point in [0, 1] (torchvision's convention).
        dtype: dtype of the result. The arithmetic is float32, or float64 for a float64 result.

    Returns:
        The same shape and memory layout.
    """
    working = torch.promote_types(dtype, torch.float32)
    scale, shift = _pixel_constants(pixels.device, working)
    if pixels.is_floating_point():
        return (pixels.to(working) * (255 * scale) - shift).to(dtype)
    return pixels.to(working).mul_(scale).sub_(shift).to(dtype)


@functools.cache
def _pixel_constants(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Scale and shift on a device. Copying them there for each batch would make the host wait."""
    options: dict[str, Any] = {"device": device, "dtype": dtype}
    with torch.inference_mode(False):
        mean, std = (torch.tensor(values, **options).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
        return 1 / (255 * std), mean / std


def _pieces(samples: Iterable[Sample]) -> Iterator[tuple[NDArray[np.float64], NDArray[np.bool_], float]]:
    for values, rows, weight in samples:
        flat = values.reshape(len(values), -1)
        for start in range(0, len(flat), _ROWS_AT_ONCE):
            chosen = rows[start : start + _ROWS_AT_ONCE]
            piece = flat[start : start + _ROWS_AT_ONCE][chosen].astype(np.float64)
            is_finite = np.isfinite(piece)
            yield np.where(is_finite, piece, 0.0), is_finite, weight
