"""The commands: inspect, convert, verify, merge, preview, view, push, pull, demo.

Exit status: 0 done; 1 unexpected; 2 usage; 3 dirty data refused; 4 not enough memory or disk; 5 stalled;
6 verification failed; 130 interrupted. ``--json`` prints one object on stdout; everything else goes to stderr.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from rich.console import Console

from lewm_data.cli.parser import parse
from lewm_data.cli.terminal import StderrConsole, escape
from lewm_data.config import ConvertConfig, PreviewConfig
from lewm_data.conversion.watchdog import catch_signals
from lewm_data.errors import InterruptedConversionError, LewmDataError, ResourceError, VerificationError


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command and exits with its status."""
    status = 0
    try:
        parsed = parse(sys.argv[1:] if arguments is None else arguments)
        options = parsed[parsed.subcommand]
        with catch_signals():
            status, result = _run(parsed.subcommand, options)
        if options.json:
            print(json.dumps(result, indent=2, default=str))
        if sys.stdout is not None:  # as where it was closed
            sys.stdout.flush()
    except BrokenPipeError:  # whoever read our output has had enough: that changes nothing of what was done
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except MemoryError:  # too little even to say so on a console
        os.write(sys.stderr.fileno(), b"error: out of memory. Close other programs, then run the same command again.\n")
        status = ResourceError.exit_status
    sys.exit(status)


def _run(command: str, options: Namespace) -> tuple[int, dict[str, Any]]:
    """One command's exit status, and what it tells a script."""
    console = StderrConsole()
    result: dict[str, Any]
    try:
        result = _COMMANDS[command](options, console)
        status = int(result.pop("status", 0))
    except LewmDataError as error:
        status, result = error.exit_status, {"error": _error_json(error)}
        console.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
    except KeyboardInterrupt:
        status = InterruptedConversionError.exit_status
        result = {"error": {"type": "Interrupted", "message": "Interrupted.", "status": status}}
        console.print("[bold red]error:[/] Interrupted.")
    except MemoryError:
        raise
    except Exception as error:
        status = 1
        result = {"error": {"type": type(error).__name__, "message": str(error), "status": status}}
        console.print_exception()
        console.print("[bold red]error:[/] unexpected; please report it with the lines above.")
    return status, result


def _error_json(error: LewmDataError) -> dict[str, Any]:
    return {
        "type": type(error).__name__,
        "message": str(error),
        "status": error.exit_status,
        "findings": list(getattr(error, "findings", ())),
        "problems": list(getattr(error, "problems", ())),
    }


def _settings(options: Namespace) -> ConvertConfig:
    return ConvertConfig(**{name: options[name] for name in ConvertConfig.__dataclass_fields__})


def _inspect(options: Namespace, console: Console) -> dict[str, Any]:
    from lewm_data.cli.progress import ConversionDisplay
    from lewm_data.cli.tables import show_report
    from lewm_data.conversion.inspect import inspect_source
    from lewm_data.conversion.plan import shortfalls
    from lewm_data.errors import DirtyDataError
    from lewm_data.resources import available_memory_bytes

    with ConversionDisplay(console) as display:
        inspection = inspect_source(options.source, _settings(options), any_camera=True, progress=display.inspecting)
    problems = []
    if inspection.plan is not None:
        problems = shortfalls(
            inspection.plan, available_memory_bytes=available_memory_bytes(), free_disk_bytes=sys.maxsize
        )
    told = show_report(console, inspection, problems)
    status = 0
    if inspection.decision.refused or not inspection.kept_rows():
        status = DirtyDataError.exit_status
    elif problems:
        status = ResourceError.exit_status
    return {**inspection.to_dict(), "verdict": told.sentence, "status": status}


