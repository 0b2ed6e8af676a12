"""Judgments made by hand, so that what is drawn of them is known."""

from __future__ import annotations

from typing import Any

import numpy as np

from lewm_data.quality.assess.answers import Answers, CameraAnswers
from lewm_data.quality.assess.assessment import AssessFinding, Assessment, NextStep
from lewm_data.quality.assess.excitation import Excitation
from lewm_data.quality.assess.frameskip import FrameskipAdvice, Skip
from lewm_data.quality.assess.idle import Idleness
from lewm_data.quality.assess.lag import UNKNOWN as NO_LAG
from lewm_data.quality.assess.lag import Lag
from lewm_data.quality.assess.response import JointResponse, Response
from lewm_data.quality.assess.visibility import UNKNOWN as NOT_SEEN
from lewm_data.quality.assess.visibility import Visibility

IN_STEP = Lag(frames=0.1, low=-0.2, high=0.4, correlation=0.7, agreement=1.0)
LATE = Lag(frames=2.1, low=1.7, high=2.4, correlation=0.6, agreement=0.9)
SEEN = Visibility(score=0.62, state_r2=0.66, state_change_r2=0.5, action_r2=0.4, null_r2=0.04, within_r2=0.6)
UNSEEN = Visibility(score=0.01, state_r2=0.03, state_change_r2=0.0, action_r2=0.0, null_r2=0.02, within_r2=0.0)


def camera(lag: Lag = IN_STEP, visibility: Visibility = SEEN) -> CameraAnswers:
    return CameraAnswers(lag=lag, visibility=visibility, repeated_frames=0.0, change_over_noise=4.0)


UNKNOWN_CAMERA = camera(NO_LAG, NOT_SEEN)


def make_judgment(
    *,
    verdict: Any = "fixable",
    cameras: dict[str, CameraAnswers] | None = None,
    findings: tuple[AssessFinding, ...] = (),
    source: str = "recording",
    joint: str = "elbow",
) -> Assessment:
    """Four episodes of 100 steps at 20 fps; the first 30 steps of each are at rest."""
    is_idle = np.tile(np.arange(100) < 30, 4)
    answers = Answers(
        cameras={"wrist": camera(LATE), "top": camera(visibility=UNSEEN)} if cameras is None else cameras,
        idle=Idleness(is_idle=is_idle, head=np.full(4, 30), tail=np.zeros(4, np.int64)),
        still_dimensions={"action": (), "state": ("dead",)},
        response=Response(
            joints={joint: JointResponse(lag_steps=2, gain=1.01, offset=-17.0, offset_share=0.14)},
            following=0.4,
            action_is_state=False,
            state_is_increments=False,
        ),
        excitation=Excitation(action_r2_from_state=0.31, effective_dimensions=2.4),
        frameskip=FrameskipAdvice(
            recommended=5,
            by_frameskip={
                1: Skip(copy_r2=0.97, action_gain=0.1, null_gain=0.0),
                5: Skip(copy_r2=0.7, action_gain=0.28, null_gain=0.01),
            },
        ),
        learning_curve=((0.5, 0.4), (1.0, 0.62)),
        near_duplicates=(),
    )
    return Assessment(
        source=source,
        num_episodes=4,
        num_steps=400,
        fps=20.0,
        verdict=verdict,
        next_steps=(
            NextStep("lewm-data convert recording recording.h5 --camera wrist", "convert it"),
            NextStep(
                "python train.py --config configs/so101.yaml --data.h5_path recording.h5 --data.frameskip 5",
                "train on a GPU",
            ),
        ),
        findings=findings,
        answers=answers,
    )


def finding(code: str, camera: str | None = None, words: str = "") -> AssessFinding:
    return AssessFinding(
        code=code,
        camera=camera,
        found=words or f"what was measured for {code}",
        expected="something else",
        remedy=words or f"What to do about {code}.",
    )
