"""From answers to findings, and to one verdict."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from lewm_data.findings import DirtyEpisodePolicy
from lewm_data.notation import count_of
from lewm_data.quality.assess.answers import Answers
from lewm_data.quality.assess.assessment import AssessFinding, Assessment, Level
from lewm_data.quality.assess.excitation import MAX_PREDICTABLE, distinct_steps
from lewm_data.quality.assess.footage import Footage
from lewm_data.quality.assess.frameskip import MAX_COPY_R2
from lewm_data.quality.assess.idle import num_still, still_words
from lewm_data.quality.assess.next_steps import next_steps, shifts
from lewm_data.quality.assess.response import MIN_FOLLOWING
from lewm_data.quality.assess.visibility import BLIND, SEES

IDLE_SECONDS = 1.0
IDLE_MIDDLE_SHARE = 0.1
OFFSET_SHARE = 0.08
"""An arm sags by 2 to 5 % of a joint's range under its own weight; a leader calibrated apart is off by more."""

REPEATED_SHARE = 0.1
NOISE_RATIO = 1.1
FEW_EPISODES = 5
MIN_MOTION_SECONDS = 20.0
"""Motion to train on, if one episode validates.

Of five small models that trained on 18 s of a simulated arm, four were blind, on three episodes as on six or twelve.
With 24 s or more at the same speed, none was (docs/assess.md).
"""

STILL_RISING = 0.05
GOOD_SCORE = 0.3
"""More episodes are only asked for while the score still rises and is below this."""

RECORD_AGAIN = frozenset(
    {"action_not_followed", "action_is_state", "actions_predictable", "change_below_noise", "episodes_too_few"}
)
HARMLESS = frozenset({"dimension_still"})


def judge(
    footage: Footage,
    answers: Answers,
    *,
    source: str,
    frameskip: int,
    policy: DirtyEpisodePolicy | None = None,
) -> Assessment:
    """Judges a recording.

    Args:
        footage: The recording.
        answers: What was measured.
        source: What to pass to a command to open it.
        frameskip: The frameskip that training will use.
        policy: The dirty-episode policy that its conversion needs; None: the default will do.
    """
    findings = tuple(_findings(footage, answers, frameskip))
    codes = {found.code for found in findings}
    blind = {found.camera for found in findings if found.code == "camera_blind"}
    all_blind = bool(answers.cameras) and blind == answers.cameras.keys()
    verdict: Level = "ready"
    if codes & RECORD_AGAIN or all_blind:
        verdict = "record_again"
    elif codes - HARMLESS:
        verdict = "fixable"
    return Assessment(
        source=source,
        num_episodes=footage.num_episodes,
        num_steps=len(footage.episode),
        fps=footage.fps,
        verdict=verdict,
        next_steps=tuple(next_steps(answers, codes, source, verdict, policy, footage.frame_height)),
        findings=findings,
        answers=answers,
    )


def _findings(footage: Footage, answers: Answers, frameskip: int) -> Iterator[AssessFinding]:
    yield from _about_idling(footage, answers)
    if still := num_still(answers.still_dimensions):
        yield AssessFinding(
            code="dimension_still",
            found=f"{count_of(still, 'dimension')} never {'moves' if still == 1 else 'move'} above noise: "
            f"{still_words(answers.still_dimensions)}",
            expected="a range of more than 8 times the noise in every dimension",
            remedy="No other judgment counts "
            + ("it. If the joint" if still == 1 else "them. If such a joint")
            + " should have moved, check its motor and its sensor.",
        )
    yield from _about_cameras(answers)
    yield from _about_actions(answers)
    yield from _about_frameskip(answers, frameskip)
    yield from _about_episodes(footage, answers)


