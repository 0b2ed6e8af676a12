"""A known world: a dot that moves exactly as its actions say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import numpy as np

from lewm_data.training.lewm import LeWMModule
from tests.loading.files import Written, write

SIDE = 28
_LOW, _HIGH, _STEP = 4.0, 23.0, 3.0


def write_dots(path: Path, *, num_episodes: int = 60, length: int = 40, has_true_actions: bool = True) -> Written:
    """A file of frames with one blurred dot. ``state`` is its position, ``action`` its move to the next frame.

    Args:
        path: File to write.
        num_episodes: Episodes.
        length: Steps of each.
        has_true_actions: Otherwise ``action`` holds random moves that the dot does not make.
    """
    random = np.random.default_rng(0)
    num_steps = num_episodes * length
    moves = random.uniform(-1, 1, (num_steps, 2))
    places = np.empty((num_steps, 2))
    for step in range(num_steps):
        if step % length == 0:
            places[step] = random.uniform(_LOW, _HIGH, 2)
        else:
            places[step] = places[step - 1] + _STEP * moves[step - 1]
        ahead = places[step] + _STEP * moves[step]
        moves[step] *= np.where((ahead < _LOW) | (ahead > _HIGH), -1, 1)  # bounces off the walls
    grid = np.arange(SIDE)
    rows, columns = (np.exp(-np.square(grid - places[:, [axis]]) / 50) for axis in (0, 1))
    frames = (255 * rows[:, :, None] * columns[:, None, :]).astype(np.uint8)
    if not has_true_actions:
        moves = random.uniform(-1, 1, moves.shape)
    return write(
        path,
        np.full(num_episodes, length),
        codec="none",
        height=SIDE,
        width=SIDE,
        extra={
            "pixels": np.repeat(frames[..., None], 3, axis=-1),
            "action": moves.astype(np.float32),
            "state": places.astype(np.float32),
        },
    )


def small_lewm(**settings: object) -> LeWMModule:
    """LeWM with some 100,000 parameters, for frames of 28 pixels."""
    defaults: dict[str, object] = {
        "embed_dim": 16,
        "encoder_dim": 48,
        "encoder_depth": 2,
        "encoder_heads": 2,
        "patch_size": 7,
        "predictor_depth": 2,
        "predictor_heads": 2,
        "predictor_head_dim": 16,
        "predictor_mlp_dim": 64,
        "predictor_dropout": 0.0,
        "projector_dim": 64,
        "sigreg_projections": 64,
        "learning_rate": 1e-3,
    }
    return LeWMModule(**{**defaults, **settings})  # type: ignore[arg-type]


def quiet_trainer(folder: Path, **settings: Any) -> lightning.Trainer:
    """A trainer on the CPU that prints nothing, keeps no checkpoints, and validates on one batch."""
    return lightning.Trainer(
        **{
            "accelerator": "cpu",
            "check_val_every_n_epoch": None,
            "limit_val_batches": 1,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            "default_root_dir": folder,
            **settings,
        }
    )
