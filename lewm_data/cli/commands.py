"""The commands: inspect, assess, convert, verify, merge, preview, view, push, pull, demo, completion.

Exit status: 0 done; 1 unexpected; 2 usage; 3 dirty data refused; 4 not enough memory or disk; 5 stalled;
6 verification failed; 130 interrupted. ``--json`` prints one object on stdout; everything else goes to stderr.
"""

from __future__ import annotations

import json
import math
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from jsonargparse import Namespace
from rich.console import Console

from lewm_data.arguments import place_of
from lewm_data.cli.display import StderrConsole, show_done, styled
from lewm_data.cli.parser import CommandLineError, parse
from lewm_data.config import AssessConfig, ConvertConfig, PreviewConfig
from lewm_data.conversion.watchdog import catch_signals
from lewm_data.errors import DirtyDataError, InterruptedConversionError, LewmDataError, ResourceError, UsageError
from lewm_data.paths import expand, local_path

_NO_MEMORY = b"out of memory. Close other programs, then run the same command again."
_NO_MEMORY_JSON = b'{"error": {"type": "ResourceError", "message": "%b", "status": 4}}\n' % _NO_MEMORY
"""Made beforehand, because there is no memory left to make them when they are needed."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command and exits with its status."""
    if arguments is None and sys.getfilesystemencoding() != "utf-8":  # LC_ALL=C with PYTHONUTF8=0
        command = [sys.executable, "-m", "lewm_data", *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, "PYTHONUTF8": "1"})
    given = sys.argv[1:] if arguments is None else arguments
    status = 0
    try:
        parsed = parse(given)
        options = parsed[parsed.subcommand]
        if parsed.subcommand == "completion":
            from lewm_data.cli.parser import completion_script

            print(completion_script(options.shell), end="")
        else:
            with catch_signals():
                status, result = _run(parsed.subcommand, options)
            if options.json:
                print(_as_json(result))
        if sys.stdout is not None:  # None if the parent process closed it
            sys.stdout.flush()
    except CommandLineError as error:
        status = UsageError.exit_status
        if "--json" in given:
            print(_as_json({"error": _error_json(UsageError(error.sentence))}))
    except BrokenPipeError:  # the reader of our output has left; the work is done all the same
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except MemoryError:  # a console would need memory
        os.write(sys.stderr.fileno(), b"error: %b\n" % _NO_MEMORY)
        status = ResourceError.exit_status
        if "--json" in given and sys.stdout is not None:
            os.write(sys.stdout.fileno(), _NO_MEMORY_JSON)
    sys.exit(status)