def _convert(options: Namespace, console: Console) -> dict[str, Any]:
    from lewm_data.cli.progress import ConversionDisplay
    from lewm_data.cli.tables import duration, show_findings
    from lewm_data.conversion.pipeline import convert
    from lewm_data.errors import DirtyDataError
    from lewm_data.findings import Finding

    try:
        with ConversionDisplay(console) as display:
            done = convert(options.source, options.output, _settings(options), reporter=display)
    except DirtyDataError as error:
        show_findings(console, [Finding.from_json(found) for found in error.findings])
        raise
    if done.found_while_decoding:
        show_findings(console, done.found_while_decoding)
    dropped = done.header.dropped_episodes
    console.print(
        f"[bold green]{escape(str(done.path))}[/]: {done.num_episodes:,} episodes, {done.num_steps:,} steps, "
        f"{done.file_bytes / 1e6:,.0f} MB in {duration(done.seconds)} "
        f"({done.frames_per_second:,.0f} frames/s, {done.peak_memory_bytes / 1e6:,.0f} MB of memory at the peak)",
        soft_wrap=True,
    )
    if dropped:
        console.print(f"[yellow]dropped episodes:[/] {', '.join(map(str, dropped))}", soft_wrap=True)
    if kept := done.header.kept_episodes():
        console.print(
            f"[yellow]kept although dirty, and marked as such:[/] {', '.join(map(str, kept))}. "
            "Training draws from them as from all others.",
            soft_wrap=True,
        )
    return done.to_dict()


def _verify(options: Namespace, console: Console) -> dict[str, Any]:
    from lewm_data.cli.progress import progress_bar
    from lewm_data.conversion.verify import verify_against, verify_file

    path = Path(options.file)
    with progress_bar(console) as progress:
        task = progress.add_task("verify", total=None, note="")
        problems = verify_file(path, progress=lambda done, total: progress.update(task, completed=done, total=total))
        compared = 0
        if options.against is not None and not problems:
            progress.reset(task, description="compare")
            problems, compared = verify_against(
                path,
                options.against,
                progress=lambda done, total: progress.update(task, completed=done, total=total),
            )
    if problems:
        for problem in problems:
            console.print(f"[red]-[/] {escape(problem)}", soft_wrap=True)
        raise VerificationError(
            f"{path}: {len(problems)} problems, the first: {problems[0]}. Do not train from it; convert again.",
            problems,
        )
    what = f"whole, and equal to {options.against} in all {compared:,} frames" if options.against else "whole"
    console.print(f"[bold green]{escape(str(path))}[/] is {escape(what)}.", soft_wrap=True)
    return {"path": str(path), "problems": [], "against": options.against, "frames_compared": compared}


