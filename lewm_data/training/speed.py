"""The same training step in less time: a fused optimizer, and networks that move fewer bytes.

A step of LeWM at batch 128 computes little for the memory that it moves (docs/training_step.md counts both), so most of
these settings save memory traffic. None changes the model: parameters and checkpoints keep their names and shapes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from lewm_data.errors import UsageError

CompileMode = Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]
"""Modes of ``torch.compile``. ``reduce-overhead`` and ``max-autotune`` record CUDA graphs."""


def adamw(
    weights: Iterable[nn.Parameter], *, learning_rate: float, weight_decay: float, is_scaled: bool = False
) -> torch.optim.AdamW:
    """AdamW; on a CUDA device, its fused kernel, which computes the same in one launch instead of a dozen.

    Args:
        weights: What to train, on their device.
        learning_rate: Learning rate.
        weight_decay: Decoupled weight decay.
        is_scaled: Whether the loss is scaled (precision ``16-mixed``). The fused kernel then unscales the gradients
            itself, and Lightning refuses to clip them.
    """
    weights = list(weights)
    on_cuda = bool(weights) and all(weight.is_cuda for weight in weights)
    return torch.optim.AdamW(
        weights, lr=learning_rate, weight_decay=weight_decay, fused=True if on_cuda and not is_scaled else None
    )


def speed_up(
    model: nn.Module, *, packed_attention: bool, low_precision_residuals: bool, compile_mode: CompileMode | None
) -> None:
    """Rebuilds the blocks of a model in place. Its parameters stay.

    Args:
        model: stable-worldmodel's LeWM with a transformers ViT as its encoder.
        packed_attention: Compute query, key and value of the encoder in one matrix product instead of three.
        low_precision_residuals: Keep the encoder's residual stream in autocast's precision (bfloat16) instead of
            float32. Layer norms still compute their statistics in float32. Without autocast, this changes nothing.
        compile_mode: Compile each block with ``torch.compile``; None does not. All blocks of a kind share their code.

    Raises:
        UsageError: The encoder is built otherwise than transformers 5 builds a ViT.
    """
    if packed_attention:
        _replace(model, lambda module: isinstance(getattr(module, "q_proj", None), nn.Linear), PackedAttention)
    if low_precision_residuals:
        encoder = model.get_submodule("encoder")
        _replace(encoder, lambda module: type(module) is nn.LayerNorm, InputDtypeLayerNorm)
        for embeddings in (module for module in encoder.modules() if hasattr(module, "patch_embeddings")):
            embeddings.register_forward_hook(lambda module, args, out: _in_autocast_dtype(out))
    if compile_mode is not None:
        for block in _blocks(model):
            block.compile(mode=compile_mode, dynamic=False)


class PackedAttention(nn.Module):
    """A ViT's attention with one matrix product for query, key and value. Takes over the projections of another one."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj = attention.q_proj, attention.k_proj, attention.v_proj
        self.o_proj = attention.o_proj
        self.head_dim = attention.head_dim

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, **unused: Any
    ) -> tuple[Tensor, None]:
        """Attends.

        Args:
            hidden_states: (B, n, width).
            attention_mask: See ``scaled_dot_product_attention``; None attends to all.
            **unused: What transformers passes along.

        Returns:
            (B, n, width), and no weights.
        """
        projections = self.q_proj, self.k_proj, self.v_proj
        weight = torch.cat([projection.weight for projection in projections])
        bias = None if self.q_proj.bias is None else torch.cat([projection.bias for projection in projections])
        packed = functional.linear(hidden_states, weight, bias).unflatten(-1, (3, -1, self.head_dim))
        query, key, value = packed.permute(2, 0, 3, 1, 4).unbind()  # each (B, heads, n, head_dim)
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=attention_mask)
        return self.o_proj(attended.transpose(1, 2).flatten(2)), None


class InputDtypeLayerNorm(nn.Module):
    """A layer norm whose result has its input's dtype, also under autocast, with statistics in float32."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.weight, self.bias = norm.weight, norm.bias
        self.normalized_shape, self.eps = norm.normalized_shape, norm.eps

    def forward(self, values: Tensor) -> Tensor:
        """Normalizes (..., width)."""
        weight = None if self.weight is None else self.weight.to(values.dtype)
        bias = None if self.bias is None else self.bias.to(values.dtype)
        with torch.autocast(values.device.type, enabled=False):
            return functional.layer_norm(values, self.normalized_shape, weight, bias, self.eps)


def _in_autocast_dtype(values: Tensor) -> Tensor:
    device = values.device.type
    return values.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else values


def _replace(model: nn.Module, is_wanted: Any, make: Any) -> None:
    found = [name for name, module in model.named_modules() if is_wanted(module)]
    if not found:
        raise UsageError(
            f"model has no module that {make.__name__} can take over: transformers 5 is needed. "
            "Run: pip install -U transformers"
        )
    for name in found:
        model.set_submodule(name, make(model.get_submodule(name)))


def _blocks(model: nn.Module) -> list[nn.Module]:
    """The blocks that encoder and predictor repeat."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    if not lists:
        raise UsageError("model has no blocks to compile. Leave out --model.compile.")
    return [block for blocks in lists for block in blocks]
