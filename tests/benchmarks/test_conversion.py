"""The conversion benchmark."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from benchmarks import conversion
from benchmarks.conversion_cases import Case, convert_apart, decode_only
from benchmarks.conversion_chunks import check_written
from benchmarks.conversion_peer import compare_files

FRAMES = np.random.default_rng(0).integers(2, 254, (20, 16, 16, 3), np.uint8)
ACTION = np.zeros((20, 2), np.float32)


def _run(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    output = tmp_path / "results" / "conversion.json"
    conversion.main(["--quick", "--data", str(tmp_path / "data"), "--output", str(output), *arguments])
    assert (output.parent / "conversion.png").exists()
    result: dict[str, Any] = json.loads(output.read_text())
    return result


def test_it_runs_over_a_recording(recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    sections = ["--sections", "codecs", "chunks", "--compression", "lzf", "none"]
    result = _run(tmp_path, "--source", str(recorded), *sections)
    assert [row["compression"] for row in result["rows"]] == ["lzf", "none"]
    for row in result["rows"]:
        assert row["frames"] == 54
        assert row["ratios"] == [pytest.approx(row["convert_fps"][0] / row["decode_fps"][0], abs=0.01)]
        assert row["peak_memory_bytes"] > 50 << 20
    assert [(row["chunk_frames"], row["micro_batch"]) for row in result["chunks"]] == [
        (chunk, batch) for chunk in (0, 1, 16) for batch in (1, 16)
    ]
    assert all(row["fps"][0] > 0 for row in result["chunks"])
    assert "| lzf |" in capsys.readouterr().out
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.slow
def test_every_section_runs(tmp_path: Path) -> None:
    pytest.importorskip("stable_worldmodel")
    result = _run(tmp_path)
    assert [row["source"] for row in result["sources"]] == ["h264 96p", "hevc 96p", "av1 96p"]
    assert {row["micro_batch"] for row in result["micro_batches"]} == {1, 16}
    assert [row["name"] for row in result["peer"]["rows"]] == ["ours_native", "ours_224", "theirs"]
    assert result["peer"]["psnr_db"] is None or result["peer"]["psnr_db"] > 30
    assert all(row["ratios_to_theirs"][0] > 0 for row in result["peer"]["rows"])


def test_every_frame_is_decoded(recorded: Path) -> None:
    frames, seconds = decode_only(recorded, "front")
    assert frames == 54
    assert seconds > 0


def test_a_missing_camera_is_named(recorded: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a dataset with a camera 'wrist'"):
        decode_only(recorded, "wrist")
    with pytest.raises(RuntimeError, match="--camera wrist: no such camera"):
        convert_apart(Case(source=recorded, camera="wrist"), tmp_path / "out.h5")


def test_a_file_that_differs_from_what_was_written_ends_the_run() -> None:
    batch = FRAMES[:2]
    written = np.concatenate([batch, batch])
    check_written(written, batch, 4)
    written[3, 0, 0, 0] ^= 1
    with pytest.raises(SystemExit, match="does not hold the frames"):
        check_written(written, batch, 4)


def _file(path: Path, frames: np.ndarray, action: np.ndarray) -> Path:
    with h5py.File(path, "w") as file:
        file["pixels"], file["action"] = frames, action
    return path


@pytest.mark.parametrize(("added", "decibels"), [(0, None), (1, pytest.approx(48.13, abs=0.01))])
def test_the_peers_frames_are_compared_with_ours(tmp_path: Path, added: int, decibels: float | None) -> None:
    ours = _file(tmp_path / "a.h5", FRAMES, ACTION)
    assert compare_files(ours, _file(tmp_path / "b.h5", FRAMES + np.uint8(added), ACTION)) == decibels


@pytest.mark.parametrize(
    "other",
    [(FRAMES[::-1], ACTION), (FRAMES, ACTION + 1), (FRAMES[:-1], ACTION[:-1])],
    ids=["frames", "action", "length"],
)
def test_another_dataset_ends_the_run(tmp_path: Path, other: tuple[np.ndarray, np.ndarray]) -> None:
    with pytest.raises(SystemExit, match="theirs"):
        compare_files(_file(tmp_path / "a.h5", FRAMES, ACTION), _file(tmp_path / "b.h5", *other))
