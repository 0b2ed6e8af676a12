"""A small arm whose truth is known: a smooth random path, a state that follows it, and pictures of the state."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lewm_data.quality.assess.footage import DECODED_SIZE, CameraTrack, Footage, TrackBuilder, episode_blocks

FPS = 20.0
JOINTS = ("shoulder", "elbow", "gripper")


def make_arm(
    *, seed: int = 0, num_episodes: int = 8, length: int = 150, head: int = 0, tail: int = 0, habit: bool = False
) -> Footage:
    """A recording of an arm.

    Args:
        seed: Of paths and noise.
        num_episodes: Episodes.
        length: Steps of each.
        head: Steps at the beginning of each in which the arm stands still.
        tail: Steps at the end, likewise.
        habit: Every episode repeats the same path, with small variations.

    Returns:
        Actions lead the state by two steps; the state has encoder noise; the camera ``top`` shows the state.
    """
    random = np.random.default_rng(seed)
    actions, states = [], []
    path = _path(random, length)
    for _ in range(num_episodes):
        if habit:
            speed = random.uniform(0.97, 1.03)
            moves = np.stack([np.interp(np.arange(length) * speed, np.arange(length), joint) for joint in path], axis=1)
            moves += random.normal(0, 0.3, moves.shape[1])
        else:
            moves = _path(random, length).T
        moves = np.concatenate([np.repeat(moves[:1], head, 0), moves, np.repeat(moves[-1:], tail, 0)])
        state = np.concatenate([np.repeat(moves[:1], 2, 0), moves[:-2]])
        actions.append(moves)
        states.append(state + random.normal(0, 0.05, state.shape))
    steps = length + head + tail
    episode = np.repeat(np.arange(num_episodes), steps)
    state = np.concatenate(states)
    footage = Footage(
        name="arm",
        fps=FPS,
        episode=episode,
        numbers=np.arange(num_episodes),
        action=np.concatenate(actions),
        state=state,
        names={"action": JOINTS, "state": JOINTS},
    )
    clean = np.concatenate([np.concatenate([np.repeat(a[:1], 2, 0), a[:-2]]) for a in actions])
    return replace(footage, cameras={"top": film(clean, episode, random)})


def film(state: NDArray[np.float64], episode: NDArray[np.int64], random: np.random.Generator) -> CameraTrack:
    """Pictures of a state in degrees: a shoulder, an elbow and a gripper over a textured table, with sensor noise."""
    side = DECODED_SIZE
    y, x = np.mgrid[0:side, 0:side].astype(np.float32)
    table = 90 + 25 * np.sin(x / 7)[..., None] * np.cos(y / 5)[..., None] * np.ones(3, np.float32)
    builder = TrackBuilder(len(state))
    for steps in episode_blocks(episode):
        builder.add_episode(int(steps[0]), (_picture(state[s], table, x, y, random) for s in steps))
    return builder.track(len(state))


def delayed(footage: Footage, frames: float) -> Footage:
    """The same recording with a camera that is so many frames late; half frames blend two.

    Steps whose frame would lie outside of the episode are cut off.
    """
    whole = int(np.floor(frames))
    share = frames - whole
    pictures = footage.cameras["top"].thumbnails.astype(np.float32)
    reach = abs(whole) + 1
    kept = np.concatenate([steps[reach:-reach] for steps in episode_blocks(footage.episode)])
    late = (1 - share) * pictures[kept - whole] + share * pictures[kept - whole - 1]
    episode = footage.episode[kept]
    return replace(
        footage,
        episode=episode,
        action=footage.action[kept],
        state=footage.state[kept],
        cameras={"top": retrack(late.round().astype(np.uint8), episode)},
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
        weight = weight[..., None]
        picture = picture * (1 - weight) + weight * np.array(color, np.float32)
    noise = random.standard_normal(picture.shape, np.float32) * np.float32(1.5)
    return (picture + noise).clip(0, 255).astype(np.uint8)
