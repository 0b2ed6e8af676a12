"""Contenders return the windows of the reference, and other windows are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.charts import COLORS, GROUPS
from benchmarks.comparison import compare, psnr_db, reference_windows
from benchmarks.contenders import CONTENDERS
from benchmarks.contenders.base import Settings
from benchmarks.contenders.limits import CachedBatch, MemoryLimit
from benchmarks.contenders.ours import Ours
from benchmarks.prepared import Prepared
from benchmarks.stage import first_batch, time_cold, time_warm
from tests.loading import files

SETTINGS = Settings(batch_size=8, num_steps=2, frameskip=3)


@pytest.fixture
def data(tmp_path: Path) -> Prepared:
    """A file of 24x24 frames in two codecs, and its frames alone."""
    for codec in ("none", "lzf"):
        written = files.write(tmp_path / f"{codec}.h5", height=24, width=24, codec=codec)
    written.data["pixels"].tofile(tmp_path / "frames.raw")
    return Prepared(folder=tmp_path, camera="front", image_size=24, num_frames=len(written.data["pixels"]))


def test_every_contender_has_a_group_and_a_label_of_its_own() -> None:
    assert {entry.group for entry in CONTENDERS.values()} == set(GROUPS) == set(COLORS)
    assert len({entry.label for entry in CONTENDERS.values()}) == len(CONTENDERS)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("cache", [False, True])
def test_ours_returns_the_windows_of_the_reference(data: Prepared, cache: bool, num_workers: int) -> None:
    reference = reference_windows(data.ours("none"), 8, SETTINGS)
    contender = Ours(data, SETTINGS, codec="lzf", cache=cache, worker_type="thread")
    first = first_batch(contender, batch_size=8, num_workers=num_workers)
    found = compare(reference, first.arrays)
    assert found.columns == ("pixels", "action", "state", "done")
    assert str(found) == "equal"
    assert first.bytes_per_frame == (data.folder / "lzf.h5").stat().st_size / data.num_frames
    assert first.setup_seconds > 0


@pytest.mark.parametrize("mapped", [False, True])
def test_the_memory_limit_gathers_the_same_frames(data: Prepared, mapped: bool) -> None:
    reference = reference_windows(data.ours("none"), 8, SETTINGS)
    first = first_batch(MemoryLimit(data, SETTINGS, mapped=mapped), batch_size=8, num_workers=2)
    assert compare(reference, first.arrays).columns == ("pixels",)


def test_the_cached_batch_is_the_same_again_and_again(data: Prepared) -> None:
    contender = CachedBatch(data, SETTINGS)
    reference = reference_windows(data.ours("none"), 8, SETTINGS)
    assert str(compare(reference, first_batch(contender, batch_size=8, num_workers=2).arrays)) == "equal"
    batches = contender.batches(8, 2)
    assert next(batches) is next(batches)


def test_a_warm_and_a_cold_round(data: Prepared) -> None:
    contender = Ours(data, SETTINGS, codec="lzf", cache=False, worker_type="thread")
    assert time_warm(contender, batch_size=8, num_workers=1, seconds=0.01, warmup_seconds=0).windows_per_second > 0
    cold = time_cold(contender, batch_size=8, num_workers=1)
    assert cold.round.windows == 8 * contender.num_in_work(1)
    assert 0 <= cold.cached_share <= 1


def test_a_contender_without_a_file_has_no_cold_round(data: Prepared) -> None:
    with pytest.raises(ValueError, match="reads no file"):
        time_cold(CachedBatch(data, SETTINGS), batch_size=8, num_workers=1)


def _windows(**changed: Any) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    windows = {
        "pixels": random.integers(0, 256, (3, 2, 8, 8, 3), np.uint8),
        "action": random.normal(size=(3, 2, 6)).astype(np.float32),
    }
    return windows | changed


def test_a_changed_frame_is_refused() -> None:
    wrong = _windows()["pixels"].copy()
    wrong[1, 1, 4, 4, 0] ^= 1
    with pytest.raises(ValueError, match="frames differ from the reference"):
        compare(_windows(), _windows(pixels=wrong))


def test_a_changed_action_is_refused() -> None:
    with pytest.raises(ValueError, match="column 'action' differs from the reference"):
        compare(_windows(), _windows(action=np.zeros((3, 2, 6), np.float32)), least_psnr_db=10)


def test_lossy_frames_must_reach_the_least_psnr() -> None:
    near = np.clip(_windows()["pixels"].astype(int) + 1, 0, 255).astype(np.uint8)
    found = compare(_windows(), _windows(pixels=near), least_psnr_db=40)
    assert found.psnr_db == pytest.approx(48.1, abs=0.1)
    assert found.columns == ("action",)
    with pytest.raises(ValueError, match="must reach 60 dB"):
        compare(_windows(), _windows(pixels=near), least_psnr_db=60)


def test_psnr_follows_its_definition() -> None:
    """An error of 16 everywhere: 20 log10(255 / 16)."""
    black = np.zeros((2, 4, 4, 3), np.uint8)
    assert psnr_db(black + np.uint8(16), black) == pytest.approx(20 * np.log10(255 / 16))
