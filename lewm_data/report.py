"""What to say about an inspection: facts, a verdict, and the commands to type next. Pure values, no terminal."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from numpy import median

from lewm_data.config import ConvertConfig
from lewm_data.conversion.inspect import Inspection
from lewm_data.conversion.plan import MEGABYTE, Plan
from lewm_data.findings import Finding, Verdict, decide
from lewm_data.format.schema import ACTION, PIXELS, STATE, camera_name
from lewm_data.notation import count_of, duration, output_name
from lewm_data.source.metadata import done_words
from lewm_data.source.selection import DEFAULT_KEYS

_MAX_CAMERAS = 3
_MAX_NAMES = 16


class Command(NamedTuple):
    """A command to type.

    Attributes:
        line: The command for a POSIX shell, quoted where necessary.
        purpose: Its purpose in a few words.
    """

    line: str
    purpose: str


def dataset_facts(inspection: Inspection, *, arrow: str = "→") -> Iterator[tuple[str, str]]:
    """Describes the dataset of an inspection as pairs of label and value."""
    dataset, config = inspection.dataset, inspection.config
    if dataset is None:
        return
    revision = f"revision {dataset.revision[:12]}" if dataset.revision else "a local folder"
    lengths = dataset.episodes.length
    steps = int(lengths.sum())
    yield "dataset", f"{dataset.repo_id} (LeRobot {dataset.codebase_version}, {revision})"
    counts = f"{count_of(len(lengths), 'episode')}, {count_of(steps, 'step')}"
    yield "content", f"{counts}, {steps / dataset.fps / 60:,.1f} min at {dataset.fps:g} fps"
    if len(lengths):
        shortest, longest, middle = int(lengths.min()), int(lengths.max()), int(median(lengths))
        yield "lengths", f"{shortest:,} to {longest:,} steps, median {middle:,}"
    columns = {key: f" {arrow} {column}" for column, key in inspection.cameras.items()}
    yield "cameras", ", ".join(camera_name(key) + columns.get(key, "") for key in dataset.cameras) or "none"
    if dataset.depth_cameras:
        yield "left out", f"{', '.join(map(camera_name, dataset.depth_cameras))} (depth)"
    for label, keys in ((ACTION, dataset.action), (STATE, dataset.state)):
        if keys:
            width = sum(dataset.features[key].width for key in keys)
            dimensions = dataset.dimension_names(keys)
            more = ", ..." * (len(dimensions) > _MAX_NAMES)
            names = f": {', '.join(dimensions[:_MAX_NAMES])}{more}" if dimensions else ""
            source = "" if keys == DEFAULT_KEYS[label][:1] else f" from {', '.join(keys)}"
            yield label, f"{count_of(width, 'dimension')}{source}{names}"
    yield "done from", done_words(inspection.report.done_source(dataset))
    for remark in inspection.corrections.remarks:
        yield "shift", remark
    if (donor := inspection.donor) is not None:
        reason = f" nothing, since it has {donor.reason}" if donor.reason else " frames of unchanged episodes"
        yield "reuse", f"{donor.path.name}:{reason}"
    if config.trim_idle:
        yield "trim", f"{count_of(inspection.num_trimmed_steps(), 'idle step')} at the head and tail of episodes"


def plan_facts(plan: Plan) -> Iterator[tuple[str, str]]:
    """Describes the cost of a conversion as pairs of label and value."""
    frame = f"{plan.height}x{plan.width}, {plan.bytes_per_frame / 1000:,.0f} KB each"
    shards = f", in {count_of(plan.num_shards, 'shard')}" if plan.num_shards > 1 else ""
    yield "frames", f"{plan.num_frames:,} of {frame} (measured on {count_of(plan.sample_frames, 'frame')})"
    yield "output", size(plan.output_bytes)
    yield "disk", f"{size(plan.temporary_bytes)} at the peak{shards}"
    yield "memory", f"{size(plan.peak_memory_bytes)} at the peak"
    reused = f", with {plan.reused_frames:,} of the frames reused" if plan.reused_frames else ""
    yield "time", f"about {duration(plan.seconds)}{reused}"


def verdict(inspection: Inspection, shortfalls: Sequence[str] = ()) -> Verdict:
    """Sums up an inspection.

    Args:
        inspection: The inspection.
        shortfalls: Why the conversion does not fit into memory or disk (``plan.shortfalls``).
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
        dropped = f"{len(inspection.decision.dropped):,} of {count_of(total, 'episode')}"
        return Verdict("fair", f"Ready to convert without {dropped}.")
    if errors:
        return Verdict("fair", f"Ready to convert; {count_of(len(errors), 'error')} will be kept and marked.")
    if warnings:
        return Verdict("good", f"Ready to convert; {count_of(warnings, 'warning')} will be recorded in the file.")
    return Verdict("good", "Clean, and ready to convert.")


