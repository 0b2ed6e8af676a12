"""What the system keeps of a file."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from benchmarks.pagecache import cached_share, drop, warm


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files of a megabyte each and an empty one, in folders."""
    (tmp_path / "deep").mkdir()
    for name in ("a", "deep/b"):
        np.random.default_rng(0).integers(0, 256, 1 << 20, np.uint8).tofile(tmp_path / name)
    (tmp_path / "empty").touch()
    return tmp_path


def test_a_file_that_was_read_is_in_memory(folder: Path) -> None:
    warm(folder)
    assert cached_share(folder) == 1
    assert cached_share(folder / "a") == 1


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="this system cannot forget a file")
def test_a_file_that_was_dropped_is_not(folder: Path) -> None:
    warm(folder)
    drop(folder)
    if cached_share(folder) == 1:
        pytest.skip("this file system lies in memory itself")
    assert cached_share(folder) == 0
    warm(folder / "a")
    assert cached_share(folder) == 0.5


def test_a_system_that_cannot_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "posix_fadvise", raising=False)
    with pytest.raises(OSError, match="no posix_fadvise"):
        drop(folder)
