"""LeWM as a LightningModule: its networks, its loss, and its messages when the data does not fit."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lewm_data.datamodule import LeWMDataModule
from lewm_data.errors import UsageError
from lewm_data.training.lewm import LeWMModule, warmup_cosine
from tests.training.dots import small_lewm, write_dots

has_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


def batch(*, num_windows: int = 8, num_steps: int = 4, action_dim: int = 4, side: int = 28) -> dict[str, torch.Tensor]:
    frames = torch.randn(num_windows, num_steps, side, side, 3)
    return {"pixels": frames.permute(0, 1, 4, 2, 3), "action": torch.randn(num_windows, num_steps, action_dim)}


def built(**settings: object) -> LeWMModule:
    module = small_lewm(**settings)
    module.build(action_dim=4, image_size=(28, 28))
    module.log = lambda *args, **options: None  # type: ignore[method-assign]
    return module


@pytest.fixture(scope="module")
def dots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dots(tmp_path_factory.mktemp("dots") / "dots.h5", num_episodes=6, length=20).path


def data_of(path: Path, **settings: Any) -> LeWMDataModule:
    defaults = {"num_steps": 4, "frameskip": 2, "batch_size": 8, "num_workers": 1, "val_fraction": 0.2}
    return LeWMDataModule(h5_path=str(path), **{**defaults, **settings})


def trainer_of(tmp_path: Path, **settings: Any) -> lightning.Trainer:
    defaults: dict[str, Any] = {
        "accelerator": "cpu",
        "max_steps": 2,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "default_root_dir": tmp_path,
    }
    return lightning.Trainer(**{**defaults, **settings})


def test_the_defaults_are_those_of_lewm() -> None:
    """Against le-wm's config/train/lewm.yaml and config/train/model/lewm.yaml."""
    module = LeWMModule()
    module.build(action_dim=10, image_size=(224, 224))
    assert module.model is not None
    assert type(module.model).__module__.startswith("stable_worldmodel.wm.lewm")
    config = module.model.encoder.config
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (192, 12, 3)
    assert (config.intermediate_size, config.patch_size, tuple(config.image_size)) == (768, 14, (224, 224))
    predictor = module.model.predictor
    assert (predictor.num_frames, predictor.depth, predictor.heads, predictor.mlp_dim) == (3, 6, 16, 2048)
    assert (predictor.dim_head, predictor.input_dim, predictor.output_dim) == (64, 192, 192)
    assert predictor.transformer.layers[0].attn.dropout == 0.1
    for projector in (module.model.projector, module.model.pred_proj):
        assert projector.hidden_dim == 2048
        assert isinstance(projector.net[1], torch.nn.BatchNorm1d)
    assert (module.sigreg.num_proj, len(module.sigreg.t)) == (1024, 17)
    assert module.hparams["sigreg_weight"] == 0.09
    assert (module.hparams["learning_rate"], module.hparams["weight_decay"]) == (5e-5, 1e-3)


def test_the_loss_is_that_of_lewm() -> None:
    """As le-wm's train.py computes it, on the same networks."""
    module, windows = built(), batch()
    module.eval()  # keeps batch norms as they are
    torch.manual_seed(0)
    loss = module._losses(windows, "val")
    assert module.model is not None
    info = module.model.encode(dict(windows))
    predicted = module.model.predict(info["emb"][:, :3], info["act_emb"][:, :3])
    torch.manual_seed(0)
    expected = (predicted - info["emb"][:, 1:]).pow(2).mean() + 0.09 * module.sigreg(info["emb"].transpose(0, 1))
    torch.testing.assert_close(loss, expected)


def test_a_prediction_does_not_depend_on_later_frames_or_actions() -> None:
    module, windows = built(), batch()
    module.eval()
    torch.nn.init.normal_(module.model.predictor.transformer.layers[0].adaLN_modulation[-1].weight)  # type: ignore[union-attr]
    with torch.no_grad():
        latents = module.encode(windows["pixels"])[:, :3]
        actions = windows["action"][:, :3]
        before = module.predict(latents, actions)
        for step in range(3):
            changed = actions.clone()
            changed[:, step] += 1
            after = module.predict(latents, changed)
            torch.testing.assert_close(after[:, :step], before[:, :step])
            assert not torch.allclose(after[:, step], before[:, step])


def test_randomness_depends_only_on_seed_epoch_and_step() -> None:
    windows = batch()
    losses = []
    for seed, step in ((1, 0), (1, 0), (1, 1), (2, 0)):
        torch.manual_seed(99)
        module = built(seed=seed, predictor_dropout=0.5)
        torch.manual_seed(torch.randint(1000, ()).item())
        losses.append(module.training_step(windows, step).item())
    assert losses[0] == losses[1]
    assert len(set(losses)) == 3


def test_missing_actions_count_as_the_mean_action() -> None:
    module, windows = built(), batch()
    windows["action"][0, 1, 2], windows["action"][3, 0, 0] = math.nan, math.inf
    assert module.training_step(windows, 0).isfinite()


