"""How fast is a conversion, beside only decoding the same video with the same threads?

Prints frames per second of both and their ratio, run by run and interleaved, so that a noisy machine spoils both
alike. The decoder is PyAV with the settings of the conversion; nothing is scaled, compressed or written there.

    python benchmarks/conversion.py --source DATASET --camera NAME
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import av

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.datasets import repeat_dataset
from lewm_data.config import ConvertConfig
from lewm_data.conversion.decode import num_decode_threads
from lewm_data.conversion.pipeline import convert
from lewm_data.conversion.source import needed_files, open_source
from lewm_data.resources import num_cpus
from lewm_data.schema import COMPRESSIONS

RESULTS = Path(__file__).parent / "results"


def decode_only(root: Path, files: list[str], threads: int) -> tuple[int, float]:
    """Decodes every frame of some videos and throws it away; returns frames and seconds."""
    started = time.perf_counter()
    frames = 0
    for file in files:
        with av.open(str(root / file)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            stream.codec_context.thread_count = threads
            for _ in container.decode(stream):
                frames += 1
    return frames, time.perf_counter() - started


def peak_memory_bytes(source: Path, camera: str, compression: str, output: Path) -> int:
    """Peak resident memory of one whole ``lewm-data convert`` process, as the kernel counts it."""
    code = (
        "import resource, subprocess, sys\n"
        "subprocess.run([sys.executable, '-m', 'lewm_data.cli', 'convert', *sys.argv[1:]], check=True,"
        " stderr=subprocess.DEVNULL)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)"
    )
    arguments = [str(source), str(output), "--camera", camera, "--compression", compression, "--overwrite"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    return int(done.stdout)


def measure(source: Path, camera: str, compressions: list[str], repeats: int) -> list[dict[str, Any]]:
    """Measures every codec, interleaved with decoding; the first round warms up and is not counted."""
    dataset = open_source(str(source)).dataset
    assert dataset is not None
    key = dataset.find_camera(camera)
    assert key is not None
    files = sorted({file for file in needed_files(dataset, [key]) if file.endswith(".mp4")})
    threads = num_decode_threads()
    rows: dict[str, dict[str, Any]] = {
        name: {"compression": name, "decode_fps": [], "convert_fps": [], "whole_fps": [], "ratios": []}
        for name in compressions
    }
    with tempfile.TemporaryDirectory(dir=".") as folder:
        output = Path(folder) / "out.h5"
        for round_number in range(repeats + 1):
            for name, row in rows.items():
                frames, seconds = decode_only(dataset.root, files, threads)
                config = ConvertConfig(camera=camera, compression=name, overwrite=True)  # type: ignore[arg-type]
                done = convert(str(source), output, config)
                if round_number == 0:
                    row["bytes_per_frame"] = round(done.file_bytes / frames)
                    row["peak_memory_bytes"] = peak_memory_bytes(source, camera, name, output)
                    continue
                row["decode_fps"].append(round(frames / seconds, 1))
                row["convert_fps"].append(round(done.frames_per_second, 1))
                row["whole_fps"].append(round(frames / done.seconds, 1))
                row["ratios"].append(round(done.frames_per_second / (frames / seconds), 3))
    return list(rows.values())


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown; medians, with the ratio's spread."""
    lines = [
        "| codec | decode only, frames/s | convert, f/s | ratio (min, max) | with inspection | KB/frame | peak MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        median = {name: statistics.median(row[name]) for name in ("decode_fps", "convert_fps", "whole_fps", "ratios")}
        lines.append(
            f"| {row['compression']} | {median['decode_fps']:,.0f} | {median['convert_fps']:,.0f} "
            f"| {median['ratios']:.2f} ({min(row['ratios']):.2f} to {max(row['ratios']):.2f}) "
            f"| {median['whole_fps']:,.0f} | {row['bytes_per_frame'] / 1000:,.1f} "
            f"| {row['peak_memory_bytes'] / 2**20:,.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measures, prints a table, and writes it with its circumstances to ``benchmarks/results/conversion.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=Path("../shared/data/so101-sim"), help="LeRobot v3.0 dataset")
    parser.add_argument("--camera", default="front", help="camera to convert")
    parser.add_argument("--times", type=int, default=4, help="lay the recording out so many times over")
    parser.add_argument("--repeats", type=int, default=5, help="counted runs of each")
    parser.add_argument("--compression", nargs="+", default=list(COMPRESSIONS), choices=COMPRESSIONS)
    parser.add_argument("--output", type=Path, default=RESULTS / "conversion.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=".") as folder:
        source = options.source.resolve()
        if options.times > 1:
            source = repeat_dataset(source, Path(folder) / options.source.name, options.times)
        rows = measure(source, options.camera, options.compression, options.repeats)
    result = {
        "benchmark": "conversion",
        "source": f"{options.source.name} x {options.times}, camera {options.camera}",
        "machine": {"processor": platform.processor() or platform.machine(), "cpus": num_cpus()},
        "versions": {name: version(name) for name in ("lewm_data", "av", "h5py", "imagecodecs", "blosc2", "numpy")},
        "repeats": options.repeats,
        "rows": rows,
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
