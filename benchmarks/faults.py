"""Faults that spoil a recording on purpose, each with what ``assess`` must say of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.arm import delayed, retrack
from lewm_data.quality.assess.assessment import Assessment
from lewm_data.quality.assess.footage import CameraTrack, Footage, episode_blocks
from lewm_data.quality.assess.visibility import BLIND, SEES

type Random = np.random.Generator

SHIFTS = (-3.0, -2.0, -1.0, -0.5, 0.5, 1.0, 2.0, 3.0)
LAG_TOLERANCE = 0.3
_IDLE = ("idle_head", "idle_middle", "idle_tail")
"""A camera that shows nothing, and actions that mean nothing, contradict no rest."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        name: What it is, in words.
        spoil: Takes a recording and a source of randomness, and returns the spoiled recording.
        is_found: Takes the judgments of the spoiled and of the unspoiled recording; whether the first names it.
        allowed: Codes that may come with it, since they are true of the spoiled recording as well.
        is_undecided: Takes the judgment of the spoiled recording; whether it says "cannot tell" where the fault is.
    """

    name: str
    spoil: Callable[[Footage, Random], Footage]
    is_found: Callable[[Assessment, Assessment], bool]
    allowed: frozenset[str]
    is_undecided: Callable[[Assessment], bool] = lambda judged: False


def codes(assessment: Assessment) -> set[str]:
    """The codes of its findings."""
    return {found.code for found in assessment.findings}


def faults(others: Footage | None = None, *, is_in_step: bool) -> list[Fault]:
    """Every fault that can be made from any recording.

    Args:
        others: Another recording, whose pictures are put in place of the camera's; None leaves that fault out.
        is_in_step: Whether the unspoiled camera is known to be in step with the joints. Else a shift is measured from
            the lag that it shows.
    """
    found = [_shift(frames, is_in_step=is_in_step) for frames in SHIFTS]
    found += [
        _coded("the robot rests for 1 to 3 s at the beginning", rest_at_the_beginning, "idle_head"),
        _coded("the robot rests for 1 to 3 s at the end", rest_at_the_end, "idle_tail"),
        Fault(
            name="a dead joint that jitters",
            spoil=with_dead_joint,
            is_found=lambda judged, _: judged.answers.still_dimensions["state"][-1:] == ("dead",),
            allowed=frozenset({"dimension_still"}),
        ),
        Fault(
            name="a dead joint that jitters, and rest at the beginning",
            spoil=lambda footage, random: with_dead_joint(rest_at_the_beginning(footage, random), random),
            is_found=lambda judged, _: {"dimension_still", "idle_head"} <= codes(judged),
            allowed=frozenset({"dimension_still", "idle_head"}),
        ),
        _coded("a frozen camera", frozen, "camera_blind", "frames_repeated", *_IDLE),
        _coded("a black camera", black, "camera_blind", "change_below_noise", "frames_repeated", *_IDLE),
        _coded("pictures of other episodes", unrelated, "camera_blind"),
        _coded("actions are noise", noise_for_actions, "action_not_followed", "dimension_still", *_IDLE),
        _coded("actions are constant", constant_actions, "action_not_followed", "dimension_still", *_IDLE),
        _coded("an episode recorded twice", near_duplicate, "episodes_alike"),
    ]
    if others is not None:
        found.append(_coded("another recording's video", lambda f, r: with_video_of(others, f), "camera_blind"))
    return found


def joint_faults() -> list[Fault]:
    """Faults for a recording whose state and action hold the same joints."""
    return [
        _coded("action copied from state", copied_from_state, "action_is_state"),
        _coded("the leader reads 17 degrees less than the follower", leader_offset, "action_offset"),
    ]


def _coded(name: str, spoil: Callable[[Footage, Random], Footage], code: str, *allowed: str) -> Fault:
    return Fault(
        name=name,
        spoil=spoil,
        is_found=lambda judged, _: code in codes(judged),
        allowed=frozenset({code, *allowed}),
        is_undecided=sight_is_undecided if code == "camera_blind" else lambda judged: False,
    )


def _shift(frames: float, *, is_in_step: bool) -> Fault:
    """A camera that is late by so many frames; less than a whole one needs no correction, but must be measured."""

    def is_found(judged: Assessment, before: Assessment) -> bool:
        found, own = lag_of(judged), 0.0 if is_in_step else lag_of(before)
        return found is not None and own is not None and abs(found - own - frames) <= LAG_TOLERANCE

    return Fault(
        name=f"camera late by {frames:+g} {'frame' if abs(frames) == 1 else 'frames'}",
        spoil=lambda footage, random: delayed(footage, frames),
        is_found=is_found,
        allowed=frozenset({"camera_lag"}) if abs(frames) >= 1 or not is_in_step else frozenset(),
        is_undecided=lambda judged: lag_of(judged) is None,
    )


def lag_of(judged: Assessment) -> float | None:
    """The lag of the only camera."""
    [camera] = judged.answers.cameras.values()
    return camera.lag.frames


def sight_is_undecided(judged: Assessment) -> bool:
    """Whether the score of the only camera says neither that it sees nor that it is blind."""
    [camera] = judged.answers.cameras.values()
    score = camera.visibility.score
    return score is None or BLIND < score < SEES


def rest_at_the_beginning(footage: Footage, random: Random, *, at_end: bool = False) -> Footage:
    """The first row and frame of each episode repeated for 1 to 3 seconds, with noise as sensors have it."""
    [(name, track)] = footage.cameras.items()
    order, is_added, episode = [], [], []
    for position, steps in enumerate(episode_blocks(footage.episode)):
        count = round(random.uniform(1.2, 3) * footage.fps)
        rest = np.full(count, steps[-1] if at_end else steps[0])
        parts = [steps, rest] if at_end else [rest, steps]
        order.append(np.concatenate(parts))
        is_added.append(np.concatenate([np.full(len(part), part is rest) for part in parts]))
        episode.append(np.full(len(steps) + count, position))
    rows, added, number = np.concatenate(order), np.concatenate(is_added), np.concatenate(episode)
    state, action = footage.state[rows], footage.action[rows]
    state[added] += random.normal(0, 0.003, state[added].shape) * footage.state.std(axis=0)
    pictures = track.thumbnails[rows].astype(np.int16)
    pictures[added] += random.normal(0, 1, pictures[added].shape).round().astype(np.int16)
    return replace(
        footage,
        episode=number,
        state=state,
        action=action,
        cameras={name: retrack(pictures.clip(0, 255).astype(np.uint8), number)},
    )


def rest_at_the_end(footage: Footage, random: Random) -> Footage:
    """Likewise the last row and frame."""
    return rest_at_the_beginning(footage, random, at_end=True)


def with_dead_joint(footage: Footage, random: Random) -> Footage:
    """One more joint, which flickers between two or three counts of its encoder."""
    counts = random.integers(0, random.integers(2, 4), len(footage.episode)) * 0.088
    return replace(
        footage,
        state=np.c_[footage.state, random.uniform(-90, 90) + counts],
        names={**footage.names, "state": (*footage.names["state"], "dead")},
    )


def frozen(footage: Footage, random: Random) -> Footage:
    """Every picture is the same one."""
    [(name, track)] = footage.cameras.items()
    pictures = np.broadcast_to(track.thumbnails[random.integers(len(track.thumbnails))], track.thumbnails.shape)
    return replace(footage, cameras={name: retrack(pictures, footage.episode)})


def black(footage: Footage, random: Random) -> Footage:
    """Nothing but the noise of a sensor in the dark."""
    [(name, track)] = footage.cameras.items()
    pictures = np.abs(random.normal(0, 1.2, track.thumbnails.shape)).round().astype(np.uint8)
    return replace(footage, cameras={name: retrack(pictures, footage.episode)})


def unrelated(footage: Footage, random: Random) -> Footage:
    """The pictures of each episode are those of another one."""
    blocks = episode_blocks(footage.episode)
    distance = int(random.integers(1, len(blocks)))
    order = [blocks[(place + distance) % len(blocks)] for place in range(len(blocks))]
    rows = np.concatenate([_there_and_back(other, len(own)) for own, other in zip(blocks, order, strict=True)])
    return with_pictures(footage, rows)


def with_video_of(other: Footage, footage: Footage) -> Footage:
    """The pictures of another recording, played from its beginning."""
    [(name, _)] = footage.cameras.items()
    [track] = other.cameras.values()
    pictures = track.thumbnails[_there_and_back(np.arange(len(track.thumbnails)), len(footage.episode))]
    return replace(footage, cameras={name: retrack(pictures, footage.episode)})


def _there_and_back(rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """So many rows: forward, then backward where there are too few, so that no frame is repeated."""
    place = np.arange(count) % max(1, 2 * len(rows) - 2)
    return rows[np.minimum(place, 2 * len(rows) - 2 - place)]


def with_pictures(footage: Footage, rows: NDArray[np.int64]) -> Footage:
    """The same rows with pictures of other steps."""
    [(name, track)] = footage.cameras.items()
    return replace(footage, cameras={name: retrack(track.thumbnails[rows], footage.episode)})


def noise_for_actions(footage: Footage, random: Random) -> Footage:
    """Actions that nothing follows, as large as the true ones."""
    scale = footage.action.std(axis=0) + 1e-9
    return replace(footage, action=random.normal(size=footage.action.shape) * scale)


def constant_actions(footage: Footage, random: Random) -> Footage:
    """Actions that never change."""
    return replace(
        footage, action=np.tile(footage.action[random.integers(len(footage.action))], (len(footage.action), 1))
    )


def copied_from_state(footage: Footage, random: Random) -> Footage:
    """The state was recorded in place of the action."""
    return replace(footage, action=footage.state.copy())


def leader_offset(footage: Footage, random: Random) -> Footage:
    """One joint of the leader arm was calibrated 17 degrees apart."""
    action = footage.action.copy()
    action[:, random.integers(action.shape[1])] -= 17
    return replace(footage, action=action)


def near_duplicate(footage: Footage, random: Random) -> Footage:
    """One episode again, with noise, in place of another."""
    [(name, track)] = footage.cameras.items()
    blocks = episode_blocks(footage.episode)
    first, second = random.choice(len(blocks), 2, replace=False)
    blocks[second] = blocks[first]
    rows = np.concatenate(blocks)
    episode = np.repeat(np.arange(len(blocks)), [len(steps) for steps in blocks])
    state, action = footage.state[rows], footage.action[rows]
    for values in (state, action):
        values[episode == second] += random.normal(0, 0.01, values[episode == second].shape) * values.std(axis=0)
    pictures = retrack(track.thumbnails[rows], episode)
    return replace(footage, episode=episode, state=state, action=action, cameras={name: pictures})


def varied(footage: Footage, random: Random) -> Footage:
    """Another recording of the same kind: some episodes, cut at both ends, under another light, with more noise."""
    [(name, track)] = footage.cameras.items()
    blocks = episode_blocks(footage.episode)
    count = min(len(blocks), int(random.integers(10, 15)))
    chosen = np.sort(random.permutation(len(blocks))[:count])
    cut = []
    for place in chosen:
        head, tail = random.integers(0, len(blocks[place]) // 8, 2)
        cut.append(blocks[place][head : len(blocks[place]) - tail])
    rows = np.concatenate(cut)
    episode = np.repeat(np.arange(count), [len(steps) for steps in cut])
    light, level, noise = random.uniform(0.8, 1.2), random.uniform(-12, 12), random.uniform(0.3, 1.5)
    pictures = track.thumbnails[rows].astype(np.float32) * np.float32(light) + np.float32(level)
    pictures += random.standard_normal(pictures.shape, np.float32) * np.float32(noise)
    if random.random() < 0.5:
        pictures = pictures[:, :, ::-1]
    return replace(
        footage,
        episode=episode,
        numbers=footage.numbers[chosen],
        action=footage.action[rows],
        state=footage.state[rows],
        cameras={name: retrack(pictures.round().clip(0, 255).astype(np.uint8), episode)},
    )


def tracked(footage: Footage, camera: str) -> Footage:
    """The same recording through one camera."""
    track: CameraTrack = footage.cameras[camera]
    return replace(footage, cameras={camera: track})