def _about_idling(footage: Footage, answers: Answers) -> Iterator[AssessFinding]:
    idle = answers.idle
    for code, steps, where in (("idle_head", idle.head, "begin"), ("idle_tail", idle.tail, "end")):
        hit = steps >= IDLE_SECONDS * footage.fps
        if hit.any() and (steps[hit].sum() >= 0.02 * len(footage.episode) or hit.mean() >= 0.25):
            seconds = float(np.median(steps[hit])) / footage.fps
            yield AssessFinding(
                code=code,
                episodes=_numbers(footage, hit),
                found=f"{count_of(int(hit.sum()), 'episode')} {where} with the robot standing still, "
                f"for {seconds:.1f} s at the median",
                expected=f"less than {IDLE_SECONDS:g} s",
                remedy="Windows without motion teach nothing. Convert with --trim_idle, which cuts these steps.",
            )
    middle = idle.is_idle.copy()
    for steps_of, head, tail in zip(footage.blocks(), idle.head, idle.tail, strict=True):
        middle[steps_of[:head]] = False
        middle[steps_of[len(steps_of) - tail :]] = False
    if middle.mean() >= IDLE_MIDDLE_SHARE:
        yield AssessFinding(
            code="idle_middle",
            found=f"the robot stands still in the middle of episodes, for {middle.mean():.0%} of all steps",
            expected=f"less than {IDLE_MIDDLE_SHARE:.0%}",
            remedy="Windows without motion teach nothing. Keep the robot moving while you record.",
        )


def _about_cameras(answers: Answers) -> Iterator[AssessFinding]:
    late = shifts(answers)
    for name, camera in answers.cameras.items():
        if name in late:
            lag = camera.lag
            side = "behind" if late[name] > 0 else "ahead of"
            yield AssessFinding(
                code="camera_lag",
                camera=name,
                found=f"the picture is {abs(lag.frames or 0):.1f} frames {side} the joints "
                f"(95 % interval {lag.low:.1f} to {lag.high:.1f})",
                expected="less than one frame",
                remedy=f"Row t belongs to frame t{late[name]:+d}. Convert with --shift {name}={late[name]:+d}, which "
                "pairs them so.",
            )
        seen = camera.visibility
        if seen.score is not None and seen.score <= BLIND:
            yield AssessFinding(
                code="camera_blind",
                camera=name,
                found=f"neither state nor action can be read from its pictures (score {seen.score:.2f})",
                expected=f"a score of {SEES} or more over pictures of other episodes",
                remedy="Look at its pictures: is the arm in view, sharp and lit? Is it this recording's video?",
            )
        if camera.repeated_frames >= REPEATED_SHARE:
            yield AssessFinding(
                code="frames_repeated",
                camera=name,
                found=f"{camera.repeated_frames:.0%} of its frames repeat the one before while the robot moves",
                expected=f"less than {REPEATED_SHARE:.0%}",
                remedy="The camera delivers fewer frames a second than were recorded: lower fps or its resolution.",
            )
        ratio = camera.change_over_noise
        if ratio is not None and ratio < NOISE_RATIO:
            yield AssessFinding(
                code="change_below_noise",
                camera=name,
                found=f"over 0.3 s its pictures change {ratio:.2f} times as much as from one frame to the next",
                expected=f"at least {NOISE_RATIO} times: motion adds up, and noise does not",
                remedy="Bring the camera closer, add light, or move faster.",
            )


