"""LeWM as its authors train it (le-wm's ``config/train/lewm.yaml``), fed by ``LeWMDataModule``.

The networks and the regulariser are stable-worldmodel's own; the vision transformer is transformers'. Both are
imported when the model is built, not before: a worker process that only loads data needs neither.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor

from lewm_data.errors import UsageError
from lewm_data.format.schema import ACTION, PIXELS

_ACTION_DIM, _IMAGE_SIZE = "action_dim", "image_size"


class LeWMModule(lightning.LightningModule):
    """Predicts the next frame's latent from ``history_size`` latents and the actions in between.

    The loss is the mean squared error of the prediction plus SIGReg's weight times its statistic of the latents,
    which keeps them from collapsing (LeJEPA: Balestriero and LeCun, 2025). The defaults are LeWM's.

    What is random in a step (SIGReg's projections, dropout) follows from ``seed``, the epoch and the step's number
    in it, so that a resumed run repeats an uninterrupted one.

    Attributes:
        model: stable-worldmodel's ``LeWM``; None until the widths of the data are known.
        action_dim: Numbers per kept frame in ``action``: frameskip times the dimensions of one action.
        image_size: (height, width) of the frames that the encoder was built for.
    """

    def __init__(
        self,
        *,
        history_size: int = 3,
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
    ) -> None:
        """Takes settings; the networks are built when the trainer knows the data.

        Args:
            history_size: Latents that a prediction starts from. The data's ``num_steps`` must be one more.
            embed_dim: Dimensions of a latent.
            encoder_dim: Width of the vision transformer; 192, 12 layers and 3 heads are ViT-tiny.
            encoder_depth: Its layers.
            encoder_heads: Its attention heads.
            patch_size: Side of its patches, in pixels.
            predictor_depth: Layers of the predictor.
            predictor_heads: Its attention heads.
            predictor_head_dim: Dimensions of a head.
            predictor_mlp_dim: Width of its feed-forward layers.
            predictor_dropout: Its dropout, in [0, 1).
            projector_dim: Width of the two projectors' hidden layer.
            sigreg_weight: Weight of SIGReg against the prediction error.
            sigreg_knots: Points at which SIGReg compares characteristic functions.
            sigreg_projections: Random directions that it looks along, in each step.
            learning_rate: AdamW's, after the warm-up.
            weight_decay: AdamW's.
            warmup_fraction: Share of all steps in which the learning rate rises; then it falls as a cosine does.
            seed: Of what is random in a step.
            compile: Compile encoder and predictor with ``torch.compile``.

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
        self.save_hyperparameters()
        self.model: Any = None
        self.action_dim = 0
        self.image_size = (0, 0)

    def setup(self, stage: str) -> None:
        """Takes the widths from the data module and builds the networks.

        Raises:
            UsageError: The windows have another length than the model needs, or other widths than it was built for.
        """
        layout = self.trainer.datamodule.layout()  # type: ignore[attr-defined]
        num_steps, action_dim = layout[ACTION][0]
        if num_steps != self.hparams["history_size"] + 1:
            raise UsageError(
                f"data.num_steps is {num_steps}, but LeWM predicts one frame from history_size = "
                f"{self.hparams['history_size']} frames. Set --data.num_steps {self.hparams['history_size'] + 1}, or "
                f"--model.history_size {num_steps - 1}."
            )
        self.build(action_dim=action_dim, image_size=layout[PIXELS][0][1:3])

    def build(self, *, action_dim: int, image_size: tuple[int, int]) -> None:
        """Builds the networks, unless that was done.

        Args:
            action_dim: Numbers per kept frame in ``action``.
            image_size: (height, width) of a frame, in pixels.

        Raises:
            UsageError: They were built for other widths, or a frame is smaller than a patch, or stable-worldmodel is
                not installed.
        """
        if self.model is not None:
            self._check_width(action_dim)
            return
        if min(image_size) < self.hparams["patch_size"]:
            raise UsageError(
                f"frames are {image_size[0]}x{image_size[1]} pixels, smaller than one patch of "
                f"{self.hparams['patch_size']}. Raise --data.image_size or lower --model.patch_size."
            )
        self.action_dim, self.image_size = int(action_dim), (int(image_size[0]), int(image_size[1]))
        self.model, self.sigreg = _networks(self.hparams, self.action_dim, self.image_size)
        if self.hparams["compile"]:
            self.model.encoder.compile()
            self.model.predictor.compile()

    def encode(self, pixels: Tensor) -> Tensor:
        """Latents of frames.

        Args:
            pixels: float (B, T, 3, H, W), normalized.

        Returns:
            float (B, T, embed_dim).
        """
        latents: Tensor = self._built.encode({"pixels": pixels})["emb"]
        return latents

    def predict(self, latents: Tensor, actions: Tensor) -> Tensor:
        """The latent that follows each of some latents.

        Args:
            latents: float (B, T, embed_dim), T of ``history_size`` at most.
            actions: float (B, T, action_dim), standardised: what was done from each frame up to the next.

        Returns:
            float (B, T, embed_dim); item t is the prediction for frame t + 1, and sees frames up to t alone.
        """
        model = self._built
        predicted: Tensor = model.predict(latents, model.action_encoder(_finite(actions)))
        return predicted

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """One step; the batch is as ``lewm_data.format.schema`` has it, normalized."""
        self._reseed(0, batch_idx)
        return self._losses(batch, "train")

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """The same losses on validation episodes."""
        self._reseed(1, batch_idx)
        self._losses(batch, "val")

    def configure_optimizers(self) -> Any:
        """AdamW on everything, with a linear warm-up and a cosine down to 0.

        Raises:
            UsageError: The trainer would never end.
        """
        num_steps = self.trainer.estimated_stepping_batches
        if not math.isfinite(num_steps):
            raise UsageError(
                "The learning rate falls until the last step, but training has none. Set --trainer.max_epochs or "
                "--trainer.max_steps."
            )
        optimizer = torch.optim.AdamW(
            self.parameters(), lr=self.hparams["learning_rate"], weight_decay=self.hparams["weight_decay"]
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda step: warmup_cosine(step, num_steps=int(num_steps), warmup_fraction=self.hparams["warmup_fraction"]),
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the widths of the data, so that the checkpoint can be loaded without it."""
        checkpoint[_ACTION_DIM], checkpoint[_IMAGE_SIZE] = self.action_dim, list(self.image_size)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Builds the networks as they were saved.

        Raises:
            UsageError: The data has another width than the checkpoint.
        """
        if self.model is not None:
            self._check_width(checkpoint[_ACTION_DIM], which="the checkpoint's")
        self.build(action_dim=checkpoint[_ACTION_DIM], image_size=tuple(checkpoint[_IMAGE_SIZE]))

    @property
    def _built(self) -> Any:
        if self.model is None:
            raise UsageError("The model is not built yet. Call build(action_dim=..., image_size=...); a Trainer does.")
        return self.model

    def _check_width(self, action_dim: int, *, which: str = "the data's") -> None:
        if action_dim != self.action_dim:
            raise UsageError(
                f"{which} action is {action_dim} wide (frameskip times the dimensions of one action), but the model "
                f"was built for {self.action_dim}. Use the dataset and frameskip that it was trained with, or begin "
                "anew without --ckpt_path."
            )

    def _reseed(self, stage: int, batch_idx: int) -> None:
        key = (self.hparams["seed"], stage, self.current_epoch, batch_idx, self.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1))

    def _losses(self, batch: dict[str, Tensor], split: str) -> Tensor:
        latents = self.encode(batch[PIXELS])
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
                sync_dist=split == "val",
            )
        return loss


