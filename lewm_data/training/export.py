"""A trained model in stable-worldmodel's own form, so that its planners run with it."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lewm_data.errors import OutputError, UsageError
from lewm_data.format.schema import ACTION, PIXELS
from lewm_data.loading.normalizer import normalize_pixels
from lewm_data.paths import local_path
from lewm_data.training.world_model import WorldModel

if TYPE_CHECKING:
    from lewm_data.datamodule import LeWMDataModule

_WEIGHTS, _CONFIG, _OBJECT, _DATA = "weights.pt", "config.json", "lewm_object.ckpt", "data.json"


def export(module: WorldModel, data: LeWMDataModule, folder: str | Path) -> Path:
    """Writes a model in stable-worldmodel's own form.

    ``stable_worldmodel.wm.utils.load_pretrained(folder)`` and ``stable_worldmodel.policy.AutoCostModel(folder)`` both
    load it. ``planner_inputs(folder)`` prepares what they see. A model with a pretrained encoder or several cameras
    needs ``lewm_data`` to be installed where it is loaded.

    Args:
        module: Trained, or loaded from a checkpoint.
        data: The data module it was trained with, set up.
        folder: Folder to write; an earlier export is replaced. It appears whole or not at all.

    Returns:
        The folder.

    Raises:
        UsageError: The data module normalizes several datasets, each by its own statistics.
        OutputError: The folder holds something else, or cannot be written.
    """
    folder = local_path(folder, "export")
    if folder.exists() and (not folder.is_dir() or not {file.name for file in folder.iterdir()} <= _files()):
        raise OutputError(f"{folder}: holds something other than an exported model. Name another folder.")
    model = copy.deepcopy(module.model).cpu().eval()
    action = data.normalizers[ACTION]
    if action.is_per_dataset:
        raise UsageError(
            "The data module normalizes each dataset by its own statistics, but an exported model acts on one robot. "
            "Set up a data module with that robot's dataset only, and pass it."
        )
    facts = {
        "frameskip": data.frameskip,
        "history_size": module.hparams["history_size"],
        "image_size": list(module.image_size),
        "cameras": list(module.camera_columns),
        "action": {"mean": action.mean.tolist(), "std": action.std.tolist(), "names": data.feature_names(ACTION)},
    }
    scratch = folder.with_name(f".{folder.name}.exporting-{os.getpid()}")
    try:
        scratch.mkdir(parents=True)
        torch.save(model.state_dict(), scratch / _WEIGHTS)
        torch.save(model, scratch / _OBJECT)
        (scratch / _CONFIG).write_text(json.dumps(module.config, indent=1) + "\n")
        (scratch / _DATA).write_text(json.dumps(facts, indent=1) + "\n")
        shutil.rmtree(folder, ignore_errors=True)
        scratch.rename(folder)
    except OSError as error:
        raise OutputError(f"{folder}: the model cannot be written there ({error}). Name another folder.") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def planner_inputs(folder: str | Path) -> dict[str, Mapping[str, Any]]:
    """What stable-worldmodel's ``WorldModelPolicy`` needs to show an exported model frames and to act in its place.

    Args:
        folder: From ``export``.

    Returns:
        ``process``, which normalizes actions and back, and ``transform``, which resizes and normalizes the frames of
        ``pixels`` and ``goal``. Pass them on: ``WorldModelPolicy(solver, config, **planner_inputs(folder))``.
    """
    facts = json.loads((local_path(folder, "export") / _DATA).read_text())
    action, frames = (
        ActionScaler(**{name: facts["action"][name] for name in ("mean", "std")}),
        _Frames(facts["image_size"]),
    )
    return {"process": {ACTION: action}, "transform": {PIXELS: frames, "goal": frames}}


class ActionScaler:
    """Normalizes actions as training did, with the methods of scikit-learn's ``StandardScaler``.

    Attributes:
        mean: (A,) float32.
        std: (A,) float32.
    """

    def __init__(self, mean: list[float], std: list[float]) -> None:
        self.mean, self.std = np.asarray(mean, np.float32), np.asarray(std, np.float32)

    def transform(self, values: NDArray[Any]) -> NDArray[Any]:
        """Actions (..., A) of the robot to those of the model."""
        return np.asarray((values - self.mean) / self.std)

    def inverse_transform(self, values: NDArray[Any]) -> NDArray[Any]:
        """Actions (..., A) of the model to those of the robot."""
        return np.asarray(values * self.std + self.mean)


class _Frames:
    """Resizes and normalizes a frame, uint8 (3, H, W)."""

    def __init__(self, image_size: list[int]) -> None:
        self._image_size = image_size

    def __call__(self, frame: Tensor) -> Tensor:
        from torchvision.transforms.v2.functional import resize  # type: ignore[import-untyped]

        frame = torch.as_tensor(frame)
        if list(frame.shape[-2:]) != self._image_size:
            frame = resize(frame, self._image_size, antialias=True)
        return normalize_pixels(frame, torch.float32)


def _files() -> set[str]:
    return {_WEIGHTS, _CONFIG, _OBJECT, _DATA}
