"""Windows per second from object storage: lewm_data, and stable-worldmodel's Lance and HDF5 readers.

nginx serves the files on loopback as an S3 bucket, without and with a delay before each response, as a distant store
has it. Every contender draws the same windows in the same shuffled order with the same number of threads or processes.
First, their windows are compared with those of a plain h5py loop over the local file; Lance stores JPEG, so its frames
are compared by PSNR. Rounds are interleaved, and ratios taken round by round.

    python -m benchmarks.remote            converts about 8,000 frames at the first run
    python -m benchmarks.remote --quick    small and short: shows that it works; its numbers mean nothing
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from benchmarks import compiled_server
from benchmarks.comparison import compare, reference_windows
from benchmarks.contenders.base import Arrays, Settings, window_order
from benchmarks.datasets import repeat_dataset
from benchmarks.harness import Round, Spread, interleaved, log, machine, markdown, measure_round, ratios, versions
from lewm_data.config import ConvertConfig, RemoteConfig
from lewm_data.format.schema import ACTION, EP_LEN, EP_OFFSET, PIXELS, STATE

HERE = Path(__file__).parent
HDF5, LANCE = "frames.h5", "frames.lance"
LEAST_LANCE_DB = 25.0
"""Far above the PSNR of two different frames; JPEG of quality 95 reaches about 35 dB."""
LABELS = {
    "ours_thread": "lewm_data (LZF, lossless), threads",
    "ours_process": "lewm_data (LZF, lossless), processes",
    "ours_cached": "lewm_data, threads, every chunk in the local cache",
    "lance": "stable-worldmodel's LanceDataset (JPEG), processes",
    "hdf5": "stable-worldmodel's HDF5Dataset (our file), processes",
}
PEER = "lance"


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
        is_cached: bool = False,
    ) -> None:
        """Opens the file; with ``is_cached``, also reads every frame once, so that its chunks are on the local disk."""
        from lewm_data.loading.dataset import WindowDataset

        config = RemoteConfig(
            storage_options=options, cache_dir=str(folder), chunk_cache_bytes=1 << 40 if is_cached else 0
        )
        began = time.perf_counter()
        self._dataset = WindowDataset(
            f"s3://{compiled_server.BUCKET}/{HDF5}",
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


def make_contenders(endpoint: str, settings: Settings, folder: Path, num_workers: int) -> dict[str, Contender]:
    """Opens every contender."""
    options = {"endpoint_url": endpoint, "key": "me", "secret": "secret"}

    def ours(name: str, **given: Any) -> Ours:
        return Ours(options, settings, folder / name, num_workers=num_workers, **given)

    def peer(open_dataset: Callable[[], Any], start: str, batch_size: int) -> Peer:
        return Peer(open_dataset, settings, num_workers=num_workers, start=start, batch_size=batch_size)

    contenders: dict[str, Contender] = {
        "ours_thread": ours("thread"),
        "ours_process": ours("process", worker_type="process"),
        "ours_cached": ours("cached", is_cached=True),
        "lance": peer(lambda: open_lance(endpoint, settings), "spawn", settings.batch_size),
        # Its rate does not depend on the batch: a batch of 256 windows would take 15 seconds.
        "hdf5": peer(lambda: open_hdf5(options, settings), "fork", min(4, settings.batch_size)),
    }
    return contenders


def arrays(batch: Any) -> Arrays:
    """A batch for comparison."""
    found = {name: batch[name].numpy() for name in (PIXELS, ACTION, STATE)}
    return found | {PIXELS: found[PIXELS].transpose(0, 1, 3, 4, 2)}


class Running:
    """A contender whose workers stay alive between rounds: a peer's processes take many seconds to start."""

    def __init__(self, contender: Contender, store: compiled_server.Store) -> None:
        """Starts the workers.

        Args:
            contender: The contender.
            store: The server, which counts requests.
        """
        self._contender, self._store = contender, store
        self._batches = contender.batches(contender.batch_size)
        self.traffic: list[tuple[float, float]] = []
        """Requests and bytes per window, of each round."""

    def first_windows(self, num_windows: int) -> Arrays:
        """The first windows of the order."""
        return {name: values[:num_windows].copy() for name, values in arrays(next(self._batches)).items()}

    def time_round(self, *, seconds: float, warmup_seconds: float) -> Round:
        """One round."""
        num_windows = 0

        def sizes() -> Iterator[int]:
            nonlocal num_windows
            for batch in self._batches:
                batch[PIXELS][0, 0, 0, 0, 0].item()
                num_windows += len(batch[PIXELS])
                yield len(batch[PIXELS])

        before = self._store.traffic()
        multiple = self._contender.num_in_work
        done = measure_round(sizes, seconds=seconds, warmup_seconds=warmup_seconds, multiple=multiple)
        requests, num_bytes = (now - then for now, then in zip(self._store.traffic(), before, strict=True))
        self.traffic.append((requests / num_windows, num_bytes / num_windows))
        return done

    def close(self) -> None:
        """Stops the workers."""
        self._batches.close()  # type: ignore[attr-defined]


