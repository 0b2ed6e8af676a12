"""The peers' datasets, through torch's DataLoader with worker processes."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.contenders.base import Arrays, Settings, window_index, window_order
from benchmarks.prepared import Prepared
from lewm_data.format.schema import ACTION, PIXELS, STATE

_PREFETCH_FACTOR = 2
"""Batches that each worker prepares ahead: torch's default."""


class _TorchLoader:
    """A map-style dataset through torch's DataLoader."""

    is_slow = False

    def __init__(self, open_dataset: Callable[[], Any], path: Path, data: Prepared, settings: Settings) -> None:
        began = time.perf_counter()
        self._dataset = open_dataset()
        self.setup_seconds = time.perf_counter() - began
        self.path: Path | None = path
        self._settings = settings
        self._windows, self._first_rows = window_index(data, settings)
        self.bytes_per_frame = data.bytes_per_frame(path)

    def num_in_work(self, num_workers: int) -> int:
        """See ``Contender``."""
        return max(1, num_workers) * _PREFETCH_FACTOR

    def batches(self, batch_size: int, num_workers: int) -> Iterator[Any]:
        """See ``Contender``."""
        from torch.utils.data import DataLoader

        self._before_fork()

        loader: DataLoader[Any] = DataLoader(
            self._dataset,
            batch_sampler=_Endless(window_order(self._windows, batch_size, self._settings), self._numbers),
            num_workers=num_workers,
            prefetch_factor=_PREFETCH_FACTOR if num_workers else None,
        )
        iterator = iter(loader)
        try:
            yield from iterator
        finally:
            if num_workers:
                iterator._shutdown_workers()  # type: ignore[attr-defined]

    def count(self, batch: Any) -> int:
        """See ``Contender``."""
        batch[PIXELS][0, 0, 0, 0, 0].item()
        return len(batch[PIXELS])

    def arrays(self, batch: Any) -> Arrays:
        """See ``Contender``."""
        arrays = {name: batch[name].numpy() for name in (PIXELS, ACTION, STATE)}
        return arrays | {PIXELS: arrays[PIXELS].transpose(0, 1, 3, 4, 2)}

    def _before_fork(self) -> None:
        """Releases what worker processes must not inherit."""

    def _numbers(self, windows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The dataset's own numbers of these windows."""
        return windows  # stable-worldmodel numbers clips as we do; the comparison would fail otherwise


class TheirHdf5(_TorchLoader):
    """stable-worldmodel's ``HDF5Dataset``."""

    def __init__(self, data: Prepared, settings: Settings, *, ours: str | None, plain: bool = False) -> None:
        """Opens a file.

        Args:
            data: The files.
            settings: What to read.
            ours: Codec of our file; None opens their own.
            plain: Use the constructor's defaults: every column, nothing cached. Otherwise do as the faster rows of its
                own benchmark ("cached"): three columns, action and state cached.
        """
        with warnings.catch_warnings(action="ignore"):
            from stable_worldmodel.data.formats.hdf5 import HDF5Dataset

        path = data.ours(ours) if ours else data.their_hdf5

        def open_dataset() -> Any:
            return HDF5Dataset(
                path=path,
                num_steps=settings.num_steps,
                frameskip=settings.frameskip,
                keys_to_load=None if plain else [PIXELS, ACTION, STATE],
                keys_to_cache=None if plain else [ACTION, STATE],
            )

        super().__init__(open_dataset, path, data, settings)


class TheirLance(_TorchLoader):
    """stable-worldmodel's ``LanceDataset``, opened as in its own benchmark: JPEG of quality 95, nothing cached."""

    def __init__(self, data: Prepared, settings: Settings) -> None:
        with warnings.catch_warnings(action="ignore"):
            from stable_worldmodel.data.formats.lance import LanceDataset

        def open_dataset() -> Any:
            return LanceDataset(
                path=str(data.their_lance),
                num_steps=settings.num_steps,
                frameskip=settings.frameskip,
                keys_to_load=[PIXELS, ACTION, STATE],
            )

        super().__init__(open_dataset, data.their_lance, data, settings)


class LeRobotMp4(_TorchLoader):
    """``LeRobotDataset``, which seeks in MP4 for the frames of a window and resizes them, as uint8, in its workers.

    With torchcodec, LeRobot keeps up to 100 videos open by default: all of ours. With pyav, it opens one for each window.
    """

    is_slow = True

    def __init__(self, data: Prepared, settings: Settings, *, backend: str) -> None:
        os.environ["HF_HUB_OFFLINE"] = "1"
        os.environ["HF_HOME"] = str(data.folder / "huggingface")
        from lerobot.datasets.lerobot_dataset import LeRobotDataset, LeRobotDatasetMetadata
        from torchvision.transforms.v2 import Resize  # type: ignore[import-untyped]

        self._camera = f"observation.images.{data.camera}"

        def open_dataset() -> Any:
            fps = LeRobotDatasetMetadata("benchmark/repeated", root=data.lerobot).fps
            kept = [step * settings.frameskip / fps for step in range(settings.num_steps)]
            every = [step / fps for step in range(settings.num_steps * settings.frameskip)]
            return LeRobotDataset(
                "benchmark/repeated",
                root=data.lerobot,
                delta_timestamps={self._camera: kept, "observation.state": kept, "action": every},
                image_transforms=Resize((data.image_size, data.image_size), antialias=True),
                video_backend=backend,
                return_uint8=True,
            )

        super().__init__(open_dataset, data.lerobot, data, settings)

    def count(self, batch: Any) -> int:
        """See ``Contender``."""
        batch[self._camera][0, 0, 0, 0, 0].item()
        return len(batch[self._camera])

    def arrays(self, batch: Any) -> Arrays:
        """See ``Contender``."""
        action, state = batch["action"].numpy(), batch["observation.state"].numpy()
        return {
            PIXELS: batch[self._camera].permute(0, 1, 3, 4, 2).contiguous().numpy(),
            ACTION: action.reshape(len(action), self._settings.num_steps, -1),
            STATE: state,
        }

    def _before_fork(self) -> None:
        """Closes the videos that this process has opened.

        LeRobot keeps them open. Forked workers share an open file's position, so two of them disturb each other, and
        torchcodec fails with "Could not push packet to decoder".
        """
        from lerobot.datasets import video_utils

        video_utils._default_decoder_cache.clear()

    def _numbers(self, windows: NDArray[np.int64]) -> NDArray[np.int64]:
        return self._first_rows(windows)  # LeRobot numbers rows


class _Endless:
    """A batch sampler that yields all epochs of an order, one after another."""

    def __init__(self, order: Any, numbers: Callable[[NDArray[np.int64]], NDArray[np.int64]]) -> None:
        self._order = order
        self._numbers = numbers

    def __iter__(self) -> Iterator[list[int]]:
        epoch = 0
        while True:
            for number in range(self._order.num_batches()):
                yield self._numbers(self._order.batch(epoch, number * self._order.batch_size)).tolist()
            epoch += 1
