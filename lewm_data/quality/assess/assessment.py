"""All questions asked of one recording, and the answers as one value."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from lewm_data.notation import count_of
from lewm_data.quality.assess.excitation import Excitation, find_excitation, near_duplicates
from lewm_data.quality.assess.footage import Footage
from lewm_data.quality.assess.frameskip import FrameskipAdvice, find_frameskip
from lewm_data.quality.assess.idle import Idleness, find_idle
from lewm_data.quality.assess.lag import Lag, find_lag
from lewm_data.quality.assess.noise import change_over_noise, moving_dimensions
from lewm_data.quality.assess.response import Response, find_response
from lewm_data.quality.assess.visibility import GAP_SECONDS, Look, Visibility, find_visibility, learning_curve, look
from lewm_data.resources import Progress

Level = Literal["ready", "fixable", "record_again"]


@dataclass(frozen=True, kw_only=True, slots=True)
class CameraAnswers:
    """What is known of one camera.

    Attributes:
        lag: How far it is behind the joints.
        visibility: What it shows of the robot.
        repeated_frames: Share of the frames that show the same as the one before, while the robot moves.
        change_over_noise: How many times larger the change over 0.3 seconds is than from one frame to the next; about
            1 where a picture is all noise. None: cannot tell.
    """

    lag: Lag
    visibility: Visibility
    repeated_frames: float
    change_over_noise: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Answers:
    """Every measurement of ``assess``, before it is judged.

    Attributes:
        cameras: Name of each camera to what is known of it.
        idle: Where the robot stands still.
        still_dimensions: ``action`` and ``state`` to the names of the dimensions that never move.
        response: How the state follows the action.
        excitation: How much the actions vary by themselves.
        frameskip: Frameskips compared, through the camera that sees most.
        learning_curve: Pairs of share of the episodes and score of that camera.
        near_duplicates: Pairs of episode numbers whose rows are nearly the same.
    """

    cameras: dict[str, CameraAnswers]
    idle: Idleness
    still_dimensions: dict[str, tuple[str, ...]]
    response: Response
    excitation: Excitation
    frameskip: FrameskipAdvice
    learning_curve: tuple[tuple[float, float], ...]
    near_duplicates: tuple[tuple[int, int], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class AssessFinding:
    """Something that keeps a world model from learning.

    Attributes:
        code: Stable name, such as ``camera_lag``.
        severity: Always ``warning``: ``assess`` judges, the user decides.
        camera: The camera concerned, or None.
        episodes: Numbers of the episodes concerned; empty where it is about all of them.
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
        source: The recording, as it was given.
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

    def to_dict(self) -> dict[str, Any]:
        """The object that ``lewm-data assess --json`` prints; None means "cannot tell"."""
        answers = self.answers
        return {
            "source": self.source,
            "verdict": self.verdict,
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
            seen, lag = camera.visibility, camera.lag
            sees = (
                "cannot tell what it shows"
                if seen.score is None
                else f"shows the robot with a score of {seen.score:.2f}"
            )
            late = "cannot tell whether it is late" if lag.frames is None else f"late by {lag.frames:+.1f} frames"
            pairs.append((f"camera {name}", f"{sees}; {late}"))
        predictable = answers.excitation.action_r2_from_state
        if predictable is not None:
            pairs.append(("habit", f"{predictable:.0%} of the coming actions follow from the state"))
        skip = answers.frameskip.recommended
        pairs.append(("frameskip", "cannot tell" if skip is None else f"{skip} would show the actions best"))
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
    "fixable": "A world model can learn from this recording, and better once the above is corrected.",
    "record_again": "Record again, or record more, before you pay for training.",
}


def answer(footage: Footage, progress: Progress = lambda what, done, total: None) -> Answers:
    """Asks every question of one recording.

    Args:
        footage: The recording.
        progress: Called after each question.
    """
    total = 4 + 2 * len(footage.cameras)
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        progress("questions", done, total)

    idle = find_idle(footage)
    step()
    response = find_response(footage)
    step()
    gap = max(1, round(GAP_SECONDS * footage.fps))
    cameras = {}
    looks: dict[str, Look] = {}
    for name, track in footage.cameras.items():
        lag = find_lag(footage, track)
        step()
        looks[name] = look(footage, track)
        moving = ~idle.is_idle
        cameras[name] = CameraAnswers(
            lag=lag,
            visibility=find_visibility(footage, looks[name]),
            repeated_frames=float(track.repeated[moving].mean()) if moving.any() else 0.0,
            change_over_noise=change_over_noise(track.thumbnails, footage.episode, gap),
        )
        step()
    best = max(cameras, key=lambda name: cameras[name].visibility.score or 0.0, default=None)
    excitation = find_excitation(footage)
    step()
    frameskip = FrameskipAdvice(recommended=None, by_frameskip={})
    curve: list[tuple[float, float]] = []
    if best is not None:
        frameskip = find_frameskip(footage, footage.cameras[best])
        curve = learning_curve(footage, looks[best])
    step()
    return Answers(
        cameras=cameras,
        idle=idle,
        still_dimensions={name: _still(footage, name) for name in ("action", "state")},
        response=response,
        excitation=excitation,
        frameskip=frameskip,
        learning_curve=tuple(curve),
        near_duplicates=tuple(near_duplicates(footage)),
    )


def _still(footage: Footage, column: Literal["action", "state"]) -> tuple[str, ...]:
    values = footage.action if column == "action" else footage.state
    moving = moving_dimensions(values, footage.episode, footage.fps)
    return tuple(name for name, moves in zip(footage.names[column], moving, strict=True) if not moves)


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
