"""The output of the commands: narrow terminals, no color, log files, and thousands of findings."""

from __future__ import annotations

import dataclasses
import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from lewm_data import progress_bar
from lewm_data.catalog import CATALOG, LEAVE_OUT
from lewm_data.cli.display import MAX_GROUPS, StagedProgress, show_commands, show_findings, show_verdict
from lewm_data.findings import Verdict, finding
from lewm_data.report import Command

CODES = list(CATALOG)


def shown(width: int = 80, **options: object) -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, width=width, **options), out  # type: ignore[arg-type]


@pytest.mark.parametrize("width", [40, 60, 80, 160])
def test_findings_fit_any_width_without_losing_text(width: int) -> None:
    console, out = shown(width)
    show_findings(
        console,
        [
            finding(
                "rows_missing", expected="[311] rows", found="309", episode=41, file="data/chunk-000/file-000.parquet"
            )
        ],
    )
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= width
    whole = "".join(text.split())
    for part in ("rows_missing", "episode41", "expected[311]rows,found309", "(data/chunk-000/file-000.parquet)"):
        assert part in whole
    assert whole.startswith("1error─")


def test_thousands_of_findings_fit_on_a_page() -> None:
    console, out = shown()
    show_findings(
        console, [finding(code, expected="x", found="y", episode=i) for code in CODES for i in range(0, 1000, 2)]
    )
    text = out.getvalue()
    assert len(text.splitlines()) < 8 * MAX_GROUPS
    assert f"{500 * len(CODES):,}" not in text  # errors and warnings are counted separately
    assert f"and {len(CODES) - MAX_GROUPS} more kinds" in text
    assert "and 494 more" in text


def test_the_ending_that_remedies_share_is_printed_once() -> None:
    found = [
        dataclasses.replace(finding(code, expected="x", found="y", episode=1), handling="refused")
        for code in ("rows_extra", "episode_empty")
    ]
    console, out = shown(200)
    show_findings(console, found, num_episodes=2)
    assert out.getvalue().count("--dirty_episode_policy skip") == 1
    assert LEAVE_OUT not in out.getvalue()


def test_leaving_episodes_out_is_suggested_only_if_it_helps() -> None:
    refused = dataclasses.replace(finding("rows_extra", expected="x", found="y", episode=1), handling="refused")
    for found, num_episodes in ((refused, 1), (dataclasses.replace(refused, handling="dropped"), 2)):
        console, out = shown(200)
        show_findings(console, [found], num_episodes=num_episodes)
        assert "--dirty_episode_policy skip" not in out.getvalue()


def test_a_command_stays_on_one_line_on_a_narrow_terminal() -> None:
    console, out = shown(30)
    line = "lewm-data convert some/where/far/away [x].h5 --camera front --cameras all"
    show_commands(console, [Command(line, "both\nrm this")])
    assert f"  # both rm this\n  {line}\n" in out.getvalue()
    console, out = shown()
    show_commands(console, [])
    assert out.getvalue() == ""


@pytest.mark.parametrize(("encoding", "mark"), [("utf-8", "✘ "), ("ascii", "Stop: ")])
def test_a_verdict_needs_neither_color_nor_unicode(encoding: str, mark: str) -> None:
    raw = io.BytesIO()
    with io.TextIOWrapper(raw, encoding=encoding, write_through=True) as stream:
        show_verdict(Console(file=stream), Verdict("bad", "Refused: [everything]."))
        assert raw.getvalue().decode(encoding) == f"{mark}Refused: [everything].\n"


def test_progress_leaves_no_trace_in_a_log() -> None:
    console, out = shown()
    with StagedProgress(console) as progress:
        for what in ("verify", "compare"):
            for done in range(4):
                progress(what, done, 3)
    assert out.getvalue() == ""


def test_a_log_says_now_and_then_how_far_a_long_stage_is(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(progress_bar.time, "monotonic", lambda: now)
    console, out = shown()
    with StagedProgress(console) as progress:
        for second in range(101):
            now = float(second)
            progress("convert", 400 + 10 * second, 1400, "episode [b]3[/b]", "frames")
        for done in range(3):
            now += 20
            progress("join shards", done, 2)
    assert out.getvalue().splitlines() == [
        "convert: 700 of 1,400 frames, episode [b]3[/b], 10 frames/s, 1 min 10 s left",
        "convert: 1,000 of 1,400 frames, episode [b]3[/b], 10 frames/s, 40 s left",
        "convert: 1,300 of 1,400 frames, episode [b]3[/b], 10 frames/s, 10 s left",
        "join shards: 2 of 2",
    ]


def test_a_log_file_has_no_control_characters(recorded: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lewm_data", "inspect", str(recorded)], capture_output=True, timeout=60
    )
    text = done.stderr.decode()
    assert done.returncode == 0
    assert text.startswith("dataset ")
    assert [c for c in text if ord(c) < 32 and c != "\n"] == []


@pytest.mark.parametrize(
    ("environment", "has_color"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)], ids=str
)
def test_a_terminal_gets_color_unless_it_asks_for_none(
    environment: dict[str, str], has_color: bool, recorded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "60", **environment}.items():
        monkeypatch.setenv(name, value)
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "lewm_data", "inspect", str(recorded), "--camera=front"]
    with subprocess.Popen(command, stderr=theirs, stdout=subprocess.DEVNULL) as process:
        os.close(theirs)
        text = b""
        while True:
            try:
                block = os.read(ours, 4096)
            except OSError:  # the other side is closed
                break
            if not block:
                break
            text += block
        os.close(ours)
    assert process.returncode == 0
    verdict = next(line for line in text.decode().splitlines() if "Ready to convert" in line)
    assert ("\x1b[1;32m" in verdict) == has_color
