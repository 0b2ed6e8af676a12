"""Records a small PushT dataset through LeRobot's own writer: real physics, real pictures, real episode ends.

PushT (Chi et al., Diffusion Policy, 2023; gym-pusht): a round finger pushes a T-shaped block to a goal pose.
The policy tries straight pushes in a second copy of the physics and carries out the best one, until the block
covers the goal (about half of the episodes) or the time is up.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from lewm_data.errors import OutputError, UsageError

FPS = 10
"""PushT's control rate, in steps per second."""

IMAGE_SIZE = 128
"""Side of a recorded picture in pixels; at 256, LeRobot's statistics double the time of a recording."""

MAX_EPISODE_STEPS = 200
_TASK = "Push the T-shaped block onto the green T."
_INSTALL = "Install it with: pip install 'lewm_data[demo]'"


def record_demo(
    root: Path,
    *,
    num_episodes: int = 24,
    image_size: int = IMAGE_SIZE,
    max_episode_steps: int = MAX_EPISODE_STEPS,
    seed: int = 0,
) -> Path:
    """Records a LeRobot v3.0 dataset of PushT; does nothing where a complete one is already.

    Features, named as in ``lerobot/pusht``: ``observation.image`` (h264 video), ``observation.state`` and
    ``action`` (the finger's position and its target, float32 x and y in [0, 512]), ``next.reward``,
    ``next.done``, ``next.success``.

    Args:
        root: Folder to be created; it appears only when the recording is complete.
        num_episodes: Episodes to record.
        image_size: Side of the square pictures, in pixels.
        max_episode_steps: Steps after which PushT ends an episode that has not reached the goal.
        seed: Episode i begins from PushT's own random state of ``seed + i``.

    Returns:
        ``root``.

    Raises:
        UsageError: LeRobot's recorder or gym-pusht is not installed.
        OutputError: ``root`` is there but holds something else, or cannot be written.
    """
    root = Path(root)
    if _is_complete(root, num_episodes):
        return root
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise OutputError(
            f"{root}: exists already and is not a PushT demo of {num_episodes} episodes. "
            "Name another folder, or remove this one."
        )
    prefix = f".{root.name}.recording-"
    scratch = root.with_name(f"{prefix}{os.getpid()}")
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        for left in root.parent.glob(f"{prefix}*"):
            process = left.name.removeprefix(prefix)
            if process.isdigit() and not psutil.pid_exists(int(process)):
                shutil.rmtree(left)
        with _quiet():
            _record(scratch, num_episodes, image_size, max_episode_steps, seed)
        if root.exists():
            root.rmdir()
        scratch.rename(root)
    except OSError as error:
        if _is_complete(root, num_episodes):  # another process was quicker
            return root
        raise OutputError(f"{root}: cannot be recorded there ({error}). Name a folder that can be.") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return root


