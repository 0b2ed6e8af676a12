"""All questions asked of one recording, and what was measured."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lewm_data.format.motion import moving_dimensions
from lewm_data.quality.assess.excitation import Excitation, find_excitation, near_duplicates
from lewm_data.quality.assess.footage import CameraTrack, Footage
from lewm_data.quality.assess.frameskip import FrameskipAdvice, find_frameskip
from lewm_data.quality.assess.idle import Idleness, find_idle
from lewm_data.quality.assess.lag import Lag, find_lag
from lewm_data.quality.assess.response import Response, find_response
from lewm_data.quality.assess.visibility import (
    GAP_SECONDS,
    Look,
    Visibility,
    change_over_noise,
    find_visibility,
    learning_curve,
    look,
)
from lewm_data.resources import Progress, silent


@dataclass(frozen=True, kw_only=True, slots=True)
class CameraAnswers:
    """What is known about one camera.

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
        cameras: Name of each camera to what is known about it.
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


def answer(footage: Footage, progress: Progress = silent) -> Answers:
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

    alike = tuple(near_duplicates(footage))
    idle = find_idle(footage)
    step()
    response = find_response(footage, alike)
    step()
    cameras = {}
    looks: dict[str, Look] = {}
    for name, track in footage.cameras.items():
        looks[name] = look(footage, track, alike)
        step()
        cameras[name] = look_through(footage, track, looks[name], is_idle=idle.is_idle)
        step()
    best = max(cameras, key=lambda name: cameras[name].visibility.score or 0.0, default=None)
    excitation = find_excitation(footage)
    step()
    frameskip = FrameskipAdvice(recommended=None, by_frameskip={})
    curve: list[tuple[float, float]] = []
    if best is not None:
        frameskip = find_frameskip(footage, footage.cameras[best])
        curve = learning_curve(footage, looks[best], cameras[best].visibility.score)
    step()
    return Answers(
        cameras=cameras,
        idle=idle,
        still_dimensions=still_dimensions(footage),
        response=response,
        excitation=excitation,
        frameskip=frameskip,
        learning_curve=tuple(curve),
        near_duplicates=alike,
    )


def look_through(footage: Footage, track: CameraTrack, seen: Look, *, is_idle: NDArray[np.bool_]) -> CameraAnswers:
    """Asks every question about one camera.

    Args:
        footage: The recording.
        track: The camera.
        seen: What ``look`` returned for it.
        is_idle: (N,) where the robot stands still.
    """
    gap = max(1, round(GAP_SECONDS * footage.fps))
    return CameraAnswers(
        lag=find_lag(footage, track),
        visibility=find_visibility(footage, seen),
        repeated_frames=float(track.repeated[~is_idle].mean()) if not is_idle.all() else 0.0,
        change_over_noise=change_over_noise(track.thumbnails, footage.episode, gap),
    )


def still_dimensions(footage: Footage) -> dict[str, tuple[str, ...]]:
    """``action`` and ``state`` to the names of the dimensions that never move."""
    named = {}
    for column, values in (("action", footage.action), ("state", footage.state)):
        moving = moving_dimensions(values, footage.episode, footage.fps)
        named[column] = tuple(name for name, moves in zip(footage.names[column], moving, strict=True) if not moves)
    return named
