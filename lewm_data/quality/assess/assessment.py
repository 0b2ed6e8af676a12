"""The judgment of one recording as one value: the answers, the findings, the verdict, and what to type next."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from lewm_data.notation import count_of
from lewm_data.quality.assess.answers import Answers, CameraAnswers
from lewm_data.quality.assess.response import Response
from lewm_data.quality.assess.visibility import BLIND, SEES

Level = Literal["ready", "fixable", "record_again"]

LAG_FRAMES = 0.95
"""A lag is known to half a frame, so that only what rounds to a whole frame or more is worth a correction."""

IN_STEP_FRAMES = 0.5
"""A camera whose lag is smaller counts as in step, since a lag is known to about half a frame."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AssessFinding:
    """Something that keeps a world model from learning.

    Attributes:
        code: Stable name, such as ``camera_lag``.
        severity: Always ``warning``: ``assess`` judges, the user decides.
        camera: The camera concerned, or None.
        episodes: Numbers of the episodes concerned; empty if it concerns all of them.
        found: What was measured.
        expected: What a good recording has.
        remedy: What to do.
    """

    code: str
    found: str
    expected: str
    remedy: str
    camera: str | None = None
    episodes: tuple[int, ...] = ()
    severity: Literal["warning"] = "warning"


class NextStep(NamedTuple):
    """A command to type next, and its purpose in a few words."""

    line: str
    purpose: str


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Assessment:
    """The judgment of one recording; prints as a short report.

    Attributes:
        source: The recording, as the caller named it.
        num_episodes: Episodes that were looked at.
        num_steps: Their steps.
        fps: Steps per second.
        verdict: ``ready``, ``fixable`` by settings, or ``record_again``.
        next_steps: Up to three commands to type next.
        findings: What keeps a model from learning.
        answers: Every measurement.
    """

    source: str
    num_episodes: int
    num_steps: int
    fps: float
    verdict: Level
    next_steps: tuple[NextStep, ...]
    findings: tuple[AssessFinding, ...]
    answers: Answers

    @property
    def score(self) -> float | None:
        """How much there is to learn, from 0 to 1, to compare recordings with; None: cannot tell.

        The smaller of two shares, since a model can do no more than the weaker one allows: the visibility of the camera
        that sees most, and the share of the state's coming change that only the actions explain. Without the second,
        the first one.
        """
        best = max(self.answers.cameras.values(), key=lambda camera: camera.visibility.score or 0.0, default=None)
        if best is None or best.visibility.score is None:
            return None
        following = self.answers.response.following
        share = best.visibility.score if following is None else min(best.visibility.score, following)
        return min(max(share, 0.0), 1.0)

    def to_dict(self) -> dict[str, Any]:
        """The object that ``lewm-data assess --json`` prints; None means "cannot tell"."""
        answers = self.answers
        return {
            "source": self.source,
            "verdict": self.verdict,
            "score": self.score,
            "next_steps": [step.line for step in self.next_steps],
            "cameras": {name: _camera(camera) for name, camera in answers.cameras.items()},
            "idle": {
                "share": answers.idle.share,
                "head_steps": answers.idle.head.tolist(),
                "tail_steps": answers.idle.tail.tolist(),
            },
            "still_dimensions": {name: list(still) for name, still in answers.still_dimensions.items()},
            "response": {name: dataclasses.asdict(joint) for name, joint in answers.response.joints.items()},
            "excitation": {
                "action_r2_from_state": answers.excitation.action_r2_from_state,
                "effective_dimensions": answers.excitation.effective_dimensions,
                "following": answers.response.following,
            },
            "frameskip": {
                "recommended": answers.frameskip.recommended,
                "by_frameskip": {
                    str(skip): dataclasses.asdict(found) for skip, found in answers.frameskip.by_frameskip.items()
                },
            },
            "episodes": {
                "count": self.num_episodes,
                "learning_curve": [list(point) for point in answers.learning_curve],
                "near_duplicates": [list(pair) for pair in answers.near_duplicates],
            },
            "findings": [dataclasses.asdict(found) | {"episodes": list(found.episodes)} for found in self.findings],
        }

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        return _SENTENCES[self.verdict]

    def facts(self) -> list[tuple[str, str]]:
        """What was measured, as pairs of label and value."""
        answers = self.answers
        pairs = [("recording", f"{count_of(self.num_episodes, 'episode')}, {self.num_steps:,} steps")]
        pairs.append(("standing still", f"{answers.idle.share:.0%} of the steps"))
        for name, camera in answers.cameras.items():
            sees = f"{_sight_words(camera.visibility.score)}; {_step_words(camera.lag.frames)}"
            pairs.append((f"camera {name}", sees))
        pairs.append(("state", _response_words(answers.response)))
        predictable = answers.excitation.action_r2_from_state
        new = "cannot tell whether they follow from the state"
        if predictable is not None:
            new = f"{predictable:.0%} follows from the state, and the rest is new"
        pairs.append(("actions", new))
        skip = answers.frameskip.recommended
        known = f"{skip} would show the actions best"
        pairs.append(("frameskip", "cannot tell which is best" if skip is None else known))
        return pairs

    def __repr__(self) -> str:
        """The facts, the findings, the verdict, and what to type next."""
        width = max(len(label) for label, _ in self.facts()) + 2
        lines = [f"{label:<{width}}{value}" for label, value in self.facts()]
        for found in self.findings:
            about = f" ({found.camera})" if found.camera else ""
            lines.append(f"{found.code}{about}: {found.found}. {found.remedy}")
        return "\n".join([*lines, self.sentence, *(step.line for step in self.next_steps)])


