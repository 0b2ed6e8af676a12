"""What the commands show on a terminal: facts, findings, a plan, a verdict, what to type next, and progress."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lewm_data.catalog import LEAVE_OUT
from lewm_data.conversion.inspect import Inspection
from lewm_data.conversion.pipeline import Reporter
from lewm_data.conversion.plan import MEGABYTE
from lewm_data.errors import printable
from lewm_data.findings import HANDLED, Finding, Verdict, group_findings
from lewm_data.format.schema import camera_name
from lewm_data.notation import count_of
from lewm_data.progress_bar import StagedProgress as StagedProgress  # offered next to the display that extends it
from lewm_data.report import Command, dataset_facts, plan_facts
from lewm_data.resources import resident_memory_bytes

if TYPE_CHECKING:
    from lewm_data.quality.assess.assessment import Assessment

MAX_GROUPS = 12
"""Kinds of findings that are shown; the rest is counted, and --json lists all."""

_STYLES = {"good": "bold green", "fair": "bold yellow", "bad": "bold red"}
_LEVELS: dict[str, Literal["good", "fair", "bad"]] = {"ready": "good", "fixable": "fair", "record_again": "bad"}
_SYMBOLS = {"good": ("✔", "OK:"), "fair": ("▲", "Note:"), "bad": ("✘", "Stop:")}


class StderrConsole(Console):
    """Standard error. If its reader is gone, the work goes on silently; rich's own console would exit."""

    def __init__(self) -> None:
        super().__init__(stderr=True, soft_wrap=False, emoji=False)

    def on_broken_pipe(self) -> None:
        """Stops printing."""
        self.quiet = True
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        os.close(null)


def styled(*parts: str | tuple[str, str]) -> Text:
    """Joins plain texts and pairs of text and style.

    The texts may be untrusted: rich's markup has no effect, and control characters become visible escapes.
    """
    pairs = [(part, "") if isinstance(part, str) else part for part in parts]
    return Text.assemble(*((printable(text), style) for text, style in pairs))


def show_inspection(console: Console, inspection: Inspection) -> None:
    """Prints the dataset, its findings, and the cost of a conversion."""
    if inspection.dataset is not None:
        console.print(_pairs(dataset_facts(inspection, arrow="->" if _is_ascii(console) else "→")))
        console.print()
    num_episodes = None if inspection.dataset is None else len(inspection.dataset.episodes)
    show_findings(console, inspection.decision.findings, num_episodes=num_episodes)
    console.print()
    if inspection.plan is not None:
        console.print(_pairs(plan_facts(inspection.plan)))
        console.print()


def show_findings(console: Console, findings: Iterable[Finding], *, num_episodes: int | None = None) -> None:
    """Prints findings by kind, errors first: how many, where, an example, and what to do.

    Args:
        console: The console.
        findings: The findings.
        num_episodes: Number of episodes in the dataset, if known. If all have errors, leaving some out does not help.
    """
    findings = list(findings)
    groups = group_findings(findings)
    if not groups:
        console.print("[green]No findings.[/]")
        return
    counts = [(sum(found.severity == severity for found in findings), severity) for severity in ("error", "warning")]
    table = Table(
        title=", ".join(count_of(number, severity) for number, severity in counts if number),
        title_justify="left",
        title_style="bold",
        show_header=False,
        show_lines=True,
        box=box.HORIZONTALS,
        border_style="dim",
        pad_edge=False,
    )
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for group in groups[:MAX_GROUPS]:
        first = group.first
        style = "red" if first.severity == "error" else "yellow"
        example = "such as: " if group.count > 1 else ""
        handled = HANDLED.get(first.handling, first.handling)
        table.add_row(
            styled((first.severity, style), (f"\nx {group.count:,}" if group.count > 1 else "", "dim")),
            styled(
                (first.code, "bold"),
                f" in {group.where()} ",
                (f"({handled})\n", "dim"),
                f"{example}expected {first.expected}, found {first.found}",
                (f" ({first.file})" if first.file else "", "dim"),
                (f"\n{_own_remedy(first)}", "dim"),
            ),
        )
    console.print(table)
    refused = {found.episode for found in findings if found.handling == "refused"}
    is_any_left = num_episodes is None or len(refused) < num_episodes
    if refused and is_any_left and any(LEAVE_OUT in group.first.remedy for group in groups):
        console.print("Leave episodes out with --episodes or --dirty_episode_policy skip.", highlight=False)
    if len(groups) > MAX_GROUPS:
        rest = ", ".join(f"{group.first.code} x {group.count:,}" for group in groups[MAX_GROUPS:])
        hidden = count_of(len(groups) - MAX_GROUPS, "more kind")
        console.print(styled(f"and {hidden}: {rest} (--json lists all)"))


