"""What ``assess`` found, as cards: one question each, its answer in words, and gauges that a page or a PNG draws."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, Literal

from lewm_data.notation import count_of
from lewm_data.quality.assess.answers import CameraAnswers
from lewm_data.quality.assess.assessment import IN_STEP_FRAMES, LAG_FRAMES, Assessment
from lewm_data.quality.assess.excitation import MAX_PREDICTABLE
from lewm_data.quality.assess.frameskip import MAX_COPY_R2
from lewm_data.quality.assess.idle import num_still, still_words
from lewm_data.quality.assess.visibility import BLIND, SEES
from lewm_data.viewing.card import Card, Gauge

Level = Literal["good", "fair", "bad"]

LEVELS: dict[str, Level] = {"ready": "good", "fixable": "fair", "record_again": "bad"}
SHORT = {"ready": "Ready to train on", "fixable": "Fix it first", "record_again": "Record again"}
CANNOT_TELL = "cannot tell"

_MAX_LAG = 4.0
_MAX_JOINTS = 12


def cards(assessment: Assessment) -> list[Card]:
    """All questions and answers, in the order in which an owner of a robot would ask them."""
    return list(_cards(assessment))


def judgment(assessment: Assessment, *, total_episodes: int) -> dict[str, Any]:
    """What a page shows, ready for JSON.

    Args:
        assessment: The judgment.
        total_episodes: Episodes of the recording; the judgment may be based on some of them.
    """
    found = {finding.code for finding in assessment.findings}
    to_type = [step for step in assessment.next_steps if not step.line.startswith("lewm-data preview")]
    return {
        "verdict": assessment.verdict,
        "level": LEVELS[assessment.verdict],
        "short": SHORT[assessment.verdict],
        "sentence": assessment.sentence,
        "findingsTitle": findings_title(assessment),
        "commandsTitle": commands_title(assessment),
        "numEpisodes": assessment.num_episodes,
        "totalEpisodes": total_episodes,
        "findings": [
            {
                "code": finding.code,
                "camera": finding.camera,
                "found": finding.found,
                "expected": finding.expected,
                "remedy": finding.remedy,
            }
            for finding in assessment.findings
        ],
        "nextSteps": [step._asdict() for step in to_type],
        "cards": [{**dataclasses.asdict(card), "isFlawed": is_flawed(card, found)} for card in cards(assessment)],
    }


def findings_title(assessment: Assessment) -> str:
    """Heads the findings. Those of a recording that is ready are only worth knowing."""
    return "Worth knowing" if assessment.verdict == "ready" else "What is wrong, and what to do"


def commands_title(assessment: Assessment) -> str:
    """Heads the commands."""
    return "Next, type" if assessment.verdict == "ready" else "Then type"


def is_flawed(card: Card, codes: set[str]) -> bool:
    """Whether one of the findings belongs to a card."""
    return any(code in codes for code in card.codes)


def _cards(assessment: Assessment) -> Iterator[Card]:
    answers = assessment.answers
    if answers.cameras:
        yield _visibility(answers.cameras)
        yield _lag(answers.cameras)
    yield _idle(assessment)
    yield _response(assessment)
    yield _habit(assessment)
    if answers.cameras:
        yield _frameskip(assessment)
    yield _episodes(assessment)
    still = num_still(answers.still_dimensions)
    counts = "It counts" if still == 1 else "They count"
    yield Card(
        question="Which dimensions never move?",
        answer=count_of(still, "dimension") if still else "all move",
        codes=("dimension_still",),
        note=f"{still_words(answers.still_dimensions)}. {counts} in no other answer." if still else "",
    )


def _visibility(cameras: dict[str, CameraAnswers]) -> Card:
    gauges = []
    for name, camera in cameras.items():
        seen = camera.visibility
        words = CANNOT_TELL
        if seen.score is not None:
            words = "sees" if seen.score >= SEES else "blind" if seen.score <= BLIND else CANNOT_TELL
            words = f"{max(0.0, seen.score):.2f} above chance: {words}"
        gauges.append(Gauge(label=name, text=words, value=seen.score))
    scores = [camera.visibility.score for camera in cameras.values()]
    seeing = sum(score is not None and score >= SEES for score in scores)
    blind = sum(score is not None and score <= BLIND for score in scores)
    answer = f"{seeing} of {count_of(len(scores), 'camera')} {'shows' if seeing == 1 else 'show'} the robot"
    if not seeing and not blind:
        answer = CANNOT_TELL
    return Card(
        question="What does each camera see?",
        answer=answer,
        codes=("camera_blind", "change_below_noise", "frames_repeated"),
        gauges=tuple(gauges),
        scale=(0.0, 1.0),
        mark=SEES,
        note="How well a simple model reads joints and actions from the pictures of an episode that it never saw, "
        f"above what it reads from those of another one. It sees from {SEES:g} on (the line); 1 is perfect.",
    )


def _lag(cameras: dict[str, CameraAnswers]) -> Card:
    gauges = []
    for name, camera in cameras.items():
        lag = camera.lag
        if lag.frames is None or lag.low is None or lag.high is None:
            gauges.append(Gauge(label=name, text=CANNOT_TELL))
            continue
        side = "late" if lag.frames > 0 else "early"
        between = f"{_tenths(lag.low)} to {_tenths(lag.high)}"
        text = f"{abs(lag.frames):.1f} frames {side} ({between})"
        if abs(lag.frames) < IN_STEP_FRAMES:
            text = f"in step ({between})"
        gauges.append(Gauge(label=name, text=text, value=lag.frames, low=lag.low, high=lag.high))
    known = [camera.lag.frames for camera in cameras.values() if camera.lag.frames is not None]
    worst = max(known, key=abs, default=None)
    answer = CANNOT_TELL
    if worst is not None:
        answer = f"yes, by {abs(worst):.1f} frames" if abs(worst) >= LAG_FRAMES else "by less than a frame"
        in_step = "in step" if len(known) == len(cameras) else f"{len(known)} of {len(cameras)} in step"
        answer = in_step if abs(worst) < IN_STEP_FRAMES else answer
    return Card(
        question="Is a camera out of step with the joints?",
        answer=answer,
        codes=("camera_lag",),
        gauges=tuple(gauges),
        scale=(-_MAX_LAG, _MAX_LAG),
        mark=0.0,
        note="Motion in the picture against motion of the joints, in frames. To the right, the picture is late.",
    )


def _tenths(frames: float) -> str:
    """A signed number with one decimal, without a minus sign before zero."""
    return f"{round(frames, 1) + 0.0:+.1f}"


def _idle(assessment: Assessment) -> Card:
    idle, fps = assessment.answers.idle, assessment.fps
    steps = max(1, len(idle.is_idle))
    head, tail = int(idle.head.sum()), int(idle.tail.sum())
    middle = max(0, int(idle.is_idle.sum()) - head - tail)
    parts = {"at the beginning": head, "in the middle": middle, "at the end": tail}
    return Card(
        question="Does the robot stand still?",
        answer=f"{idle.share:.0%} of the time",
        codes=("idle_head", "idle_middle", "idle_tail"),
        gauges=tuple(
            Gauge(label=label, text=f"{count / steps:.0%}, {count / fps:.0f} s in all", value=count / steps)
            for label, count in parts.items()
        ),
        scale=(0.0, 1.0),
        note="Windows in which nothing moves teach nothing.",
    )


def _response(assessment: Assessment) -> Card:
    response = assessment.answers.response
    gauges = []
    joints = list(response.joints.items())
    if len(joints) > _MAX_JOINTS:
        joints.sort(key=lambda item: -abs(item[1].gain - 1))
    for name, joint in joints[:_MAX_JOINTS]:
        words = f"after {count_of(joint.lag_steps, 'step')}, gain {joint.gain:.2f}"
        if joint.offset is not None and joint.offset_share is not None:
            share = f"{joint.offset_share:.0%}"
            is_tiny = share == "0%"
            words += ", no offset" if is_tiny else f", offset {joint.offset:+.3g} ({share} of its range)"
        gauges.append(Gauge(label=name, text=words))
    if response.action_is_state:
        answer = "action and state are the same"
    elif response.joints:
        answer = f"yes, {count_of(len(response.joints), 'joint')}"
    elif response.following is None:
        answer = CANNOT_TELL
    else:
        answer = f"actions explain {max(0.0, response.following):.0%} of what follows"
    more = len(response.joints) - len(gauges)
    note = f"and {count_of(more, 'more joint')}, with gains nearer to 1" if more > 0 else ""
    if not gauges:
        note = "Beyond what the state itself predicts."
    return Card(
        question="Does the state follow the action?",
        answer=answer,
        codes=("action_not_followed", "action_is_state", "action_offset"),
        gauges=tuple(gauges),
        note=note,
    )


def _habit(assessment: Assessment) -> Card:
    predictable = assessment.answers.excitation.action_r2_from_state
    dimensions = assessment.answers.excitation.effective_dimensions
    return Card(
        question="Do the actions vary by themselves?",
        answer=CANNOT_TELL if predictable is None else f"{1 - predictable:.0%} is new",
        codes=("actions_predictable",),
        gauges=(
            Gauge(
                label="foreseeable",
                text=CANNOT_TELL if predictable is None else f"{predictable:.0%} follows from the state",
                value=predictable,
            ),
        ),
        scale=(0.0, 1.0),
        mark=MAX_PREDICTABLE,
        note=f"They vary in {dimensions:.1f} independent directions. One habit repeated cannot show what actions do.",
    )


def _frameskip(assessment: Assessment) -> Card:
    advice = assessment.answers.frameskip
    gauges = []
    for skip, found in advice.by_frameskip.items():
        gain = found.action_gain - max(0.0, found.null_gain)
        too_much = ", too much" if found.copy_r2 >= MAX_COPY_R2 else ""
        words = f"{max(0.0, gain):.0%} shown, {max(0.0, found.copy_r2):.0%} alike{too_much}"
        gauges.append(Gauge(label=f"{skip} {'steps' if skip > 1 else 'step'}", text=words, value=gain))
    return Card(
        question="Which frameskip?",
        answer=CANNOT_TELL if advice.recommended is None else f"{advice.recommended} shows the actions best",
        codes=("frameskip_too_small",),
        gauges=tuple(gauges),
        scale=(0.0, max(0.3, *(gauge.value or 0.0 for gauge in gauges))) if gauges else None,
        note="Shown: how much of the actions between two frames can be read from the pair, beyond the first frame "
        f"alone. Alike: how well the first frame predicts the second; above {MAX_COPY_R2:.0%}, a model learns little "
        "else.",
    )


def _episodes(assessment: Assessment) -> Card:
    answers = assessment.answers
    alike = len(answers.near_duplicates)
    return Card(
        question="Are there enough episodes?",
        answer=count_of(assessment.num_episodes, "episode")
        + (f", {count_of(alike, 'pair')} nearly the same" if alike else ""),
        codes=("episodes_too_few", "episodes_alike"),
        gauges=tuple(
            Gauge(label=f"{share:.0%} of them", text=f"score {score:.2f}", value=score)
            for share, score in answers.learning_curve
        ),
        scale=(0.0, 1.0) if answers.learning_curve else None,
        note="If the score still rises with the last quarter, more episodes help." if answers.learning_curve else "",
    )