def warmup_cosine(step: int, *, num_steps: int, warmup_fraction: float) -> float:
    """Learning rate of a step as a share of the highest: a linear rise, then a cosine down to 0.

    Args:
        step: Number of the step, from 0.
        num_steps: Steps in all.
        warmup_fraction: Share of them in which it rises, in [0, 1).

    Returns:
        In [0, 1]; above 0 in every step before ``num_steps``.
    """
    warmup = math.ceil(num_steps * warmup_fraction)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if step >= num_steps:
        return 0.0
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (num_steps - warmup)))


def _finite(actions: Tensor) -> Tensor:
    """Missing actions, which only ``dirty_episode_policy=keep`` lets through, as the mean action."""
    return torch.nan_to_num(actions, nan=0.0, posinf=0.0, neginf=0.0)


def _networks(settings: Any, action_dim: int, image_size: tuple[int, int]) -> tuple[Any, torch.nn.Module]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # simulators that are not installed, which training needs none of
            from stable_worldmodel.wm.lewm import LeWM
            from stable_worldmodel.wm.lewm.module import MLP, Embedder, Predictor
            from stable_worldmodel.wm.loss import SIGReg
            from transformers import ViTConfig, ViTModel
    except ImportError as error:
        raise UsageError(
            f"LeWM needs packages that are not installed ({error}). Install them: pip install 'lewm_data[train]'."
        ) from error
    width, embed_dim = settings["encoder_dim"], settings["embed_dim"]
    encoder = ViTModel(
        ViTConfig(
            hidden_size=width,
            num_hidden_layers=settings["encoder_depth"],
            num_attention_heads=settings["encoder_heads"],
            intermediate_size=4 * width,
            image_size=image_size,
            patch_size=settings["patch_size"],
        ),
        add_pooling_layer=False,
    )
    encoder.to(memory_format=torch.channels_last)  # type: ignore[call-arg]  # as frames come

    def projector(num_inputs: int) -> torch.nn.Module:
        hidden = settings["projector_dim"]
        return MLP(input_dim=num_inputs, hidden_dim=hidden, output_dim=embed_dim, norm_fn=torch.nn.BatchNorm1d)

    model = LeWM(
        encoder=encoder,
        predictor=Predictor(
            num_frames=settings["history_size"],
            depth=settings["predictor_depth"],
            heads=settings["predictor_heads"],
            dim_head=settings["predictor_head_dim"],
            mlp_dim=settings["predictor_mlp_dim"],
            dropout=settings["predictor_dropout"],
            input_dim=embed_dim,
            hidden_dim=embed_dim,
        ),
        action_encoder=Embedder(input_dim=action_dim, emb_dim=embed_dim),
        projector=projector(width),
        pred_proj=projector(embed_dim),
    )
    return model, SIGReg(knots=settings["sigreg_knots"], num_proj=settings["sigreg_projections"])
