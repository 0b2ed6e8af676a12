"""What the commands print on a terminal: facts, findings by kind, a plan, a verdict, and what to type next."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.markup import escape as escape_markup
from rich.table import Table

from lewm_data.conversion.inspect import Inspection
from lewm_data.errors import printable
from lewm_data.findings import HANDLED, LEAVE_OUT, Finding, Verdict, count_of, group_findings
from lewm_data.report import Command, dataset_facts, plan_facts

MAX_GROUPS = 12
"""Kinds of findings that are shown; the rest is counted, and --json lists all."""

_STYLES = {"good": "bold green", "fair": "bold yellow", "bad": "bold red"}
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


def escape(text: str) -> str:
    """Escapes rich's markup and the control characters of terminals."""
    return escape_markup(printable(text))


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
        num_episodes: Number of episodes in the dataset, if known. If all have errors, leaving out some is no remedy.
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
        where = f" [dim]({escape(first.file)})[/]" if first.file else ""
        handled = HANDLED.get(first.handling, first.handling)
        table.add_row(
            f"[{style}]{escape(first.severity)}[/]" + f"\n[dim]x {group.count:,}[/]" * (group.count > 1),
            f"[bold]{escape(first.code)}[/] in {group.where()} [dim]({escape(handled)})[/]\n"
            f"{example}expected {escape(first.expected)}, found {escape(first.found)}{where}\n"
            f"[dim]{escape(_own_remedy(first))}[/]",
        )
    console.print(table)
    refused = {found.episode for found in findings if found.handling == "refused"}
    is_any_left = num_episodes is None or len(refused) < num_episodes
    if refused and is_any_left and any(LEAVE_OUT in group.first.remedy for group in groups):
        console.print("Leave episodes out with --episodes or --dirty_episode_policy skip.", highlight=False)
    if len(groups) > MAX_GROUPS:
        rest = ", ".join(f"{group.first.code} x {group.count:,}" for group in groups[MAX_GROUPS:])
        hidden = count_of(len(groups) - MAX_GROUPS, "more kind")
        console.print(f"and {hidden}: {escape(rest)} (--json lists all)")


def _own_remedy(found: Finding) -> str:
    """The remedy without the sentence that is printed once below the table."""
    return found.remedy.replace(f"Or: {LEAVE_OUT}", "").replace(LEAVE_OUT, "").strip()


def show_verdict(console: Console, verdict: Verdict) -> None:
    """Prints a verdict on one line."""
    symbol = _SYMBOLS[verdict.level][_is_ascii(console)]
    console.print(f"[{_STYLES[verdict.level]}]{symbol} {escape(verdict.sentence)}[/]", highlight=False)


def show_commands(console: Console, commands: Sequence[Command]) -> None:
    """Prints commands to type, each on a line of its own that the terminal may wrap and the mouse can copy."""
    if not commands:
        return
    console.print("Next:" if len(commands) == 1 else "Next, one of:", style="dim", highlight=False)
    for command in commands:
        purpose = " ".join(command.purpose.split())  # a camera's name must not end the comment
        console.print(f"  [dim]# {escape(purpose)}[/]", highlight=False)
        console.print(f"  {escape(command.line)}", soft_wrap=True, highlight=False, style="bold cyan")


def show_done(console: Console, subject: object, rest: str) -> None:
    """Prints the line with which a command ends: a file or address, and what became of it."""
    console.print(f"[bold green]{escape(str(subject))}[/]{escape(rest)}", soft_wrap=True)


def _pairs(pairs: Iterable[tuple[str, str]]) -> Table:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in pairs:
        table.add_row(label, escape(value))
    return table


def _is_ascii(console: Console) -> bool:
    return bool(console.options.ascii_only)
