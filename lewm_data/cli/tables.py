"""What the commands print: what a source is, its findings by kind, a plan, a verdict, and what to type next."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from numpy import median
from rich import box
from rich.console import Console
from rich.table import Table

from lewm_data.cli.advice import Command, next_commands, verdict
from lewm_data.cli.terminal import escape
from lewm_data.conversion.inspect import Inspection
from lewm_data.conversion.plan import MEGABYTE, Plan
from lewm_data.findings import HANDLED, LEAVE_OUT, Finding, Verdict, count_of, group_findings
from lewm_data.format.schema import ACTION, STATE, camera_name
from lewm_data.source.metadata import done_words
from lewm_data.source.selection import DEFAULT_KEYS

MAX_GROUPS = 12
"""Kinds of findings shown; the rest is counted, and all are in --json."""

_MOST_NAMES = 16

_STYLES = {"good": "bold green", "fair": "bold yellow", "bad": "bold red"}
_SYMBOLS = {"good": ("✔", "OK:"), "fair": ("▲", "Note:"), "bad": ("✘", "Stop:")}


def show_report(console: Console, inspection: Inspection, shortfalls: Sequence[str]) -> Verdict:
    """Prints all that ``lewm-data inspect`` has to say.

    Args:
        console: Where to.
        inspection: What was found.
        shortfalls: Why it does not fit into memory or disk.

    Returns:
        What it comes to.
    """
    show_inspection(console, inspection)
    told = verdict(inspection, shortfalls)
    show_verdict(console, told)
    show_commands(console, next_commands(inspection, fits=not shortfalls))
    return told


def show_inspection(console: Console, inspection: Inspection) -> None:
    """Prints what a source is, what is wrong with it, and what converting it takes."""
    if inspection.dataset is not None:
        console.print(_pairs(_dataset_facts(inspection, _arrow(console))))
        console.print()
    num_episodes = None if inspection.dataset is None else len(inspection.dataset.episodes)
    show_findings(console, inspection.decision.findings, num_episodes=num_episodes)
    console.print()
    if inspection.plan is not None:
        show_plan(console, inspection.plan)
        console.print()


def _dataset_facts(inspection: Inspection, arrow: str) -> Iterator[tuple[str, str]]:
    dataset = inspection.dataset
    assert dataset is not None
    revision = f"revision {dataset.revision[:12]}" if dataset.revision else "a local folder"
    lengths = dataset.episodes.length
    steps = int(lengths.sum())
    yield "dataset", f"{dataset.repo_id} (LeRobot {dataset.codebase_version}, {revision})"
    minutes = steps / dataset.fps / 60
    yield "content", f"{len(lengths):,} episodes, {steps:,} steps, {minutes:,.1f} min at {dataset.fps:g} fps"
    if len(lengths):
        shortest, longest, middle = int(lengths.min()), int(lengths.max()), int(median(lengths))
        yield "lengths", f"{shortest:,} to {longest:,} steps, median {middle:,}"
    columns = {key: f" {arrow} {column}" for column, key in inspection.cameras.items()}
    yield "cameras", ", ".join(camera_name(key) + columns.get(key, "") for key in dataset.cameras) or "none"
    if dataset.depth_cameras:
        yield "left out", f"{', '.join(map(camera_name, dataset.depth_cameras))} (depth)"
    for label, keys in ((ACTION, dataset.action), (STATE, dataset.state)):
        if keys:
            dimensions = dataset.dimension_names(keys)
            more = ", ..." * (len(dimensions) > _MOST_NAMES)
            names = f": {', '.join(dimensions[:_MOST_NAMES])}{more}" if dimensions else ""
            source = "" if keys == DEFAULT_KEYS[label][:1] else f" from {', '.join(keys)}"
            yield label, f"{sum(dataset.features[key].width for key in keys)} wide{source}{names}"
    yield "done from", done_words(inspection.report.done_source(dataset))


def show_findings(console: Console, findings: Iterable[Finding], *, num_episodes: int | None = None) -> None:
    """Prints findings by kind, errors first: how many, where, an example and what to do.

    Args:
        console: Where to.
        findings: All of them.
        num_episodes: Episodes of the dataset, where that is known: with errors in all, none can be left out.
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
        table.add_row(
            f"[{style}]{first.severity}[/]" + f"\n[dim]x {group.count:,}[/]" * (group.count > 1),
            f"[bold]{first.code}[/] in {group.where()} [dim]({HANDLED[first.handling]})[/]\n"
            f"{example}expected {escape(first.expected)}, found {escape(first.found)}{where}\n"
            f"[dim]{escape(_own_remedy(first))}[/]",
        )
    console.print(table)
    refused = {found.episode for found in findings if found.handling == "refused"}
    is_any_left = num_episodes is None or len(refused) < num_episodes
    if refused and is_any_left and any(LEAVE_OUT in group.first.remedy for group in groups):
        console.print("Episodes can be left out: by --episodes, or with --dirty_episode_policy skip.", highlight=False)
    if len(groups) > MAX_GROUPS:
        rest = ", ".join(f"{group.first.code} x {group.count:,}" for group in groups[MAX_GROUPS:])
        console.print(f"and {len(groups) - MAX_GROUPS} more kinds: {rest} (all of them with --json)")


