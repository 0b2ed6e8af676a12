"""Our own contenders and the limits, over a tiny file."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.comparison import compare, reference_windows
from benchmarks.contenders.base import Settings
from benchmarks.contenders.limits import CachedBatch, MemoryLimit
from benchmarks.contenders.ours import Ours
from benchmarks.contenders.registry import CONTENDERS, GROUPS
from benchmarks.contenders.stage import first_batch, time_cold, time_warm
from benchmarks.prepared import Prepared
from tests.loading import files

SETTINGS = Settings(batch_size=8, num_steps=2, frameskip=3)


@pytest.fixture
def data(tmp_path: Path) -> Prepared:
    """A file of 24x24 frames in two codecs, and its frames alone."""
    for codec in ("none", "lzf"):
        written = files.write(tmp_path / f"{codec}.h5", height=24, width=24, codec=codec)
    written.data["pixels"].tofile(tmp_path / "frames.raw")
    return Prepared(folder=tmp_path, camera="front", image_size=24, num_frames=len(written.data["pixels"]))


def test_every_contender_is_of_a_group() -> None:
    assert {entry.group for entry in CONTENDERS.values()} == set(GROUPS)
    assert len({entry.label for entry in CONTENDERS.values()}) == len(CONTENDERS)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("cache", [False, True])
def test_ours_gives_the_windows_of_the_reference(data: Prepared, cache: bool, num_workers: int) -> None:
    reference = reference_windows(data.ours("none"), 8, SETTINGS)
    contender = Ours(data, SETTINGS, codec="lzf", cache=cache, worker_type="thread")
    first = first_batch(contender, 8, num_workers)
    found = compare(reference, first.arrays)
    assert found.columns == ("pixels", "action", "state", "done")
    assert str(found) == "equal"
    assert first.bytes_per_frame == (data.folder / "lzf.h5").stat().st_size / data.num_frames
    assert first.setup_seconds > 0


@pytest.mark.parametrize("mapped", [False, True])
def test_the_memory_limit_gathers_the_same_frames(data: Prepared, mapped: bool) -> None:
    reference = reference_windows(data.ours("none"), 8, SETTINGS)
    first = first_batch(MemoryLimit(data, SETTINGS, mapped=mapped), 8, 2)
    assert compare(reference, first.arrays).columns == ("pixels",)


def test_no_loader_hands_over_one_batch_again_and_again(data: Prepared) -> None:
    contender = CachedBatch(data, SETTINGS)
    reference = reference_windows(data.ours("none"), 8, SETTINGS)
    assert str(compare(reference, first_batch(contender, 8, 2).arrays)) == "equal"
    batches = contender.batches(8, 2)
    assert next(batches) is next(batches)


def test_a_warm_and_a_cold_round(data: Prepared) -> None:
    contender = Ours(data, SETTINGS, codec="lzf", cache=False, worker_type="thread")
    assert time_warm(contender, num_workers=1, seconds=0.01, warmup_seconds=0).windows_per_second > 0
    cold = time_cold(contender, num_workers=1)
    assert cold.round.windows == 8 * contender.num_in_work(1)
    assert 0 <= cold.cached_share <= 1


def test_who_reads_no_file_has_no_cold_round(data: Prepared) -> None:
    with pytest.raises(ValueError, match="reads no file"):
        time_cold(CachedBatch(data, SETTINGS), num_workers=1)
