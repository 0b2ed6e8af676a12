"""Frames written in pieces of every size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.conversions import chunks
from benchmarks.scenes import cartoon


def _frames() -> np.ndarray:
    return np.stack([cartoon(step, 32, 32) for step in range(5)])


def test_every_pair_of_sizes_is_measured(tmp_path: Path) -> None:
    rows = chunks.measure_chunks(
        _frames(),
        micro_batches=(1, 3),
        chunk_frames=(chunks.DIRECT, 1, 4),
        seconds=0.01,
        num_rounds=2,
        folder=tmp_path,
    )
    assert [(row["chunk_frames"], row["micro_batch"]) for row in rows] == [
        (0, 1), (0, 3), (1, 1), (1, 3), (4, 1), (4, 3),
    ]  # fmt: skip
    assert all(len(row["fps"]) == 2 and min(row["fps"]) > 0 for row in rows)
    assert list(tmp_path.iterdir()) == []


def test_what_is_read_back_must_be_what_was_written() -> None:
    batch = _frames()[:2]
    written = np.concatenate([batch, batch])
    chunks._check(written, batch, 4)
    written[3, 0, 0, 0] ^= 1
    with pytest.raises(SystemExit, match="not what is read back"):
        chunks._check(written, batch, 4)
