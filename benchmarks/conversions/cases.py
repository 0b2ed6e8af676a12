"""Conversions of ours beside only decoding the same video: interleaved, with the peak memory of a whole process."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.datasets import log
from benchmarks.harness import interleave


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One conversion to be measured.

    Attributes:
        source: A LeRobot dataset's folder.
        camera: The camera to convert.
        settings: Fields of ``ConvertConfig`` besides it.
        facts: What the result's row shall say of it.
    """

    source: Path
    camera: str
    settings: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


def decode_only(source: Path, camera: str) -> tuple[int, float]:
    """Decodes every frame of a camera with the settings of a conversion, and throws it away.

    Nothing is scaled, compressed or written.

    Returns:
        Frames, and seconds.
    """
    import av

    from lewm_data.source.decode import num_decode_threads
    from lewm_data.source.open import needed_files, open_source

    dataset = open_source(str(source)).dataset
    key = None if dataset is None else dataset.find_camera(camera)
    if dataset is None or key is None:
        raise ValueError(f"{source} is no dataset with a camera {camera!r}")
    files = sorted({file for file in needed_files(dataset, [key]) if file.endswith(".mp4")})
    threads = num_decode_threads()
    started = time.perf_counter()
    frames = 0
    for file in files:
        with av.open(str(dataset.root / file)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            stream.codec_context.thread_count = threads
            for _ in container.decode(stream):
                frames += 1
    return frames, time.perf_counter() - started


def convert_apart(case: Case, output: Path) -> dict[str, Any]:
    """One whole ``lewm-data convert`` process.

    Returns:
        The object that it prints: ``file_bytes``, ``seconds``, ``frames_per_second``, ``peak_memory_bytes`` and more.
        The peak is the process's own, its libraries included, as the kernel counts it.
    """
    settings = {"camera": case.camera, **case.settings}
    flags = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "lewm_data", "convert", str(case.source), str(output), *flags]
    done = subprocess.run([*command, "--overwrite", "--json"], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr.strip()}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def measure_cases(cases: Sequence[Case], num_rounds: int, *, folder: Path) -> list[dict[str, Any]]:
    """Measures all cases in interleaved rounds; one round before them warms up, and gives the peak memory.

    Args:
        cases: What to measure.
        num_rounds: Counted rounds.
        folder: Where the files are written meanwhile.

    Returns:
        For each case its facts, frames per second round by round (``decode_fps``, ``convert_fps``, and ``whole_fps``
        with the inspection before it), their ``ratios``, ``bytes_per_frame`` and ``peak_memory_bytes``.

    Raises:
        SystemExit: A conversion has not as many frames as the video.
    """
    from lewm_data.config import ConvertConfig
    from lewm_data.conversion.pipeline import convert

    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        output = Path(scratch) / "out.h5"
        for case in cases:
            apart = convert_apart(case, output)
            rows.append(
                case.facts
                | {name: [] for name in ("decode_fps", "convert_fps", "whole_fps", "ratios")}
                | {
                    "frames": apart["num_steps"],
                    "bytes_per_frame": round(apart["file_bytes"] / apart["num_steps"]),
                    "peak_memory_bytes": apart["peak_memory_bytes"],
                }
            )
        for number, order in enumerate(interleave([str(place) for place in range(len(cases))], num_rounds)):
            for place in map(int, order):
                case, row = cases[place], rows[place]
                frames, seconds = decode_only(case.source, case.camera)
                config = ConvertConfig(camera=case.camera, overwrite=True, **case.settings)
                done = convert(str(case.source), output, config)
                if done.num_steps != frames:
                    raise SystemExit(f"{case.source}: {done.num_steps} frames converted of {frames} decoded")
                row["decode_fps"].append(round(frames / seconds, 1))
                row["convert_fps"].append(round(done.frames_per_second, 1))
                row["whole_fps"].append(round(frames / done.seconds, 1))
                row["ratios"].append(round(done.frames_per_second / (frames / seconds), 3))
                rate = f"{done.frames_per_second:,.0f} of {frames / seconds:,.0f} frames/s"
                log(f"round {number + 1} of {num_rounds}, {case.facts}: {rate}")
    return rows
