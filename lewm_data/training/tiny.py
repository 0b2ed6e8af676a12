"""A joint-embedding predictive world model small enough for two processor cores.

It encodes each kept frame, predicts the next latent from the present one and the actions in between, and keeps
the latents from collapsing with VICReg's variance and covariance terms (Bardes, Ponce and LeCun, 2022; equations
1 to 6). Nothing is decoded back to pixels, as in LeWM; neither its size nor its regulariser are LeWM's.
"""

from __future__ import annotations

import lightning
import torch
from torch import Tensor, nn
from torch.nn import functional

from lewm_data.errors import UsageError


class TinyJEPA(lightning.LightningModule):
    """Encoder, action-conditioned latent predictor and an anti-collapse term."""

    def __init__(
        self,
        *,
        action_dim: int,
        latent_dim: int = 32,
        width: int = 32,
        prediction_weight: float = 5.0,
        variance_weight: float = 25.0,
        covariance_weight: float = 2.0,
        learning_rate: float = 2e-3,
    ) -> None:
        """Builds the networks.

        Args:
            action_dim: Numbers per kept frame in ``action``: frameskip times the dimensions of one action.
            latent_dim: Dimensions of a frame's latent.
            width: Channels of the encoder's first layer, a multiple of 8.
            prediction_weight: Weight of the prediction error. VICReg's own weights are 25, 25 and 1; these spread
                the latents within the demo's 200 steps.
            variance_weight: Weight of the variance term.
            covariance_weight: Weight of the covariance term.
            learning_rate: AdamW's.
        """
        super().__init__()
        self.save_hyperparameters()
        self.action_dim = action_dim
        self.weights = (prediction_weight, variance_weight, covariance_weight)
        self.learning_rate = learning_rate
        self.encoder = nn.Sequential(
            *_layer(3, width, size=4, stride=4),
            *_layer(width, 2 * width, size=3, stride=2),
            *_layer(2 * width, 2 * width, size=3, stride=2),
            nn.AdaptiveAvgPool2d(4),  # coarse places survive, whatever the frame's size
            nn.Flatten(),
            nn.Linear(16 * 2 * width, latent_dim),
        )
        self.encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # as frames come
        self.predictor = nn.Sequential(
            nn.Linear(latent_dim + action_dim, 256),
            nn.GELU(),
            nn.Linear(256, 256),
            nn.GELU(),
            nn.Linear(256, latent_dim),
        )

    def encode(self, pixels: Tensor) -> Tensor:
        """Latents of frames.

        Args:
            pixels: float (B, T, 3, H, W), normalized.

        Returns:
            float (B, T, latent_dim).
        """
        latents: Tensor = self.encoder(pixels.flatten(0, 1))
        return latents.unflatten(0, pixels.shape[:2])

    def predict(self, latents: Tensor, actions: Tensor) -> Tensor:
        """The latents one kept frame on.

        Args:
            latents: float (..., latent_dim).
            actions: float (..., action_dim), all actions up to the next kept frame.

        Returns:
            float (..., latent_dim).
        """
        step: Tensor = self.predictor(torch.cat([latents, actions], dim=-1))
        return latents + step

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """One step; the batch is as ``lewm_data.schema`` has it, normalized."""
        return self._step(batch, "train")

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """The same losses on validation episodes."""
        self._step(batch, "val")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW on everything."""
        return torch.optim.AdamW(self.parameters(), lr=self.learning_rate)

    def _step(self, batch: dict[str, Tensor], split: str) -> Tensor:
        pixels, actions = batch["pixels"], batch["action"]
        if actions.shape[-1] != self.action_dim:
            raise UsageError(
                f"model.action_dim is {self.action_dim}, but a kept frame has {actions.shape[-1]} action numbers "
                f"(frameskip times the action's dimensions). Set --model.action_dim {actions.shape[-1]}."
            )
        if pixels.shape[1] < 2:
            raise UsageError(
                "data.num_steps is 1, but a prediction needs a next frame. Set --data.num_steps 2 or more."
            )
        latents = self.encode(pixels)
        present, following = latents[:, :-1], latents[:, 1:]
        prediction = functional.mse_loss(self.predict(present, actions[:, :-1]), following)
        variance, covariance = vicreg_terms(latents.flatten(0, 1))
        terms = torch.stack([prediction, variance, covariance])
        loss = (terms * terms.new_tensor(self.weights)).sum()
        # Below 1 the actions tell something: 1 is the error of predicting that nothing changes.
        versus_copy = prediction / functional.mse_loss(present, following).clamp_min(1e-12)
        metrics = {"loss": loss, "prediction": prediction, "variance": variance, "vs_copy": versus_copy}
        for name, value in metrics.items():
            on_bar = name in ("loss", "vs_copy")
            self.log(f"{split}/{name}", value.detach(), prog_bar=on_bar, batch_size=len(pixels))
        return loss


def _layer(num_inputs: int, num_outputs: int, *, size: int, stride: int) -> tuple[nn.Module, ...]:
    # Without a norm, 200 steps are too few to see a small finger on a white table; a group norm, unlike a batch
    # norm, does the same in validation.
    convolution = nn.Conv2d(num_inputs, num_outputs, size, stride=stride, padding=(size - stride + 1) // 2)
    return convolution, nn.GroupNorm(8, num_outputs), nn.GELU()


def vicreg_terms(latents: Tensor, *, target_std: float = 1.0) -> tuple[Tensor, Tensor]:
    """VICReg's two terms against collapse.

    Args:
        latents: float (N, D), N of 2 or more.
        target_std: Standard deviation below which a dimension is pushed up.

    Returns:
        (variance, covariance), scalars: how far the dimensions' standard deviations fall short of
        ``target_std`` on average, and the sum of squared off-diagonal covariances over D.
    """
    num, dim = latents.shape
    variance = functional.relu(target_std - torch.sqrt(latents.var(dim=0) + 1e-4)).mean()
    centred = latents - latents.mean(dim=0)
    squares = (centred.T @ centred / (num - 1)).square()
    return variance, (squares.sum() - squares.diagonal().sum()) / dim
