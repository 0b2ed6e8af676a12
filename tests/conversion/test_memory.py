"""What a whole conversion process costs: memory that does not grow with the dataset, and no heavy imports."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

MEBIBYTE = 1 << 20


def run_python(code: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    return done.stdout


def peak_memory_bytes(*arguments: str) -> int:
    """Peak resident memory of one whole command, as the kernel counts it."""
    code = """
import resource, subprocess, sys
subprocess.run([sys.executable, "-m", "lewm_data.cli", *sys.argv[1:]], check=True, stderr=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
    return int(run_python(code, *arguments)) * 1024


def repeat_dataset(root: Path, out: Path, times: int) -> Path:
    """The same recording many times over, each repetition in files of its own, as LeRobot lays them out."""
    info = json.loads((root / "meta" / "info.json").read_text())
    episodes = pq.read_table(root / "meta" / "episodes")
    episodes = episodes.select([name for name in episodes.column_names if not name.startswith("stats/")])
    data = pq.read_table(root / "data" / "chunk-000" / "file-000.parquet")
    parts = []
    for number in range(times):
        shifts = {"episode_index": len(episodes), "dataset_from_index": len(data), "dataset_to_index": len(data)}
        part = episodes
        for name in part.column_names:
            if name in shifts:
                part = _set(part, name, pc.add(part[name], number * shifts[name]))
            elif name.endswith("file_index") and not name.startswith("meta/"):
                part = _set(part, name, pa.array([number] * len(part)))
        parts.append(part)
        moved = _set(data, "episode_index", pc.add(data["episode_index"], number * len(episodes)))
        moved = _set(moved, "index", pc.add(data["index"], number * len(data)))
        path = out / "data" / "chunk-000" / f"file-{number:03d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(moved, path)
        for video in (root / "videos").rglob("file-000.mp4"):
            link = out / video.relative_to(root).with_name(f"file-{number:03d}.mp4")
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(video.resolve())
    (out / "meta" / "episodes" / "chunk-000").mkdir(parents=True)
    pq.write_table(pa.concat_tables(parts), out / "meta" / "episodes" / "chunk-000" / "file-000.parquet")
    shutil.copy(root / "meta" / "tasks.parquet", out / "meta" / "tasks.parquet")
    info |= {"total_episodes": times * len(episodes), "total_frames": times * len(data)}
    (out / "meta" / "info.json").write_text(json.dumps(info))
    return out


def _set(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, values)


@pytest.mark.parametrize("module", ["conversion.pipeline", "conversion.verify", "conversion.prepare", "cli", "display"])
def test_converting_imports_neither_torch_nor_lerobot(module: str) -> None:
    heavy = run_python(
        f"import sys, lewm_data.{module}\n"
        "print([m for m in ('torch', 'lightning', 'lerobot', 'pandas', 'datasets', 'blosc2') if m in sys.modules])"
    )
    assert heavy.strip() == "[]"


def test_inspect_imports_neither_torch_nor_lerobot_nor_pandas(recorded: Path) -> None:
    code = """
import sys
from lewm_data.cli import main
try:
    main(["inspect", sys.argv[1], "--json"])
except SystemExit as done:
    assert done.code == 0, done.code
print("heavy", [m for m in ("torch", "lightning", "lerobot", "pandas", "datasets", "blosc2") if m in sys.modules])
"""
    assert run_python(code, str(recorded)).endswith("heavy []\n")


@pytest.mark.shared
def test_peak_memory_is_that_of_a_small_laptop_and_does_not_grow(so101: Path, tmp_path: Path) -> None:
    once = peak_memory_bytes("convert", str(so101), str(tmp_path / "once.h5"), "--camera", "front")
    assert once <= 256 * MEBIBYTE
    longer = repeat_dataset(so101, tmp_path / "longer", 10)
    ten = peak_memory_bytes("convert", str(longer), str(tmp_path / "ten.h5"), "--camera", "front")
    assert ten <= once * 1.05
    # the plan promised enough, and not much too much
    plan = json.loads(run_python(
        "import sys; from lewm_data.cli import main; main(sys.argv[1:])", "inspect", str(longer), "--camera", "front",
        "--json",
    ))["plan"]  # fmt: skip
    assert ten <= plan["peak_memory_bytes"] <= 1.5 * ten
    size = (tmp_path / "ten.h5").stat().st_size
    assert size <= plan["output_bytes"] <= 1.25 * size
