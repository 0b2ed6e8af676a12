"""A small arm whose truth is known: a smooth random path, a state that follows it, and pictures of the state."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lewm_data.quality.assess.footage import DECODED_SIZE, CameraTrack, Footage, TrackBuilder, episode_blocks

FPS = 20.0
JOINTS = ("shoulder", "elbow", "gripper")


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """What to record.

    Attributes:
        seed: Of paths and noise.
        num_episodes: Episodes.
        length: Steps of each.
        head: Steps at the beginning of each in which the arm stands still.
        tail: Steps at the end, likewise.
        habit: Every episode repeats the same path, with small variations.
        response_steps: Steps by which the state follows the action.
        amplitude: Scale of all movements.
        contrast: How clearly the arm stands out from the table, from 0 to 1.
        sensor_noise: Standard deviation of a pixel, in gray levels.
        late_frames: Frames by which the camera is late.
        obedience: Share of the motion that the actions tell; the rest of them is motion that never happened.
    """

    seed: int = 0
    num_episodes: int = 8
    length: int = 150
    head: int = 0
    tail: int = 0
    habit: bool = False
    response_steps: int = 2
    amplitude: float = 1.0
    contrast: float = 1.0
    sensor_noise: float = 1.5
    late_frames: int = 0
    obedience: float = 1.0


def make_arm(arm: Arm = Arm()) -> Footage:  # noqa: B008  # frozen
    """Records an arm: actions lead the state, the state has encoder noise, and the camera ``top`` shows the state."""
    random = np.random.default_rng(arm.seed)
    actions, states = [], []
    path = _path(random, arm.length)
    for _ in range(arm.num_episodes):
        if arm.habit:
            speed = random.uniform(0.97, 1.03)
            times = np.arange(arm.length)
            moves = np.stack([np.interp(times * speed, times, joint) for joint in path], axis=1)
            moves += random.normal(0, 0.3, moves.shape[1])
        else:
            moves = _path(random, arm.length).T
        moves = np.concatenate([np.repeat(moves[:1], arm.head, 0), moves, np.repeat(moves[-1:], arm.tail, 0)])
        moves *= arm.amplitude
        actions.append(moves)
        states.append(_later(moves, arm.response_steps) + random.normal(0, 0.05, moves.shape))
    steps = arm.length + arm.head + arm.tail
    episode = np.repeat(np.arange(arm.num_episodes), steps)
    footage = Footage(
        name="arm",
        fps=FPS,
        episode=episode,
        numbers=np.arange(arm.num_episodes),
        action=np.concatenate(actions),
        state=np.concatenate(states),
        names={"action": JOINTS, "state": JOINTS},
    )
    shown = np.concatenate([_later(moves, arm.response_steps + arm.late_frames) for moves in actions])
    footage = replace(footage, cameras={"top": film(shown, episode, random, arm.contrast, arm.sensor_noise)})
    if arm.obedience == 1:
        return footage
    invented = np.concatenate([arm.amplitude * _path(random, steps).T for _ in range(arm.num_episodes)])
    return replace(footage, action=arm.obedience * footage.action + (1 - arm.obedience) * invented)


def _later(moves: NDArray[np.float64], steps: int) -> NDArray[np.float64]:
    """(L, D) the same path so many steps later, or earlier; it rests where there is nothing to show."""
    return moves[(np.arange(len(moves)) - steps).clip(0, len(moves) - 1)]


def film(
    state: NDArray[np.float64],
    episode: NDArray[np.int64],
    random: np.random.Generator,
    contrast: float = 1.0,
    sensor_noise: float = 1.5,
) -> CameraTrack:
    """Pictures of a state in degrees: a shoulder, an elbow and a gripper over a textured table, with sensor noise."""
    side = DECODED_SIZE
    y, x = np.mgrid[0:side, 0:side].astype(np.float32)
    table = 90 + 25 * np.sin(x / 7)[..., None] * np.cos(y / 5)[..., None] * np.ones(3, np.float32)
    builder = TrackBuilder(len(state))
    for steps in episode_blocks(episode):
        pictures = (_picture(state[s], table, x, y, random, contrast, sensor_noise) for s in steps)
        builder.add_episode(int(steps[0]), pictures)
    return builder.track(len(state))


def delayed(footage: Footage, frames: float) -> Footage:
    """The same recording with a camera that is so many frames late; half frames blend two.

    Steps whose frame would lie outside of the episode are cut off.
    """
    whole = int(np.floor(frames))
    share = frames - whole
    [(name, track)] = footage.cameras.items()
    pictures = track.thumbnails.astype(np.float32)
    reach = abs(whole) + 1
    kept = np.concatenate([steps[reach:-reach] for steps in episode_blocks(footage.episode)])
    late = (1 - share) * pictures[kept - whole] + share * pictures[kept - whole - 1]
    episode = footage.episode[kept]
    return replace(
        footage,
        episode=episode,
        action=footage.action[kept],
        state=footage.state[kept],
        cameras={name: retrack(late.round().astype(np.uint8), episode)},
    )


def retrack(thumbnails: NDArray[np.uint8], episode: NDArray[np.int64]) -> CameraTrack:
    """A camera from its thumbnails alone."""
    builder = TrackBuilder(len(thumbnails))
    for steps in episode_blocks(episode):
        builder.add_episode(int(steps[0]), (t.repeat(2, axis=0).repeat(2, axis=1) for t in thumbnails[steps]))
    return builder.track(len(thumbnails))


def _path(random: np.random.Generator, length: int) -> NDArray[np.float64]:
    """(3, length) degrees: quick movements, with rests between them that are too short to count as idling."""
    joints = []
    for _ in JOINTS:
        times, value = [0.0], random.uniform(-40, 40)
        values = [value]
        while times[-1] < length:
            times += [times[-1] + random.uniform(0.15, 0.3) * FPS]
            values += [float(np.clip(values[-1] + random.normal(0, 12), -60, 60))]
            times += [times[-1] + random.uniform(0.2, 0.6) * FPS]
            values += [float(np.clip(values[-1] + random.normal(0, 30), -60, 60))]
        fine = np.interp(np.arange(length), times, values)
        kernel = np.hanning(7)[1:-1]
        joints.append(np.convolve(np.pad(fine, 2, mode="edge"), kernel / kernel.sum(), "valid"))
    return np.stack(joints)


def _picture(
    state: NDArray[np.float64],
    table: NDArray[np.float64],
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    random: np.random.Generator,
    contrast: float,
    sensor_noise: float,
) -> NDArray[np.uint8]:
    shoulder, elbow, gripper = np.radians(state)
    joint = 48 + 22 * np.sin(shoulder), 76 - 30 * np.cos(shoulder)
    hand = joint[0] + 20 * np.sin(shoulder + elbow), joint[1] - 20 * np.cos(shoulder + elbow)
    picture = table
    size = 9.0 + 4.0 * np.sin(gripper)
    for (px, py), color, radius in ((joint, (230, 60, 40), 11.0), (hand, (40, 200, 240), size)):
        weight = np.exp(
            -np.square((np.square(x - np.float32(px)) + np.square(y - np.float32(py))) / np.float32(radius**2))
        )
        weight = np.float32(contrast) * weight[..., None]
        picture = picture * (1 - weight) + weight * np.array(color, np.float32)
    noise = random.standard_normal(picture.shape, np.float32) * np.float32(sensor_noise)
    return (picture + noise).clip(0, 255).astype(np.uint8)
