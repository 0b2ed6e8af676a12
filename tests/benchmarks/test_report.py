"""Every number in both READMEs comes from a result."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.results import RESULTS

UNITS = (
    r"(?:frames?/s|f/s|windows?/s|windows per second|frames per second|[KMG]B\b|dB\b|%|percent|times\b|x as\b|fold\b"
    r"|seconds?\b|ms\b|s per\b)"
)
_LIMITS = ("20 MB",)
"""Settings with a unit, which nobody measured."""
_CLAIM = re.compile(rf"\d[\d,.]*\s*(?:million|thousand)?\s*{UNITS}")


@pytest.mark.parametrize("readme", report.READMES, ids=lambda path: path.parent.name)
def test_a_readme_says_what_the_results_say(readme: Path) -> None:
    written = readme.read_text()
    assert written == report.filled(readme, report.all_blocks()), "run python benchmarks/report.py"


@pytest.mark.parametrize("readme", report.READMES, ids=lambda path: path.parent.name)
def test_no_measured_number_stands_outside_the_blocks(readme: Path) -> None:
    by_hand = report.MARKED.sub("", readme.read_text())
    assert [claim for claim in _CLAIM.findall(by_hand) if claim not in _LIMITS] == []


def test_such_a_number_would_be_found() -> None:
    for claim in ("at 12 frames/s", "peaks at 4.1 GB", "3 times faster", "38 dB", "1.5 million windows/s"):
        assert _CLAIM.search(claim)


@pytest.mark.parametrize("readme", report.READMES, ids=lambda path: path.parent.name)
def test_every_block_is_one_that_a_benchmark_can_write(readme: Path) -> None:
    names = [match["name"] for match in report.MARKED.finditer(readme.read_text())]
    assert names
    assert len(names) == readme.read_text().count("<!-- results:") == readme.read_text().count(report.END)
    for name in names:
        benchmark, block = name.split(".")
        assert block in report.REPORTS[benchmark].BLOCKS


def test_benchmarks_write_no_block_that_they_do_not_name() -> None:
    for name in report.all_blocks():
        benchmark, block = name.split(".")
        assert block in report.REPORTS[benchmark].BLOCKS


def test_the_first_screen_shows_the_throughput_chart() -> None:
    first_screen = report.READMES[0].read_text().splitlines()[:14]
    assert any("](benchmarks/results/throughput.png)" in line for line in first_screen)


@pytest.mark.parametrize("readme", report.READMES, ids=lambda path: path.parent.name)
def test_every_chart_is_there(readme: Path) -> None:
    pictures = re.findall(r"!\[[^]]+\]\(([^)]+\.png)\)", readme.read_text())
    assert pictures
    assert all((readme.parent / picture).exists() for picture in pictures)


def test_a_block_is_written_between_its_markers() -> None:
    text = f"before\n<!-- results: some.table -->\nold\n{report.END}\nafter\n"
    blocks = {"some.table": "| 1 |", "some.chart": "![A chart](results:some.png)"}
    written = f"before\n<!-- results: some.table -->\n| 1 |\n{report.END}\nafter\n"
    assert report.fill(text, blocks, results="benchmarks/results") == written
    assert report.fill(written, blocks, results="benchmarks/results") == written
    picture = report.fill(text.replace("table", "chart"), blocks, results="benchmarks/results")
    assert "![A chart](benchmarks/results/some.png)" in picture


def test_what_was_not_measured_says_so() -> None:
    text = f"<!-- results: some.table -->\n{report.END}\n"
    filled = report.fill(text, {}, results="results")
    assert filled == f"<!-- results: some.table -->\n{report.NOT_MEASURED}\n{report.END}\n"


def test_check_tells_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stale = RESULTS.parent / "README.md"
    monkeypatch.setattr(report, "filled", lambda path, blocks: path.read_text() + ("x" if path == stale else ""))
    before = stale.read_text()
    assert report.main(["--check"]) == 1
    assert "benchmarks/README.md does not say what the results say" in capsys.readouterr().out
    assert stale.read_text() == before
