"""The throughput benchmark: its judgement and words, and a run of our own contenders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import throughput
from benchmarks import throughput_report as report
from benchmarks.contenders.contest import CHILLED, SWEPT
from benchmarks.contenders.registry import CONTENDERS
from benchmarks.harness import Round
from benchmarks.throughput_targets import TARGETS, judge


def test_every_target_has_a_contender() -> None:
    assert {above for above, _, _ in TARGETS} <= set(CONTENDERS)
    assert {*SWEPT, *CHILLED, *report.NOT_CHARTED} <= set(CONTENDERS)


@pytest.mark.parametrize(
    ("cpus", "workers"), [(1, [0, 1, 2]), (2, [0, 1, 2]), (4, [0, 1, 2, 4]), (12, [0, 1, 2, 4, 8, 12])]
)
def test_workers_double_up_to_the_processors(cpus: int, workers: list[int]) -> None:
    assert throughput.default_workers(cpus) == workers


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


def _rounds(seconds: float) -> list[Round]:
    common: dict[str, Any] = {
        "windows": 256, "cpu_seconds": 2 * seconds, "first_batch_seconds": 0.5, "memory_bytes": 10**9,
    }  # fmt: skip
    return [Round(seconds=seconds * factor, **common) for factor in (1, 1.5)]


def _row(name: str, seconds: float) -> dict[str, Any]:
    return report.summarize(name, _rounds(seconds), num_steps=4, frame_bytes=150_528)


def test_the_result_becomes_words_and_charts(tmp_path: Path) -> None:
    rows = [
        _row(name, seconds) | {"bytes_per_frame": 110_000.0, "setup_seconds": 1.5, "compared": {"words": "equal"}}
        for name, seconds in (("limit_ram", 0.01), ("ram_thread", 0.02), ("swm_lance", 0.5), ("cached_batch", 1e-6))
    ]
    result = {
        "rows": rows,
        "workers": [{"num_workers": number, **_row("ram_thread", 0.04 / number)} for number in (1, 2)],
        "cold": [_row("ram_thread", 0.2) | {"cached_share_before": 0.0}],
        "cold_refused": None,
        "targets": judge({"limit_ram": [2.0, 2.0], "ram_thread": [1.9, 1.8], "swm_lance": [1.0, 1.0]}),
        "left_out": {"lerobot_torchcodec": "no FFmpeg"},
        "settings": {
            "num_steps": 4, "frameskip": 5, "batch_size": 256, "mp4_batch_size": 8, "num_workers": 2, "rounds": 2,
        },
        "machine": {"cpus": 2, "processor": "a processor"},
        "source": "a recording",
    }  # fmt: skip
    blocks = report.blocks(result)
    assert set(blocks) == set(report.BLOCKS)
    assert "| RAM cache, threads | 10,667 (8,533 to 12,800) |" in blocks["table"]
    assert "Left out: lerobot_torchcodec: no FFmpeg" in blocks["table"]
    assert "| 0.93 (0.90 to 0.95) | PASS |" in blocks["targets"]
    assert "- **0.93 (0.90 to 0.95)** of what threads reach that only copy memory" in blocks["summary"]
    assert "1.85 (1.80 to 1.90), our aim was 20" in blocks["summary"]
    assert "| RAM cache, threads | 5,333 (4,267 to 6,400) | 10,667 (8,533 to 12,800) |" in blocks["workers"]
    assert "| RAM cache, threads | 1,067 (853 to 1,280) | 0.10 | 0.50 | 0% |" in blocks["cold"]
    pytest.importorskip("matplotlib")
    report.draw(result, tmp_path)
    for name in (report.CHART, report.WORKERS_CHART):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def _run(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    output = tmp_path / "results" / "throughput.json"
    throughput.main(["--quick", "--data", str(tmp_path / "data"), "--output", str(output), *arguments])
    assert (output.parent / report.CHART).exists()
    result: dict[str, Any] = json.loads(output.read_text())
    return result


def test_it_runs_over_a_recording_of_ours(recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    window = ["--num_steps", "2", "--frameskip", "2", "--batch_size", "8", "--num_workers", "0", "2"]
    result = _run(tmp_path, "--source", str(recorded), *window, "--contenders", "limit_mmap", "lzf_thread")
    assert [row["name"] for row in result["rows"]] == ["limit_mmap", "lzf_thread"]
    assert all(row["compared"]["words"] == "equal" for row in result["rows"])
    assert {(row["name"], row["num_workers"]) for row in result["workers"]} == {
        (name, number) for name in ("limit_mmap", "lzf_thread") for number in (0, 2)
    }
    assert result["cold"] or result["cold_refused"]
    assert result["form"] == "quick"
    assert "| lzf, threads |" in capsys.readouterr().out


@pytest.mark.slow
def test_everybody_runs(tmp_path: Path) -> None:
    pytest.importorskip("lancedb")
    result = _run(tmp_path)
    assert result["left_out"] == {}
    assert [row["name"] for row in result["rows"]] == list(throughput.ALMOST_ALL)
    assert all(target["ratio"] for target in result["targets"])
    for row in result["rows"]:
        assert row["compared"]["psnr_db"] is None or row["compared"]["psnr_db"] > 30
