"""How fast is a conversion compared with decoding alone, and how much memory does it take?

For every codec of the file, every source codec, frames of 240 to 1080 rows and micro-batches of 1 to 512; compared with
stable-worldmodel's LeRobot adapter and HDF5 writer on the same dataset; and the writing alone, in matching and
mismatched micro-batches and chunks. Runs are interleaved.

    python -m benchmarks.conversion            the first run records the videos
    python -m benchmarks.conversion --full     more frames, more rounds
    python -m benchmarks.conversion --quick    small and short: shows that it works; its numbers mean nothing
    python -m benchmarks.conversion --source DATASET --camera NAME     codecs and micro-batches on your video
    python -m benchmarks.conversion --against CHECKOUT --sections codecs     is another version slower?
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.conversion_cases import Case, measure_cases
from benchmarks.conversion_chunks import DIRECT, measure_chunks
from benchmarks.conversion_peer import measure_peer
from benchmarks.datasets import SYNTHETIC, decoded_frames, recorded, repeated, source_folder
from benchmarks.harness import log
from benchmarks.runner import Benchmark, Option
from benchmarks.synthetic import LONG, STANDARD, Recording
from lewm_data.config import COMPRESSIONS

HEIGHTS = {240: 320, 360: 480, 480: 640, 720: 1280, 1080: 1920}
"""Rows of a frame to its columns."""
SECTIONS = ("codecs", "peer", "sources", "micro_batches", "chunks")
_SMALL: dict[str, Any] = {"height": 96, "width": 128, "codec": "h264"}

OPTIONS = {
    "source": Option("LeRobot v3.0 dataset", SYNTHETIC),
    "camera": Option("the camera", "front"),
    "rounds": Option("counted runs of each codec; of the rest one fewer", 1, 3, 7),
    "compression": Option("codecs of the file", tuple(COMPRESSIONS), choices=COMPRESSIONS),
    "sections": Option("parts to measure", SECTIONS, choices=SECTIONS),
    "recording": Option("", Recording(num_episodes=1, num_steps=24, **_SMALL), STANDARD, LONG),
    "peer_recording": Option("", Recording(num_episodes=2, num_steps=8, **_SMALL),
                             Recording(num_episodes=2, num_steps=167), Recording(num_episodes=6, num_steps=167)),
    "source_steps": Option("", 12, 60, 500),
    "heights": Option("", (96,), tuple(HEIGHTS), tuple(HEIGHTS)),
    "micro_batches": Option("", (1, 16), (1, 8, 64, 512), (1, 2, 4, 8, 16, 32, 64, 100, 128, 256, 512)),
    "chunk_frames": Option("", (DIRECT, 1, 16), (DIRECT, 1, 64, 100), (DIRECT, 1, 4, 16, 64, 100, 256)),
    "write_seconds": Option("", 0.02, 0.2, 2.0),
    "side": Option("", 48, 224, 224),
    "times": Option("", 2, 1, 4),
    "source_times": Option("", 0, 4, 4),
}  # fmt: skip


def recordings_by_source(options: argparse.Namespace) -> dict[str, Recording]:
    """The recordings of the section ``sources``: each codec at one height, and each height in LeRobot's own codec."""
    middle = 480 if 480 in options.heights else options.heights[0]
    pairs = [("h264", middle), ("hevc", middle), *(("av1", height) for height in options.heights)]
    # Two episodes, since LeRobot's recorder queues a whole one.
    steps = {"num_episodes": 2, "num_steps": options.source_steps // 2}
    return {
        f"{codec} {height}p": Recording(**steps, height=height, width=HEIGHTS.get(height, height * 4 // 3), codec=codec)
        for codec, height in pairs
    }


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measures the sections that the options name."""
    source = source_folder(options)
    fewer, data = max(1, options.rounds - 1), options.data

    def on_source(name: str, values: Any, rounds: int, times: int = 1) -> list[dict[str, Any]]:
        dataset = repeated(source, times, data) if options.source == SYNTHETIC else source
        cases = [
            Case(source=dataset, camera=options.camera, settings={"image_size": options.side, name: value},
                 facts={name: value}) for value in values
        ]  # fmt: skip
        return measure_cases(cases, rounds, folder=data)

    def sources() -> list[dict[str, Any]]:
        by_source = recordings_by_source(options)
        cases = []
        for folder, (name, made) in zip(recorded(data, list(by_source.values())), by_source.items(), strict=True):
            times = round(options.source_times * (480 / made.height) ** 2)  # small frames convert too fast to time
            facts = {"source": name, "codec": made.codec, "height": made.height, "width": made.width}
            dataset = repeated(folder, max(1, times), data)
            cases.append(Case(source=dataset, camera="front", settings={"image_size": options.side}, facts=facts))
        return measure_cases(cases, fewer, folder=data)

    def peer() -> dict[str, Any]:
        made = options.peer_recording
        facts = {"source": f"{made.codec} {made.width}x{made.height}", "episode_steps": made.num_steps}
        return facts | measure_peer(recorded(data, [made])[0], "front", fewer, folder=data)

    def chunks() -> list[dict[str, Any]]:
        return measure_chunks(
            decoded_frames(source, options.camera, side=options.side, num_frames=64, folder=data),
            micro_batches=options.micro_batches,
            chunk_frames=options.chunk_frames,
            seconds=options.write_seconds,
            num_rounds=fewer,
            folder=data,
        )

    sections: dict[str, Callable[[], Any]] = {
        "codecs": lambda: on_source("compression", options.compression, options.rounds, options.times),
        "micro_batches": lambda: on_source("micro_batch", options.micro_batches, fewer),
        "sources": sources,
        "peer": peer,
        "chunks": chunks,
    }
    name = options.recording.name if options.source == SYNTHETIC else Path(options.source).name
    found = {"source": f"{name}, camera {options.camera}", "image_size": options.side, "repeats": options.rounds}
    for section in options.sections:
        log(f"conversion: {section}")
        found["rows" if section == "codecs" else section] = sections[section]()
    return found


BENCHMARK = Benchmark(
    name="conversion", doc=__doc__, options=OPTIONS, measure=measure,
    distributions=("av", "h5py", "imagecodecs", "blosc2", "stable-worldmodel", "lerobot"),
)  # fmt: skip
main = BENCHMARK.main

if __name__ == "__main__":
    main()