def _is_complete(root: Path, num_episodes: int) -> bool:
    """Whether ``root`` holds such a recording; it appears by one rename, so its metadata is proof enough."""
    try:
        info = json.loads((root / "meta" / "info.json").read_text())
    except (OSError, ValueError):
        return False
    return bool(info.get("robot_type") == "pusht" and info.get("total_episodes") == num_episodes)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hides what the recorder and the encoder print about their own internals, under our progress bar."""
    import av

    previous = logging.root.manager.disable
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    logging.disable(logging.WARNING)
    av.logging.set_libav_level(av.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)


def _record(root: Path, num_episodes: int, image_size: int, max_episode_steps: int, seed: int) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
    ) as progress:
        bar = progress.add_task("loading LeRobot", total=num_episodes, note="")
        dataset, env, planner = _open(root, image_size, max_episode_steps)
        progress.update(bar, description="recording PushT")
        num_steps = num_successes = 0
        try:
            for episode in range(num_episodes):
                observation, _ = env.reset(seed=seed + episode)
                policy = _PushPolicy(env.unwrapped, planner, np.random.default_rng([seed, episode]))
                terminated = truncated = False
                while not (terminated or truncated):
                    action = policy.act()
                    following, reward, terminated, truncated, _ = env.step(action)
                    dataset.add_frame(
                        {
                            "observation.image": observation["pixels"],
                            "observation.state": observation["agent_pos"].astype(np.float32),
                            "action": action,
                            "next.reward": np.array([reward], dtype=np.float32),
                            "next.done": np.array([terminated or truncated]),
                            "next.success": np.array([terminated]),
                            "task": _TASK,
                        }
                    )
                    observation = following
                    num_steps += 1
                dataset.save_episode()
                num_successes += int(terminated)
                progress.update(bar, advance=1, note=f"{num_steps} steps, {num_successes} at the goal")
        except BaseException:
            # Or LeRobot finishes its files when it is collected, after we have removed them.
            with contextlib.suppress(Exception):
                dataset.writer.cancel_pending_videos()
                dataset.finalize()
            raise
        finally:
            env.close()
        dataset.finalize()


def _open(root: Path, image_size: int, max_episode_steps: int) -> tuple[Any, Any, Any]:
    """Opens LeRobot's recorder, the PushT to record, and a second PushT to plan in."""
    try:
        import gym_pusht  # noqa: F401  (registers the environment)
        import gymnasium
        from gym_pusht.envs.pusht import PushTEnv
    except ImportError as error:
        raise UsageError(f"the PushT demo needs gym-pusht, which is not installed ({error}). {_INSTALL}") from error
    try:
        import datasets  # type: ignore[import-untyped]
        from lerobot.configs import RGBEncoderConfig
        from lerobot.datasets.lerobot_dataset import LeRobotDataset
    except ImportError as error:
        raise UsageError(
            f"the PushT demo needs LeRobot's recorder, which is not installed ({error}). {_INSTALL}"
        ) from error

    datasets.disable_progress_bars()
    env = gymnasium.make(
        "gym_pusht/PushT-v0",
        obs_type="pixels_agent_pos",
        observation_width=image_size,
        observation_height=image_size,
        max_episode_steps=max_episode_steps,
    )
    planner = PushTEnv(obs_type="state")
    planner.reset(seed=0)
    vector = {"dtype": "float32", "shape": (2,), "names": ["x", "y"]}
    flag = {"dtype": "bool", "shape": (1,), "names": None}
    dataset = LeRobotDataset.create(
        "lewm_data/pusht_demo",
        FPS,
        {
            "observation.image": {
                "dtype": "video",
                "shape": (image_size, image_size, 3),
                "names": ["height", "width", "channels"],
            },
            "observation.state": vector,
            "action": dict(vector),
            "next.reward": {"dtype": "float32", "shape": (1,), "names": None},
            "next.done": flag,
            "next.success": dict(flag),
        },
        root=root,
        robot_type="pusht",
        rgb_encoder=RGBEncoderConfig(vcodec="h264", crf=23, preset="veryfast"),
        # Straight to the encoder, three times as fast as by way of PNG files; a queue as long as an episode,
        # because LeRobot drops frames when it is full.
        streaming_encoding=True,
        encoder_queue_maxsize=max_episode_steps + 1,
    )
    return dataset, env, planner


# The T in its own frame, in PushT's pixels (``PushTEnv.add_tee`` with scale 30), and where its outline turns.
_OUTLINE = np.array([(-60, 0), (60, 0), (60, 30), (15, 30), (15, 120), (-15, 120), (-15, 30), (-60, 30)], float)
_FINGER = 15.0
_ARENA = (5 + 2 + _FINGER, 506 - 2 - _FINGER)
_CLEARANCE = 112.0  # from the block's middle: the finger passes every corner of the T
_SPEED = 24.0  # pixels per step
_LONGEST_PUSH = 130.0  # pixels
_TRIED_SPEED = 300.0  # pixels per second


