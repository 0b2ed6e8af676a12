"""What a whole conversion process costs: memory that does not grow with the dataset, and no heavy imports."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.datasets import repeat_dataset

MEBIBYTE = 1 << 20


def run_python(code: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    return done.stdout


def peak_memory_bytes(*arguments: str) -> int:
    """Peak resident memory of one whole command, as the kernel counts it."""
    code = """
import resource, subprocess, sys
subprocess.run([sys.executable, "-m", "lewm_data", *sys.argv[1:]], check=True, stderr=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
    return int(run_python(code, *arguments)) * 1024


@pytest.mark.parametrize("module", ["conversion.pipeline", "conversion.verify", "conversion.prepare", "cli.commands"])
def test_converting_imports_neither_torch_nor_lerobot(module: str) -> None:
    heavy = run_python(
        f"import sys, lewm_data.{module}\n"
        "print([m for m in ('torch', 'lightning', 'lerobot', 'pandas', 'datasets', 'blosc2') if m in sys.modules])"
    )
    assert heavy.strip() == "[]"


def test_inspect_imports_neither_torch_nor_lerobot_nor_pandas(recorded: Path) -> None:
    code = """
import sys
from lewm_data.cli.commands import main
try:
    main(["inspect", sys.argv[1], "--json"])
except SystemExit as done:
    assert done.code == 0, done.code
print("heavy", [m for m in ("torch", "lightning", "lerobot", "pandas", "datasets", "blosc2") if m in sys.modules])
"""
    assert run_python(code, str(recorded)).endswith("heavy []\n")


@pytest.mark.shared
@pytest.mark.parametrize("times", [4, pytest.param(10, marks=pytest.mark.slow)])
def test_peak_memory_is_that_of_a_small_laptop_and_does_not_grow(so101: Path, tmp_path: Path, times: int) -> None:
    once = peak_memory_bytes("convert", str(so101), str(tmp_path / "once.h5"), "--camera", "front")
    assert once <= 256 * MEBIBYTE
    repeated = repeat_dataset(so101, tmp_path / "repeated", times)
    longer = peak_memory_bytes("convert", str(repeated), str(tmp_path / "longer.h5"), "--camera", "front")
    assert longer <= once * 1.08  # measured 1.01 to 1.05, the allocators warming up
    # the plan promised enough, and not much too much
    plan = json.loads(run_python(
        "import sys; from lewm_data.cli.commands import main; main(sys.argv[1:])",
        "inspect", str(repeated), "--camera", "front", "--json",
    ))["plan"]  # fmt: skip
    assert longer <= plan["peak_memory_bytes"] <= 1.5 * longer
    size = (tmp_path / "longer.h5").stat().st_size
    assert size <= plan["output_bytes"] <= 1.25 * size