def _own_remedy(found: Finding) -> str:
    """The remedy without the sentence that is printed once below the table."""
    return found.remedy.replace(f"Or: {LEAVE_OUT}", "").replace(LEAVE_OUT, "").strip()


def show_verdict(console: Console, verdict: Verdict) -> None:
    """Prints a verdict on one line."""
    symbol = _SYMBOLS[verdict.level][_is_ascii(console)]
    console.print(styled((f"{symbol} {verdict.sentence}", _STYLES[verdict.level])))


def show_commands(console: Console, commands: Sequence[Command], *, in_order: bool = False) -> None:
    """Prints commands to type, each on a line of its own that the terminal may wrap and the mouse can copy.

    Args:
        console: The console.
        commands: The commands.
        in_order: Whether they follow each other; otherwise, one of them is to be chosen.
    """
    if not commands:
        return
    console.print("Next:" if in_order or len(commands) == 1 else "Next, one of:", style="dim", highlight=False)
    for command in commands:
        purpose = " ".join(command.purpose.split())  # a camera's name must not end the comment
        console.print(styled("  ", (f"# {purpose}", "dim")))
        console.print(styled("  ", (command.line, "bold cyan")), soft_wrap=True)


def show_done(console: Console, subject: object, rest: str) -> None:
    """Prints the line with which a command ends: a file or address, and what became of it."""
    console.print(styled((str(subject), "bold green"), rest), soft_wrap=True)


def _pairs(pairs: Iterable[tuple[str, str]]) -> Table:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in pairs:
        table.add_row(styled(label), styled(value))
    return table


def _is_ascii(console: Console) -> bool:
    return bool(console.options.ascii_only)


def show_assessment(console: Console, assessment: Assessment) -> None:
    """Prints what ``assess`` measured, what keeps a model from learning, a verdict, and what to type next."""
    console.print(_pairs(assessment.facts()))
    console.print()
    for found in assessment.findings:
        about = f" ({found.camera})" if found.camera else ""
        console.print(styled((f"{found.code}{about}", "bold yellow"), f": {found.found}."), soft_wrap=True)
        console.print(styled((f"  {found.remedy}", "dim")), soft_wrap=True)
    if assessment.findings:
        console.print()
    show_verdict(console, Verdict(_LEVELS[assessment.verdict], assessment.sentence))
    show_commands(console, [Command(*step) for step in assessment.next_steps], in_order=True)


class ConversionDisplay(StagedProgress, Reporter):
    """Draws the progress of a conversion."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._done = 0
        self._total = 0

    def inspecting(self, what: str, done: int, total: int) -> None:
        """Shows how many files are inspected."""
        self(f"inspect {what}", done, total)

    def planned(self, inspection: Inspection) -> None:
        """Prints the inspection."""
        self.stop()
        show_inspection(self.console, inspection)
        assert inspection.plan is not None
        self._total = inspection.plan.num_frames

    def resumed(self, num_frames: int) -> None:
        """Counts the frames of an earlier run."""
        self.console.print(f"resuming an earlier run: {count_of(num_frames, 'frame')} already converted")
        self._done += num_frames

    def frames(self, episode: int, camera: str, count: int) -> None:
        """Shows how many frames are written."""
        self._done += count
        memory = f"{resident_memory_bytes() / MEGABYTE:,.0f} MB"
        self("convert", self._done, self._total, f"episode {episode} {camera_name(camera)}, {memory}", "frames")

    def joining(self, what: str, done: int, total: int) -> None:
        """Shows how many shards are copied."""
        self(what, done, total)

    def waiting(self) -> None:
        """Says that another process is converting."""
        self.console.print("another process is writing the same output; waiting for it")


def quiet_hub_bars(console: Console) -> None:
    """Keeps huggingface_hub's own progress bars out of log files."""
    if not console.is_terminal:
        from huggingface_hub.utils.tqdm import disable_progress_bars

        disable_progress_bars()
