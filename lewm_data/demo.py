"""Records a small PushT dataset through LeRobot's own writer: real physics, real pictures, real episode ends.

In PushT (Chi et al., Diffusion Policy, 2023; gym-pusht), a round finger pushes a T-shaped block to a goal pose. The
policy tries straight pushes in a second copy of the physics and makes the best one, until the block covers the goal
(in about half of the episodes) or time is up.
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

from lewm_data.demo_policy import PushPolicy
from lewm_data.errors import OutputError, UsageError
from lewm_data.paths import local_path
from lewm_data.resources import leave_real_time

FPS = 10
"""PushT's control rate, in steps per second."""

IMAGE_SIZE = 96
"""Side of a recorded frame, in pixels. At 256, LeRobot's statistics double the recording time."""

MAX_EPISODE_STEPS = 200
_TASK = "Push the T-shaped block onto the green T."
_INSTALL = "Install it with: pip install 'lewm_data[demo]'"


def record_demo(
    root: Path,
    *,
    num_episodes: int = 40,
    image_size: int = IMAGE_SIZE,
    max_episode_steps: int = MAX_EPISODE_STEPS,
    seed: int = 0,
) -> Path:
    """Records a LeRobot v3.0 dataset of PushT, unless a complete one exists.

    Features, named as in ``lerobot/pusht``: ``observation.image`` (h264 video), ``observation.state`` and
    ``action`` (the finger's position and its target, float32 x and y in [0, 512]), ``next.reward``,
    ``next.done``, ``next.success``.

    Args:
        root: Folder to create. It appears only when the recording is complete.
        num_episodes: Episodes to record.
        image_size: Side of the square frames, in pixels.
        max_episode_steps: Steps after which PushT ends an episode that has not reached the goal.
        seed: Episode i starts from PushT's own random state of ``seed + i``.

    Returns:
        ``root``.

    Raises:
        UsageError: LeRobot's recorder or gym-pusht is not installed.
        OutputError: ``root`` holds something else, or cannot be written.
    """
    root = local_path(root, "dir")
    if _is_complete(root, num_episodes):
        return root
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise OutputError(
            f"{root}: exists, but is not a PushT demo of {num_episodes} episodes. Name another folder, or remove this "
            "one."
        )
    prefix = f".{root.name}.recording-"
    scratch = root.with_name(f"{prefix}{os.getpid()}")
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        for left in root.parent.glob(f"{prefix}*"):
            process = left.name.removeprefix(prefix)
            if process.isdigit() and not psutil.pid_exists(int(process)):
                shutil.rmtree(left)
        with quiet_recorder():
            _record(scratch, num_episodes, image_size, max_episode_steps, seed)
        if root.exists():
            root.rmdir()
        scratch.rename(root)
    except OSError as error:
        if _is_complete(root, num_episodes):  # another process finished first
            return root
        raise OutputError(f"{root}: cannot be recorded there ({error}). Name another folder.") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return root


def _is_complete(root: Path, num_episodes: int) -> bool:
    """Whether ``root`` holds such a recording. It appears by one rename, so its metadata proves that it is complete."""
    try:
        info = json.loads((root / "meta" / "info.json").read_text())
    except (OSError, ValueError):
        return False
    return bool(info.get("robot_type") == "pusht" and info.get("total_episodes") == num_episodes)


@contextlib.contextmanager
def quiet_recorder() -> Iterator[None]:
    """Hides messages of recorder and encoder, which would break the progress bar, and undoes the encoder's priority."""
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
        leave_real_time()


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
                policy = PushPolicy(env.unwrapped, planner, np.random.default_rng([seed, episode]))
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
            # Otherwise LeRobot finishes its files when it is garbage-collected, after we have removed them.
            with contextlib.suppress(Exception):
                dataset.writer.cancel_pending_videos()
                dataset.finalize()
            raise
        finally:
            env.close()
        dataset.finalize()


def _open(root: Path, image_size: int, max_episode_steps: int) -> tuple[Any, Any, Any]:
    """Opens LeRobot's recorder, a PushT to record, and a second PushT to plan in."""
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
        # Frames go straight to the encoder, which is three times as fast as through PNG files. The queue holds an
        # episode, because LeRobot drops frames when it is full.
        streaming_encoding=True,
        encoder_queue_maxsize=max_episode_steps + 1,
    )
    return dataset, env, planner
