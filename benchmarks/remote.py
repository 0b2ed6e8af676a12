"""Windows per second from object storage: ours and stable-worldmodel's reader over the same s3:// address.

The file lies behind an S3 stand-in on loopback (``benchmarks/object_server.py``), without and with a delay before each
answer as a real store has it. All draw the same windows in the same shuffled order, and are first compared with what a
plain h5py loop reads from the local file. Loading runs in two threads or processes; ratios are taken round by round.

    python benchmarks/remote.py            converts about 2,000 frames at the first run
    python benchmarks/remote.py --quick    small and short: to see that it works, not to believe its numbers
"""

from __future__ import annotations

import argparse
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
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from benchmarks.comparison import compare, reference_windows
from benchmarks.contenders.base import Arrays, Settings
from benchmarks.datasets import repeat_dataset
from benchmarks.harness import Round, Spread, interleave, machine, markdown, measure_round, ratios, versions
from benchmarks.object_server import serve
from lewm_data.config import ConvertConfig, RemoteConfig
from lewm_data.format.schema import ACTION, PIXELS, STATE

HERE = Path(__file__).parent
TARGET = 20.0
LABELS = {
    "ours": "lewm_data",
    "ours_kept": "lewm_data, chunks kept on the disk, after the first epoch",
    "theirs": "stable-worldmodel's HDF5Dataset",
}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RemoteSettings(Settings):
    """The same for all, and how many load.

    Attributes:
        num_workers: Threads or processes.
        mp4_batch_size: Windows in a batch of the peer.
    """

    num_workers: int = 2
    mp4_batch_size: int = 4


class Ours:
    """lewm_data's ``WindowLoader`` over an address."""

    def __init__(
        self, address: str, options: dict[str, Any], settings: RemoteSettings, folder: Path, *, kept: bool
    ) -> None:
        """Opens the file; with ``kept``, reads every frame once, so that its chunks are on the disk."""
        from lewm_data.loading.dataset import WindowDataset

        config = RemoteConfig(storage_options=options, cache_dir=str(folder), chunk_cache_bytes=1 << 40 if kept else 0)
        began = time.perf_counter()
        self._dataset = WindowDataset(
            address,
            num_steps=settings.num_steps,
            frameskip=settings.frameskip,
            columns=(PIXELS, ACTION, STATE),
            remote=config,
        )
        self.open_seconds = time.perf_counter() - began
        if kept:
            store = self._dataset.store
            for row in range(0, store.num_rows, 256):
                rows = np.arange(row, min(row + 256, store.num_rows))
                store.read_frames(PIXELS, rows, np.empty((len(rows), *store.columns[PIXELS].shape), np.uint8))
        self._settings = settings
        self.batch_size = settings.batch_size
        self.num_in_work = settings.num_workers + 2

    def batches(self, batch_size: int) -> Iterator[Any]:
        """Batches without end."""
        from lewm_data.loading.loader import WindowLoader
        from lewm_data.loading.sampler import WindowOrder, WindowSampler

        order = WindowOrder(num_windows=len(self._dataset), batch_size=batch_size, seed=self._settings.seed)
        loader = WindowLoader(self._dataset, WindowSampler(order), num_workers=self._settings.num_workers)
        try:
            while True:
                yield from loader
        finally:
            loader.close()


class Theirs:
    """stable-worldmodel's ``HDF5Dataset`` with action and state cached, as in its own benchmark's faster rows."""

    def __init__(self, address: str, options: dict[str, Any], settings: RemoteSettings) -> None:
        """Opens the file."""
        from fsspec import get_filesystem_class

        with warnings.catch_warnings(action="ignore"):
            from stable_worldmodel.data.formats.hdf5 import HDF5Dataset

        began = time.perf_counter()
        self._dataset = HDF5Dataset(
            path=address,
            num_steps=settings.num_steps,
            frameskip=settings.frameskip,
            keys_to_load=[PIXELS, ACTION, STATE],
            keys_to_cache=[ACTION, STATE],
            storage_options=options,
        )
        self.open_seconds = time.perf_counter() - began
        # A forked worker that freed this process's filesystem would make it deaf (see loading/remote_object.py).
        self._connections = list(get_filesystem_class("s3")._cache.values())
        self._settings = settings
        self.batch_size = settings.mp4_batch_size  # its rate does not depend on it, its patience does
        self.num_in_work = 2 * settings.num_workers

    def batches(self, batch_size: int) -> Iterator[Any]:
        """Batches without end."""
        from torch.utils.data import DataLoader

        from lewm_data.loading.sampler import WindowOrder

        order = WindowOrder(num_windows=len(self._dataset), batch_size=batch_size, seed=self._settings.seed)
        numbers = [order.batch(0, number * batch_size).tolist() for number in range(order.num_batches())]
        loader: DataLoader[Any] = DataLoader(
            self._dataset,
            batch_sampler=numbers * 100,
            num_workers=self._settings.num_workers,
            multiprocessing_context="fork" if self._settings.num_workers else None,
        )
        iterator = iter(loader)
        try:
            yield from iterator
        finally:
            iterator._shutdown_workers()  # type: ignore[attr-defined]


