"""A faster step that is the same step. What compiles, and what needs a GPU, is marked."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import RichProgressBar

from lewm_data.errors import UsageError
from lewm_data.training import report
from lewm_data.training.lewm import LeWMModule
from lewm_data.training.speed import InputDtypeLayerNorm, PackedAttention, adamw, speed_up
from tests.training.dots import small_lewm

BATCH = {
    "pixels": torch.randn(4, 4, 3, 28, 28, generator=torch.Generator().manual_seed(0)),
    "action": torch.randn(4, 4, 4, generator=torch.Generator().manual_seed(1)),
}


def built(**settings: Any) -> LeWMModule:
    torch.manual_seed(0)
    module = small_lewm(**settings)
    module.build(action_dim=4, image_size=(28, 28))
    module.log = lambda *args, **options: None  # type: ignore[method-assign]
    return module


def gradients(module: LeWMModule, *, mixed: bool = False) -> torch.Tensor:
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        module.training_step(BATCH, 0).backward()
    return torch.cat([weight.grad.flatten() for weight in module.parameters() if weight.grad is not None])


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm())


compiles = pytest.param(
    {"compile": True, "packed_attention": True, "low_precision_residuals": True},
    marks=[pytest.mark.slow, pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")],
)


@pytest.mark.filterwarnings("ignore")  # what torch's compiler warns about
@pytest.mark.parametrize("settings", [{"packed_attention": True}, {"low_precision_residuals": True}, compiles])
def test_each_variant_has_the_same_gradients(settings: dict[str, Any]) -> None:
    exact = gradients(built())
    assert distance(gradients(built(**settings)), exact) < 1e-4
    rounding = distance(gradients(built(), mixed=True), exact)
    assert 1e-4 < rounding < 0.2
    assert distance(gradients(built(**settings), mixed=True), exact) < 1.5 * rounding


@pytest.mark.filterwarnings("ignore")  # what torch's compiler warns about
@pytest.mark.parametrize("settings", [{"packed_attention": True, "low_precision_residuals": True}, compiles])
def test_checkpoints_are_interchangeable(settings: dict[str, Any]) -> None:
    plain, fast = built(), built(**settings)
    fast.load_state_dict(plain.state_dict())
    plain.load_state_dict(fast.state_dict())
    assert {name: value.shape for name, value in plain.state_dict().items()} == {
        name: value.shape for name, value in fast.state_dict().items()
    }


def test_the_residual_stream_has_autocasts_precision() -> None:
    module, seen = built(low_precision_residuals=True), []
    for block in module.model.encoder.layers:  # type: ignore[union-attr]
        block.register_forward_hook(lambda block, args, out: seen.append((args[0].dtype, out.dtype)))
    with torch.autocast("cpu", torch.bfloat16):
        module.encode(BATCH["pixels"])
    module.encode(BATCH["pixels"])
    assert seen == [(torch.bfloat16, torch.bfloat16)] * 2 + [(torch.float32, torch.float32)] * 2


def test_statistics_of_a_layer_norm_are_float32() -> None:
    """1024 + small numbers: bfloat16 has 8 bits, and sums in it would lose them."""
    norm = InputDtypeLayerNorm(torch.nn.LayerNorm(4096))
    values = (torch.randn(2, 4096) * 3 + 40).bfloat16()
    expected = torch.nn.functional.layer_norm(values.double(), (4096,))
    torch.testing.assert_close(norm(values).double(), expected, rtol=1e-2, atol=1e-2)


def test_every_attention_and_norm_of_the_encoder_is_replaced() -> None:
    encoder = built(packed_attention=True, low_precision_residuals=True).model.encoder  # type: ignore[union-attr]
    kinds = [type(module) for module in encoder.modules()]
    assert kinds.count(PackedAttention) == 2
    assert kinds.count(InputDtypeLayerNorm) == 2 * 2 + 1
    assert torch.nn.LayerNorm not in kinds


def test_a_model_without_a_vit_is_refused() -> None:
    with pytest.raises(UsageError, match="transformers 5"):
        speed_up(torch.nn.Linear(1, 1), packed_attention=True, low_precision_residuals=False, compile_mode=None)
    with pytest.raises(UsageError, match="no blocks to compile"):
        speed_up(torch.nn.Linear(1, 1), packed_attention=False, low_precision_residuals=False, compile_mode="default")


class _CudaLike(torch.nn.Parameter):
    is_cuda = True


@pytest.mark.parametrize(
    ("on_cuda", "is_scaled", "fused"), [(False, False, None), (True, False, True), (True, True, None)]
)
def test_adamw_is_fused_on_cuda_unless_the_loss_is_scaled(on_cuda: bool, is_scaled: bool, fused: bool | None) -> None:
    kind = _CudaLike if on_cuda else torch.nn.Parameter
    optimizer = adamw([kind(torch.ones(2))], learning_rate=1e-3, weight_decay=0.1, is_scaled=is_scaled)
    assert optimizer.param_groups[0]["fused"] is fused
    assert (optimizer.defaults["lr"], optimizer.defaults["weight_decay"]) == (1e-3, 0.1)


def test_the_progress_bar_reads_the_losses_twice_a_second_not_in_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    now, readings = [0.0], [0]

    def read(self: RichProgressBar, trainer: Any, pl_module: Any) -> dict[str, int]:
        readings[0] += 1
        return {"loss": readings[0]}

    monkeypatch.setattr(RichProgressBar, "get_metrics", read)
    monkeypatch.setattr(report, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    trainer = SimpleNamespace(callbacks=[])
    bar, shown = report.ProgressBar(), []
    for step in range(30):
        now[0] = step / 20
        shown.append(bar.get_metrics(trainer, None)["loss"])  # type: ignore[arg-type]
    assert shown == [1] * 10 + [2] * 10 + [3] * 10


@pytest.mark.parametrize("name", ["lewm", "pusht", "so101", "demo", "laptop"])
def test_the_configurations_use_it(name: str) -> None:
    path = Path(__file__).parents[2] / "configs" / f"{name}.yaml"
    assert "lewm_data.training.report.ProgressBar" in path.read_text()
