"""What all benchmarks have in common."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

from benchmarks.results import RESULTS, Run, load, make_parser, parse

BENCHMARKS = ("throughput", "conversion", "codecs", "scaling", "training")
SIZES = {"quick": {"frames": 1}, "bench": {"frames": 10}, "full": {"frames": 100}}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_help_explains_the_benchmark(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = importlib.import_module(f"benchmarks.{name}")
    assert set(module.SIZES) == {"quick", "bench", "full"}
    with pytest.raises(SystemExit) as ended:
        module.main(["--help"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert module.__doc__.strip().splitlines()[0] in printed
    assert f"python benchmarks/{name}.py --quick" in printed


@pytest.mark.parametrize(
    ("arguments", "form", "frames"),
    [
        ([], "bench", 10),
        (["--full"], "full", 100),
        (["--quick"], "quick", 1),
        (["--quick", "--frames", "7"], "quick", 7),
    ],
)
def test_the_form_decides_what_is_not_given(arguments: list[str], form: str, frames: int, tmp_path: Path) -> None:
    parser = make_parser("A benchmark.")
    parser.add_argument("--frames", type=int)
    options = parse(parser, ["--data", str(tmp_path / "data"), *arguments], name="some", sizes=SIZES)  # type: ignore[arg-type]
    assert (options.form, options.frames) == (form, frames)
    assert (options.output.parent == RESULTS) == (form != "quick")
    assert options.output.name == "some.json"
    assert options.data.is_dir()


def test_a_result_says_where_and_when(tmp_path: Path) -> None:
    result = Run("some", "quick", "torch").finish(tmp_path / "deep" / "some.json", {"rows": [1]})
    assert load("some", tmp_path / "deep") == json.loads(json.dumps(result))
    assert result["rows"] == [1]
    assert {"lewm_data", "numpy", "torch"} == set(result["versions"])
    assert result["machine"]["cpus"] >= 1
    assert result["machine"]["processor"]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["some.json"]


def test_a_result_that_is_not_there_is_none(tmp_path: Path) -> None:
    assert load("some", tmp_path) is None


def test_no_quick_run_is_among_the_results() -> None:
    forms = {path.name: json.loads(path.read_text()).get("form") for path in RESULTS.glob("*.json")}
    assert "quick" not in forms.values(), forms
