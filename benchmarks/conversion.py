"""How fast is a conversion, and how much memory does it take?

Beside only decoding the same video with the same threads, for every codec of the file, every source codec, resolutions
from 240p to 1080p and micro-batches of 1 to 512; beside stable-worldmodel's LeRobot adapter and HDF5 writer on the same
dataset, its frames compared with ours; and the writing alone, in micro-batches and chunks of matching and mismatched
sizes. Runs are interleaved, so that a noisy machine spoils all alike.

    python benchmarks/conversion.py            the videos are recorded at the first run
    python benchmarks/conversion.py --full     more frames, more rounds
    python benchmarks/conversion.py --quick    small and short: to see that it works, not to believe its numbers
    python benchmarks/conversion.py --source DATASET --camera NAME     codecs and micro-batches on a video of your own
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

if not __package__:  # run as a script, whose folder would hide other packages' datasets and codecs
    sys.path[0] = str(Path(__file__).parents[1])

from benchmarks import conversion_report as report
from benchmarks.conversions.cases import Case, measure_cases
from benchmarks.conversions.chunks import DIRECT, measure_chunks
from benchmarks.conversions.peer import measure_peer
from benchmarks.datasets import SYNTHETIC, decoded_frames, log, once, recorded, repeat_dataset
from benchmarks.results import Run, Sizes, make_parser, parse
from benchmarks.synthetic import STANDARD, Recording
from benchmarks.words import show
from lewm_data.config import COMPRESSIONS

HEIGHTS = {240: 320, 360: 480, 480: 640, 720: 1280, 1080: 1920}
"""Rows of a frame to its columns."""

_SECTIONS = ("codecs", "peer", "sources", "micro_batches", "chunks")

SIZES: Sizes = {
    "quick": {
        "rounds": 1, "recording": Recording(num_episodes=1, num_steps=24, height=96, width=128, codec="h264"),
        "source_steps": 12, "heights": (96,), "micro_batches": (1, 16), "chunk_frames": (DIRECT, 1, 16),
        "write_seconds": 0.02, "side": 48, "times": 2, "source_times": 0,
        "peer_recording": Recording(num_episodes=2, num_steps=8, height=96, width=128, codec="h264"),
    },
    "bench": {
        "rounds": 3, "recording": STANDARD,
        "source_steps": 60, "heights": tuple(HEIGHTS), "micro_batches": (1, 8, 64, 512),
        "chunk_frames": (DIRECT, 1, 64, 100), "write_seconds": 0.2, "side": 224, "times": 1, "source_times": 4,
        "peer_recording": Recording(num_episodes=2, num_steps=167),
    },
    "full": {
        "rounds": 7, "recording": Recording(num_episodes=1, num_steps=1200),
        "source_steps": 500, "heights": tuple(HEIGHTS), "micro_batches": (1, 2, 4, 8, 16, 32, 64, 100, 128, 256, 512),
        "chunk_frames": (DIRECT, 1, 4, 16, 64, 100, 256), "write_seconds": 2.0, "side": 224, "times": 4,
        "source_times": 4,
        "peer_recording": Recording(num_episodes=6, num_steps=167),
    },
}  # fmt: skip


def recordings_by_source(options: argparse.Namespace) -> dict[str, Recording]:
    """The recordings of the section ``sources``: all codecs at one height, and all heights in LeRobot's own codec."""
    middle = 480 if 480 in options.heights else options.heights[0]
    pairs = [*((codec, middle) for codec in ("h264", "hevc")), *(("av1", height) for height in options.heights)]
    made = {}
    for codec, height in pairs:
        # Two episodes, since LeRobot's recorder queues one whole.
        width = HEIGHTS.get(height, height * 4 // 3)
        made[f"{codec} {height}p"] = Recording(
            num_episodes=2, num_steps=options.source_steps // 2, height=height, width=width, codec=codec
        )
    return made


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measures the sections that were asked for.

    Returns:
        ``rows`` (codecs of the file), ``micro_batches``, ``sources``, ``peer`` and ``chunks``.
    """
    synthetic = options.source == SYNTHETIC
    by_source = recordings_by_source(options) if "sources" in options.sections else {}
    for_peer = [options.peer_recording] if "peer" in options.sections else []
    for_us = [options.recording] if synthetic else []
    folders = recorded(options.data, [*by_source.values(), *for_us, *for_peer])
    sources = dict(zip(by_source, folders, strict=False))
    source = folders[len(by_source)] if synthetic else Path(options.source).resolve()
    size = {"image_size": options.side}
    fewer = max(1, options.rounds - 1)

    def on_source(settings: Sequence[dict[str, Any]], rounds: int, times: int = 1) -> list[dict[str, Any]]:
        longer = _laid_out(source, times, options.data) if synthetic else source
        cases = [Case(source=longer, camera=options.camera, settings={**size, **one}, facts=one) for one in settings]
        return measure_cases(cases, rounds, folder=options.data)

    def on_sources() -> list[dict[str, Any]]:
        cases = []
        for name, made in by_source.items():
            facts = {"source": name, "codec": made.codec, "height": made.height, "width": made.width}
            times = round(options.source_times * (480 / made.height) ** 2)  # small frames are done in no time
            longer = _laid_out(sources[name], max(1, times), options.data)
            cases.append(Case(source=longer, camera="front", settings=size, facts=facts))
        return measure_cases(cases, fewer, folder=options.data)

    def peer() -> dict[str, Any]:
        made = options.peer_recording
        facts = {"source": f"{made.codec} {made.width}x{made.height}", "episode_steps": made.num_steps}
        return {**facts, **measure_peer(folders[-1], "front", fewer, folder=options.data)}

    def chunks() -> list[dict[str, Any]]:
        return measure_chunks(
            decoded_frames(source, options.camera, side=options.side, num_frames=64, folder=options.data),
            micro_batches=options.micro_batches,
            chunk_frames=options.chunk_frames,
            seconds=options.write_seconds,
            num_rounds=fewer,
            folder=options.data,
        )

    sections: dict[str, tuple[str, Callable[[], Any]]] = {
        "codecs": (
            "rows",
            lambda: on_source([{"compression": codec} for codec in options.compression], options.rounds, options.times),
        ),
        "micro_batches": (
            "micro_batches",
            lambda: on_source([{"micro_batch": n} for n in options.micro_batches], fewer),
        ),
        "sources": ("sources", on_sources),
        "peer": ("peer", peer),
        "chunks": ("chunks", chunks),
    }
    found = {}
    for name in options.sections:
        log(f"conversion: {name}")
        key, section = sections[name]
        found[key] = section()
    return found


def _laid_out(source: Path, times: int, data: Path) -> Path:
    """A recording so many times over: what a conversion costs once must not be all that is seen."""
    if times == 1:
        return source
    return once(data / f"{source.name}-x{times}", lambda out: repeat_dataset(source.resolve(), out, times))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints the tables, and writes JSON and charts."""
    parser = make_parser(__doc__)
    parser.add_argument("--source", default=SYNTHETIC, help="LeRobot v3.0 dataset (recorded for the purpose)")
    parser.add_argument("--camera", default="front", help="its camera to convert")
    parser.add_argument("--rounds", type=int, help="counted runs of each, of what is no claim one fewer (3; full 7)")
    parser.add_argument("--compression", nargs="+", default=list(COMPRESSIONS), choices=COMPRESSIONS)
    parser.add_argument("--sections", nargs="+", default=list(_SECTIONS), choices=_SECTIONS, help="only these")
    options = parse(parser, arguments, name=report.NAME, sizes=SIZES)
    this = Run(report.NAME, options.form, "av", "h5py", "imagecodecs", "blosc2", "stable-worldmodel", "lerobot")
    name = options.recording.name if options.source == SYNTHETIC else Path(options.source).name
    measured = measure(options)
    result = this.finish(
        options.output,
        {
            "source": f"{name}, camera {options.camera}",
            "image_size": options.side,
            "repeats": options.rounds,
            **measured,
        },
    )
    report.draw(result, options.output.parent)
    print(show(report.blocks(result)))


if __name__ == "__main__":
    main()
