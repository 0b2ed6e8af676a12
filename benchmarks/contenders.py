"""Everybody who can deliver shuffled windows, behind one face, each in a process of its own.

All draw the same windows in the same order, given by our ``WindowOrder``: the peers through torch's
``DataLoader(batch_sampler=...)``, so that nobody is lucky with neighbouring frames.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import measure_round
from benchmarks.prepared import Prepared, warm
from lewm_data.schema import ACTION, COMPRESSIONS, DONE, PIXELS, STATE

type Arrays = dict[str, NDArray[Any]]
"""A batch for comparison: ``pixels`` (B, T, H, W, 3) uint8, ``action`` (B, T, K*A), ``state`` (B, T, S)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What is read, the same for all.

    Attributes:
        batch_size: Windows in a batch.
        mp4_batch_size: The same for the MP4 readers, which would take many seconds for a large one; their
            windows per second do not depend on it.
        num_workers: Threads or processes that load.
        num_steps: Frames that a window keeps.
        frameskip: Steps from one kept frame to the next.
        seed: Seed of the order.
    """

    batch_size: int = 256
    mp4_batch_size: int = 8
    num_workers: int = 2
    num_steps: int = 4
    frameskip: int = 5
    seed: int = 0


class Contender(Protocol):
    """Somebody who delivers batches of windows.

    Attributes:
        batch_size: Windows in a batch when it is timed.
        num_in_work: Batches that may be ready or in work at once.
        bytes_per_frame: What a frame takes on the disk.
        path: The file or folder that it reads, if any; it is read into the page cache before each round.
    """

    batch_size: int
    num_in_work: int
    bytes_per_frame: float
    path: Path | None

    def batches(self, batch_size: int) -> Iterator[Any]:
        """Batches without end; workers start at the first, and stop when the iterator is closed."""

    def count(self, batch: Any) -> int:
        """Looks at a batch, as a trainer would, and tells its windows."""

    def arrays(self, batch: Any) -> Arrays:
        """The batch for comparison."""


def make_contender(name: str, data: Prepared, settings: Settings) -> Contender:
    """Opens a contender by its name in ``CONTENDERS``."""
    return CONTENDERS[name](data, settings)


class Ours:
    """lewm_data's ``WindowLoader``, with action, state and done."""

    def __init__(self, data: Prepared, settings: Settings, *, codec: str, cache: bool, worker_type: str) -> None:
        from lewm_data.loading.cache import cache_frames
        from lewm_data.loading.dataset import WindowDataset
        from lewm_data.loading.store import FrameStore

        self.path: Path | None = None if cache else data.ours(codec)
        store = FrameStore(data.ours(codec))
        if cache:  # as LeWMDataModule does it
            cache_frames(store, mode="ram", is_shared=worker_type == "process", show_progress=False)
        self._dataset = WindowDataset(
            store,
            num_steps=settings.num_steps,
            frameskip=settings.frameskip,
            columns=(PIXELS, ACTION, STATE, DONE),
        )
        self._settings = settings
        self._worker_type = worker_type
        self.batch_size = settings.batch_size
        self.num_in_work = settings.num_workers + 2
        self.bytes_per_frame = data.bytes_per_frame(data.ours(codec))

    def batches(self, batch_size: int) -> Iterator[Any]:
        """See ``Contender``."""
        from lewm_data.loading.loader import WindowLoader
        from lewm_data.loading.sampler import WindowSampler

        loader = WindowLoader(
            self._dataset,
            WindowSampler(_order(len(self._dataset), batch_size, self._settings)),
            num_workers=self._settings.num_workers,
            worker_type=self._worker_type,  # type: ignore[arg-type]
        )
        try:
            while True:
                for batch in loader:
                    yield batch
                    del batch
        finally:
            loader.close()

    def count(self, batch: Any) -> int:
        """See ``Contender``."""
        batch[PIXELS][0, 0, 0, 0, 0].item()
        return len(batch[STATE])

    def arrays(self, batch: Any) -> Arrays:
        """See ``Contender``."""
        arrays = {name: tensor.numpy() for name, tensor in batch.items()}
        return arrays | {PIXELS: arrays[PIXELS].transpose(0, 1, 3, 4, 2)}