class _PushPolicy:
    """Straight pushes, each the best of those tried in a copy of the physics.

    PushT stops the block as soon as nothing pushes it (damping 0), so what was tried is what happens, almost.
    """

    def __init__(self, env: Any, planner: Any, rng: np.random.Generator) -> None:
        self._env = env
        self._planner = planner
        self._rng = rng
        self._targets: Iterator[np.ndarray] = iter(())

    def act(self) -> np.ndarray:
        """The finger's next target, float32 (x, y) in [0, 512]."""
        target = next(self._targets, None)
        if target is None:
            self._targets = self._plan()
            target = next(self._targets)
        return np.clip(target, *_ARENA).astype(np.float32)

    def _plan(self) -> Iterator[np.ndarray]:
        start, stop = self._best_push()
        yield from self._go_around(start)
        yield from _line(start, stop, _SPEED / 2)
        yield stop
        yield stop
        yield stop + (start - stop) / max(1.0, float(np.linalg.norm(start - stop))) * 12

    def _best_push(self) -> tuple[np.ndarray, np.ndarray]:
        """Start and end of the finger's way that brings the block nearest to its goal."""
        block = self._env.block
        goal = self._env.get_goal_pose_body(self._env.goal_pose)
        wanted = np.array([goal.local_to_world(tuple(corner)) for corner in _OUTLINE])
        rotation = _rotation(block.angle)
        origin = np.array(block.position)
        best, best_cost = None, np.inf
        for contact, normal in _contacts():
            outward = rotation @ normal
            start = origin + rotation @ contact + outward * (_FINGER + 4)
            if not ((start > _ARENA[0]) & (start < _ARENA[1])).all():
                continue
            for tilt in (-0.7, -0.35, 0.0, 0.35, 0.7):
                direction = -_rotation(tilt) @ outward
                distance, cost = self._try(start, direction, wanted)
                # A little chance, so that the policy does not repeat a push that leads nowhere.
                cost *= 1 + 0.03 * self._rng.random()
                if cost < best_cost:
                    best, best_cost = (start, start + direction * distance), cost
        if best is None:  # the block fills a corner of the arena: touch it from the middle
            return np.array([256.0, 256.0]), origin
        return best

    def _try(self, start: np.ndarray, direction: np.ndarray, wanted: np.ndarray) -> tuple[float, float]:
        """The length of a push at which the block's corners are nearest to where they should be.

        Args:
            start: The finger's start.
            direction: Unit vector.
            wanted: The corners' goal, of shape (8, 2).

        Returns:
            (length, mean distance of the corners), both in pixels.
        """
        plan, block = self._planner, self._env.block
        plan.block.position, plan.block.angle = block.position, block.angle
        plan.block.velocity, plan.block.angular_velocity = (0, 0), 0
        plan.agent.position, plan.agent.velocity = tuple(start), tuple(direction * _TRIED_SPEED)
        plan.space.reindex_shapes_for_body(plan.block)
        plan.space.reindex_shapes_for_body(plan.agent)
        poses = []
        for _ in range(int(_LONGEST_PUSH / _TRIED_SPEED / plan.dt)):
            plan.space.step(plan.dt)
            poses.append((*plan.block.position, plan.block.angle))
        x, y, angle = np.array(poses).T[..., None]
        corner_x = x + np.cos(angle) * _OUTLINE[:, 0] - np.sin(angle) * _OUTLINE[:, 1]
        corner_y = y + np.sin(angle) * _OUTLINE[:, 0] + np.cos(angle) * _OUTLINE[:, 1]
        costs = np.hypot(corner_x - wanted[:, 0], corner_y - wanted[:, 1]).mean(axis=1)
        best = int(costs.argmin())
        return (best + 1) * _TRIED_SPEED * plan.dt, float(costs[best])

    def _go_around(self, goal: np.ndarray) -> Iterator[np.ndarray]:
        """A way to ``goal`` that does not touch the block: out to a circle round it, along, and in again."""
        block = self._env.block
        middle = np.array(block.local_to_world(block.center_of_gravity))
        here = np.array(self._env.agent.position)
        if _distance_to_segment(middle, here, goal) > _CLEARANCE:
            yield from _line(here, goal, _SPEED)
            return
        first, last = (np.arctan2(*(point - middle)[::-1]) for point in (here, goal))
        turn = (last - first + np.pi) % (2 * np.pi) - np.pi
        ring = [
            middle + _CLEARANCE * np.array([np.cos(angle), np.sin(angle)])
            for angle in first + np.linspace(0, turn, max(2, int(abs(turn) * _CLEARANCE / _SPEED)))
        ]
        yield from _line(here, ring[0], _SPEED)
        yield from ring[1:]
        yield from _line(ring[-1], goal, _SPEED)
        yield goal


def _contacts() -> list[tuple[np.ndarray, np.ndarray]]:
    """Points on the T's outline, with the outward normal of each, in the block's frame."""
    contacts = []
    for corner, following in zip(_OUTLINE, np.roll(_OUTLINE, -1, axis=0), strict=True):
        along = following - corner
        length = np.linalg.norm(along)
        normal = np.array([along[1], -along[0]]) / length
        count = max(1, int(length / 12))
        contacts += [(corner + along * (i + 0.5) / count, normal) for i in range(count)]
    return contacts


def _rotation(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _line(start: np.ndarray, stop: np.ndarray, speed: float) -> Iterator[np.ndarray]:
    """Targets from ``start`` (left out) to ``stop``, at most ``speed`` pixels apart."""
    count = int(np.ceil(np.linalg.norm(stop - start) / speed))
    yield from (start + (stop - start) * i / count for i in range(1, count + 1))


def _distance_to_segment(point: np.ndarray, start: np.ndarray, stop: np.ndarray) -> float:
    along = stop - start
    share = np.clip((point - start) @ along / max(1e-9, float(along @ along)), 0, 1)
    return float(np.linalg.norm(point - start - share * along))
