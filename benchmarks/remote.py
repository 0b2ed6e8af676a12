"""Windows per second from object storage: lewm_data, and stable-worldmodel's Lance and HDF5 readers.

nginx serves the files on loopback as an S3 bucket, without and with a delay before each response, as a distant store
has it. Every contender draws the same windows in the same shuffled order with the same number of threads or processes.
First, their windows are compared with those of a plain h5py loop over the local file, those of lossy files by PSNR.
Rounds are interleaved, and ratios taken round by round. After each round, everything rests until the workers have
read ahead what they may, so that no contender works in another's round, and each request belongs to a window.

    python -m benchmarks.remote            8 minutes on two cores; the first run also converts about 8,000 frames
    python -m benchmarks.remote --quick    small and short: shows that it works; its numbers mean nothing
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from benchmarks import compiled_server
from benchmarks.comparison import compare, reference_windows
from benchmarks.contenders.base import Arrays, Settings
from benchmarks.drawings import draw
from benchmarks.harness import (
    Round,
    Spread,
    interleaved,
    log,
    machine,
    measure_round,
    ratios,
    tree_cpu_seconds,
    versions,
)
from benchmarks.remote_contenders import (
    CACHED,
    FILES,
    HDF5,
    LABELS,
    LOSSY,
    PEER,
    Contender,
    make_contenders,
    prepare,
    stored_bytes,
)
from benchmarks.remote_table import remote_blocks
from benchmarks.tables import PLACE
from lewm_data.format.schema import ACTION, PIXELS, STATE

HERE = Path(__file__).parent
DEFAULT_DELAYS_MS = (0.0, 20.0)
MAX_SETTLE_SECONDS = 30.0
LEAST_DB = 25.0
"""Of lossy frames: far above the PSNR of two different frames, below that of any of the contenders."""


def arrays(batch: Any) -> Arrays:
    """A batch for comparison."""
    found = {name: batch[name].numpy() for name in (PIXELS, ACTION, STATE)}
    return found | {PIXELS: found[PIXELS].transpose(0, 1, 3, 4, 2)}


def settle() -> None:
    """Waits until this process and its children rest: they use less than a tenth of one processor."""
    deadline = time.monotonic() + MAX_SETTLE_SECONDS
    while time.monotonic() < deadline:
        before = tree_cpu_seconds()
        time.sleep(0.3)
        if tree_cpu_seconds() - before < 0.03:
            return
    log(f"the workers did not come to rest in {MAX_SETTLE_SECONDS:g} s")


def _num_waits() -> int:
    """How often a thread of this process has given up the processor to wait."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw


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
        self.traffic: list[tuple[float, float, float]] = []
        """Requests, bytes and waits per window, of each round. Waits are those of this process's threads."""

    def first_windows(self, num_windows: int) -> Arrays:
        """The first windows of the order."""
        first = {name: values[:num_windows].copy() for name, values in arrays(next(self._batches)).items()}
        settle()
        return first

    def time_round(self, *, seconds: float, warmup_seconds: float) -> Round:
        """One round."""
        num_windows = 0

        def sizes() -> Iterator[int]:
            nonlocal num_windows
            for batch in self._batches:
                batch[PIXELS][0, 0, 0, 0, 0].item()
                num_windows += len(batch[PIXELS])
                yield len(batch[PIXELS])

        before, waits = self._store.traffic(), _num_waits()
        multiple = self._contender.num_in_work
        done = measure_round(sizes, seconds=seconds, warmup_seconds=warmup_seconds, multiple=multiple)
        waits = _num_waits() - waits
        settle()
        requests, num_bytes = (now - then for now, then in zip(self._store.traffic(), before, strict=True))
        self.traffic.append((requests / num_windows, num_bytes / num_windows, waits / num_windows))
        return done

    def close(self) -> None:
        """Stops the workers."""
        self._batches.close()  # type: ignore[attr-defined]


def run(
    folder: Path,
    settings: Settings,
    *,
    num_workers: int,
    latency_seconds: float,
    names: Sequence[str],
    num_rounds: int,
    num_checked: int,
    timing: dict[str, float],
) -> dict[str, Any]:
    """Compares and times contenders behind one delay."""
    reference = reference_windows(folder / HDF5, num_checked, settings)
    caches = Path(tempfile.mkdtemp(prefix="lewm_data-remote-"))
    try:
        with compiled_server.serve(folder, latency_seconds=latency_seconds) as store:
            contenders = make_contenders(store.endpoint, settings, caches, num_workers, names)
            compared: dict[str, str] = {}
            with contextlib.ExitStack() as stack:
                running = {name: Running(contender, store) for name, contender in contenders.items()}
                for name, started in running.items():
                    stack.callback(started.close)
                    found = compare(
                        reference,
                        started.first_windows(min(num_checked, contenders[name].batch_size)),
                        least_psnr_db=LEAST_DB if name in LOSSY else None,
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
    with h5py.File(folder / HDF5) as file:
        num_frames = len(file[PIXELS])
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
                "is_lossy": name in LOSSY,
                "bytes_per_frame": round(stored_bytes(folder / FILES[name]) / num_frames),
                "requests_per_window": traffic[name][0],
                "kilobytes_per_window": round(traffic[name][1] / 1000, 1),
                "waits_per_window": traffic[name][2],
                "rounds": [dataclasses.asdict(done) for done in rounds[name]],
            }
            for name in contenders
        ],
    }


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
    parser.add_argument("--seconds", type=float, help="least counted seconds of a round (3)")
    parser.add_argument("--warmup_seconds", type=float, help="least seconds before them (1)")
    parser.add_argument("--output", type=Path, help="JSON to write (benchmarks/results/remote.json)")
    options = parser.parse_args(arguments)
    full = {
        "frames": 8000, "image_size": 224, "batch_size": 256, "latency_ms": DEFAULT_DELAYS_MS, "rounds": 3,
        "seconds": 3.0, "warmup_seconds": 1.0,
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
    circumstances, began = machine(), time.perf_counter()
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
            # What the local cache holds is not asked of the store, whatever the delay.
            names=[name for name in LABELS if name != CACHED or latency == options.latency_ms[0]],
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
        "seconds": round(time.perf_counter() - began, 1),
        "load_at_end": round(os.getloadavg()[0], 2),
    }  # fmt: skip
    options.output.parent.mkdir(parents=True, exist_ok=True)
    partial = options.output.with_name(f"{options.output.name}.partial")
    partial.write_text(json.dumps(result, indent=2) + "\n")
    partial.replace(options.output)
    draw("remote", result, options.output.parent)
    print("\n\n".join(text for _, text in remote_blocks(result) if PLACE not in text))
    return 0


if __name__ == "__main__":
    sys.exit(main())
