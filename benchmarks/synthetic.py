"""Camera-like video, drawn from a seed and recorded through LeRobot's own writer.

Frames like these compress as those of a camera do; drawings of flat colour compress far better, and flatter whoever is
measured on them.

    python -m benchmarks.synthetic OUTPUT --episodes 10 --steps 100 --height 480 --width 640 --codec av1
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.scenes import NUM_THINGS, STATE_DIM, Scene

FPS = 30
_ENCODERS = {"h264": "h264", "hevc": "hevc", "av1": "libsvtav1"}
"""LeRobot's names. Keyframes, quality and AV1's preset are LeRobot's defaults: every other frame, CRF 30, 12."""
_PRESETS = {"h264": "veryfast", "hevc": "veryfast"}
"""x265's own would take minutes on a busy machine, and LeRobot leaves the frames out for which it waited two."""
_QUIET = {"h264": {"x264-params": "log=-1"}, "hevc": {"x265-params": "log-level=error"}}


@dataclass(frozen=True, kw_only=True, slots=True)
class Recording:
    """What to record.

    Attributes:
        num_episodes: Episodes.
        num_steps: Steps of each.
        height: Rows of a frame, an even number of pixels.
        width: Columns of a frame, an even number of pixels.
        codec: ``h264``, ``hevc`` or ``av1``.
        seed: Everything follows from it.
    """

    num_episodes: int = 10
    num_steps: int = 100
    height: int = 480
    width: int = 640
    codec: str = "av1"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.codec not in _ENCODERS:
            raise ValueError(f"codec is {self.codec!r}, but must be one of {', '.join(_ENCODERS)}.")
        for name in ("height", "width"):
            if getattr(self, name) % 2 or getattr(self, name) < 48:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be an even number of 48 or more.")
        for name in ("num_episodes", "num_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be 1 or more.")

    @property
    def num_frames(self) -> int:
        """Frames in all."""
        return self.num_episodes * self.num_steps

    @property
    def name(self) -> str:
        """A folder name that says all."""
        size = f"{self.width}x{self.height}"
        return f"camera-{self.codec}-{size}-{self.num_episodes}x{self.num_steps}-seed{self.seed}"


STANDARD = Recording(num_episodes=4, num_steps=150)
"""What several benchmarks of the form `bench` share, since recording takes longer than measuring."""


def record(root: Path, recording: Recording, *, progress: Callable[[int], None] = lambda episode: None) -> Path:
    """Records a LeRobot v3.0 dataset of one camera, ``front``.

    Args:
        root: Folder to make.
        recording: What to record.
        progress: Called with each episode that is done.

    Returns:
        ``root``.

    Raises:
        RuntimeError: The encoder did not come along, and LeRobot left frames out.
    """
    os.environ.setdefault("SVT_LOG", "1")
    from lewm_data.demo import quiet_recorder

    with quiet_recorder():
        dataset = _open(root, recording)
        scene = Scene(recording.height, recording.width, recording.seed)
        for episode in range(recording.num_episodes):
            for step in range(recording.num_steps):
                dataset.add_frame(
                    {
                        "observation.images.front": scene.frame(episode, step),
                        "observation.state": scene.state(episode, step),
                        "action": scene.state(episode, step + 1),
                        "next.done": np.array([step == recording.num_steps - 1]),
                        "task": "move things about",
                    }
                )
            dataset.save_episode()
            progress(episode)
            _check_encoded(root, recording, episode + 1)
        dataset.finalize()
    return root


def _check_encoded(root: Path, recording: Recording, num_episodes: int) -> None:
    """Counts the frames that the encoder wrote."""
    import av

    found = 0
    for path in (root / "videos").rglob("*.mp4"):
        with av.open(str(path)) as container:
            found += sum(packet.size > 0 for packet in container.demux(video=0))
    if found != num_episodes * recording.num_steps:
        raise RuntimeError(
            f"{recording.name}: {found} of {num_episodes * recording.num_steps} frames are in the video. LeRobot waits "
            "two minutes for its encoder: try again when the machine is less busy."
        )


def _open(root: Path, recording: Recording) -> Any:
    import datasets  # type: ignore[import-untyped]
    from lerobot.configs import RGBEncoderConfig
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    datasets.disable_progress_bars()
    names = [f"thing_{number}_{axis}" for number in range(NUM_THINGS) for axis in ("row", "column")]
    vector = {"dtype": "float32", "shape": (STATE_DIM,), "names": names}
    return LeRobotDataset.create(
        f"benchmark/{recording.name}",
        FPS,
        {
            "observation.images.front": {
                "dtype": "video",
                "shape": (recording.height, recording.width, 3),
                "names": ["height", "width", "channels"],
            },
            "observation.state": vector,
            "action": dict(vector),
            "next.done": {"dtype": "bool", "shape": (1,), "names": None},
        },
        root=root,
        robot_type="synthetic",
        rgb_encoder=RGBEncoderConfig(
            vcodec=_ENCODERS[recording.codec],
            preset=_PRESETS.get(recording.codec),
            extra_options=dict(_QUIET.get(recording.codec, {})),
        ),
        streaming_encoding=True,
        encoder_queue_maxsize=recording.num_steps + 1,  # LeRobot drops frames when the queue is full
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Records a dataset into a folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="folder to make")
    parser.add_argument("--episodes", type=int, default=10, help="episodes (10)")
    parser.add_argument("--steps", type=int, default=100, help="steps of each (100)")
    parser.add_argument("--height", type=int, default=480, help="rows of a frame (480)")
    parser.add_argument("--width", type=int, default=640, help="columns of a frame (640)")
    parser.add_argument("--codec", choices=_ENCODERS, default="av1", help="video codec (av1, LeRobot's default)")
    parser.add_argument("--seed", type=int, default=0, help="everything follows from it (0)")
    options = parser.parse_args(arguments)
    recording = Recording(
        num_episodes=options.episodes,
        num_steps=options.steps,
        height=options.height,
        width=options.width,
        codec=options.codec,
        seed=options.seed,
    )
    record(options.output, recording, progress=lambda episode: print(f"episode {episode + 1} of {options.episodes}"))


if __name__ == "__main__":
    main()
