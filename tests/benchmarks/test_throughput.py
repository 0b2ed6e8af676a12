"""The pure parts of the throughput benchmark, and our own contenders over a tiny file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.contenders import CONTENDERS, MemoryLimit, Ours, Settings, first_batch
from benchmarks.harness import Round
from benchmarks.prepared import Prepared
from benchmarks.throughput import LABELS, TARGETS, chart, compare, judge, reference_windows, summarize, table
from tests.loading import files

SETTINGS = Settings(batch_size=8, num_steps=2, frameskip=3)


@pytest.fixture
def data(tmp_path: Path) -> Prepared:
    """A file of 24x24 frames in two codecs, and its frames alone."""
    for codec in ("none", "lzf"):
        written = files.write(tmp_path / f"{codec}.h5", height=24, width=24, codec=codec)
    written.data["pixels"].tofile(tmp_path / "frames.raw")
    return Prepared(folder=tmp_path, camera="front", image_size=24, num_frames=len(written.data["pixels"]))


def test_every_contender_has_words_and_every_target_a_contender() -> None:
    assert set(LABELS) == set(CONTENDERS)
    assert {above for above, _, _ in TARGETS} <= set(CONTENDERS)


@pytest.mark.parametrize("cache", [False, True])
def test_ours_gives_the_windows_of_the_reference(data: Prepared, cache: bool) -> None:
    reference = reference_windows(data.ours("none"), 8, SETTINGS)
    contender = Ours(data, SETTINGS, codec="lzf", cache=cache, worker_type="thread")
    arrays, bytes_per_frame = first_batch(contender, 8)
    found = compare(reference, arrays)
    assert found.columns == ("pixels", "action", "state", "done")
    assert str(found) == "equal"
    assert bytes_per_frame == (data.folder / "lzf.h5").stat().st_size / data.num_frames


@pytest.mark.parametrize("mapped", [False, True])
def test_the_memory_limit_gathers_the_same_frames(data: Prepared, mapped: bool) -> None:
    reference = reference_windows(data.ours("none"), 8, SETTINGS)
    arrays, _ = first_batch(MemoryLimit(data, SETTINGS, mapped=mapped), 8)
    assert compare(reference, arrays).columns == ("pixels",)


def _windows(**changed: Any) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    windows = {
        "pixels": random.integers(0, 256, (3, 2, 8, 8, 3), np.uint8),
        "action": random.normal(size=(3, 2, 6)).astype(np.float32),
    }
    return windows | changed


def test_another_frame_is_not_the_same_window() -> None:
    wrong = _windows()["pixels"].copy()
    wrong[1, 1, 4, 4, 0] ^= 1
    with pytest.raises(ValueError, match="frames are not equal"):
        compare(_windows(), _windows(pixels=wrong))


def test_another_action_is_not_the_same_window() -> None:
    with pytest.raises(ValueError, match="column 'action' is not that of the reference"):
        compare(_windows(), _windows(action=np.zeros((3, 2, 6), np.float32)), least_psnr_db=10)


def test_lossy_frames_must_be_near() -> None:
    near = np.clip(_windows()["pixels"].astype(int) + 1, 0, 255).astype(np.uint8)
    found = compare(_windows(), _windows(pixels=near), least_psnr_db=40)
    assert found.psnr_db == pytest.approx(48.1, abs=0.1)
    assert found.columns == ("action",)
    with pytest.raises(ValueError, match="less than 60 dB"):
        compare(_windows(), _windows(pixels=near), least_psnr_db=60)


def test_larger_frames_are_reduced_before_they_are_compared() -> None:
    large = _windows()["pixels"].repeat(2, axis=2).repeat(2, axis=3)
    assert compare(_windows(), _windows(pixels=large), least_psnr_db=45).windows == 3


def test_targets_are_judged_against_the_best_peer() -> None:
    rates = {
        "limit_mmap": [1000.0, 500.0],
        "ram_thread": [800.0, 400.0],
        "none_thread": [600.0, 300.0],
        "swm_hdf5": [20.0, 10.0],
        "swm_lance": [30.0, 15.0],
    }
    outcomes = {(row["who"], row["against"]): row for row in judge(rates)}
    assert outcomes["ram_thread", "limit_mmap"]["outcome"] == "PASS"
    assert outcomes["none_thread", "limit_mmap"]["outcome"] == "FAIL"
    assert outcomes["ram_thread", "swm_lance"]["ratio"]["median"] == pytest.approx(26.67, abs=0.01)
    assert outcomes["ram_thread", "swm_lance"]["outcome"] == "PASS"
    assert outcomes["ram_thread", "lerobot_torchcodec"]["outcome"] == "not measured"


def test_the_result_becomes_a_table_and_a_chart(tmp_path: Path) -> None:
    def rounds(seconds: float) -> list[Round]:
        common = {"windows": 256, "cpu_seconds": 2 * seconds, "first_batch_seconds": 0.5, "memory_bytes": 10**9}
        return [Round(seconds=seconds * factor, **common) for factor in (1, 1.5)]  # type: ignore[arg-type]

    rows = [
        summarize(name, rounds(seconds), num_steps=4, frame_bytes=150_528)
        | {"bytes_per_frame": 110_000.0, "compared": {"words": "equal"}}
        for name, seconds in (("limit_mmap", 0.01), ("ram_thread", 0.02), ("swm_lance", 0.5))
    ]
    result = {
        "rows": rows,
        "targets": judge({"limit_mmap": [2.0, 2.0], "ram_thread": [1.9, 1.8]}),
        "left_out": {"lerobot_torchcodec": "no FFmpeg"},
        "settings": {"num_steps": 4, "batch_size": 256, "num_workers": 2},
        "machine": {"cpus": 2, "processor": "a processor"},
        "source": "a recording",
    }
    words = table(result)
    assert "| RAM cache, threads | 10,667 (8,533 to 12,800) |" in words
    assert "0.93 (0.90 to 0.95) | PASS |" in words
    assert "Left out: lerobot_torchcodec: no FFmpeg" in words
    pytest.importorskip("matplotlib")
    chart(result, tmp_path / "chart.png")
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")
