"""The conversion benchmark over a recording of ours, and the words that it finds for a result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import conversion
from benchmarks import conversion_report as report


def _run(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    output = tmp_path / "results" / "conversion.json"
    conversion.main(["--quick", "--data", str(tmp_path / "data"), "--output", str(output), *arguments])
    result: dict[str, Any] = json.loads(output.read_text())
    assert (output.parent / report.CHART).exists() == bool(result.get("rows"))
    return result


def test_it_runs_over_a_recording_of_ours(recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    sections = ["--sections", "codecs", "chunks", "--compression", "lzf", "none"]
    result = _run(tmp_path, "--source", str(recorded), *sections)
    assert [row["compression"] for row in result["rows"]] == ["lzf", "none"]
    for row in result["rows"]:
        assert row["frames"] == 54
        assert row["ratios"] == [pytest.approx(row["convert_fps"][0] / row["decode_fps"][0], abs=0.01)]
        assert row["peak_memory_bytes"] > 50 << 20
    assert {(row["chunk_frames"], row["micro_batch"]) for row in result["chunks"]} == {
        (chunk, batch) for chunk in (0, 1, 16) for batch in (1, 16)
    }
    assert "| lzf |" in capsys.readouterr().out
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.slow
def test_everything_runs(tmp_path: Path) -> None:
    pytest.importorskip("stable_worldmodel")
    result = _run(tmp_path)
    assert [row["source"] for row in result["sources"]] == ["h264 96p", "hevc 96p", "av1 96p"]
    assert {row["micro_batch"] for row in result["micro_batches"]} == {1, 16}
    assert [row["name"] for row in result["peer"]["rows"]] == ["ours_native", "ours_224", "theirs"]
    assert result["peer"]["psnr_db"] is None or result["peer"]["psnr_db"] > 30
    assert all(row["ratios_to_theirs"][0] > 0 for row in result["peer"]["rows"])


def test_the_result_becomes_words_and_charts(tmp_path: Path) -> None:
    rates = {"decode_fps": [500.0, 600.0], "convert_fps": [400.0, 500.0], "whole_fps": [300.0, 400.0]}
    common = rates | {"ratios": [0.8, 0.9], "bytes_per_frame": 104_225, "peak_memory_bytes": 200 << 20}
    result: dict[str, Any] = {
        "source": "a recording",
        "repeats": 2,
        "machine": {"cpus": 2, "processor": "a processor"},
        "rows": [common | {"compression": "lzf"}],
        "sources": [common | {"codec": "av1", "height": height, "width": 2 * height} for height in (240, 480)],
        "chunks": [
            {"chunk_frames": chunk, "micro_batch": batch, "fps": [10.0 * batch + chunk]}
            for chunk in (0, 64)
            for batch in (1, 8)
        ],
        "peer": {
            "source": "av1 640x480", "episode_steps": 100, "frames": 200, "psnr_db": 44.04,
            "rows": [
                {"name": "theirs", "label": "theirs", "fps": [40.0], "ratios_to_theirs": [1.0],
                 "peak_memory_bytes": 4 << 30},
            ],
        },
    }  # fmt: skip
    blocks = report.blocks(result)
    assert set(blocks) <= set(report.BLOCKS)
    assert "| lzf | 550 | 450 | 0.85 (0.80 to 0.90) | 350 | 104.2 | 210 |" in blocks["codecs"]
    assert "| av1 480x240 |" in blocks["sources"]
    assert "| chunks of 64, through HDF5 | 74.0 | 144 |" in blocks["chunks"]
    assert "44.0 dB" in blocks["peer"]
    assert "| theirs | 40.0 | 1.00 | 4,295 |" in blocks["peer"]
    assert "micro_batches" not in blocks
    pytest.importorskip("matplotlib")
    report.draw(result, tmp_path)
    for name in (report.CHART, report.SOURCES_CHART, report.CHUNKS_CHART):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
