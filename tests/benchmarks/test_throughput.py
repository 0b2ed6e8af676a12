"""The throughput benchmark: its targets, and runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import throughput
from benchmarks.contenders import CONTENDERS


def test_every_name_is_a_contender() -> None:
    named = {name for target in throughput.TARGETS for name in target[:2]} - {throughput.BEST_PEER}
    assert {*named, *throughput.SWEPT, *throughput.CHILLED} <= set(CONTENDERS)


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
    outcomes = {(row["who"], row["against"]): row for row in throughput.judge(rates)}
    assert outcomes["ram_thread", "limit_mmap"]["outcome"] == "PASS"
    assert outcomes["none_thread", "limit_mmap"]["outcome"] == "FAIL"
    assert outcomes["ram_thread", "swm_lance"]["ratio"]["median"] == pytest.approx(26.67, abs=0.01)
    assert outcomes["ram_thread", "swm_lance"]["outcome"] == "PASS"
    assert outcomes["ram_thread", "lerobot_torchcodec"]["outcome"] == "not measured"


def _run(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    output = tmp_path / "results" / "throughput.json"
    throughput.main(["--quick", "--data", str(tmp_path / "data"), "--output", str(output), *arguments])
    assert (output.parent / "throughput.png").exists()
    result: dict[str, Any] = json.loads(output.read_text())
    return result


@pytest.mark.slow
def test_it_runs_over_a_recording(recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
def test_every_contender_runs(tmp_path: Path) -> None:
    pytest.importorskip("lancedb")
    result = _run(tmp_path)
    assert result["left_out"] == {}
    assert [row["name"] for row in result["rows"]] == list(throughput.STANDARD_CONTENDERS)
    assert all(target["ratio"] for target in result["targets"])
    assert len({row["frame_bytes"] for row in result["rows"]}) == 1, "frames of one size, LeRobot's included"
    for row in result["rows"]:
        assert row["compared"]["psnr_db"] is None or row["compared"]["psnr_db"] > 30