def _as_json(result: object) -> str:
    """The result as strict JSON, which has no numbers such as NaN: they become null."""
    return json.dumps(_finite(result), indent=2, default=str, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def _run(command: str, options: Namespace) -> tuple[int, dict[str, Any]]:
    """Runs a command; returns its exit status and its JSON object."""
    console = StderrConsole()
    try:
        return _COMMANDS[command](options, console)
    except LewmDataError as error:
        console.print(styled(("error:", "bold red"), f" {error}"), soft_wrap=True)
        return error.exit_status, {"error": _error_json(error)}
    except KeyboardInterrupt:
        status = InterruptedConversionError.exit_status
        console.print("[bold red]error:[/] Interrupted.")
        return status, {"error": {"type": "Interrupted", "message": "Interrupted.", "status": status}}
    except MemoryError:
        raise
    except Exception as error:
        console.print_exception()
        console.print("[bold red]error:[/] unexpected; please report it with the lines above.")
        return 1, {"error": {"type": type(error).__name__, "message": str(error), "status": 1}}


def _error_json(error: LewmDataError) -> dict[str, Any]:
    return {
        "type": type(error).__name__,
        "message": str(error),
        "status": error.exit_status,
        "findings": list(getattr(error, "findings", ())),
        "problems": list(getattr(error, "problems", ())),
    }


def _config[T: (AssessConfig, ConvertConfig, PreviewConfig)](cls: type[T], options: Namespace) -> T:
    return cls(**{field.name: options[field.name] for field in fields(cls)})


def _inspect(options: Namespace, console: Console) -> tuple[int, dict[str, Any]]:
    from lewm_data import api
    from lewm_data.cli.display import ConversionDisplay, show_commands, show_inspection, show_verdict
    from lewm_data.report import next_commands

    with ConversionDisplay(console) as display:
        result = api.inspect(options.source, _config(ConvertConfig, options), progress=display.inspecting)
    inspection = result.inspection
    show_inspection(console, inspection)
    show_verdict(console, result.verdict)
    show_commands(console, next_commands(inspection, fits=not result.shortfalls))
    if inspection.decision.refused or not inspection.kept_rows():
        return DirtyDataError.exit_status, result.to_dict()
    return ResourceError.exit_status if result.shortfalls else 0, result.to_dict()


def _assess(options: Namespace, console: Console) -> tuple[int, dict[str, Any]]:
    from lewm_data import api
    from lewm_data.cli.display import StagedProgress, show_assessment

    with StagedProgress(console) as progress:
        result = api.assess(
            options.source,
            _config(AssessConfig, options),
            png=options.png,
            overwrite=options.overwrite,
            progress=progress,
        )
    show_assessment(console, result)
    if options.png is not None:
        show_done(console, local_path(options.png, "png"), ": the judgment as a picture")
    return 0, result.to_dict()


def _convert(options: Namespace, console: Console) -> tuple[int, dict[str, Any]]:
    from lewm_data import api
    from lewm_data.cli.display import ConversionDisplay, show_findings
    from lewm_data.findings import Finding
    from lewm_data.notation import count_of, duration
    from lewm_data.report import size

    try:
        with ConversionDisplay(console) as display:
            result = api.convert(options.source, options.output, _config(ConvertConfig, options), reporter=display)
    except DirtyDataError as error:
        show_findings(console, [Finding.from_json(found) for found in error.findings])
        raise
    if result.found_while_decoding:
        show_findings(console, result.found_while_decoding)
    counts = f"{count_of(result.num_episodes, 'episode')}, {count_of(result.num_steps, 'step')}"
    speed, memory = f"{result.frames_per_second:,.0f} frames/s", f"{size(result.peak_memory_bytes)} of memory"
    spent = f"{size(result.file_bytes)} in {duration(result.seconds)} ({speed}, {memory} at the peak)"
    show_done(console, result.path, f": {counts}, {spent}")
    if dropped := result.header.dropped_episodes:
        console.print(f"[yellow]dropped episodes:[/] {', '.join(map(str, dropped))}", soft_wrap=True)
    if kept := result.header.kept_episodes():
        console.print(
            f"[yellow]episodes kept with errors, and marked:[/] {', '.join(map(str, kept))}. "
            "Training draws from them like from the others.",
            soft_wrap=True,
        )
    return 0, result.to_dict()


def _verify(options: Namespace, console: Console) -> tuple[int, dict[str, Any]]:
    from lewm_data import api
    from lewm_data.cli.display import StagedProgress

    with StagedProgress(console) as progress:
        result = api.verify(options.file, options.against, progress=progress)
    for problem in result.problems:
        console.print(styled(("-", "red"), f" {problem}"), soft_wrap=True)
    result.raise_for_problems()
    show_done(console, result.path, str(result).removeprefix(str(result.path)))
    return 0, result.to_dict()


def _merge(options: Namespace, console: Console) -> tuple[int, dict[str, Any]]:
    from lewm_data import api
    from lewm_data.cli.display import StagedProgress

    *inputs, output = options.files
    if not inputs:
        raise UsageError("merge needs at least one input and an output: lewm-data merge FILE.h5... OUTPUT.h5")
    with StagedProgress(console) as progress:
        result = api.merge(
            inputs,
            output,
            overwrite=options.overwrite,
            allow_duplicates=options.allow_duplicates,
            progress=progress,
        )
    show_done(console, result.path, str(result).removeprefix(str(result.path)))
    return 0, result.to_dict()


def _preview(options: Namespace, console: Console) -> tuple[int, dict[str, Any]]:
    from lewm_data import api
    from lewm_data.cli.display import ConversionDisplay

    with ConversionDisplay(console) as display:
        result = api.preview(
            options.source,
            options.output,
            _config(PreviewConfig, options),
            progress=display.inspecting,
            waiting=display.waiting,
        )
    show_done(console, result.path, str(result).removeprefix(str(result.path)))
    console.print(styled(result.verdict.sentence))
    return 0, result.to_dict()


def _view(options: Namespace, console: Console) -> tuple[int, dict[str, Any]]:
    from lewm_data.cli.display import StagedProgress
    from lewm_data.notation import count_of
    from lewm_data.viewing.viewer import view_episode

    save = None if options.save is None else local_path(options.save, "save")
    with StagedProgress(console) as progress:
        viewed = view_episode(
            place_of(options.file), options.episode, save=save, overwrite=options.overwrite, progress=progress
        )
    where = "is in Rerun's window" if save is None else f"is in {save}; open it with: rerun {shlex.quote(str(save))}"
    show_done(console, f"Episode {options.episode}", f" ({count_of(viewed.num_steps, 'step')}) {where}")
    return 0, viewed.to_dict()


def _push(options: Namespace, console: Console) -> tuple[int, dict[str, Any]]:
    from lewm_data.cli.display import StagedProgress, quiet_hub_bars, show_commands
    from lewm_data.hub.push import push
    from lewm_data.report import Command, size

    quiet_hub_bars(console)
    with StagedProgress(console) as progress:
        pushed = push(
            expand(options.file), options.repo_id, public=options.public, overwrite=options.overwrite, progress=progress
        )
    visibility = "private" if pushed.is_private else "public"
    what = " was there already" if pushed.was_there else f", {size(pushed.file_bytes)}, and its card"
    show_done(console, pushed.url, f" ({visibility}): {pushed.file}{what}")
    again = shlex.join(["lewm-data", "pull", pushed.repo_id, pushed.file])
    show_commands(console, [Command(again, "download it on another machine")])
    return 0, pushed.to_dict()


def _pull(options: Namespace, console: Console) -> tuple[int, dict[str, Any]]:
    from lewm_data.cli.display import ConversionDisplay, quiet_hub_bars, show_commands
    from lewm_data.hub.pull import pull
    from lewm_data.report import Command, size

    quiet_hub_bars(console)
    with ConversionDisplay(console) as display:
        pulled = pull(
            options.repo_id,
            local_path(options.output, "output"),
            revision=options.revision,
            file=options.file,
            checksums=options.checksums,
            overwrite=options.overwrite,
            progress=display,
            waiting=display.waiting,
        )
    show_done(
        console,
        pulled.path,
        f": {pulled.file} of {pulled.repo_id} at {pulled.revision[:12]}, {size(pulled.file_bytes)}",
    )
    if not pulled.checksums:
        verify = shlex.join(["lewm-data", "verify", str(pulled.path)])
        show_commands(console, [Command(verify, "read every frame and compare its checksum")])
    return 0, pulled.to_dict()


def _demo(options: Namespace, console: Console) -> tuple[int, dict[str, Any]]:
    from lewm_data.demo import record_demo

    root = record_demo(local_path(options.dir, "dir"))
    show_done(console, root, ": a PushT dataset, recorded by LeRobot")
    return 0, {"path": str(root)}


_COMMANDS = {
    "inspect": _inspect,
    "assess": _assess,
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