def _merge(options: Namespace, console: Console) -> dict[str, Any]:
    from lewm_data.cli.progress import progress_bar
    from lewm_data.conversion.merge import merge
    from lewm_data.errors import UsageError

    if len(options.files) < 2:
        raise UsageError("merge takes at least one input and an output: lewm-data merge FILE.h5... OUTPUT.h5")
    *inputs, output = map(Path, options.files)
    with progress_bar(console) as progress:
        task = progress.add_task("merge", total=None, note="")
        header = merge(
            inputs,
            output,
            overwrite=options.overwrite,
            allow_duplicates=options.allow_duplicates,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    episodes = sum(len(record.episodes) for record in header.sources)
    console.print(f"[bold green]{escape(str(output))}[/]: {episodes:,} episodes of {len(inputs)} files", soft_wrap=True)
    return {"path": str(output), "num_episodes": episodes, "inputs": [str(path) for path in inputs]}


def _push(options: Namespace, console: Console) -> dict[str, Any]:
    from lewm_data.cli.advice import Command
    from lewm_data.cli.progress import StagedProgress, quiet_hub_bars
    from lewm_data.cli.tables import show_commands
    from lewm_data.hub.push import push

    quiet_hub_bars(console)
    with StagedProgress(console) as progress:
        pushed = push(
            Path(options.file), options.repo_id, public=options.public, overwrite=options.overwrite, progress=progress
        )
    seen = "private" if pushed.is_private else "public"
    what = " is there already" if pushed.was_there else f", {pushed.file_bytes / 1e6:,.0f} MB, and its card"
    console.print(f"[bold green]{escape(pushed.url)}[/] ({seen}): {escape(pushed.file)}{what}", soft_wrap=True)
    again = shlex.join(["lewm-data", "pull", pushed.repo_id, pushed.file])
    show_commands(console, [Command(again, "fetch it on another machine")])
    return pushed.to_dict()


def _pull(options: Namespace, console: Console) -> dict[str, Any]:
    from lewm_data.cli.advice import Command
    from lewm_data.cli.progress import StagedProgress, quiet_hub_bars
    from lewm_data.cli.tables import show_commands
    from lewm_data.hub.pull import pull

    quiet_hub_bars(console)
    with StagedProgress(console) as progress:
        pulled = pull(
            options.repo_id,
            Path(options.output),
            revision=options.revision,
            file=options.file,
            checksums=options.checksums,
            overwrite=options.overwrite,
            progress=progress,
            waiting=lambda: console.print("another process is making the same output; waiting for it"),
        )
    console.print(
        f"[bold green]{escape(str(pulled.path))}[/]: {escape(pulled.file)} of {escape(pulled.repo_id)} at "
        f"{pulled.revision[:12]}, {pulled.file_bytes / 1e6:,.0f} MB",
        soft_wrap=True,
    )
    if not pulled.checksums:
        verify = shlex.join(["lewm-data", "verify", str(pulled.path)])
        show_commands(console, [Command(verify, "read every frame and compare its checksum")])
    return pulled.to_dict()


def _preview(options: Namespace, console: Console) -> dict[str, Any]:
    from lewm_data.cli.progress import ConversionDisplay
    from lewm_data.findings import count_of
    from lewm_data.viewing.preview import make_preview

    config = PreviewConfig(**{name: options[name] for name in PreviewConfig.__dataclass_fields__})
    with ConversionDisplay(console) as display:
        made = make_preview(
            options.source, Path(options.output), config, progress=display.inspecting, waiting=display.waiting
        )
    told = made.to_dict()
    console.print(
        f"[bold green]{escape(str(made.path))}[/]: {told['num_episodes_shown']:,} of {told['num_episodes']:,} episodes "
        f"with pictures, {count_of(told['num_findings'], 'finding')}, {made.file_bytes / 1e6:,.1f} MB",
        soft_wrap=True,
    )
    console.print(escape(made.preview.data["verdict"]["sentence"]))
    return told


def _view(options: Namespace, console: Console) -> dict[str, Any]:
    from lewm_data.cli.progress import progress_bar
    from lewm_data.viewing.viewer import view_episode

    save = None if options.save is None else Path(options.save)
    with progress_bar(console) as progress:
        task = progress.add_task(f"episode {options.episode}", total=None, note="")
        viewed = view_episode(
            Path(options.file),
            options.episode,
            save=save,
            overwrite=options.overwrite,
            progress=lambda what, done, total: progress.update(task, completed=done, total=total),
        )
    where = "is in Rerun's window" if save is None else f"is in {save}; open it with: rerun {save}"
    console.print(f"Episode {options.episode} ({viewed.num_steps:,} steps) {escape(where)}", soft_wrap=True)
    return viewed.to_dict()


def _demo(options: Namespace, console: Console) -> dict[str, Any]:
    from lewm_data.demo import record_demo

    root = record_demo(Path(options.dir))
    console.print(f"[bold green]{escape(str(root))}[/]: a PushT dataset, recorded by LeRobot", soft_wrap=True)
    return {"path": str(root)}


_COMMANDS = {
    "inspect": _inspect,
    "convert": _convert,
    "verify": _verify,
    "merge": _merge,
    "push": _push,
    "pull": _pull,
    "preview": _preview,
    "view": _view,
    "demo": _demo,
}

if __name__ == "__main__":
    main()
