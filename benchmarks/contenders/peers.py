"""The peers' datasets, through torch's DataLoader with worker processes."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.contenders.base import Arrays, Contender, Settings, window_index, window_order
from benchmarks.prepared import Prepared
from lewm_data.format.schema import ACTION, PIXELS, STATE

_PREFETCH_FACTOR = 2
"""Batches that each worker prepares ahead: torch's default."""


class _TorchLoader(Contender):
    """A map-style dataset through torch's DataLoader."""

    def __init__(self, data: Prepared, settings: Settings, path: Path, open_dataset: Callable[[], Any]) -> None:
        super().__init__(data, settings, path, open_dataset)
        self._windows, self._first_rows = window_index(data, settings)

    def num_in_work(self, num_workers: int) -> int:
        """See ``Contender``."""
        return max(1, num_workers) * _PREFETCH_FACTOR

    def batches(self, batch_size: int, num_workers: int) -> Iterator[Any]:
        """See ``Contender``."""
        from torch.utils.data import DataLoader

        order = window_order(self._windows, batch_size, self._settings)

        def numbers() -> Iterator[list[int]]:
            epoch = 0
            while True:
                for number in range(order.num_batches()):
                    yield self._numbers(order.batch(epoch, number * batch_size)).tolist()
                epoch += 1

        loader: DataLoader[Any] = DataLoader(
            self._dataset,
            batch_sampler=numbers(),
            num_workers=num_workers,
            prefetch_factor=_PREFETCH_FACTOR if num_workers else None,
        )
        self._before_fork()
        iterator = iter(loader)
        try:
            yield from iterator
        finally:
            if num_workers:
                iterator._shutdown_workers()  # type: ignore[attr-defined]

    def _before_fork(self) -> None:
        """Releases what worker processes must not inherit."""

    def _numbers(self, windows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The dataset's own numbers of these windows."""
        return windows  # stable-worldmodel numbers clips as we do; the comparison would fail otherwise


class TheirHdf5(_TorchLoader):
    """stable-worldmodel's ``HDF5Dataset``, of their own file or of our file with the codec ``ours``.

    It is opened as in the faster rows of its own benchmark ("cached"): three columns, action and state cached. With
    ``plain``, it has the constructor's defaults: every column, nothing cached.
    """

    def __init__(self, data: Prepared, settings: Settings, *, ours: str | None, plain: bool = False) -> None:
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

        super().__init__(data, settings, path, open_dataset)


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

        super().__init__(data, settings, data.their_lance, open_dataset)


class LeRobotMp4(_TorchLoader):
    """``LeRobotDataset``, which seeks in MP4 for the frames of a window and resizes them, as uint8, in its workers.

    With torchcodec, LeRobot keeps up to 100 videos open by default: all of ours. With pyav, it opens one per window.
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

        super().__init__(data, settings, data.lerobot, open_dataset)

    def count(self, batch: Any) -> int:
        """See ``Contender``."""
        return super().count({PIXELS: batch[self._camera]})

    def arrays(self, batch: Any) -> Arrays:
        """See ``Contender``."""
        action = batch["action"].unflatten(1, (self._settings.num_steps, -1)).flatten(2)
        return super().arrays({PIXELS: batch[self._camera], ACTION: action, STATE: batch["observation.state"]})

    def _before_fork(self) -> None:
        """Closes the videos that this process has opened.

        LeRobot keeps them open. Forked workers share an open file's position, so two of them disturb each other, and
        torchcodec fails with "Could not push packet to decoder".
        """
        from lerobot.datasets import video_utils

        video_utils._default_decoder_cache.clear()

    def _numbers(self, windows: NDArray[np.int64]) -> NDArray[np.int64]:
        return self._first_rows(windows)  # LeRobot numbers rows
