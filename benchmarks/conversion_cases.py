"""Time conversions and decoding alone, interleaved, and take the peak memory of a whole process."""

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

from benchmarks.harness import interleaved


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One conversion: a dataset's folder, its camera, further fields of ``ConvertConfig``, and facts for its row."""

    source: Path
    camera: str
    settings: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


def decode_only(source: Path, camera: str) -> tuple[int, float]:
    """Decodes every frame of a camera with a conversion's settings and drops it; returns frames and seconds."""
    import av

    from lewm_data.source.data_files import needed_files
    from lewm_data.source.decode import num_decode_threads
    from lewm_data.source.open import open_source

    dataset = open_source(str(source)).dataset
    key = None if dataset is None else dataset.find_camera(camera)
    if dataset is None or key is None:
        raise ValueError(f"{source} is not a dataset with a camera {camera!r}")
    started, frames = time.perf_counter(), 0
    for file in sorted({file for file in needed_files(dataset, [key]) if file.endswith(".mp4")}):
        with av.open(str(dataset.root / file)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            stream.codec_context.thread_count = num_decode_threads()
            frames += sum(1 for _ in container.decode(stream))
    return frames, time.perf_counter() - started


def convert_apart(case: Case, output: Path) -> dict[str, Any]:
    """Runs ``lewm-data convert --json`` and returns what it prints, the peak memory of the process included."""
    settings = {"camera": case.camera, **case.settings}
    flags = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "lewm_data", "convert", str(case.source), str(output), *flags]
    output.unlink(missing_ok=True)  # a conversion that replaces a file reuses its frames
    done = subprocess.run([*command, "--json"], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr.strip()}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def measure_cases(cases: Sequence[Case], num_rounds: int, *, folder: Path) -> list[dict[str, Any]]:
    """Measures all cases in interleaved rounds, after a warm-up that gives the peak memory.

    Rows hold frames per second round by round: of decoding alone, of converting, and of the whole with its inspection.
    """
    from lewm_data.config import ConvertConfig
    from lewm_data.conversion.pipeline import convert

    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        output = Path(scratch) / "out.h5"
        apart = [convert_apart(case, output) for case in cases]

        def measure(place: int) -> dict[str, float]:
            case = cases[place]
            frames, seconds = decode_only(case.source, case.camera)
            output.unlink(missing_ok=True)  # see convert_apart
            config = ConvertConfig(camera=case.camera, **case.settings)
            done = convert(str(case.source), output, config)
            if done.num_steps != frames:
                raise SystemExit(f"{case.source}: {done.num_steps} frames converted of {frames} decoded")
            return {
                "decode_fps": round(frames / seconds, 1),
                "convert_fps": round(done.frames_per_second, 1),
                "whole_fps": round(frames / done.seconds, 1),
                "ratios": round(done.frames_per_second / (frames / seconds), 3),
            }

        rounds = interleaved(range(len(cases)), num_rounds, measure)
    return [
        {
            **cases[place].facts,
            **{name: [one[name] for one in done] for name in done[0]},
            "frames": apart[place]["num_steps"],
            "bytes_per_frame": round(apart[place]["file_bytes"] / apart[place]["num_steps"]),
            "peak_memory_bytes": apart[place]["peak_memory_bytes"],
        }
        for place, done in rounds.items()
    ]
