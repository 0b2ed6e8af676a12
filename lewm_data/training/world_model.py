"""LeWM's networks as a LightningModule: built once the data is known, and stored with what it takes to rebuild them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import lightning
import torch
from torch import Tensor

from lewm_data.errors import UsageError
from lewm_data.format.schema import ACTION, PIXELS, is_pixels, pixels_column
from lewm_data.training.networks import NetworkSizes, build_networks
from lewm_data.training.speed import speed_up


class WorldModel(lightning.LightningModule):
    """Encodes frames, and predicts latents from latents and actions. ``LeWMModule`` trains it.

    Attributes:
        model: stable-worldmodel's ``LeWM``; None until the sizes of the data are known.
        config: How stable-worldmodel builds it, JSON-ready.
        action_dim: Numbers per kept frame in ``action``: frameskip times the dimensions of one action.
        image_size: (height, width) of the frames that the encoder was built for.
        camera_columns: Columns of the frames that the model sees, ``pixels`` first.
    """

    def __init__(self) -> None:
        super().__init__()
        self.model: Any = None
        self.config: dict[str, Any] = {}
        self.action_dim = 0
        self.image_size = (0, 0)
        self.camera_columns: tuple[str, ...] = (PIXELS,)

    def setup(self, stage: str) -> None:
        """Takes the sizes from the data module and builds the networks.

        Raises:
            UsageError: The windows have another length than the model needs, or other widths than it was built for, or
                lack a camera.
        """
        data = getattr(self.trainer, "datamodule", None)
        if data is None:
            raise UsageError("The model takes its sizes from the data module. Pass datamodule= to the trainer.")
        layout = data.layout()
        num_steps, action_dim = layout[ACTION][0]
        history_size = self.hparams["history_size"]
        if num_steps != history_size + 1:
            raise UsageError(
                f"data.num_steps is {num_steps}, but LeWM predicts one frame from history_size = {history_size} "
                f"frames. Set --data.num_steps {history_size + 1}, or --model.history_size {num_steps - 1}."
            )
        columns = camera_columns(self.hparams.get("cameras"), [name for name in layout if is_pixels(name)])
        self.build(action_dim=action_dim, image_size=layout[PIXELS][0][1:3], camera_columns=columns)

    def on_fit_start(self) -> None:
        """Silences Lightning's warning of modules in evaluation mode, where a frozen encoder belongs."""
        if self.hparams.get("freeze_encoder"):
            warnings.filterwarnings("ignore", r"Found \d+ module\(s\) in eval mode at the start of training")

    def build(
        self,
        *,
        action_dim: int,
        image_size: tuple[int, int],
        camera_columns: tuple[str, ...] = (PIXELS,),
        encoder_config: Mapping[str, Any] | None = None,
    ) -> None:
        """Builds the networks, unless they exist.

        Args:
            action_dim: Numbers per kept frame in ``action``.
            image_size: (height, width) of a frame, in pixels.
            camera_columns: Columns of the frames that the model sees.
            encoder_config: Of a pretrained encoder whose weights come later, from a checkpoint.

        Raises:
            UsageError: They exist for other widths or cameras, a frame is smaller than a patch, the encoder cannot be
                loaded, or stable-worldmodel is not installed.
        """
        if self.model is not None:
            self._check_fits(action_dim, camera_columns)
            return
        self.action_dim, self.image_size = int(action_dim), (int(image_size[0]), int(image_size[1]))
        self.camera_columns = tuple(camera_columns)
        sizes = NetworkSizes(self.action_dim, self.image_size, len(self.camera_columns))
        self.model, self.sigreg, self.config = build_networks(self.hparams, sizes, encoder_config=encoder_config)
        speed_up(
            self.model,
            packed_attention=self.hparams["packed_attention"],
            low_precision_residuals=self.hparams["low_precision_residuals"],
            compile_mode=self.hparams["compile_mode"] if self.hparams["compile"] else None,
        )

    def frames_of(self, batch: Mapping[str, Tensor]) -> Tensor:
        """The frames that the model sees.

        Args:
            batch: With each column of ``camera_columns``, float (B, T, 3, H, W), normalized.

        Returns:
            float (B, T, 3, H, W); with several cameras (B, T, C, 3, H, W).
        """
        missing = [name for name in self.camera_columns if name not in batch]
        if missing:
            raise UsageError(
                f"The batch lacks {', '.join(missing)}, which the model was built for. Use data that holds these "
                "cameras."
            )
        if len(self.camera_columns) == 1:
            return batch[PIXELS]
        return torch.stack([batch[name] for name in self.camera_columns], dim=2)

    def encode(self, pixels: Tensor) -> Tensor:
        """Latents of frames.

        Args:
            pixels: From ``frames_of``.

        Returns:
            float (B, T, embed_dim).
        """
        latents: Tensor = self._built.encode({"pixels": pixels})["emb"]
        return latents

    def predict(self, latents: Tensor, actions: Tensor) -> Tensor:
        """The latent that follows each of some latents.

        Args:
            latents: float (B, T, embed_dim), T at most ``history_size``.
            actions: float (B, T, action_dim), normalized: the actions from each frame up to the next.

        Returns:
            float (B, T, embed_dim). Item t is the prediction for frame t + 1; it depends on frames up to t only.
        """
        model = self._built
        predicted: Tensor = model.predict(latents, model.action_encoder(_finite(actions)))
        return predicted

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the sizes of the data and the encoder's configuration, so that the checkpoint loads without either."""
        checkpoint["action_dim"], checkpoint["image_size"] = self.action_dim, list(self.image_size)
        checkpoint["camera_columns"] = list(self.camera_columns)
        checkpoint["encoder_config"] = self.encoder_config

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Builds the networks as they were saved.

        Raises:
            UsageError: The data has another width or other cameras than the checkpoint.
        """
        columns = tuple(checkpoint.get("camera_columns", (PIXELS,)))
        if self.model is not None:
            self._check_fits(checkpoint["action_dim"], columns, which="the checkpoint's")
        self.build(
            action_dim=checkpoint["action_dim"],
            image_size=tuple(checkpoint["image_size"]),
            camera_columns=columns,
            encoder_config=checkpoint.get("encoder_config"),
        )

    @property
    def encoder_config(self) -> dict[str, Any] | None:
        """Configuration of a pretrained encoder's network; None for LeWM's own."""
        if self.hparams.get("encoder") is None or not self.config:
            return None
        encoder = self.config["encoder"]
        return dict(encoder.get("encoder", encoder)["config"])  # of the one that several cameras share

    @property
    def _built(self) -> Any:
        if self.model is None:
            raise UsageError("The model is not built yet. Call build(action_dim=..., image_size=...); a Trainer does.")
        return self.model

    def _check_fits(self, action_dim: int, columns: tuple[str, ...], *, which: str = "the data's") -> None:
        if action_dim != self.action_dim:
            raise UsageError(
                f"{which} action is {action_dim} wide (frameskip times the dimensions of one action), but the model "
                f"was built for {self.action_dim}. Use the dataset and frameskip that it was trained with, or start "
                "again without --ckpt_path."
            )
        if tuple(columns) != self.camera_columns:
            raise UsageError(
                f"{which} cameras are {', '.join(columns)}, but the model was built for "
                f"{', '.join(self.camera_columns)}. Set --model.cameras as it was, or start again without --ckpt_path."
            )


def camera_columns(cameras: str | None, stored: list[str]) -> tuple[str, ...]:
    """The columns of the cameras that a model should see.

    Args:
        cameras: Names of further cameras, separated by commas, or ``all``; None for ``pixels`` only.
        stored: Columns of frames in the data.

    Raises:
        UsageError: The data lacks a camera.
    """
    if cameras is None:
        return (PIXELS,)
    others = [name for name in stored if name != PIXELS]
    if cameras == "all":
        return (PIXELS, *others)
    wanted = [pixels_column(name.strip()) for name in cameras.split(",")]
    missing = [name for name in wanted if name not in others]
    if missing:
        raise UsageError(
            f"model.cameras is {cameras!r}, but the data has no {', '.join(missing)}; it has "
            f"{', '.join(stored)}. Convert with --cameras all, or set --data.cameras all if train.py converts."
        )
    return (PIXELS, *wanted)


def _finite(actions: Tensor) -> Tensor:
    """Missing actions, which only ``dirty_episode_policy=keep`` lets through, become the mean action."""
    return torch.nan_to_num(actions, nan=0.0, posinf=0.0, neginf=0.0)