class _TorchLoader:
    """A map-style dataset of somebody else through torch's DataLoader with worker processes."""

    _prefetch_factor = 2  # torch's default

    def __init__(self, dataset: Any, path: Path, data: Prepared, settings: Settings) -> None:
        self._dataset = dataset
        self.path: Path | None = path
        self._settings = settings
        self._windows, self._first_rows = _window_index(data, settings)
        self.batch_size = settings.batch_size
        self.num_in_work = max(1, settings.num_workers) * self._prefetch_factor
        self.bytes_per_frame = data.bytes_per_frame(path)

    def batches(self, batch_size: int) -> Iterator[Any]:
        """See ``Contender``."""
        from torch.utils.data import DataLoader

        workers = self._settings.num_workers
        loader: DataLoader[Any] = DataLoader(
            self._dataset,
            batch_sampler=_Endless(_order(self._windows, batch_size, self._settings), self._numbers),
            num_workers=workers,
            prefetch_factor=self._prefetch_factor if workers else None,
        )
        iterator = iter(loader)
        try:
            yield from iterator
        finally:
            if workers:
                iterator._shutdown_workers()  # type: ignore[attr-defined]

    def count(self, batch: Any) -> int:
        """See ``Contender``."""
        batch[PIXELS][0, 0, 0, 0, 0].item()
        return len(batch[PIXELS])

    def arrays(self, batch: Any) -> Arrays:
        """See ``Contender``."""
        arrays = {name: batch[name].numpy() for name in (PIXELS, ACTION, STATE)}
        return arrays | {PIXELS: arrays[PIXELS].transpose(0, 1, 3, 4, 2)}

    def _numbers(self, windows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Our window numbers to the dataset's own."""
        return windows  # stable-worldmodel counts clips as we do; the comparison would show otherwise


class TheirHdf5(_TorchLoader):
    """stable-worldmodel's ``HDF5Dataset``."""

    def __init__(self, data: Prepared, settings: Settings, *, ours: str | None, plain: bool = False) -> None:
        """Opens a file.

        Args:
            data: The files.
            settings: What to read.
            ours: Codec of our file to open; None opens their own.
            plain: Open it with the constructor's defaults: every column, nothing cached. Otherwise as the "cached"
                rows of its own benchmark, which are the faster: three columns, action and state cached.
        """
        with warnings.catch_warnings(action="ignore"):
            from stable_worldmodel.data.formats.hdf5 import HDF5Dataset

        path = data.ours(ours) if ours else data.their_hdf5
        dataset = HDF5Dataset(
            path=path,
            num_steps=settings.num_steps,
            frameskip=settings.frameskip,
            keys_to_load=None if plain else [PIXELS, ACTION, STATE],
            keys_to_cache=None if plain else [ACTION, STATE],
        )
        super().__init__(dataset, path, data, settings)


class TheirLance(_TorchLoader):
    """stable-worldmodel's ``LanceDataset`` as its own benchmark opens it: JPEG of quality 95, nothing cached."""

    def __init__(self, data: Prepared, settings: Settings) -> None:
        with warnings.catch_warnings(action="ignore"):
            from stable_worldmodel.data.formats.lance import LanceDataset

        dataset = LanceDataset(
            path=str(data.their_lance),
            num_steps=settings.num_steps,
            frameskip=settings.frameskip,
            keys_to_load=[PIXELS, ACTION, STATE],
        )
        super().__init__(dataset, data.their_lance, data, settings)


class LeRobotMp4(_TorchLoader):
    """``LeRobotDataset`` that seeks in MP4 for the four frames and the actions between, at native size in uint8."""

    def __init__(self, data: Prepared, settings: Settings, *, backend: str) -> None:
        os.environ["HF_HUB_OFFLINE"] = "1"
        os.environ["HF_HOME"] = str(data.folder / "huggingface")
        from lerobot.datasets.lerobot_dataset import LeRobotDataset, LeRobotDatasetMetadata

        self._camera = f"observation.images.{data.camera}"
        fps = LeRobotDatasetMetadata("benchmark/repeated", root=data.lerobot).fps
        kept = [step * settings.frameskip / fps for step in range(settings.num_steps)]
        every = [step / fps for step in range(settings.num_steps * settings.frameskip)]
        dataset = LeRobotDataset(
            "benchmark/repeated",
            root=data.lerobot,
            delta_timestamps={self._camera: kept, "observation.state": kept, "action": every},
            video_backend=backend,
            return_uint8=True,
        )
        super().__init__(dataset, data.lerobot, data, settings)
        self.batch_size = settings.mp4_batch_size

    def count(self, batch: Any) -> int:
        """See ``Contender``."""
        batch[self._camera][0, 0, 0, 0, 0].item()
        return len(batch[self._camera])

    def arrays(self, batch: Any) -> Arrays:
        """See ``Contender``; frames are at native size."""
        action, state = batch["action"].numpy(), batch["observation.state"].numpy()
        return {
            PIXELS: batch[self._camera].permute(0, 1, 3, 4, 2).contiguous().numpy(),
            ACTION: action.reshape(len(action), self._settings.num_steps, -1),
            STATE: state,
        }

    def _numbers(self, windows: NDArray[np.int64]) -> NDArray[np.int64]:
        return self._first_rows(windows)  # LeRobot counts rows; only those are asked for at which a window fits


class MemoryLimit:
    """Threads that gather the frames of whole batches into memory that they use again and again, and do nothing else.

    No window arithmetic, no other columns, no hand-over to a trainer.
    """

    def __init__(self, data: Prepared, settings: Settings, *, mapped: bool) -> None:
        """Takes the decoded frames from a map of a file, or from memory in large pages, as a private RAM cache is."""
        shape = (data.num_frames, data.image_size * data.image_size * 3)
        frames: NDArray[np.uint8] = np.memmap(data.raw, np.uint8, "r", shape=shape)
        self.path: Path | None = data.raw if mapped else None
        if mapped:
            frames = frames.view(np.ndarray)
        else:
            memory = np.empty(shape, np.uint8)
            memory[:] = frames
            frames = memory
        self._frames = frames
        self._side = data.image_size
        self._settings = settings
        self._windows, self._first_rows = _window_index(data, settings)
        self.batch_size = settings.batch_size
        self._rows: list[NDArray[np.int64]] = []
        self.num_in_work = settings.num_workers
        self.bytes_per_frame = float(shape[1])

    def batches(self, batch_size: int) -> Iterator[Any]:
        """See ``Contender``; each thread has one buffer, and runs on while its last batch is looked at."""
        order = _order(self._windows, batch_size, self._settings)
        steps = np.arange(self._settings.num_steps) * self._settings.frameskip
        rows = self._rows = [
            (self._first_rows(order.batch(0, number * batch_size))[:, None] + steps).reshape(-1)
            for number in range(order.num_batches())
        ]
        num_threads = max(1, self._settings.num_workers)
        done: SimpleQueue[NDArray[np.uint8]] = SimpleQueue()
        stop = Event()

        def work(first: int) -> None:
            buffer = np.ones((len(rows[0]), self._frames.shape[1]), np.uint8)
            number = first
            while not stop.is_set():
                self._gather(rows[number % len(rows)], buffer)
                done.put(buffer)
                number += num_threads

        threads = [Thread(target=work, args=(first,)) for first in range(num_threads)]
        for thread in threads:
            thread.start()
        try:
            while True:
                yield done.get()
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    def count(self, batch: Any) -> int:
        """See ``Contender``."""
        return len(batch) // self._settings.num_steps

    def arrays(self, batch: Any) -> Arrays:
        """See ``Contender``; the first batch gathered once more, because a thread may be writing to this one again."""
        again = np.empty_like(batch)
        self._gather(self._rows[0], again)
        return {PIXELS: again.reshape(-1, self._settings.num_steps, self._side, self._side, 3)}

    def _gather(self, rows: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
        np.take(self._frames, rows, axis=0, out=out, mode="clip")


def _ours(codec: str, *, cache: bool = False, worker_type: str = "thread") -> Callable[[Prepared, Settings], Contender]:
    return lambda data, settings: Ours(data, settings, codec=codec, cache=cache, worker_type=worker_type)


CONTENDERS: dict[str, Callable[[Prepared, Settings], Contender]] = {
    "limit_mmap": lambda data, settings: MemoryLimit(data, settings, mapped=True),
    "limit_ram": lambda data, settings: MemoryLimit(data, settings, mapped=False),
    "ram_thread": _ours("lzf", cache=True),
    "ram_process": _ours("lzf", cache=True, worker_type="process"),
    **{f"{codec}_thread": _ours(codec) for codec in ("none", *(name for name in COMPRESSIONS if name != "none"))},
    "lzf_process": _ours("lzf", worker_type="process"),
    "swm_hdf5": lambda data, settings: TheirHdf5(data, settings, ours=None),
    "swm_lance": TheirLance,
    "swm_on_lzf": lambda data, settings: TheirHdf5(data, settings, ours="lzf"),
    "swm_on_lzf_plain": lambda data, settings: TheirHdf5(data, settings, ours="lzf", plain=True),
    "lerobot_torchcodec": lambda data, settings: LeRobotMp4(data, settings, backend="torchcodec"),
    "lerobot_pyav": lambda data, settings: LeRobotMp4(data, settings, backend="pyav"),
}
"""Everybody by name, in the order of the table."""


def serve(connection: Connection, name: str, data: Prepared, settings: Settings) -> None:
    """Runs one contender in this process, as the parent tells it to.

    Args:
        connection: To the parent. It sends ``("first", windows)``, ``("round", keywords of measure_round)`` or
            ``("stop", None)``; each answer is ``("ok", value)`` or ``("error", traceback)``.
        name: A key of ``CONTENDERS``.
        data: The files.
        settings: What to read.
    """
    # The script's own folder is in the path, and its datasets.py would hide the package that lerobot imports.
    sys.path[:] = [folder for folder in sys.path if Path(folder or ".").resolve() != Path(__file__).resolve().parent]
    # Python's default on Linux before 3.14, which a program has that was not itself spawned; LanceDataset changes it.
    multiprocessing.set_start_method("fork", force=True)
    warnings.simplefilter("ignore")
    os.environ["PYTHONWARNINGS"] = "ignore"  # for workers that are spawned
    contender: Contender | None = None
    while True:
        command, argument = connection.recv()
        if command == "stop":
            return
        try:
            if contender is None:
                contender = make_contender(name, data, settings)
            answer = first_batch(contender, argument) if command == "first" else _time(contender, argument)
            connection.send(("ok", answer))
        except Exception:
            connection.send(("error", traceback.format_exc()))


def first_batch(contender: Contender, num_windows: int) -> tuple[Arrays, float]:
    """The first windows of the order, through all that is timed later, and the contender's bytes per frame."""
    iterator = contender.batches(num_windows)
    try:
        batch = next(iterator)
        arrays = {name: values.copy() for name, values in contender.arrays(batch).items()}
        return arrays, contender.bytes_per_frame
    finally:
        iterator.close()  # type: ignore[attr-defined]


def _time(contender: Contender, keywords: dict[str, Any]) -> Any:
    opened: list[Any] = []
    if contender.path is not None:
        warm(contender.path)

    def batches() -> Iterator[int]:
        opened.append(contender.batches(contender.batch_size))
        for batch in opened[0]:
            count = contender.count(batch)
            del batch
            yield count

    try:
        return measure_round(batches, multiple=contender.num_in_work, **keywords)
    finally:
        opened[0].close()


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


def _order(num_windows: int, batch_size: int, settings: Settings) -> Any:
    from lewm_data.loading.sampler import WindowOrder

    return WindowOrder(num_windows=num_windows, batch_size=batch_size, seed=settings.seed)


def _window_index(data: Prepared, settings: Settings) -> tuple[int, Callable[[NDArray[np.int64]], NDArray[np.int64]]]:
    """How many windows there are, and the first row of each."""
    import h5py

    from lewm_data.loading.windows import WindowIndex

    with h5py.File(data.ours("none")) as file:
        lengths, offsets = file["ep_len"][:], file["ep_offset"][:]
    index = WindowIndex.build(lengths, offsets, num_steps=settings.num_steps, frameskip=settings.frameskip)
    return len(index), index.rows
