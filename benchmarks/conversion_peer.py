"""Convert the same dataset with stable-worldmodel and with lewm_data, each run in a process of its own."""

from __future__ import annotations

import os
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.comparison import psnr_db
from benchmarks.conversion_cases import Case, convert_apart
from benchmarks.datasets import apart
from benchmarks.harness import interleaved

LEAST_PSNR_DB = 30.0
"""Their decoder rounds and interpolates chroma differently; a wrong frame is 20 to 29 dB away."""
_NUM_COMPARED = 16
OURS, OURS_SMALL, THEIRS = "ours_native", "ours_224", "theirs"
LABELS = {
    OURS: "lewm_data, native size, uncompressed",
    OURS_SMALL: "lewm_data, 224x224, lzf",
    THEIRS: "stable-worldmodel, native size, uncompressed",
}


def convert_theirs(source: str, output: str, camera: str) -> dict[str, Any]:
    """Converts with stable-worldmodel's LeRobot adapter and HDF5 writer; returns frames, seconds and peak memory.

    This is the loop of ``stable_worldmodel.data.convert``, which itself opens only datasets on the Hub. It keeps frames
    at their native size, and holds whole episodes in memory.
    """
    with tempfile.TemporaryDirectory() as home:
        os.environ.update(HF_HOME=home, HF_HUB_OFFLINE="1", SVT_LOG="1")
        warnings.simplefilter("ignore")
        from stable_worldmodel.data.formats.hdf5 import HDF5Writer
        from stable_worldmodel.data.formats.lerobot import LeRobotAdapter
        from stable_worldmodel.data.utils import _episode_to_step_lists

        from lewm_data.resources import peak_memory_bytes

        began = time.perf_counter()
        key, columns = f"observation.images.{camera}", ["pixels", "action", "proprio"]
        adapter = LeRobotAdapter("benchmark/source", root=source, primary_camera_key=key, keys_to_load=columns)
        with HDF5Writer(output, mode="overwrite") as writer:
            writer.write_episodes(
                _episode_to_step_lists(adapter.load_episode(episode), int(length))
                for episode, length in enumerate(adapter.lengths)
            )
        return {
            "num_steps": int(sum(adapter.lengths)),
            "seconds": time.perf_counter() - began,
            "peak_memory_bytes": peak_memory_bytes(),
        }


def measure_peer(source: Path, camera: str, num_rounds: int, *, folder: Path) -> dict[str, Any]:
    """Measures both in interleaved rounds, and compares their frames."""
    source = source.resolve()
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        files = {name: Path(scratch).resolve() / f"{name}.h5" for name in LABELS}
        settings: dict[str, dict[str, Any]] = {
            OURS: {"image_size": "native", "compression": "none"},
            OURS_SMALL: {"image_size": 224, "compression": "lzf"},
        }

        def convert(name: str) -> dict[str, Any]:
            if name == THEIRS:
                return apart(convert_theirs, str(source), str(files[name]), camera)
            return convert_apart(Case(source=source, camera=camera, settings=settings[name]), files[name])

        rounds = interleaved(list(LABELS), num_rounds, convert, lambda done: f"{done['seconds']:.1f} s")
        decibels = compare_files(files[OURS], files[THEIRS])
    fps = {name: [round(one["num_steps"] / one["seconds"], 1) for one in done] for name, done in rounds.items()}
    rows = [
        {
            "name": name,
            "label": label,
            "fps": fps[name],
            "ratios_to_theirs": [round(ours / theirs, 3) for ours, theirs in zip(fps[name], fps[THEIRS], strict=True)],
            "peak_memory_bytes": max(done["peak_memory_bytes"] for done in rounds[name]),
        }
        for name, label in LABELS.items()
    ]
    return {"frames": rounds[THEIRS][0]["num_steps"], "psnr_db": decibels, "rows": rows}


def compare_files(ours: Path, theirs: Path) -> float | None:
    """PSNR between a few frames of two files, spread over all; None if they are equal. Ends the run if they differ."""
    import h5py

    with h5py.File(ours) as a, h5py.File(theirs) as b:
        if a["pixels"].shape != b["pixels"].shape or not np.array_equal(a["action"][:], b["action"][:]):
            raise SystemExit(f"{THEIRS} does not hold the same dataset as {OURS}")
        chosen = np.unique(np.linspace(0, len(a["pixels"]) - 1, _NUM_COMPARED).astype(int))
        ours_frames, theirs_frames = a["pixels"][chosen], b["pixels"][chosen]
    if np.array_equal(ours_frames, theirs_frames):
        return None
    decibels = psnr_db(theirs_frames, ours_frames)
    if decibels < LEAST_PSNR_DB:
        raise SystemExit(f"{THEIRS} is {decibels:.1f} dB from {OURS}, but must reach {LEAST_PSNR_DB:g} dB")
    return round(decibels, 2)
