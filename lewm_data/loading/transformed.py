"""Checks of what a transform of the user's returns, before it is normalized and trained on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from lewm_data.errors import UsageError
from lewm_data.format.schema import columns_of_batch, is_pixels
from lewm_data.loading.batches import Batch

_LEAST, _MOST = -1.0, 2.0
"""Noise may leave [0, 1] by a little. Frames up to 255, or normalized already, leave it by far."""


def check_batch(batch: Any) -> Batch:
    """What ``train_transform`` returned, if it is a batch.

    Raises:
        UsageError: It is not a mapping, or holds arrays instead of tensors.
    """
    if not isinstance(batch, Mapping):
        found = "nothing" if batch is None else f"a {type(batch).__name__}"
        raise UsageError(
            f"train_transform returned {found}, but must return the batch, a dict of tensors. End it with: return batch"
        )
    for name, values in batch.items():
        if isinstance(values, np.ndarray):
            raise UsageError(
                f"train_transform returned batch[{name!r}] as a numpy array, but it must be a tensor. Give it "
                "torch.from_numpy(values)."
            )
    return batch  # type: ignore[return-value]


def check_range(batch: Batch) -> None:
    """Checks that floating-point frames lie about in [0, 1]. This waits for the device.

    Raises:
        UsageError: They do not; says what they look like.
    """
    for name, column in columns_of_batch(batch).items():
        frames = batch[name]
        if not is_pixels(column) or not isinstance(frames, Tensor) or not frames.is_floating_point():
            continue
        low, high = (float(value) for value in frames.aminmax())
        if low < _LEAST or high > _MOST:
            remedy = "Set normalize=False if it normalizes them" if low < 0 else "Divide them by 255, or return uint8"
            raise UsageError(
                f"train_transform returned batch[{name!r}] as {frames.dtype} from {low:.3g} to {high:.3g}, but "
                f"floating-point frames must lie in [0, 1]; the data module normalizes them afterwards. {remedy}."
            )