@given(st.integers(1, 100_000), st.floats(0, 0.5))
def test_the_learning_rate_rises_then_falls_and_is_never_zero(num_steps: int, warmup_fraction: float) -> None:
    warmup = math.ceil(num_steps * warmup_fraction)
    steps = sorted({*range(0, num_steps, max(num_steps // 50, 1)), max(warmup - 1, 0), min(warmup, num_steps - 1)})
    rates = [warmup_cosine(step, num_steps=num_steps, warmup_fraction=warmup_fraction) for step in steps]
    assert all(0 < rate <= 1 for rate in rates)
    rising = [rate for step, rate in zip(steps, rates, strict=True) if step < warmup]
    falling = [rate for step, rate in zip(steps, rates, strict=True) if step >= warmup]
    assert rising == sorted(rising)
    assert falling == sorted(falling, reverse=True)
    assert warmup_cosine(num_steps, num_steps=num_steps, warmup_fraction=warmup_fraction) == pytest.approx(0)


def test_the_data_decides_the_widths(dots: Path, tmp_path: Path) -> None:
    module = small_lewm()
    trainer_of(tmp_path, limit_val_batches=0).fit(module, data_of(dots))
    assert (module.action_dim, module.image_size) == (4, (28, 28))
    with pytest.raises(UsageError, match="is not built yet"):
        small_lewm().encode(batch()["pixels"])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_steps": 3}, r"data.num_steps is 3, .* Set --data.num_steps 4, or --model.history_size 2\."),
        ({"batch_size": 500}, "batch"),
        ({"num_steps": 4, "frameskip": 6}, r"num_steps \* frameskip = 4 \* 6 = 24 .* the longest .* has 20"),
    ],
)
def test_data_that_does_not_fit_is_refused_before_training(
    dots: Path, tmp_path: Path, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        trainer_of(tmp_path).fit(small_lewm(), data_of(dots, **settings))


def test_a_single_episode_cannot_be_split(tmp_path: Path) -> None:
    path = write_dots(tmp_path / "one.h5", num_episodes=1, length=20).path
    with pytest.raises(UsageError, match="only one episode, and an episode is never split. Set val_fraction=0"):
        trainer_of(tmp_path).fit(small_lewm(), data_of(path))


def test_frames_smaller_than_a_patch_are_refused() -> None:
    with pytest.raises(UsageError, match="28x28 pixels, smaller than one patch of 32"):
        small_lewm(patch_size=32).build(action_dim=4, image_size=(28, 28))


def test_endless_training_is_refused(dots: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"Set --trainer.max_epochs or --trainer.max_steps\."):
        trainer_of(tmp_path, max_steps=-1, max_epochs=-1).fit(small_lewm(), data_of(dots))


def test_a_checkpoint_loads_without_the_data(dots: Path, tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, limit_val_batches=0)
    module = small_lewm()
    trainer.fit(module, data_of(dots))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    loaded = LeWMModule.load_from_checkpoint(tmp_path / "last.ckpt", map_location="cpu")
    frames = batch()["pixels"]
    module.eval()
    loaded.eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded.encode(frames), module.encode(frames))


def test_the_trainer_tests_and_predicts(dots: Path, tmp_path: Path) -> None:
    trainer, module = trainer_of(tmp_path, limit_test_batches=1), small_lewm()
    data = data_of(dots, val_fraction=0, test_episodes=[0, 1])
    trainer.fit(module, data)
    [metrics] = trainer.test(module, data, verbose=False)
    batch = data.normalize_batch(next(iter(data.test_dataloader())))
    module.eval()
    with torch.no_grad():
        latents = module.encode(batch["pixels"])
        predicted = module.predict(latents[:, :3], batch["action"][:, :3])
    assert metrics["test/pred_loss"] == pytest.approx(float((predicted - latents[:, 1:]).square().mean()), rel=1e-4)
    [first, *_] = trainer.predict(module, data)  # type: ignore[misc]
    assert first["latents"].shape == (8, 4, 16)
    assert first["predicted"].shape == (8, 3, 16)


def test_a_checkpoint_knows_its_settings(dots: Path, tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, limit_val_batches=0)
    trainer.fit(small_lewm(sigreg_weight=0.5), data_of(dots))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    loaded = LeWMModule.load_from_checkpoint(tmp_path / "last.ckpt", map_location="cpu")
    assert loaded.hparams["sigreg_weight"] == 0.5
    assert dict(loaded.hparams) == dict(small_lewm(sigreg_weight=0.5).hparams)


def test_a_checkpoint_of_another_action_width_is_refused(dots: Path, tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, limit_val_batches=0)
    trainer.fit(small_lewm(), data_of(dots))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    with pytest.raises(UsageError, match=r"the checkpoint's action is 4 wide .* was built for 2\."):
        trainer_of(tmp_path).fit(small_lewm(), data_of(dots, frameskip=1), ckpt_path=tmp_path / "last.ckpt")


# --- on a GPU


@has_gpu
@pytest.mark.parametrize("compile", [False, True])
def test_a_gpu_trains_from_pinned_memory_in_bf16(dots: Path, tmp_path: Path, compile: bool) -> None:
    module, data = small_lewm(compile=compile), data_of(dots)
    trainer = trainer_of(tmp_path, accelerator="gpu", precision="bf16-mixed", max_steps=3)
    seen: list[tuple[bool, bool]] = []

    class Look(lightning.Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            frames = batch["pixels"]
            seen.append((frames.is_cuda, frames.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)))

    trainer.callbacks.append(Look())  # type: ignore[attr-defined]
    trainer.fit(module, data)
    assert seen == [(True, True)] * 3
    assert next(iter(data.train_dataloader()))["pixels"].is_pinned()


@has_gpu
def test_a_gpu_computes_the_same_prediction_error_as_a_cpu() -> None:
    module, windows = built(), batch()
    module.eval()

    def error(device: str) -> torch.Tensor:
        module.to(device)
        with torch.no_grad():
            latents = module.encode(windows["pixels"].to(device))
            predicted = module.predict(latents[:, :-1], windows["action"][:, :-1].to(device))
        return (predicted - latents[:, 1:]).square().mean().cpu()

    torch.testing.assert_close(error("cuda"), error("cpu"), atol=1e-3, rtol=1e-2)
