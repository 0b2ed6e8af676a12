"""What is measured of one file, each in a process of its own, which begins with nothing in memory.

python -m benchmarks.scaling_probes open|epochs FILE KEYWORDS
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


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


def probe_epochs(
    path: Path, *, num_epochs: int, steps_per_epoch: int, num_workers: int, num_steps: int, frameskip: int
) -> dict[str, Any]:
    """Opens the file, takes the first batch, and goes through some epochs; memory after each."""
    from lewm_data.loading.dataset import WindowDataset
    from lewm_data.loading.loader import WindowLoader
    from lewm_data.loading.sampler import WindowOrder, WindowSampler
    from lewm_data.loading.store import FrameStore
    from lewm_data.resources import peak_memory_bytes, resident_memory_bytes

    before = resident_memory_bytes()
    began = time.perf_counter()
    store = FrameStore(path)
    opened = time.perf_counter()
    dataset = WindowDataset(store, num_steps=num_steps, frameskip=frameskip)
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
        "imports_mb": before / 1e6,
        "resident_mb_after_epochs": resident,
        "windows_per_second": rates,
        "peak_mb": peak_memory_bytes() / 1e6,
        "num_windows": len(dataset),
    }


PROBES: dict[str, Callable[..., dict[str, Any]]] = {"open": probe_open, "epochs": probe_epochs}


def in_new_process(path: Path, probe: str, **keywords: int) -> dict[str, Any]:
    """Runs a probe in a fresh interpreter.

    Args:
        path: The file.
        probe: A key of ``PROBES``.
        keywords: Its keywords.

    Returns:
        What it found.
    """
    command = [sys.executable, "-m", "benchmarks.scaling_probes", probe, str(path.resolve()), json.dumps(keywords)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    if done.returncode:
        raise RuntimeError(f"the probe {probe!r} of {path} failed: {done.stderr.strip()[-2000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


if __name__ == "__main__":
    print(json.dumps(PROBES[sys.argv[1]](Path(sys.argv[2]), **json.loads(sys.argv[3]))))