def _own_remedy(found: Finding) -> str:
    """The remedy without what is said once under the table."""
    return found.remedy.replace(f"Or: {LEAVE_OUT}", "").replace(LEAVE_OUT, "").strip()


def show_plan(console: Console, plan: Plan) -> None:
    """Prints what a conversion takes."""
    frame = f"{plan.height}x{plan.width}, {plan.bytes_per_frame / 1000:,.0f} KB each"
    shards = f", in {plan.num_shards} shards" if plan.num_shards > 1 else ""
    console.print(
        _pairs(
            (
                ("frames", f"{plan.num_frames:,} of {frame} (measured on {plan.sample_frames})"),
                ("output", size(plan.output_bytes)),
                ("disk", f"{size(plan.temporary_bytes)} at the peak{shards}"),
                ("memory", f"{size(plan.peak_memory_bytes)} at the peak"),
                ("time", f"about {duration(plan.seconds)}"),
            )
        )
    )


def show_verdict(console: Console, told: Verdict) -> None:
    """Prints one line that says what it comes to."""
    symbol = _SYMBOLS[told.level][_is_ascii(console)]
    console.print(f"[{_STYLES[told.level]}]{symbol} {escape(told.sentence)}[/]", highlight=False)


def show_commands(console: Console, commands: Sequence[Command]) -> None:
    """Prints commands to type, each on a line of its own that the terminal may wrap and a mouse can copy."""
    if not commands:
        return
    console.print("Next:" if len(commands) == 1 else "Next, as it suits:", style="dim", highlight=False)
    for command in commands:
        purpose = " ".join(command.purpose.split())  # somebody's camera name must not end the comment
        console.print(f"  [dim]# {escape(purpose)}[/]", highlight=False)
        console.print(f"  {escape(command.line)}", soft_wrap=True, highlight=False, style="bold cyan")


def _pairs(pairs: Iterable[tuple[str, str]]) -> Table:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in pairs:
        table.add_row(label, escape(value))
    return table


def _is_ascii(console: Console) -> bool:
    return bool(console.options.ascii_only)


def _arrow(console: Console) -> str:
    return "->" if _is_ascii(console) else "→"


def size(num_bytes: float) -> str:
    """Bytes in words for people, such as ``1,150 MB`` or ``28.4 GB``."""
    megabytes = num_bytes / MEGABYTE
    return f"{megabytes:,.0f} MB" if megabytes < 10_000 else f"{megabytes / 1000:,.1f} GB"


def duration(seconds: float) -> str:
    """Seconds in words for people, such as ``2 min 5 s``."""
    whole = max(1, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