def arrays(batch: Any) -> Arrays:
    """A batch for comparison."""
    found = {name: batch[name].numpy() for name in (PIXELS, ACTION, STATE)}
    return found | {PIXELS: found[PIXELS].transpose(0, 1, 3, 4, 2)}


def first_windows(contender: Ours | Theirs, num_windows: int) -> Arrays:
    """The first windows of the order."""
    iterator = contender.batches(num_windows)
    try:
        return {name: values.copy() for name, values in arrays(next(iterator)).items()}
    finally:
        iterator.close()  # type: ignore[attr-defined]


def time_round(contender: Ours | Theirs, *, seconds: float, warmup_seconds: float) -> Round:
    """One round of a contender."""
    opened = contender.batches(contender.batch_size)

    def sizes() -> Iterator[int]:
        for batch in opened:
            batch[PIXELS][0, 0, 0, 0, 0].item()
            yield len(batch[PIXELS])

    try:
        return measure_round(sizes, seconds=seconds, warmup_seconds=warmup_seconds, multiple=contender.num_in_work)
    finally:
        opened.close()  # type: ignore[attr-defined]


def prepare(source: Path, data: Path, *, camera: str, num_frames: int, image_size: int) -> Path:
    """Converts a recording to LZF, once; returns the file, alone in its folder."""
    from lewm_data.conversion.pipeline import convert

    total = json.loads((source / "meta" / "info.json").read_text())["total_frames"]
    times = -(-num_frames // total)
    path = data / f"remote-{source.name}-{camera}-x{times}-{image_size}" / "frames.h5"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=data) as folder:
            dataset = repeat_dataset(source.resolve(), Path(folder) / "lerobot", times, camera=camera)
            convert(str(dataset), path, ConvertConfig(camera=camera, image_size=image_size))
    return path


def run(
    path: Path,
    settings: RemoteSettings,
    *,
    latency_seconds: float,
    num_rounds: int,
    num_checked: int,
    timing: dict[str, float],
) -> dict[str, Any]:
    """Compares and times everybody behind one delay."""
    reference = reference_windows(path, num_checked, settings)
    folder = Path(tempfile.mkdtemp(prefix="lewm_data-remote-"))
    rounds: dict[str, list[Round]] = {name: [] for name in LABELS}
    try:
        with serve(path.parent, latency_seconds=latency_seconds) as endpoint:
            address = f"s3://benchmark/{path.name}"
            options = {"endpoint_url": endpoint, "key": "me", "secret": "secret"}
            make: dict[str, Callable[[], Ours | Theirs]] = {
                "ours": lambda: Ours(address, options, settings, folder / "a", kept=False),
                "ours_kept": lambda: Ours(address, options, settings, folder / "b", kept=True),
                "theirs": lambda: Theirs(address, options, settings),
            }
            contenders = {name: make[name]() for name in LABELS}
            compared = {}
            for name, contender in contenders.items():
                num_windows = min(num_checked, contender.batch_size)
                found = compare(
                    {k: v[:num_windows] for k, v in reference.items()}, first_windows(contender, num_windows)
                )
                compared[name] = str(found)
                _log(f"{name}: {found.windows} windows compared: {found}; opened in {contender.open_seconds:.2f} s")
            for number, order in enumerate(interleave(list(LABELS), num_rounds)):
                for name in order:
                    done = time_round(contenders[name], **timing)
                    rounds[name].append(done)
                    _log(f"round {number + 1} of {num_rounds}, {name}: {done.windows_per_second:,.1f} windows/s")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    rates = {name: [done.windows_per_second for done in rounds[name]] for name in LABELS}
    return {
        "latency_seconds": latency_seconds,
        "rows": [
            {
                "name": name,
                "label": LABELS[name],
                "windows_per_second": dataclasses.asdict(Spread.of(rates[name])),
                "times_theirs": dataclasses.asdict(ratios(rates[name], rates["theirs"])),
                "cpu_seconds_per_1000_windows": dataclasses.asdict(
                    Spread.of([done.cpu_seconds_per_1000 for done in rounds[name]])
                ),
                "open_seconds": round(contenders[name].open_seconds, 3),
                "compared": compared[name],
                "rounds": [dataclasses.asdict(done) for done in rounds[name]],
            }
            for name in LABELS
        ],
    }


