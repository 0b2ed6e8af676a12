"""The readers that the benchmark of object storage compares, and their files."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from benchmarks import compiled_server
from benchmarks.contenders.base import Settings, window_order
from benchmarks.datasets import once, repeat_dataset
from benchmarks.prepared import recode
from lewm_data.config import ConvertConfig
from lewm_data.format.schema import ACTION, EP_LEN, EP_OFFSET, PIXELS, STATE
from lewm_data.loading.remote.config import RemoteConfig

HDF5, JPEG, LANCE = "frames.h5", "frames-jpeg.h5", "frames.lance"
PEER, CACHED = "lance", "ours_cached"
LABELS = {
    "ours_thread": "lewm_data (LZF, lossless), threads",
    "ours_process": "lewm_data (LZF, lossless), processes",
    "ours_jpeg_thread": "lewm_data (JPEG, lossy), threads",
    "ours_jpeg_process": "lewm_data (JPEG, lossy), processes",
    CACHED: "lewm_data (LZF, lossless), threads, every chunk in the local cache",
    PEER: "stable-worldmodel's LanceDataset (JPEG, lossy), processes",
    "hdf5": "stable-worldmodel's HDF5Dataset (our LZF file), processes",
}
LOSSY = ("ours_jpeg_thread", "ours_jpeg_process", "lance")
FILES = dict.fromkeys(LABELS, HDF5) | dict.fromkeys(LOSSY, JPEG) | {PEER: LANCE}
"""The file or folder that each contender reads."""


class Contender(Protocol):
    """Delivers batches from the store.

    Attributes:
        batch_size: Windows in a batch.
        num_in_work: Batches that may be ready or in work at once.
        open_seconds: Time to open the dataset.
    """

    batch_size: int
    num_in_work: int
    open_seconds: float

    def batches(self, batch_size: int) -> Iterator[Any]:
        """Endless batches; workers stop when the iterator is closed."""


class Ours:
    """lewm_data's ``WindowLoader`` over an address."""

    def __init__(
        self,
        options: dict[str, Any],
        settings: Settings,
        folder: Path,
        *,
        num_workers: int,
        worker_type: Any = "thread",
        name: str = HDF5,
        is_cached: bool = False,
    ) -> None:
        """Opens the file; with ``is_cached``, also reads every frame once, so that its chunks are on the local disk."""
        from lewm_data.loading.dataset import WindowDataset

        config = RemoteConfig(
            storage_options=options, cache_dir=str(folder), chunk_cache_bytes=1 << 40 if is_cached else 0
        )
        began = time.perf_counter()
        self._dataset = WindowDataset(
            f"s3://{compiled_server.BUCKET}/{name}",
            num_steps=settings.num_steps,
            frameskip=settings.frameskip,
            columns=(PIXELS, ACTION, STATE),
            remote=config,
        )
        self.open_seconds = time.perf_counter() - began
        if is_cached:
            store = self._dataset.store
            for row in range(0, store.num_rows, 256):
                rows = np.arange(row, min(row + 256, store.num_rows))
                store.read_frames(PIXELS, rows, np.empty((len(rows), *store.columns[PIXELS].shape), np.uint8))
        self._settings = settings
        self._workers = {"num_workers": num_workers, "worker_type": worker_type}
        self.batch_size = settings.batch_size
        self.num_in_work = num_workers + 2

    def batches(self, batch_size: int) -> Iterator[Any]:
        """See ``Contender``."""
        from lewm_data.loading.loader import WindowLoader
        from lewm_data.loading.sampler import WindowSampler

        order = window_order(len(self._dataset), batch_size, self._settings)
        loader = WindowLoader(self._dataset, WindowSampler(order), **self._workers)
        try:
            while True:
                yield from loader
        finally:
            loader.close()


class Peer:
    """A dataset of stable-worldmodel through torch's ``DataLoader`` with worker processes."""

    def __init__(
        self, open_dataset: Callable[[], Any], settings: Settings, *, num_workers: int, start: str, batch_size: int
    ) -> None:
        """Opens the dataset.

        Args:
            open_dataset: Opens it.
            settings: What to read.
            num_workers: Worker processes.
            start: How they start: ``fork`` or ``spawn``.
            batch_size: Windows in a batch.
        """
        began = time.perf_counter()
        self._dataset = open_dataset()
        self.open_seconds = time.perf_counter() - began
        self._settings = settings
        self._num_workers, self._start = num_workers, start
        self.batch_size = batch_size
        self.num_in_work = 2 * num_workers

    def batches(self, batch_size: int) -> Iterator[Any]:
        """See ``Contender``."""
        from torch.utils.data import DataLoader

        order = window_order(len(self._dataset), batch_size, self._settings)
        numbers = [order.batch(0, number * batch_size).tolist() for number in range(order.num_batches())]
        loader: DataLoader[Any] = DataLoader(
            self._dataset,
            batch_sampler=numbers * 100,
            num_workers=self._num_workers,
            multiprocessing_context=self._start,
        )
        iterator = iter(loader)
        try:
            yield from iterator
        finally:
            iterator._shutdown_workers()  # type: ignore[attr-defined]


