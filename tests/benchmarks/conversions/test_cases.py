"""Conversions beside only decoding."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.conversions.cases import Case, convert_apart, decode_only


def test_every_frame_is_decoded(recorded: Path) -> None:
    frames, seconds = decode_only(recorded, "front")
    assert frames == 54
    assert seconds > 0


def test_a_camera_that_is_not_there_is_told(recorded: Path) -> None:
    with pytest.raises(ValueError, match="no dataset with a camera 'wrist'"):
        decode_only(recorded, "wrist")


def test_a_conversion_that_fails_says_why(recorded: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="--camera wrist: no such camera"):
        convert_apart(Case(source=recorded, camera="wrist"), tmp_path / "out.h5")