def next_commands(inspection: Inspection, *, fits: bool = True) -> list[Command]:
    """Returns the commands that make sense after an inspection, the most likely first.

    Args:
        inspection: The inspection.
        fits: Whether the conversion fits into memory and disk.
    """
    source, config = inspection.source, inspection.config
    output = output_name(source)
    look = Command(_line("preview", source, output_name(source, ".html")), "look at the findings and their frames")
    judge = Command(_line("assess", source, *_read_by(config)), "see whether a world model can learn from it")
    commands = []

    def convert(purpose: str, **changes: str) -> None:
        changed = dataclasses.replace(config, **changes)  # type: ignore[arg-type]  # names and values are its own
        commands.append(Command(_line("convert", source, output, *setting_flags(changed)), purpose))

    choice = {} if PIXELS in inspection.cameras else {"camera": _first_camera(inspection)}
    if inspection.decision.refused:
        if inspection.dataset is not None:
            for policy, purpose in _helpful_policies(inspection):
                convert(purpose, **choice, dirty_episode_policy=policy)
            commands.append(look)
        every = _line("inspect", source, *setting_flags(config), "--json")
        commands.append(Command(f"{every} > findings.json", "write every finding to a file"))
    elif not fits or inspection.dataset is None or not inspection.kept_rows():
        pass
    elif choice:
        commands.append(judge)
        others = "" if config.cameras is None else " as 'pixels', with the others"
        for key in inspection.dataset.cameras[:_MAX_CAMERAS]:
            convert(f"{camera_name(key)}{others or ' alone'}", camera=camera_name(key))
        if not others:
            convert(f"{_first_camera(inspection)} as 'pixels', with the others", **choice, cameras="all")
    else:
        commands.append(judge)
        if inspection.decision.findings:
            commands.append(look)
        convert("convert the dataset")
        commands.append(Command(_line("verify", output, "--against", source), "compare every frame with the source"))
    return commands


def _helpful_policies(inspection: Inspection) -> Iterator[tuple[str, str]]:
    """Policies under which a refused dataset converts, each with its effect."""
    assert inspection.dataset is not None
    total = len(inspection.dataset.episodes)
    skipped = decide(inspection.report.findings, "skip")
    if not skipped.refused and len(skipped.dropped) < total:
        yield "skip", f"drop the {count_of(len(skipped.dropped), 'episode')} with errors"
    kept = decide(inspection.report.findings, "keep")
    if not kept.refused and len(kept.dropped) < min(total, total if skipped.refused else len(skipped.dropped)):
        drop = f", drop {count_of(len(kept.dropped), 'episode')}" if kept.dropped else ""
        yield "keep", f"keep and mark what can be aligned{drop}"


def setting_flags(config: ConvertConfig) -> list[str]:
    """Returns the settings that differ from the defaults, as flags of ``convert`` and ``inspect``."""
    flags = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value == field.default:
            continue
        if isinstance(value, bool):
            flags.append(f"--{field.name}")
        else:
            flags += [f"--{field.name}", _listed(value) if isinstance(value, tuple) else f"{value}"]
    return flags


def _read_by(config: ConvertConfig) -> list[str]:
    """The flags that say what to read; ``assess`` judges all cameras, so that they can be compared."""
    settings = {name: getattr(config, name) for name in ("episodes", "action", "state", "revision")}
    return [word for name, value in settings.items() if value is not None for word in (f"--{name}", str(value))]


def _listed(names: Sequence[str]) -> str:
    return json.dumps(list(names)) if any("," in name for name in names) else ",".join(names)


def size(num_bytes: float) -> str:
    """Formats a number of bytes, such as ``1,150 MB`` or ``28.4 GB``."""
    megabytes = num_bytes / MEGABYTE
    return f"{megabytes:,.0f} MB" if megabytes < 10_000 else f"{megabytes / 1000:,.1f} GB"


def _line(*words: str) -> str:
    return shlex.join(["lewm-data", *words])


def _errors(inspection: Inspection, errors: Sequence[Finding]) -> str:
    episodes = {found.episode for found in errors if found.episode is not None}
    of_dataset = sum(found.episode is None for found in errors)
    parts = []
    if of_dataset:
        parts.append(f"{count_of(of_dataset, 'error')} of the dataset as a whole")
    if episodes:
        total = len(inspection.dataset.episodes) if inspection.dataset else 0
        where = f"{len(episodes):,} of {count_of(total, 'episode')}" if total else count_of(len(episodes), "episode")
        parts.append(f"{count_of(len(errors) - of_dataset, 'error')} in {where}")
    return " and ".join(parts) or "its metadata cannot be used"


def _cameras(inspection: Inspection) -> str:
    return " or ".join(camera_name(key) for key in inspection.dataset.cameras) if inspection.dataset else "none"


def _first_camera(inspection: Inspection) -> str:
    cameras = inspection.dataset.cameras if inspection.dataset else ()
    return camera_name(cameras[0]) if cameras else ""
