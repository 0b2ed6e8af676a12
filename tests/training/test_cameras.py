"""Several cameras in one model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch

from lewm_data.datamodule import LeWMDataModule
from lewm_data.errors import UsageError
from lewm_data.training.diagnostics import Diagnostics
from lewm_data.training.lewm import LeWMModule
from lewm_data.training.world_model import camera_columns
from tests.loading.files import write
from tests.training.dots import SIDE, quiet_trainer, small_lewm


@pytest.fixture(scope="module")
def two_cameras(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with ``pixels`` and ``pixels_wrist``."""
    random = np.random.default_rng(0)
    shape = (8 * 20, SIDE, SIDE, 3)
    extra = {name: random.integers(0, 256, shape, dtype=np.uint8) for name in ("pixels", "pixels_wrist")}
    path = tmp_path_factory.mktemp("cameras") / "two.h5"
    return write(path, np.full(8, 20), codec="none", height=SIDE, width=SIDE, extra=extra).path


def fit(path: Path, folder: Path, module: LeWMModule, **settings: Any) -> lightning.Trainer:
    data = LeWMDataModule(h5_path=str(path), frameskip=2, batch_size=8, num_workers=0, val_fraction=0.25)
    trainer = quiet_trainer(folder, max_steps=2, val_check_interval=2, **settings)
    trainer.fit(module, data)
    return trainer


@pytest.mark.parametrize("cameras", [pytest.param("all", marks=pytest.mark.slow), "wrist"])
def test_a_model_of_two_cameras_trains_and_is_diagnosed(two_cameras: Path, tmp_path: Path, cameras: str) -> None:
    module, diagnostics = small_lewm(cameras=cameras), Diagnostics(max_frames=40, horizon=2)
    trainer = fit(two_cameras, tmp_path, module, callbacks=[diagnostics])
    assert module.camera_columns == ("pixels", "pixels_wrist")
    assert diagnostics.diagnosis is not None
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    loaded = LeWMModule.load_from_checkpoint(tmp_path / "last.ckpt", map_location="cpu")
    module.eval()
    loaded.eval()
    frames = torch.randn(2, 4, 2, 3, SIDE, SIDE)
    with torch.no_grad():
        torch.testing.assert_close(loaded.encode(frames), module.encode(frames))


def test_the_latent_depends_on_every_camera_and_on_which_is_which() -> None:
    module = small_lewm()
    module.build(action_dim=4, image_size=(SIDE, SIDE), camera_columns=("pixels", "pixels_wrist"))
    module.eval()
    batch = {name: torch.randn(1, 4, 3, SIDE, SIDE) for name in module.camera_columns}
    changes = [
        batch | {"pixels": batch["pixels"].flip(-1)},
        batch | {"pixels_wrist": batch["pixels_wrist"].flip(-1)},
        {"pixels": batch["pixels_wrist"], "pixels_wrist": batch["pixels"]},
    ]
    with torch.no_grad():
        before, *others = (module.encode(module.frames_of(frames)) for frames in (batch, *changes))
    assert before.shape == (1, 4, 16)
    assert not any(torch.allclose(before, after) for after in others)


def test_a_wrist_camera_is_not_looked_at_unless_asked_for(two_cameras: Path, tmp_path: Path) -> None:
    module = small_lewm()
    fit(two_cameras, tmp_path, module)
    assert module.camera_columns == ("pixels",)


def test_a_camera_that_the_data_lacks_is_named() -> None:
    with pytest.raises(UsageError, match=r"the data has no pixels_top; it has pixels, pixels_wrist\. Convert with"):
        camera_columns("wrist,top", ["pixels", "pixels_wrist"])


def test_other_cameras_than_in_the_checkpoint_are_refused(two_cameras: Path, tmp_path: Path) -> None:
    fit(two_cameras, tmp_path, small_lewm(cameras="all")).save_checkpoint(tmp_path / "last.ckpt")
    module = small_lewm()
    module.build(action_dim=4, image_size=(SIDE, SIDE))
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=False)
    checkpoint["action_dim"] = 4
    with pytest.raises(UsageError, match=r"cameras are pixels, pixels_wrist, but the model was built for pixels\."):
        module.on_load_checkpoint(checkpoint)