def open_lance(endpoint: str, settings: Settings) -> Any:
    """stable-worldmodel's ``LanceDataset``, opened as in its own benchmark: nothing cached."""
    with warnings.catch_warnings(action="ignore"):
        from stable_worldmodel.data.formats.lance import LanceDataset
    options = {
        "aws_endpoint": endpoint,
        "aws_access_key_id": "me",
        "aws_secret_access_key": "secret",
        "aws_region": "us-east-1",
        "allow_http": "true",
        "aws_virtual_hosted_style_request": "false",
    }
    return LanceDataset(
        path=f"s3://{compiled_server.BUCKET}/{LANCE}",
        num_steps=settings.num_steps,
        frameskip=settings.frameskip,
        keys_to_load=[PIXELS, ACTION, STATE],
        connect_kwargs={"storage_options": options},
    )


def open_hdf5(options: dict[str, Any], settings: Settings) -> Any:
    """stable-worldmodel's ``HDF5Dataset`` with action and state cached, as in its own benchmark's faster rows."""
    with warnings.catch_warnings(action="ignore"):
        from stable_worldmodel.data.formats.hdf5 import HDF5Dataset
    return HDF5Dataset(
        path=f"s3://{compiled_server.BUCKET}/{HDF5}",
        num_steps=settings.num_steps,
        frameskip=settings.frameskip,
        keys_to_load=[PIXELS, ACTION, STATE],
        keys_to_cache=[ACTION, STATE],
        storage_options=options,
    )


def make_contenders(
    endpoint: str, settings: Settings, folder: Path, num_workers: int, names: Sequence[str]
) -> dict[str, Contender]:
    """Opens contenders by name."""
    options = {"endpoint_url": endpoint, "key": "me", "secret": "secret"}

    def ours(cache: str, **given: Any) -> Ours:
        return Ours(options, settings, folder / cache, num_workers=num_workers, **given)

    def peer(open_dataset: Callable[[], Any], start: str, batch_size: int) -> Peer:
        return Peer(open_dataset, settings, num_workers=num_workers, start=start, batch_size=batch_size)

    contenders: dict[str, Callable[[], Contender]] = {
        "ours_thread": lambda: ours("thread"),
        "ours_process": lambda: ours("process", worker_type="process"),
        "ours_jpeg_thread": lambda: ours("jpeg-thread", name=JPEG),
        "ours_jpeg_process": lambda: ours("jpeg-process", name=JPEG, worker_type="process"),
        CACHED: lambda: ours("cached", is_cached=True),
        "lance": lambda: peer(lambda: open_lance(endpoint, settings), "spawn", settings.batch_size),
        # Its rate does not depend on the batch: a batch of 256 windows would take 15 seconds.
        "hdf5": lambda: peer(lambda: open_hdf5(options, settings), "fork", min(4, settings.batch_size)),
    }
    return {name: contenders[name]() for name in names}


def prepare(source: Path, data: Path, *, camera: str, num_frames: int, image_size: int) -> Path:
    """Converts a recording to LZF, and that file to JPEG and Lance, once; returns the folder that holds all."""
    total = json.loads((source / "meta" / "info.json").read_text())["total_frames"]
    times = -(-num_frames // total)
    folder = data / f"remote-{source.name}-{camera}-x{times}-{image_size}"
    config = ConvertConfig(camera=camera, image_size=image_size, compression="lzf")
    once(folder / HDF5, lambda out: _convert(source.resolve(), out, times, config))
    once(folder / JPEG, lambda out: recode(folder / HDF5, out, "jpeg"))
    once(folder / LANCE, lambda out: _write_lance(folder / HDF5, out))
    return folder


def stored_bytes(path: Path) -> int:
    """Bytes of a file, or of the files in a folder."""
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())


def _convert(source: Path, out: Path, times: int, config: ConvertConfig) -> None:
    from lewm_data.conversion.pipeline import convert

    with tempfile.TemporaryDirectory(dir=out.parent) as temporary:
        dataset = repeat_dataset(source, Path(temporary) / "lerobot", times, camera=str(config.camera))
        convert(str(dataset), out, config)


def _write_lance(source: Path, out: Path) -> None:
    import h5py

    with warnings.catch_warnings(action="ignore"):
        from stable_worldmodel.data.formats.lance import LanceWriter
    with h5py.File(source) as file, tempfile.TemporaryDirectory(dir=out.parent) as temporary:
        episodes = (
            {name: list(file[name][start : start + length]) for name in (PIXELS, ACTION, STATE)}
            for start, length in zip(file[EP_OFFSET][:], file[EP_LEN][:], strict=True)
        )
        with LanceWriter(Path(temporary) / LANCE, mode="overwrite") as writer:
            writer.write_episodes(episodes)
        shutil.move(Path(temporary) / LANCE, out)
