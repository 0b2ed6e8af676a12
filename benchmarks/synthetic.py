"""Record camera-like video from a seed, through LeRobot's own writer.

Such frames compress like a camera's. Drawings of flat color compress far better, and flatter every codec.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.scenes import NUM_THINGS, STATE_DIM, Scene

FPS = 30
_ENCODERS = {"h264": "h264", "hevc": "hevc", "av1": "libsvtav1"}
"""LeRobot's names. Keyframes, quality and AV1's preset are LeRobot's defaults: every other frame, CRF 30, 12."""
_PRESETS = {"h264": "veryfast", "hevc": "veryfast"}
"""x265's own preset would take minutes on a busy machine, and LeRobot drops frames after waiting two."""
_QUIET = {"h264": {"x264-params": "log=-1"}, "hevc": {"x265-params": "log-level=error"}}


@dataclass(frozen=True, kw_only=True, slots=True)
class Recording:
    """What to record: ``num_episodes`` of ``num_steps`` frames of ``height`` by ``width`` pixels, from one seed.

    ``height`` and ``width`` are even numbers; ``codec`` is ``h264``, ``hevc`` or ``av1``.
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
    def name(self) -> str:
        """A folder name with every setting."""
        size = f"{self.width}x{self.height}"
        return f"camera-{self.codec}-{size}-{self.num_episodes}x{self.num_steps}-seed{self.seed}"


STANDARD = Recording(num_episodes=4, num_steps=150)
"""What several benchmarks of the form ``bench`` share, since recording takes longer than measuring."""
TINY = Recording(num_episodes=2, num_steps=60, height=96, width=128, codec="h264")
LONG = Recording(num_episodes=1, num_steps=1200)


def record(root: Path, recording: Recording) -> Path:
    """Records a LeRobot v3.0 dataset of one camera, ``front``, into a new folder, and returns the folder.

    Raises:
        RuntimeError: The encoder was too slow, and LeRobot dropped frames.
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
            check_encoded(root, recording, episode + 1)
        dataset.finalize()
    return root


def check_encoded(root: Path, recording: Recording, num_episodes: int) -> None:
    """Counts the frames that the encoder wrote; raises ``RuntimeError`` if some are missing."""
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
    shape = (recording.height, recording.width, 3)
    return LeRobotDataset.create(
        f"benchmark/{recording.name}",
        FPS,
        {
            "observation.images.front": {"dtype": "video", "shape": shape, "names": ["height", "width", "channels"]},
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
