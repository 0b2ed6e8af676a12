"""Pretrained encoders: what they see, that frozen ones stay as they are, and what a checkpoint needs to load."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
import transformers

from lewm_data.datamodule import LeWMDataModule
from lewm_data.errors import UsageError
from lewm_data.loading.normalizer import normalize_pixels
from lewm_data.training.encoder import PretrainedEncoder
from lewm_data.training.lewm import LeWMModule
from tests.training.dots import SIDE, quiet_trainer, small_lewm, write_dots

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": SIDE, "patch_size": 7}
HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}


def save_encoder(folder: Path, kind: str) -> Path:
    """Saves a small network of some architecture with random weights, and its image processor, as on the Hub."""
    torch.manual_seed(1)
    processor: Any = transformers.ViTImageProcessor(do_resize=False)
    if kind == "vit":
        network: Any = transformers.ViTModel(transformers.ViTConfig(**SMALL, intermediate_size=32))
        processor = transformers.ViTImageProcessor(do_resize=False, **HALF)
    elif kind == "dinov2":
        network = transformers.Dinov2Model(transformers.Dinov2Config(**SMALL))
        processor = transformers.BitImageProcessor(do_resize=False, do_center_crop=False)
    elif kind == "dinov3":
        network = transformers.DINOv3ViTModel(
            transformers.DINOv3ViTConfig(**SMALL, intermediate_size=32, num_register_tokens=4)
        )
    elif kind == "ijepa":
        network = transformers.IJepaModel(transformers.IJepaConfig(**SMALL, intermediate_size=32))
    else:
        sizes = {**SMALL, "crop_size": SIDE, "hidden_size": 24, "pred_hidden_size": 24, "pred_num_attention_heads": 2}
        network = transformers.VJEPA2Model(transformers.VJEPA2Config(**sizes, pred_num_hidden_layers=1))
    network.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["vit", "dinov2", "dinov3", "ijepa", "vjepa2"])
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_encoder(tmp_path_factory.mktemp("encoders") / request.param, request.param)


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_encoder(tmp_path_factory.mktemp("encoders") / "dinov2", "dinov2")


@pytest.fixture(scope="module")
def dots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dots(tmp_path_factory.mktemp("dots") / "dots.h5", num_episodes=8, length=20).path


def frames(count: int = 3) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, 3, SIDE, SIDE), dtype=np.uint8))


def test_the_network_sees_frames_as_its_own_image_processor_would_hand_them_over(saved: Path) -> None:
    encoder = PretrainedEncoder.load(str(saved), freeze=True, image_size=(SIDE, SIDE))
    raw = frames()
    found = encoder(normalize_pixels(raw, torch.float32)).last_hidden_state
    network = transformers.AutoModel.from_pretrained(saved).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(saved)
    pixels = processor(list(raw), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        if saved.name == "vjepa2":
            tokens = network.get_vision_features(pixels[:, None].repeat(1, 2, 1, 1, 1))
        else:
            tokens = network(pixels).last_hidden_state
    num_patches = (SIDE // 7) ** 2
    expected = tokens[:, -num_patches:].mean(dim=1)
    if saved.name not in ("ijepa", "vjepa2"):
        expected = torch.cat([tokens[:, 0], expected], dim=1)
    assert found.shape == (3, 1, encoder.width)
    torch.testing.assert_close(found[:, 0], expected, atol=1e-4, rtol=1e-4)


def test_frames_of_another_size_than_in_pretraining_are_encoded(dinov2: Path) -> None:
    encoder = PretrainedEncoder.load(str(dinov2), freeze=False, image_size=(42, 35))
    assert encoder(torch.randn(2, 3, 42, 35)).last_hidden_state.shape == (2, 1, 32)


class Look(lightning.Callback):
    """Records the losses and the mode of the encoder, and saves a checkpoint after a step."""

    def __init__(self, folder: Path, save_at: int | None) -> None:
        self.losses: dict[int, float] = {}
        self.modes: set[bool] = set()
        self._folder, self._save_at = folder, save_at

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.losses[trainer.global_step] = float(outputs["loss"])
        self.modes.add(pl_module.model.encoder.network.training)
        if trainer.global_step == self._save_at:
            trainer.save_checkpoint(self._folder / f"{self._save_at}.ckpt")


def fit(path: Path, folder: Path, module: LeWMModule, *, max_steps: int = 3, **options: Any) -> Look:
    look = Look(folder, options.get("save_at"))
    data = LeWMDataModule(h5_path=str(path), frameskip=1, batch_size=8, num_workers=0, val_fraction=0.25)
    trainer = quiet_trainer(folder, max_steps=max_steps, val_check_interval=2, callbacks=[look])
    trainer.fit(module, data, ckpt_path=options.get("ckpt_path"))
    return look


def module_with(folder: Path, **settings: object) -> LeWMModule:
    torch.manual_seed(0)
    return small_lewm(encoder=str(folder), predictor_dropout=0.3, **settings)


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    network = transformers.AutoModel.from_pretrained(folder)
    return {name: value for name, value in network.state_dict().items() if "pooler" not in name}


@pytest.mark.parametrize("kind", ["vit", "dinov2"])
def test_a_frozen_encoder_stays_as_it_was_and_the_rest_trains(dots: Path, tmp_path: Path, kind: str) -> None:
    folder = save_encoder(tmp_path / "encoder", kind)
    module = module_with(folder, freeze_encoder=True)
    look = fit(dots, tmp_path, module)
    encoder = module.model.encoder
    assert look.modes == {False}  # evaluation mode, even in training
    assert all(weight.grad is None and not weight.requires_grad for weight in encoder.network.parameters())
    assert not encoder(torch.randn(1, 3, SIDE, SIDE)).last_hidden_state.requires_grad
    for name, value in weights_of(folder).items():
        assert torch.equal(encoder.network.state_dict()[name], value), name
    trained = sum(len(group["params"]) for group in module.trainer.optimizers[0].param_groups)
    assert trained == len([weight for weight in module.parameters() if weight.requires_grad])
    assert all(weight.grad is not None for weight in module.model.projector.parameters())


def test_fine_tuning_changes_every_weight_that_features_depend_on(dots: Path, dinov2: Path, tmp_path: Path) -> None:
    module = module_with(dinov2)
    look = fit(dots, tmp_path, module)
    assert look.modes == {True}
    same = [
        n for n, value in weights_of(dinov2).items() if torch.equal(module.model.encoder.network.state_dict()[n], value)
    ]
    assert same == ["embeddings.mask_token"]


def test_a_resumed_run_with_a_frozen_encoder_is_exact(dots: Path, dinov2: Path, tmp_path: Path) -> None:
    whole = fit(dots, tmp_path, module_with(dinov2, freeze_encoder=True), max_steps=6, save_at=3)
    resumed = module_with(dinov2, freeze_encoder=True)
    rest = fit(dots, tmp_path, resumed, max_steps=6, ckpt_path=str(tmp_path / "3.ckpt"))
    assert sorted(rest.losses) == [4, 5, 6]
    assert {step: whole.losses[step] for step in rest.losses} == rest.losses


def test_a_checkpoint_loads_without_the_pretrained_folder(dots: Path, tmp_path: Path) -> None:
    folder = save_encoder(tmp_path / "encoder", "vit")
    module = module_with(folder, freeze_encoder=True)
    fit(dots, tmp_path, module, max_steps=1, save_at=1)
    shutil.rmtree(folder)
    loaded = LeWMModule.load_from_checkpoint(tmp_path / "1.ckpt", map_location="cpu")
    module.eval()
    loaded.eval()
    pixels = torch.randn(2, 4, 3, SIDE, SIDE)
    with torch.no_grad():
        torch.testing.assert_close(loaded.encode(pixels), module.encode(pixels))


def test_an_encoder_that_cannot_be_loaded_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"model.encoder is '.*absent', which transformers cannot load .*dinov2-small"):
        PretrainedEncoder.load(str(tmp_path / "absent"), freeze=False, image_size=(SIDE, SIDE))


def test_a_network_that_sees_no_patches_is_refused(tmp_path: Path) -> None:
    config = transformers.BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    transformers.BertModel(config).save_pretrained(tmp_path)
    with pytest.raises(UsageError, match="a bert, which is not a vision transformer"):
        PretrainedEncoder.load(str(tmp_path), freeze=False, image_size=(SIDE, SIDE))


def test_frames_that_do_not_fit_are_refused(tmp_path: Path, dinov2: Path) -> None:
    with pytest.raises(UsageError, match="5x28 pixels, smaller than one patch of 7"):
        PretrainedEncoder.load(str(dinov2), freeze=False, image_size=(5, 28))
    folder = save_encoder(tmp_path / "vjepa2", "vjepa2")
    with pytest.raises(UsageError, match=r"sees frames of 28x28 pixels only, .* Convert with --image_size 28\."):
        PretrainedEncoder.load(str(folder), freeze=False, image_size=(56, 56))


def test_a_random_encoder_cannot_be_frozen() -> None:
    with pytest.raises(UsageError, match="model.encoder names none"):
        LeWMModule(freeze_encoder=True)
