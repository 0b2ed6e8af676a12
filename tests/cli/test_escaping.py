"""Untrusted text on a terminal: it is shown as it is, without markup and without control characters."""

from __future__ import annotations

import io
import re
import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from lewm_data.cli.display import StderrConsole, show_commands, show_done, show_findings, show_verdict
from lewm_data.errors import printable
from lewm_data.findings import Finding, Verdict
from lewm_data.report import Command

PIECES = ("[", "]", "[/]", "[bold]", "[red", "\\", "[link=http://e.x]", ":smile:", "\x1b[31m", "\x1b]0;x\x07", "\r")
PIECES += ("\u202e", "\x9b", "\ud800", "%", "{x}", "'", '"', "a", "ä", " ")

CONTROLS = {"Cc", "Cf", "Cs", "Zl", "Zp"}
nasty = st.lists(st.one_of(st.sampled_from(PIECES), st.characters()), max_size=10).map("".join)


def shown(show: Callable[[Console], None]) -> str:
    """What a terminal displays; fails if anything but a color is sent to it."""
    out = io.StringIO()
    console = Console(file=out, width=5000, force_terminal=True, color_system="standard", emoji=False)
    show(console)
    text = re.sub(r"\x1b\[[\d;]*m", "", out.getvalue())
    assert {unicodedata.category(character) for character in text if character != "\n"}.isdisjoint(CONTROLS), repr(text)
    return text


@settings(deadline=None)
@given(nasty)
def test_untrusted_text_is_displayed_as_it_is(text: str) -> None:
    expected = printable(text)
    assert f"{expected}: {expected}\n" in shown(lambda console: show_done(console, text, f": {text}"))
    assert f" {expected}\n" in shown(lambda console: show_verdict(console, Verdict("bad", text)))
    line = " ".join(text.split())
    assert f"  {printable(line)}\n" in shown(lambda console: show_commands(console, [Command(line, text)]))


@settings(deadline=None, max_examples=50)
@given(nasty)
def test_untrusted_findings_are_displayed_as_they_are(text: str) -> None:
    found = Finding(code=text, severity=text, file=text, expected=text, found=text, remedy=text, handling=text)  # type: ignore[arg-type]
    seen = "".join(shown(lambda console: show_findings(console, [found])).split())
    word = "".join(printable(text).split())
    assert f"expected{word},found{word}" in seen
    assert f"{word}inthewholedataset({word})" in seen


def test_the_console_of_the_commands_leaves_emoji_codes_alone(capsys: pytest.CaptureFixture[str]) -> None:
    StderrConsole().print("episode :smile:")
    assert capsys.readouterr().err == "episode :smile:\n"
