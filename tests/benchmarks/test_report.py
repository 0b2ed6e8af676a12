"""Every number in both READMEs comes from a result, and results become tables and charts."""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path

import pytest

from benchmarks import charts, report
from benchmarks.blocks import blocks
from benchmarks.drawings import draw
from benchmarks.tables import RESULTS, count, load, spread_of

UNITS = (
    r"(?:frames?/s|f/s|windows?/s|windows per second|frames per second|[KMG]B\b|dB\b|%|percent|times\b|x as\b|fold\b"
    r"|seconds?\b|ms\b|s per\b)"
)
_LIMITS = ("20 MB",)
"""Settings with a unit, not measurements."""
_CLAIM = re.compile(rf"\d[\d,.]*\s*(?:million|thousand)?\s*{UNITS}")
each_page = pytest.mark.parametrize("page", report.pages(), ids=lambda path: path.relative_to(report.ROOT).as_posix())
each_readme = pytest.mark.parametrize("readme", report.READMES, ids=lambda path: path.parent.name)
each_benchmark = pytest.mark.parametrize("name", report.BENCHMARKS)


@each_page
def test_a_page_says_what_the_results_say(page: Path) -> None:
    assert page.read_text() == report.filled(page, report.all_blocks()), "run python -m benchmarks.report"


@each_page
def test_every_block_of_a_page_is_filled_if_its_benchmark_was_run(page: Path) -> None:
    names = [match["name"] for match in report.MARKED.finditer(page.read_text())]
    assert len(names) == page.read_text().count("<!-- results:") == page.read_text().count(report.END) > 0
    was_run = {name for name in report.BENCHMARKS if load(name) is not None}
    assert {name.split(".")[0] for name in names} <= set(report.BENCHMARKS)
    assert {name for name in names if name.split(".")[0] in was_run} <= set(report.all_blocks())


@each_readme
def test_no_measured_number_stands_outside_the_blocks(readme: Path) -> None:
    by_hand = report.MARKED.sub("", readme.read_text())
    assert [claim for claim in _CLAIM.findall(by_hand) if claim not in _LIMITS] == []


def test_such_a_number_would_be_found() -> None:
    for claim in ("at 12 frames/s", "peaks at 4.1 GB", "3 times faster", "38 dB", "1.5 million windows/s"):
        assert _CLAIM.search(claim)


def test_the_first_screen_shows_the_throughput_chart() -> None:
    for readme in report.READMES:
        first_screen = readme.read_text().splitlines()[:24]
        assert any("results/throughput.png)" in line for line in first_screen)


@each_readme
def test_every_chart_exists(readme: Path) -> None:
    pictures = re.findall(r"!\[[^]]+\]\(([^)]+\.png)\)", readme.read_text())
    assert pictures
    assert all((readme.parent / picture).exists() for picture in pictures)


def test_a_block_is_written_between_its_markers() -> None:
    text = f"before\n<!-- results: some.table -->\nold\n{report.END}\nafter\n"
    found = {"some.table": "| 1 |", "some.chart": "![A chart](results:some.png)"}
    written = f"before\n<!-- results: some.table -->\n| 1 |\n{report.END}\nafter\n"
    assert report.fill(text, found, results="benchmarks/results") == written
    assert report.fill(written, found, results="benchmarks/results") == written
    picture = report.fill(text.replace("table", "chart"), found, results="benchmarks/results")
    assert "![A chart](benchmarks/results/some.png)" in picture
    assert report.NOT_MEASURED in report.fill(text, {}, results="results")


def test_check_writes_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    stale = RESULTS.parent / "README.md"
    monkeypatch.setattr(report, "filled", lambda page, found: page.read_text() + ("x" if page == stale else ""))
    before = stale.read_text()
    assert report.main(["--check"]) == 1
    assert "benchmarks/README.md differs from the results" in capsys.readouterr().out
    assert stale.read_text() == before


@each_benchmark
def test_every_result_becomes_charts(name: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    result = load(name)
    if result is None:
        pytest.skip(f"{name} is not measured yet, and the pages say so")
    draw(name, result, tmp_path)
    named = re.findall(r"\(results:([\w.]+)\)", "".join(blocks(name, result).values()))
    assert sorted(named) == sorted(path.name for path in tmp_path.iterdir())
    assert all((tmp_path / file).read_bytes().startswith(b"\x89PNG") for file in named)


def test_tables_hold_the_numbers_of_the_json() -> None:
    """The oracle is the JSON, read without the report's code."""
    raw = {path.stem: json.loads(path.read_text()) for path in RESULTS.glob("*.json")}
    row = next(row for row in raw["throughput"]["rows"] if row["name"] == "ram_thread")
    rates = [one["windows"] / one["seconds"] for one in row["rounds"]]
    words = f"| RAM cache, threads | {statistics.median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f}) |"
    assert words in blocks("throughput", raw["throughput"])["table"]
    row = raw["conversion"]["rows"][0]
    least, most = min(row["ratios"]), max(row["ratios"])
    words = f"| {statistics.median(row['ratios']):.2f} ({least:.2f} to {most:.2f}) |"
    assert words in blocks("conversion", raw["conversion"])["codecs"].splitlines()[2]
    row = raw["codecs"]["rows"][0]
    start = f"| {row['content']} | {row['codec']} | {row['bytes_per_frame'] / 1000:.1f} |"
    assert blocks("codecs", raw["codecs"])["table"].splitlines()[2].startswith(start)
    point = raw["scaling"]["frames"][-1]
    opened = f"| {point['num_frames']:,} | {point['first_opening']['seconds']:.2f} |"
    assert blocks("scaling", raw["scaling"])["frames"].splitlines()[-1].startswith(opened)


def test_missed_targets_and_left_out_peers_are_named() -> None:
    result = load("throughput")
    assert result is not None
    row = result["targets"][0] | {"outcome": "FAIL", "ratio": {"median": 0.5, "min": 0.4, "max": 0.6}}
    found = blocks("throughput", result | {"targets": [row], "left_out": {"lerobot_pyav": "no FFmpeg"}})
    assert "| 0.7 | 0.50 (0.40 to 0.60) | FAIL |" in found["targets"]
    assert "Left out: lerobot_pyav: no FFmpeg" in found["table"]


@pytest.mark.parametrize("processor", ["the same", "another"])
def test_training_shows_loaders_of_the_same_machine_only(monkeypatch: pytest.MonkeyPatch, processor: str) -> None:
    result, throughput = load("training"), load("throughput")
    assert result is not None
    assert throughput is not None
    throughput["machine"] = {**result["machine"], "processor": processor}
    result["machine"]["processor"] = "the same"
    monkeypatch.setattr("benchmarks.blocks.load", lambda name: throughput)
    assert ("RAM cache, threads, delivers" in blocks("training", result)["table"]) == (processor == "the same")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (23362.4, "23,362"),
        (604.4, "604"),
        (77.25, "77.2"),
        (0.861, "0.86"),
        (0.00342, "0.0034"),
        (0, "0"),
        (3.0, "3.00"),
    ],
)
def test_numbers_have_three_significant_digits(value: float, words: str) -> None:
    assert count(value) == words


def test_a_spread_shows_median_minimum_and_maximum() -> None:
    assert spread_of([0.9, 0.82, 0.86]) == "0.86 (0.82 to 0.90)"
    assert spread_of([0.9]) == "0.90"


@pytest.mark.parametrize(
    ("value", "words"), [(1500, "1500"), (15_000, "15k"), (1e7, "10M"), (0.25, "0.25"), (2e9, "2G")]
)
def test_axes_have_few_letters(value: float, words: str) -> None:
    assert charts.short(value) == words
