"""The runner: command line, JSON, and the comparison of two checkouts."""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import against
from benchmarks.report import BENCHMARKS
from benchmarks.runner import Benchmark, Option
from benchmarks.tables import RESULTS, load


@pytest.mark.parametrize("name", BENCHMARKS)
def test_help_explains_the_benchmark(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = importlib.import_module(f"benchmarks.{name}")
    with pytest.raises(SystemExit) as ended:
        module.main(["--help"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert module.__doc__.strip().splitlines()[0] in printed
    assert f"python -m benchmarks.{name}" in printed


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    return {"rows": [{"name": "one", "windows_per_second": {"median": options.frames}}]}


BENCHMARK = Benchmark(
    name="some",
    doc="A benchmark.",
    options={"frames": Option("frames", 1, 10, 100), "rounds": Option("rounds", 2)},
    measure=_measure,
    distributions=("torch", "not-installed"),
)


@pytest.mark.parametrize(
    ("arguments", "form", "frames"),
    [
        ([], "bench", 10),
        (["--full"], "full", 100),
        (["--quick"], "quick", 1),
        (["--quick", "--frames", "7"], "quick", 7),
    ],
)
def test_the_form_decides_the_options_that_are_left_out(
    arguments: list[str], form: str, frames: int, tmp_path: Path
) -> None:
    options = BENCHMARK.parse(["--data", str(tmp_path / "data"), *arguments])
    assert (options.form, options.frames, options.rounds) == (form, frames, 2)
    assert (options.output.parent == RESULTS) == (form != "quick")
    assert options.output.name == "some.json"
    assert options.data.is_dir()


def test_a_result_records_machine_and_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.runner.blocks", lambda name, result: {"table": "| 1 |", "chart": "![](results:a)"})
    BENCHMARK.main(["--data", str(tmp_path), "--output", str(tmp_path / "deep" / "some.json")])
    assert capsys.readouterr().out == "| 1 |\n", "a terminal shows no charts"
    result = load("some", tmp_path / "deep")
    assert result is not None
    assert result["rows"][0]["windows_per_second"] == {"median": 10}
    assert {"lewm_data", "numpy", "torch"} == set(result["versions"])
    assert result["machine"]["cpus"] >= 1
    assert result["machine"]["processor"]
    assert result["load_at_end"] >= 0
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["some.json"]
    assert load("other", tmp_path) is None


def test_no_quick_run_is_among_the_results() -> None:
    forms = {path.name: json.loads(path.read_text()).get("form") for path in RESULTS.glob("*.json")}
    assert "quick" not in forms.values(), forms


def test_two_checkouts_are_compared_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other checkout is twice as fast, in every round; each runs with its own interpreter and code."""
    other = tmp_path / "other"
    runs: list[tuple[str, list[str]]] = []

    def run(command: list[str], *, cwd: Path, **keywords: Any) -> Any:
        runs.append((Path(cwd).name, command))
        rate = len(runs) * (2.0 if cwd == other else 1.0)
        cpu = {"cpu_seconds_per_1000_windows": {"median": 1000 / rate}}
        row = {"name": "ram_thread", "windows_per_second": {"median": rate}, **cpu}
        Path(command[command.index("--output") + 1]).write_text(json.dumps({"rows": [row]}))
        return argparse.Namespace(returncode=0)

    monkeypatch.setattr(against.subprocess, "run", run)
    words = ["--against", str(other), "--quick", "--rounds", "2"]
    table = against.compare("throughput", other, words, rounds=2, data=tmp_path)
    assert [name for name, _ in runs] == [against.ROOT.name, "other", "other", against.ROOT.name]
    assert runs[1][1][:4] == [str(other / ".venv" / "bin" / "python"), "-m", "benchmarks.throughput", "--quick"]
    assert runs[1][1][4:6] == ["--rounds", "1"]
    for unit in ("windows/s", "windows/cpu s"):
        assert f"| ram_thread, {unit} | 2.50 (1.00 to 4.00) | 5.00 (4.00 to 6.00) | 0.46 (0.25 to 0.67) |" in table
