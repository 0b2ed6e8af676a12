"""What to say after an inspection: one line of verdict, and the commands to type next. Pure values, no terminal."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from lewm_data.config import ConvertConfig
from lewm_data.conversion.inspect import Inspection
from lewm_data.findings import Finding, Verdict, count_of
from lewm_data.format.schema import PIXELS, camera_name
from lewm_data.quality.policy import decide

_MOST_CAMERAS = 3


class Command(NamedTuple):
    """Something to type.

    Attributes:
        line: For a POSIX shell, with everything quoted that must be.
        purpose: What it is for, in a few words.
    """

    line: str
    purpose: str


def verdict(inspection: Inspection, shortfalls: Sequence[str] = ()) -> Verdict:
    """Sums an inspection up.

    Args:
        inspection: What was found.
        shortfalls: Why it does not fit into memory or disk (``plan.shortfalls``).
    """
    findings = inspection.decision.findings
    errors = [found for found in findings if found.severity == "error"]
    warnings = len(findings) - len(errors)
    if inspection.decision.refused:
        return Verdict("bad", f"Refused: {_errors(inspection, errors)}. Better no data than toxic data.")
    if inspection.dataset is not None and not inspection.kept_rows():
        return Verdict("bad", "Refused: every episode has errors, so none would be left.")
    if shortfalls:
        return Verdict("bad", f"Does not fit: {shortfalls[0]}")
    if PIXELS not in inspection.cameras:
        return Verdict("fair", f"Choose a camera: {_cameras(inspection)} could each be 'pixels'.")
    if inspection.decision.dropped:
        total = len(inspection.dataset.episodes) if inspection.dataset else 0
        return Verdict("fair", f"Ready to convert without {len(inspection.decision.dropped):,} of {total:,} episodes.")
    if errors:
        return Verdict("fair", f"Ready to convert; {count_of(len(errors), 'error')} will be kept and marked.")
    if warnings:
        return Verdict("good", f"Ready to convert; {count_of(warnings, 'warning')} will be recorded in the file.")
    return Verdict("good", "Clean, and ready to convert.")


def next_commands(inspection: Inspection, *, fits: bool = True) -> list[Command]:
    """The commands that make sense after an inspection, the most likely first.

    Args:
        inspection: What was found.
        fits: Whether memory and disk suffice.
    """
    source, config = inspection.source, inspection.config
    name = source.rstrip("/").split("/")[-1] or "dataset"
    output = f"{name}.h5"
    look = Command(_line("preview", source, f"{name}.html"), "look at the findings, on the frames concerned")
    commands = []

    def convert(purpose: str, **changes: str) -> None:
        changed = dataclasses.replace(config, **changes)  # type: ignore[arg-type]  # names and values are its own
        commands.append(Command(_line("convert", source, output, *setting_flags(changed)), purpose))

    choice = {} if PIXELS in inspection.cameras else {"camera": _first_camera(inspection)}
    if inspection.decision.refused:
        if inspection.dataset is not None:
            for policy, purpose in _policies_that_help(inspection):
                convert(purpose, **choice, dirty_episode_policy=policy)
            commands.append(look)
        every = _line("inspect", source, *setting_flags(config), "--json")
        commands.append(Command(f"{every} > findings.json", "every single finding, for a script"))
    elif not fits or inspection.dataset is None or not inspection.kept_rows():
        pass
    elif choice:
        others = "" if config.cameras is None else " as 'pixels', others beside it"
        for key in inspection.dataset.cameras[:_MOST_CAMERAS]:
            convert(f"{camera_name(key)}{others or ' alone'}", camera=camera_name(key))
        if not others:
            convert("one as 'pixels', the others beside it", **choice, cameras="all")
    else:
        if inspection.decision.findings:
            commands.append(look)
        convert("convert it")
        commands.append(
            Command(_line("verify", output, "--against", source), "then compare every frame with the source")
        )
    return commands


def _policies_that_help(inspection: Inspection) -> Iterator[tuple[str, str]]:
    """Policies under which a refused dataset would be converted, each with what it would mean."""
    assert inspection.dataset is not None
    total = len(inspection.dataset.episodes)
    skipped = decide(inspection.report.findings, "skip")
    if not skipped.refused and len(skipped.dropped) < total:
        yield "skip", f"drop the {count_of(len(skipped.dropped), 'episode')} with errors"
    kept = decide(inspection.report.findings, "keep")
    if not kept.refused and len(kept.dropped) < min(total, total if skipped.refused else len(skipped.dropped)):
        drop = f", drop {count_of(len(kept.dropped), 'episode')}" if kept.dropped else ""
        yield "keep", f"keep what can be aligned and mark it{drop}"


def setting_flags(config: ConvertConfig) -> list[str]:
    """The settings that differ from the defaults, as flags of ``convert`` and ``inspect``."""
    flags = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value == field.default:
            continue
        if isinstance(value, bool):
            flags.append(f"--{field.name}")
        else:
            flags += [f"--{field.name}", json.dumps(list(value)) if isinstance(value, tuple) else f"{value}"]
    return flags


def _line(*words: str) -> str:
    return shlex.join(["lewm-data", *words])


def _errors(inspection: Inspection, errors: Sequence[Finding]) -> str:
    episodes = {found.episode for found in errors if found.episode is not None}
    whole = sum(found.episode is None for found in errors)
    parts = []
    if whole:
        parts.append(f"{count_of(whole, 'error')} of the dataset as a whole")
    if episodes:
        total = f" of {len(inspection.dataset.episodes):,}" if inspection.dataset else ""
        parts.append(f"{count_of(len(errors) - whole, 'error')} in {len(episodes):,}{total} episodes")
    return " and ".join(parts) or "its metadata cannot be used"


def _cameras(inspection: Inspection) -> str:
    return " or ".join(camera_name(key) for key in inspection.dataset.cameras) if inspection.dataset else "none"


def _first_camera(inspection: Inspection) -> str:
    cameras = inspection.dataset.cameras if inspection.dataset else ()
    return camera_name(cameras[0]) if cameras else ""