def _about_actions(answers: Answers) -> Iterator[AssessFinding]:
    response = answers.response
    if response.action_is_state:
        yield AssessFinding(
            code="action_is_state",
            found="action and state are equal at every step",
            expected="actions that come before the states they lead to",
            remedy="One was recorded in place of the other. Record the leader's positions, or commands, as action.",
        )
    elif response.following is not None and response.following <= MIN_FOLLOWING and not response.joints:
        yield AssessFinding(
            code="action_not_followed",
            found=f"actions explain {max(0.0, response.following):.2f} of the coming change of the state beyond what "
            "actions of another episode do",
            expected=f"more than {MIN_FOLLOWING}",
            remedy="A model cannot learn what actions do from these. Check which column holds the commands.",
        )
    off = {name: joint for name, joint in response.joints.items() if (joint.offset_share or 0) >= OFFSET_SHARE}
    if off and not response.action_is_state:
        worst = max(off, key=lambda name: off[name].offset_share or 0)
        yield AssessFinding(
            code="action_offset",
            found=f"{', '.join(off)}: the state settles away from the action, in {worst} by "
            f"{off[worst].offset:+.3g}, {off[worst].offset_share:.0%} of its range",
            expected=f"less than {OFFSET_SHARE:.0%}",
            remedy="Calibrate leader and follower together before you record on. A constant offset can be learned.",
        )
    predictable = answers.excitation.action_r2_from_state
    if predictable is not None and predictable >= MAX_PREDICTABLE:
        yield AssessFinding(
            code="actions_predictable",
            found=f"the state's past explains {predictable:.2f} of how the action changes in the next half second",
            expected=f"less than {MAX_PREDICTABLE}",
            remedy="This is one habit, which does not show what actions do. Vary speed, path and order; add mistakes.",
        )


def _about_frameskip(answers: Answers, frameskip: int) -> Iterator[AssessFinding]:
    advice = answers.frameskip
    near = min(advice.by_frameskip, key=lambda skip: abs(skip - frameskip), default=None)
    if near is None or advice.recommended is None or advice.recommended <= frameskip:
        return
    if advice.by_frameskip[near].copy_r2 >= MAX_COPY_R2:
        yield AssessFinding(
            code="frameskip_too_small",
            found=f"frames {near} steps apart are alike: repeating explains {advice.by_frameskip[near].copy_r2:.2f}",
            expected=f"less than {MAX_COPY_R2}",
            remedy=f"Train with --data.frameskip {advice.recommended}.",
        )


def _about_episodes(footage: Footage, answers: Answers) -> Iterator[AssessFinding]:
    curve = answers.learning_curve
    rise = curve[-1][1] - curve[-2][1] if len(curve) > 1 else 0.0
    is_rising = rise >= STILL_RISING and curve[-1][1] < GOOD_SCORE
    moving, enough = motion_to_train_on(footage, answers), MIN_MOTION_SECONDS
    if footage.num_episodes < FEW_EPISODES or moving < enough or is_rising:
        still = f"; the score still rose by {rise:.2f} with the last quarter" if is_rising else ""
        episodes = count_of(footage.num_episodes, "episode")
        yield AssessFinding(
            code="episodes_too_few",
            found=f"{episodes}, with {moving:.0f} s of motion to train on if one of them validates{still}",
            expected=f"at least {FEW_EPISODES} episodes, {enough:.0f} s of motion, and a score that has leveled off",
            remedy="Record more episodes, or longer ones, as different from each other as your task allows.",
        )
    if answers.near_duplicates:
        pairs = ", ".join(f"{a} and {b}" for a, b in answers.near_duplicates[:3])
        more = f" and {len(answers.near_duplicates) - 3} more pairs" if len(answers.near_duplicates) > 3 else ""
        yield AssessFinding(
            code="episodes_alike",
            episodes=tuple(sorted({number for pair in answers.near_duplicates for number in pair})),
            found=f"episodes {pairs}{more} are nearly the same",
            expected="episodes that differ",
            remedy="Leave the copies out with --episodes: on both sides of a split they would flatter validation.",
        )


def motion_to_train_on(footage: Footage, answers: Answers) -> float:
    """Seconds of motion, without copies of an episode, and without the mean episode, for validation."""
    distinct = distinct_steps(footage, answers.near_duplicates)
    num_episodes = len(np.unique(footage.episode[distinct]))
    moving = (distinct & ~answers.idle.is_idle).sum() / footage.fps
    return float(moving) * (num_episodes - 1) / max(1, num_episodes)


def _numbers(footage: Footage, hit: NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(int(number) for number in footage.numbers[hit])
