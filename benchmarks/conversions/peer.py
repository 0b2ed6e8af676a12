"""The same dataset through stable-worldmodel and through us, both at native size and uncompressed."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.comparison import psnr_db
from benchmarks.conversions.cases import Case, convert_apart
from benchmarks.datasets import log
from benchmarks.harness import interleave

LEAST_PSNR_DB = 30.0
"""They decode to RGB with another library's rounding and chroma interpolation; a wrong frame is 20 to 29 dB away."""

_COMPARED = 16
OURS, OURS_SMALL, THEIRS = "ours_native", "ours_224", "theirs"
LABELS = {
    OURS: "lewm_data, native size, uncompressed",
    OURS_SMALL: "lewm_data, 224x224, lzf",
    THEIRS: "stable-worldmodel, native size, uncompressed",
}


def convert_theirs(source: Path, output: Path, camera: str) -> dict[str, Any]:
    """One whole process of stable-worldmodel's conversion; see ``theirs.py``."""
    command = [sys.executable, "-m", "benchmarks.conversions.theirs", str(source), str(output), camera]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root)
    if done.returncode:
        raise RuntimeError(f"stable-worldmodel cannot convert {source}: {done.stderr.strip()[-2000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def measure_peer(source: Path, camera: str, num_rounds: int, *, folder: Path) -> dict[str, Any]:
    """Measures both, interleaved, each run a process of its own; their frames are compared first.

    Args:
        source: A LeRobot dataset's folder.
        camera: The camera.
        num_rounds: Rounds.
        folder: Where the files are written meanwhile.

    Returns:
        ``frames``, ``psnr_db`` of their frames against ours, and ``rows`` with frames per second round by round, the
        ratio of ours to theirs round by round, and the greatest peak memory.

    Raises:
        SystemExit: They do not hold the same frames.
    """
    rows = {name: {"name": name, "label": label, "fps": [], "peak_memory_bytes": 0} for name, label in LABELS.items()}  # type: dict[str, dict[str, Any]]
    found: dict[str, Any] = {}
    source = source.resolve()
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        files = {name: Path(scratch).resolve() / f"{name}.h5" for name in LABELS}
        native = Case(source=source, camera=camera, settings={"image_size": "native", "compression": "none"})
        small = Case(source=source, camera=camera, settings={"image_size": 224, "compression": "lzf"})
        for number, order in enumerate(interleave(list(LABELS), num_rounds)):
            for name in order:
                if name == THEIRS:
                    done = convert_theirs(source, files[name], camera)
                    frames = done["frames"]
                else:
                    done = convert_apart(native if name == OURS else small, files[name])
                    frames = done["num_steps"]
                rows[name]["fps"].append(round(frames / done["seconds"], 1))
                rows[name]["peak_memory_bytes"] = max(rows[name]["peak_memory_bytes"], done["peak_memory_bytes"])
                log(f"round {number + 1} of {num_rounds}, {name}: {frames / done['seconds']:,.0f} frames/s")
            if not found:
                found = {"frames": frames, "psnr_db": _compare(files[OURS], files[THEIRS])}
    for row in rows.values():
        row["ratios_to_theirs"] = [
            round(ours / theirs, 3) for ours, theirs in zip(row["fps"], rows[THEIRS]["fps"], strict=True)
        ]
    return found | {"rows": list(rows.values())}


def _compare(ours: Path, theirs: Path) -> float | None:
    """How near the frames of two files are, in dB; None: equal. Of a few, spread over the whole."""
    import h5py

    with h5py.File(ours) as a, h5py.File(theirs) as b:
        if a["pixels"].shape != b["pixels"].shape or not np.array_equal(a["action"][:], b["action"][:]):
            raise SystemExit(f"{THEIRS} does not hold the same dataset as {OURS}")
        count = len(a["pixels"])
        chosen = np.unique(np.linspace(0, count - 1, _COMPARED).astype(int))
        ours_frames, theirs_frames = a["pixels"][chosen], b["pixels"][chosen]
    if np.array_equal(ours_frames, theirs_frames):
        return None
    decibels = psnr_db(theirs_frames, ours_frames)
    if decibels < LEAST_PSNR_DB:
        raise SystemExit(f"{THEIRS} is {decibels:.1f} dB from {OURS}, less than {LEAST_PSNR_DB:g} dB")
    return round(decibels, 2)