def prepare(source: Path, data: Path, *, camera: str, num_frames: int, image_size: int) -> Path:
    """Converts a recording to LZF and to Lance, once; returns the folder that holds both."""
    import h5py

    from lewm_data.conversion.pipeline import convert

    total = json.loads((source / "meta" / "info.json").read_text())["total_frames"]
    times = -(-num_frames // total)
    folder = data / f"remote-{source.name}-{camera}-x{times}-{image_size}"
    path, lance = folder / HDF5, folder / LANCE
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=data) as temporary:
            dataset = repeat_dataset(source.resolve(), Path(temporary) / "lerobot", times, camera=camera)
            convert(str(dataset), path, ConvertConfig(camera=camera, image_size=image_size))
    if not lance.exists():
        with warnings.catch_warnings(action="ignore"):
            from stable_worldmodel.data.formats.lance import LanceWriter
        with h5py.File(path) as file:
            episodes = (
                {name: list(file[name][start : start + length]) for name in (PIXELS, ACTION, STATE)}
                for start, length in zip(file[EP_OFFSET][:], file[EP_LEN][:], strict=True)
            )
            with tempfile.TemporaryDirectory(dir=data) as temporary:
                with LanceWriter(Path(temporary) / LANCE, mode="overwrite") as writer:
                    writer.write_episodes(episodes)
                shutil.move(Path(temporary) / LANCE, lance)
    return folder


def run(
    folder: Path,
    settings: Settings,
    *,
    num_workers: int,
    latency_seconds: float,
    num_rounds: int,
    num_checked: int,
    timing: dict[str, float],
) -> dict[str, Any]:
    """Compares and times every contender behind one delay."""
    reference = reference_windows(folder / HDF5, num_checked, settings)
    caches = Path(tempfile.mkdtemp(prefix="lewm_data-remote-"))
    try:
        with compiled_server.serve(folder, latency_seconds=latency_seconds) as store:
            contenders = make_contenders(store.endpoint, settings, caches, num_workers)
            compared: dict[str, str] = {}
            with contextlib.ExitStack() as stack:
                running = {name: Running(contender, store) for name, contender in contenders.items()}
                for name, started in running.items():
                    stack.callback(started.close)
                    found = compare(
                        reference,
                        started.first_windows(min(num_checked, contenders[name].batch_size)),
                        least_psnr_db=LEAST_LANCE_DB if name == "lance" else None,
                    )
                    compared[name] = str(found)
                    log(f"{name}: {found.windows} windows compared: {found}")
                rounds = interleaved(
                    list(contenders),
                    num_rounds,
                    lambda name: running[name].time_round(**timing),
                    lambda done: f"{done.windows_per_second:,.1f} windows/s",
                )
            traffic = {
                name: [round(float(np.median(values)), 2) for values in zip(*started.traffic, strict=True)]
                for name, started in running.items()
            }
    finally:
        shutil.rmtree(caches, ignore_errors=True)
    rates = {name: [done.windows_per_second for done in rounds[name]] for name in contenders}
    return {
        "latency_seconds": latency_seconds,
        "rows": [
            {
                "name": name,
                "label": LABELS[name],
                "windows_per_second": dataclasses.asdict(Spread.of(rates[name])),
                f"times_{PEER}": dataclasses.asdict(ratios(rates[name], rates[PEER])),
                "cpu_seconds_per_1000_windows": dataclasses.asdict(
                    Spread.of([done.cpu_seconds_per_1000 for done in rounds[name]])
                ),
                "open_seconds": round(contenders[name].open_seconds, 3),
                "compared": compared[name],
                "requests_per_window": traffic[name][0],
                "kilobytes_per_window": round(traffic[name][1] / 1000, 1),
                "rounds": [dataclasses.asdict(done) for done in rounds[name]],
            }
            for name in contenders
        ],
    }


