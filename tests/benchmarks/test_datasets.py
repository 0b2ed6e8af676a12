"""Laying a recording out many times over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.datasets import repeat_dataset
from lewm_data.conversion.source import open_source


def test_one_camera_of_a_recording_many_times_over(recorded: Path, tmp_path: Path) -> None:
    out = repeat_dataset(recorded, tmp_path / "out", 3, camera="front")
    once, thrice = (json.loads((root / "meta" / "info.json").read_text()) for root in (recorded, out))
    assert thrice["total_frames"] == 3 * once["total_frames"]
    assert [name for name, feature in thrice["features"].items() if feature["dtype"] == "video"] == [
        "observation.images.front"
    ]
    assert {path.parent.parent.name for path in out.rglob("*.mp4")} == {"observation.images.front"}
    opened = open_source(str(out))
    assert opened.dataset is not None
    assert not [finding for finding in opened.findings if finding.severity == "error"]


def test_a_camera_that_is_not_there_is_named(recorded: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no camera 'wrist', only front, top"):
        repeat_dataset(recorded, tmp_path / "out", 2, camera="wrist")
