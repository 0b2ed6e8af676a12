"""What a very large file costs to open and to read: time and memory, each in a process of its own.

The file has tiny frames, so that ten million of them fit on the disk: what grows with the number of frames and episodes
is the byte index, the small columns and the order of the windows, and these do not depend on the size of a frame. Its
frames are noise, stored raw behind an lzf filter, as the writer does with what does not compress.

    python benchmarks/scaling.py            10,000,000 frames in 50,000 episodes; made at the first run (2.4 GB)
    python benchmarks/scaling.py --quick    a thousandth of it
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from benchmarks.harness import Spread, machine, markdown, versions

HERE = Path(__file__).parent
SIDE = 8


def build_file(path: Path, *, num_frames: int, num_episodes: int) -> None:
    """Writes a file of format version 1 by writing its chunks directly.

    Args:
        path: The file to make.
        num_frames: Frames in all, a multiple of the episodes.
        num_episodes: Episodes, all of one length.
    """
    import h5py
    import imagecodecs

    from lewm_data.conversion.writer import LIBVER
    from lewm_data.schema import CODEC_SKIPPED_MASK, ROWS_PER_CHUNK, FileHeader, SourceRecord

    random = np.random.default_rng(0)
    length = num_frames // num_episodes
    frames = random.integers(0, 256, (1000, SIDE, SIDE, 3), np.uint8)
    chunks = []
    for frame in frames:
        checksum = int(imagecodecs.h5checksum_fletcher32(frame.tobytes())).to_bytes(4, "little")
        chunks.append(frame.tobytes() + checksum)
    header = FileHeader(
        lewm_data_version="0",
        sources=(
            SourceRecord(
                repo_id="benchmark/scaling", revision=None, codebase_version="v3.0", episodes=tuple(range(num_episodes))
            ),
        ),
        fps=30.0,
        cameras={"pixels": "observation.images.front"},
        image_height=SIDE,
        image_width=SIDE,
        resize="stretch",
        compression="lzf",
        done_source="last_step",
        fingerprint="scaling",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"partial-{os.getpid()}-{path.name}")
    with h5py.File(partial, "w", libver=LIBVER) as file:  # it decides how chunks are indexed
        shape = (num_frames, SIDE, SIDE, 3)
        pixels = file.create_dataset("pixels", shape, "u1", chunks=(1, *shape[1:]), compression="lzf", fletcher32=True)
        write = pixels.id.write_direct_chunk
        for row in range(num_frames):
            write((row, 0, 0, 0), chunks[row % 1000], CODEC_SKIPPED_MASK)
        steps = np.arange(num_frames)
        columns = {
            "action": random.normal(size=(num_frames, 2)).astype(np.float32),
            "state": random.normal(size=(num_frames, 2)).astype(np.float32),
            "done": steps % length == length - 1,
            "episode_idx": (steps // length).astype(np.int32),
            "step_idx": (steps % length).astype(np.int32),
        }
        for name, values in columns.items():
            file.create_dataset(name, data=values, chunks=(min(ROWS_PER_CHUNK, num_frames), *values.shape[1:]))
        file["ep_len"] = np.full(num_episodes, length, np.int32)
        file["ep_offset"] = (np.arange(num_episodes) * length).astype(np.int64)
        file.attrs.update(header.to_attributes())
    os.rename(partial, path)


def probe_open(path: Path) -> dict[str, float]:
    """Opens the store in this process, and nothing else."""
    from lewm_data.loading.store import FrameStore
    from lewm_data.resources import peak_memory_bytes

    before = peak_memory_bytes()
    began = time.perf_counter()
    store = FrameStore(path)
    seconds = time.perf_counter() - began
    assert store.num_rows
    return {"seconds": seconds, "imports_mb": before / 1e6, "peak_mb": peak_memory_bytes() / 1e6}


def probe_epochs(path: Path, *, num_epochs: int, steps_per_epoch: int, num_workers: int) -> dict[str, Any]:
    """Opens the file, takes the first batch, and goes through some epochs; memory after each."""
    from lewm_data.loading.dataset import WindowDataset
    from lewm_data.loading.loader import WindowLoader
    from lewm_data.loading.sampler import WindowOrder, WindowSampler
    from lewm_data.loading.store import FrameStore
    from lewm_data.resources import peak_memory_bytes, resident_memory_bytes

    began = time.perf_counter()
    store = FrameStore(path)
    opened = time.perf_counter()
    dataset = WindowDataset(store)
    order = WindowOrder(num_windows=len(dataset), batch_size=256, steps_per_epoch=steps_per_epoch)
    loader = WindowLoader(dataset, WindowSampler(order), num_workers=num_workers)
    resident, rates = [], []
    first_batch = 0.0
    for _ in range(num_epochs):
        begun = time.perf_counter()
        for batch in loader:
            first_batch = first_batch or time.perf_counter() - opened
            del batch
        rates.append(256 * steps_per_epoch / (time.perf_counter() - begun))
        resident.append(resident_memory_bytes() / 1e6)
    loader.close()
    return {
        "open_seconds": opened - began,
        "first_batch_seconds": first_batch,
        "resident_mb_after_epochs": resident,
        "windows_per_second": rates,
        "peak_mb": peak_memory_bytes() / 1e6,
        "num_windows": len(dataset),
    }


def judge(result: dict[str, Any]) -> list[tuple[str, float, float, str]]:
    """Holds the measurement against issue B's targets.

    Args:
        result: As ``main`` writes it.

    Returns:
        What, the measured value, the target below which it must lie, and PASS or FAIL.
    """
    resident = result["epochs"]["resident_mb_after_epochs"]
    measured = (
        ("first opening, s", result["first_opening"]["seconds"], 20.0),
        ("later openings, s (median)", result["later_openings"]["seconds"]["median"], 3.0),
        ("peak memory of a process that opens it first, MB", result["first_opening"]["peak_mb"], 400.0),
        ("peak memory of a process that opens it later, MB", result["later_openings"]["peak_mb"]["median"], 400.0),
        ("first batch after opening, s", result["epochs"]["first_batch_seconds"], 1.0),
        ("growth of memory from the first to the last epoch, share", resident[-1] / resident[0] - 1, 0.02),
    )
    return [(what, value, below, "PASS" if value < below else "FAIL") for what, value, below in measured]


def table(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    rows = [(what, f"{value:,.3g}", f"< {below:g}", outcome) for what, value, below, outcome in judge(result)]
    epochs = result["epochs"]
    resident = ", ".join(f"{value:,.0f}" for value in epochs["resident_mb_after_epochs"])
    rates = ", ".join(f"{value:,.0f}" for value in epochs["windows_per_second"])
    return "\n\n".join(
        [
            f"{result['num_frames']:,} frames in {result['num_episodes']:,} episodes, "
            f"{result['file_bytes'] / 1e9:.2f} GB and an index of {result['index_bytes'] / 1e6:,.0f} MB:",
            markdown(("what", "measured", "target", ""), rows),
            f"Resident MB after each epoch of {result['steps_per_epoch']:,} batches (torch and all columns included): "
            f"{resident}; windows/s in it: {rates}.",
        ]
    )


def _in_new_process(path: Path, probe: str, **keywords: int) -> dict[str, Any]:
    """Runs a probe of this file in a fresh interpreter."""
    command = [sys.executable, str(Path(__file__).resolve()), "--probe", probe, "--file", str(path)]
    done = subprocess.run([*command, "--keywords", json.dumps(keywords)], capture_output=True, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


PROBES: dict[str, Callable[..., dict[str, Any]]] = {"open": probe_open, "epochs": probe_epochs}


def main(arguments: Sequence[str] | None = None) -> None:
    """Builds the file where it is not there, measures, prints a table and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="10,000 frames in 50 episodes, 20 batches an epoch")
    parser.add_argument("--frames", type=int, help="frames in all (10000000)")
    parser.add_argument("--episodes", type=int, help="episodes, all of one length (50000)")
    parser.add_argument("--steps_per_epoch", type=int, help="batches of 256 in an epoch (3000)")
    parser.add_argument("--epochs", type=int, default=3, help="epochs")
    parser.add_argument("--openings", type=int, default=5, help="later openings")
    parser.add_argument("--num_workers", type=int, default=2, help="threads that load")
    parser.add_argument("--data", type=Path, default=HERE / "data", help="folder that keeps the file")
    parser.add_argument("--output", type=Path, help="JSON to write (benchmarks/results/scaling.json)")
    parser.add_argument("--probe", choices=PROBES, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--keywords", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.probe:
        print(json.dumps(PROBES[options.probe](options.file, **options.keywords)))
        return
    num_frames = options.frames or (10_000 if options.quick else 10_000_000)
    num_episodes = options.episodes or (50 if options.quick else 50_000)
    steps_per_epoch = options.steps_per_epoch or (20 if options.quick else 3000)
    output = options.output or HERE / ("data/quick" if options.quick else "results") / "scaling.json"
    circumstances = machine()
    path = options.data / f"scaling-{num_frames}-{num_episodes}-fixed-array.h5"
    if not path.exists():
        print(f"preparing {path}", file=sys.stderr, flush=True)
        build_file(path, num_frames=num_frames, num_episodes=num_episodes)
    index = path.with_name(f"{path.name}.pixels.index.npz")
    index.unlink(missing_ok=True)
    first = _in_new_process(path, "open")
    later = [_in_new_process(path, "open") for _ in range(options.openings)]
    epochs = _in_new_process(
        path, "epochs", num_epochs=options.epochs, steps_per_epoch=steps_per_epoch, num_workers=options.num_workers
    )
    result = {
        "benchmark": "scaling",
        "machine": circumstances,
        "versions": versions("lewm_data", "h5py", "numpy", "torch", "imagecodecs"),
        "num_frames": num_frames,
        "num_episodes": num_episodes,
        "steps_per_epoch": steps_per_epoch,
        "file_bytes": path.stat().st_size,
        "index_bytes": index.stat().st_size if index.exists() else 0,
        "first_opening": first,
        "later_openings": {
            name: dataclasses.asdict(Spread.of([opening[name] for opening in later])) for name in later[0]
        },
        "epochs": epochs,
    }
    result["targets"] = judge(result)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=2) + "\n")
    print(table(result))


if __name__ == "__main__":
    main()