_SENTENCES: dict[Level, str] = {
    "ready": "A world model can learn from this recording.",
    "fixable": "A world model can learn from this recording, and better once its findings are corrected.",
    "record_again": "Record again, or record more, before you pay for training.",
}


def _sight_words(score: float | None) -> str:
    if score is None:
        return "cannot tell whether it shows the robot"
    if score >= SEES:
        return f"shows the robot (score {score:.2f} of 1)"
    sees = "does not show" if score <= BLIND else "cannot tell whether it shows"
    return f"{sees} the robot (score {max(0.0, score):.2f}; {SEES:g} is enough)"


def _response_words(response: Response) -> str:
    if response.action_is_state:
        return "the same as the action"
    if response.joints:
        steps = sorted(joint.lag_steps for joint in response.joints.values())
        return f"follows the action after {count_of(steps[len(steps) // 2], 'step')}"
    if response.following is None:
        return "cannot tell whether it follows the action"
    return f"actions explain {max(0.0, response.following):.0%} of its change beyond its own past"


def _step_words(lag_frames: float | None) -> str:
    """Says whether a camera is in step with the joints; a lag is known to about half a frame."""
    if lag_frames is None:
        return "cannot tell whether it is in step"
    if abs(lag_frames) < IN_STEP_FRAMES:
        return "in step with the joints"
    little = ", too little to correct" if abs(lag_frames) < LAG_FRAMES else ""
    return f"{abs(lag_frames):.1f} frames {'late' if lag_frames > 0 else 'early'}{little}"


def _camera(camera: CameraAnswers) -> dict[str, float | None]:
    return {
        "lag_frames": camera.lag.frames,
        "lag_low": camera.lag.low,
        "lag_high": camera.lag.high,
        "lag_r": camera.lag.correlation,
        "lag_agreement": camera.lag.agreement,
        "visibility": camera.visibility.score,
        "state_r2": camera.visibility.state_r2,
        "state_within_r2": camera.visibility.within_r2,
        "state_change_r2": camera.visibility.state_change_r2,
        "action_r2": camera.visibility.action_r2,
        "null_r2": camera.visibility.null_r2,
        "repeated_frames": camera.repeated_frames,
        "change_over_noise": camera.change_over_noise,
    }