def table(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    header = ("delay ms", "who", "windows/s (min to max)", "times theirs", "cpu s per 1,000", "opened in s", "windows")
    rows = []
    for part in result["parts"]:
        for row in part["rows"]:
            rate, times = row["windows_per_second"], row["times_theirs"]
            rows.append(
                (
                    f"{1000 * part['latency_seconds']:g}",
                    row["label"],
                    f"{rate['median']:,.1f} ({rate['min']:,.1f} to {rate['max']:,.1f})",
                    f"{times['median']:,.1f} ({times['min']:,.1f} to {times['max']:,.1f})",
                    f"{row['cpu_seconds_per_1000_windows']['median']:,.1f}",
                    f"{row['open_seconds']:.2f}",
                    row["compared"],
                )
            )
    return markdown(header, rows)


def _log(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="64 pixels, 300 frames, two short rounds, no delay")
    parser.add_argument("--source", type=Path, default=Path("../shared/data/so101-sim"), help="LeRobot v3.0 dataset")
    parser.add_argument("--camera", default="front", help="the one camera to use")
    parser.add_argument("--data", type=Path, default=HERE / "data", help="folder that keeps the converted file")
    parser.add_argument("--frames", type=int, help="least frames (2000)")
    parser.add_argument("--image_size", type=int, help="side of the frames, in pixels (224)")
    parser.add_argument("--batch_size", type=int, default=64, help="windows per batch of ours")
    parser.add_argument("--num_workers", type=int, default=2, help="threads or processes that load")
    parser.add_argument("--latency_ms", type=float, nargs="+", help="delays before each answer (0 and 20)")
    parser.add_argument("--rounds", type=int, help="rounds of each (3)")
    parser.add_argument("--seconds", type=float, help="counted seconds of a round, at least (5)")
    parser.add_argument("--warmup_seconds", type=float, help="seconds before them, at least (2)")
    parser.add_argument("--output", type=Path, help="JSON to write (benchmarks/results/remote.json)")
    options = parser.parse_args(arguments)
    quick = {"frames": 300, "image_size": 64, "latency_ms": [0], "rounds": 2, "seconds": 0.5, "warmup_seconds": 0.2}
    full = {
        "frames": 2000,
        "image_size": 224,
        "latency_ms": [0, 20],
        "rounds": 3,
        "seconds": 5.0,
        "warmup_seconds": 2.0,
    }
    for name, value in (quick if options.quick else full).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    options.output = options.output or HERE / ("data/quick" if options.quick else "results") / "remote.json"
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints the table, and writes JSON."""
    options = _options(arguments)
    # The script's own folder is in the path, and its datasets.py would hide the package of that name.
    sys.path[:] = [folder for folder in sys.path if Path(folder or ".").resolve() != HERE.resolve()]
    settings = RemoteSettings(batch_size=options.batch_size, mp4_batch_size=4, num_workers=options.num_workers)
    circumstances = machine()
    options.data.mkdir(parents=True, exist_ok=True)
    path = prepare(
        options.source, options.data, camera=options.camera, num_frames=options.frames, image_size=options.image_size
    )
    timing = {"seconds": options.seconds, "warmup_seconds": options.warmup_seconds}
    parts = [
        run(
            path,
            settings,
            latency_seconds=latency / 1000,
            num_rounds=options.rounds,
            num_checked=8,
            timing=timing,
        )
        for latency in options.latency_ms
    ]
    result = {
        "benchmark": "remote",
        "source": f"{options.source.name}, camera {options.camera}, {path.stat().st_size / 1e6:,.0f} MB of LZF at "
        f"{options.image_size}x{options.image_size}, behind an S3 stand-in on loopback",
        "machine": circumstances,
        "versions": versions("lewm_data", "s3fs", "aiobotocore", "fsspec", "h5py", "torch", "stable-worldmodel"),
        "settings": {**dataclasses.asdict(settings), **timing, "rounds": options.rounds},
        "target": TARGET,
        "parts": parts,
        "load_at_end": round(os.getloadavg()[0], 2),
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(table(result))


if __name__ == "__main__":
    main()