def table(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    header = (
        "delay ms", "contender", "windows/s (min to max)", "times Lance", "CPU s per 1,000", "requests per window",
        "kB per window", "opened in s", "frames",
    )  # fmt: skip
    rows = []
    for part in result["parts"]:
        for row in part["rows"]:
            rate, times = row["windows_per_second"], row[f"times_{PEER}"]
            rows.append(
                (
                    f"{1000 * part['latency_seconds']:g}",
                    row["label"],
                    f"{rate['median']:,.1f} ({rate['min']:,.1f} to {rate['max']:,.1f})",
                    f"{times['median']:,.2f} ({times['min']:,.2f} to {times['max']:,.2f})",
                    f"{row['cpu_seconds_per_1000_windows']['median']:,.1f}",
                    f"{row['requests_per_window']:g}",
                    f"{row['kilobytes_per_window']:,.0f}",
                    f"{row['open_seconds']:.2f}",
                    row["compared"],
                )
            )
    return markdown(header, rows)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="64 pixels, 300 frames, two short rounds, no delay")
    parser.add_argument("--source", type=Path, default=Path("../shared/data/so101-sim"), help="LeRobot v3.0 dataset")
    parser.add_argument("--camera", default="front", help="the camera")
    parser.add_argument("--data", type=Path, default=HERE / "data", help="folder that keeps the converted files")
    parser.add_argument("--frames", type=int, help="least number of frames (8000)")
    parser.add_argument("--image_size", type=int, help="side of the frames, in pixels (224)")
    parser.add_argument("--batch_size", type=int, help="windows per batch (256)")
    parser.add_argument("--num_workers", type=int, default=2, help="threads or processes that load")
    parser.add_argument("--latency_ms", type=float, nargs="+", help="delays before each response (0 and 20)")
    parser.add_argument("--rounds", type=int, help="rounds of each contender (3)")
    parser.add_argument("--seconds", type=float, help="least counted seconds of a round (5)")
    parser.add_argument("--warmup_seconds", type=float, help="least seconds before them (2)")
    parser.add_argument("--output", type=Path, help="JSON to write (benchmarks/results/remote.json)")
    options = parser.parse_args(arguments)
    full = {
        "frames": 8000, "image_size": 224, "batch_size": 256, "latency_ms": [0, 20], "rounds": 3, "seconds": 5.0,
        "warmup_seconds": 2.0,
    }  # fmt: skip
    quick = {
        "frames": 300, "image_size": 64, "batch_size": 16, "latency_ms": [0], "rounds": 2, "seconds": 0.5,
        "warmup_seconds": 0.2,
    }  # fmt: skip
    for name, value in (quick if options.quick else full).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    options.output = options.output or HERE / ("data/quick" if options.quick else "results") / "remote.json"
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints the table, and writes JSON; returns 2 where nginx is missing."""
    options = _options(arguments)
    if not compiled_server.is_available():
        log(f"Nothing was measured: {compiled_server.HINT}")
        return 2
    settings = Settings(batch_size=options.batch_size)
    circumstances = machine()
    options.data.mkdir(parents=True, exist_ok=True)
    folder = prepare(
        options.source, options.data, camera=options.camera, num_frames=options.frames, image_size=options.image_size
    )
    timing = {"seconds": options.seconds, "warmup_seconds": options.warmup_seconds}
    parts = [
        run(
            folder,
            settings,
            num_workers=options.num_workers,
            latency_seconds=latency / 1000,
            num_rounds=options.rounds,
            num_checked=min(8, settings.batch_size),
            timing=timing,
        )
        for latency in options.latency_ms
    ]
    result = {
        "benchmark": "remote",
        "source": f"{options.source.name}, camera {options.camera}, {(folder / HDF5).stat().st_size / 1e6:,.0f} MB of "
        f"LZF at {options.image_size}x{options.image_size}, behind nginx on loopback",
        "machine": circumstances,
        "versions": versions(
            "lewm_data", "s3fs", "aiobotocore", "fsspec", "h5py", "torch", "stable-worldmodel", "lancedb", "pylance"
        ),
        "settings": {
            **dataclasses.asdict(settings), **timing, "rounds": options.rounds, "num_workers": options.num_workers
        },
        "parts": parts,
        "load_at_end": round(os.getloadavg()[0], 2),
    }  # fmt: skip
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
