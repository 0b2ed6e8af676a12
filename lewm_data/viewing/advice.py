"""Whether a world model will learn from a recording that a page shows, and what to type next."""

from __future__ import annotations

from typing import Any

from lewm_data.config import AssessConfig, PreviewConfig
from lewm_data.conversion.watchdog import raise_if_interrupted
from lewm_data.errors import LewmDataError
from lewm_data.findings import DirtyEpisodePolicy, advised_policy
from lewm_data.quality.assess.answers import answer
from lewm_data.quality.assess.judge import judge
from lewm_data.quality.assess.next_steps import settle, source_of_file
from lewm_data.resources import Progress
from lewm_data.viewing.judgment import judgment
from lewm_data.viewing.recording import Recording, verdict

MAX_JUDGED_FRAMES = 9_000
"""Frames that the judgment looks at, over all cameras: about half a minute."""


def verdict_with_advice(recording: Recording, judged: dict[str, Any] | None) -> dict[str, Any]:
    """The verdict on the findings. What to type next depends on the judgment, too, where there is one."""
    found = verdict(recording)
    if judged is None or (recording.is_converted and judged["level"] == "good"):
        return found._asdict()
    can_be_converted = not recording.refused or advised_policy(recording.findings, len(recording.numbers)) is not None
    if judged["nextSteps"] and can_be_converted:
        found = found._replace(next=judged["nextSteps"][0]["line"])
    elif found.level != "bad" and not recording.is_converted:
        found = found._replace(next="")
    return found._asdict()


def judge_recording(recording: Recording, config: PreviewConfig, progress: Progress) -> dict[str, Any] | None:
    """Whether a world model will learn from the recording; None if it cannot be read, or not without a download."""

    def interruptible(what: str, done: int, total: int) -> None:
        raise_if_interrupted()
        progress(what, done, total)

    try:
        footage = recording.footage(MAX_JUDGED_FRAMES, interruptible)
    except LewmDataError:  # the findings and the episodes say what is wrong with it
        return None
    if footage is None:
        return None
    assessment = judge(
        footage,
        answer(footage, interruptible),
        source=recording.handle,
        frameskip=config.frameskip,
        policy=_policy(recording),
    )
    source = source_of_file(recording.sources) if recording.is_converted else recording.handle
    settings = AssessConfig(frameskip=config.frameskip)
    return judgment(
        settle(assessment, settings, source=source, shifts=recording.shifts), total_episodes=len(recording.numbers)
    )


def _policy(recording: Recording) -> DirtyEpisodePolicy | None:
    """The dirty-episode policy that a conversion needs, or that the conversion of a file had; None for the default."""
    if not recording.is_converted:
        return advised_policy(recording.findings, len(recording.numbers)) if recording.refused else None
    handled = {found.handling for found in recording.findings}
    return "keep" if "kept" in handled else "skip" if "dropped" in handled else None
