"""LeWM as its authors train it (le-wm's ``config/train/lewm.yaml``), on batches of ``LeWMDataModule``."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lewm_data.errors import UsageError
from lewm_data.format.schema import ACTION
from lewm_data.training.speed import CompileMode, adamw
from lewm_data.training.world_model import WorldModel


class LeWMModule(WorldModel):
    """Predicts the next frame's latent from ``history_size`` latents and the actions in between.

    The loss is the mean squared error of the prediction plus SIGReg's weight times its statistic of the latents,
    which keeps them from collapsing (LeJEPA: Balestriero and LeCun, 2025). The defaults are LeWM's.

    Everything random in a step (SIGReg's projections, dropout) depends only on ``seed``, the epoch and the step in it,
    so a resumed run repeats an uninterrupted one.
    """

    def __init__(
        self,
        *,
        history_size: int = 3,
        cameras: str | None = None,
        encoder: str | None = None,
        freeze_encoder: bool = False,
        embed_dim: int = 192,
        encoder_dim: int = 192,
        encoder_depth: int = 12,
        encoder_heads: int = 3,
        patch_size: int = 14,
        predictor_depth: int = 6,
        predictor_heads: int = 16,
        predictor_head_dim: int = 64,
        predictor_mlp_dim: int = 2048,
        predictor_dropout: float = 0.1,
        projector_dim: int = 2048,
        sigreg_weight: float = 0.09,
        sigreg_knots: int = 17,
        sigreg_projections: int = 1024,
        learning_rate: float = 5e-5,
        weight_decay: float = 1e-3,
        warmup_fraction: float = 0.01,
        seed: int = 3072,
        compile: bool = False,
        compile_mode: CompileMode = "default",
        packed_attention: bool = False,
        low_precision_residuals: bool = False,
    ) -> None:
        """Takes settings; the networks are built when the trainer knows the data.

        Args:
            history_size: Latents that a prediction starts from. The data's ``num_steps`` must be one more.
            cameras: Further cameras to see, next to ``pixels``: ``all``, or names separated by commas. The data must
                hold them (``data.cameras``).
            encoder: A pretrained vision transformer instead of LeWM's own: a repo on the Hub, such as
                ``facebook/dinov2-small``, or a folder. Then the other encoder settings and ``patch_size`` do not apply.
            freeze_encoder: Keep the pretrained encoder as it is, instead of fine-tuning it.
            embed_dim: Dimensions of a latent.
            encoder_dim: Width of the vision transformer; 192, 12 layers and 3 heads are ViT-tiny.
            encoder_depth: Layers of the vision transformer.
            encoder_heads: Attention heads of the vision transformer.
            patch_size: Side of a patch of the vision transformer, in pixels.
            predictor_depth: Layers of the predictor.
            predictor_heads: Attention heads of the predictor.
            predictor_head_dim: Dimensions of an attention head.
            predictor_mlp_dim: Width of the predictor's feed-forward layers.
            predictor_dropout: Dropout of the predictor, in [0, 1).
            projector_dim: Width of the hidden layer of both projectors.
            sigreg_weight: Weight of SIGReg against the prediction error.
            sigreg_knots: Points at which SIGReg compares characteristic functions.
            sigreg_projections: Random directions in which SIGReg compares them, in each step.
            learning_rate: Learning rate of AdamW after the warm-up.
            weight_decay: Weight decay of AdamW.
            warmup_fraction: Share of all steps in which the learning rate rises. Then it falls like a cosine.
            seed: Seed of everything random in a step.
            compile: Compile each block of encoder and predictor with ``torch.compile``.
            compile_mode: How to compile. ``reduce-overhead`` and ``max-autotune`` record CUDA graphs.
            packed_attention: Compute the encoder's query, key and value in one matrix product.
            low_precision_residuals: Keep the encoder's residual stream in autocast's precision (bfloat16).

        Raises:
            UsageError: A number is out of range.
        """
        super().__init__()
        for name, value in (("history_size", history_size), ("patch_size", patch_size)):
            if value < 1:
                raise UsageError(f"model.{name} is {value}, but must be 1 or more.")
        if encoder_dim % encoder_heads:
            raise UsageError(
                f"model.encoder_dim is {encoder_dim}, but must be a multiple of encoder_heads, {encoder_heads}."
            )
        if not 0 <= warmup_fraction < 1:
            raise UsageError(f"model.warmup_fraction is {warmup_fraction}, but must lie in [0, 1).")
        if freeze_encoder and encoder is None:
            raise UsageError(
                "model.freeze_encoder keeps an encoder as it is, but model.encoder names none, and a random one never "
                "sees anything. Set --model.encoder, such as facebook/dinov2-small."
            )
        self.save_hyperparameters()

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """The loss of a batch of ``lewm_data.format.schema``, normalized."""
        self._reseed(0, batch_idx)
        return self._losses(batch, "train")

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Logs the same losses on validation episodes."""
        self._reseed(1, batch_idx)
        self._losses(batch, "val")

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Logs the same losses on test episodes."""
        self._reseed(2, batch_idx)
        self._losses(batch, "test")

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Latents of all frames, and the predictions of all but the first.

        Returns:
            ``latents``, float (B, T, embed_dim), and ``predicted``, float (B, T - 1, embed_dim).
        """
        latents = self.encode(self.frames_of(batch))
        return {"latents": latents, "predicted": self.predict(latents[:, :-1], batch[ACTION][:, :-1])}

    def configure_optimizers(self) -> Any:
        """AdamW on all weights that are not frozen, with a linear warm-up and a cosine down to 0.

        Raises:
            UsageError: Training has no last step.
        """
        num_steps = self.trainer.estimated_stepping_batches
        if not math.isfinite(num_steps):
            raise UsageError(
                "The learning rate falls until the last step, but training has none. Set --trainer.max_epochs or "
                "--trainer.max_steps."
            )
        optimizer = adamw(
            [weight for weight in self.parameters() if weight.requires_grad],
            learning_rate=self.hparams["learning_rate"],
            weight_decay=self.hparams["weight_decay"],
            is_scaled=str(self.trainer.precision).startswith("16"),
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda step: warmup_cosine(step, num_steps=int(num_steps), warmup_fraction=self.hparams["warmup_fraction"]),
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _reseed(self, stage: int, batch_idx: int) -> None:
        key = (self.hparams["seed"], stage, self.current_epoch, batch_idx, self.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1))

    def _losses(self, batch: dict[str, Tensor], split: str) -> Tensor:
        latents = self.encode(self.frames_of(batch))
        predicted = self.predict(latents[:, :-1], batch[ACTION][:, :-1])
        # In float32 whatever the precision: SIGReg compares cosines of sums.
        with torch.autocast(latents.device.type, enabled=False):
            latents, predicted = latents.float(), predicted.float()
            prediction = (predicted - latents[:, 1:]).square().mean()
            regularity = self.sigreg(latents.transpose(0, 1))
            loss: Tensor = prediction + self.hparams["sigreg_weight"] * regularity
        values = {"loss": loss, "pred_loss": prediction, "sigreg_loss": regularity}
        for name, value in values.items():
            self.log(
                f"{split}/{name}",
                value.detach(),
                prog_bar=name == "loss",
                batch_size=len(latents),
                sync_dist=split != "train",
            )
        return loss


def warmup_cosine(step: int, *, num_steps: int, warmup_fraction: float) -> float:
    """Learning rate of a step as a share of the highest: a linear rise, then a cosine down to 0.

    Args:
        step: Number of the step, from 0.
        num_steps: Steps in all.
        warmup_fraction: Share of the steps in which it rises, in [0, 1).

    Returns:
        In [0, 1]; above 0 in every step before ``num_steps``.
    """
    warmup = math.ceil(num_steps * warmup_fraction)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if step >= num_steps:
        return 0.0
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (num_steps - warmup)))
