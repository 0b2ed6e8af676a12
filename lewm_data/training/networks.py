"""LeWM's networks: stable-worldmodel's own, behind a vision transformer from transformers.

A configuration describes them, in the form that stable-worldmodel loads (Hydra's ``_target_``). Building them and
exporting them start from the same configuration. The libraries are imported when the model is built; a worker process
that only loads data needs none of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lewm_data.errors import UsageError

_LEWM = "stable_worldmodel.wm.lewm"


class NetworkSizes(NamedTuple):
    """What the networks must know of the data.

    Attributes:
        action_dim: Numbers per kept frame in ``action``.
        image_size: (height, width) of a frame, in pixels.
        num_cameras: Frames at a time.
    """

    action_dim: int
    image_size: tuple[int, int]
    num_cameras: int = 1


class SharedEncoder(nn.Module):
    """One encoder for the frames of several cameras. Their features are joined, in the order of the cameras.

    Attributes:
        encoder: The encoder of one frame.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, pixels: Tensor, **options: Any) -> Any:
        """Features of frames.

        Args:
            pixels: float (N, C, 3, H, W) of C cameras.
            **options: Options of the encoder.

        Returns:
            An object whose ``last_hidden_state`` is float (N, 1, C * width).
        """
        features = self.encoder(pixels.flatten(0, 1), **options).last_hidden_state[:, 0]
        return SimpleNamespace(last_hidden_state=features.unflatten(0, pixels.shape[:2]).flatten(1)[:, None])


def build_networks(
    settings: Mapping[str, Any], sizes: NetworkSizes, *, encoder_config: Mapping[str, Any] | None = None
) -> tuple[Any, nn.Module, dict[str, Any]]:
    """Builds stable-worldmodel's ``LeWM`` and ``SIGReg``.

    Args:
        settings: The settings of ``LeWMModule``.
        sizes: Sizes of the data.
        encoder_config: Configuration of a pretrained encoder whose weights come later, from a checkpoint. None loads
            them.

    Returns:
        The model, the regularizer, and the configuration of the model, JSON-ready.

    Raises:
        UsageError: A library is not installed, the encoder cannot be loaded, or the frames are too small for it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about simulators that are not installed, which training does not need
            import stable_worldmodel.wm.lewm  # noqa: F401
            import transformers  # noqa: F401
            from hydra.utils import instantiate
            from stable_worldmodel.wm.loss import SIGReg
    except ImportError as error:
        raise UsageError(
            f"LeWM needs packages that are not installed ({error}). Install them: pip install 'lewm_data[train]'."
        ) from error
    if settings.get("encoder") is None:
        config, width = _vit_config(settings, sizes.image_size), settings["encoder_dim"]
        encoder: nn.Module = instantiate(config)
        encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # as frames come
    else:
        from lewm_data.training.encoder import PretrainedEncoder

        freeze = settings["freeze_encoder"]
        if encoder_config is None:
            pretrained = PretrainedEncoder.load(settings["encoder"], freeze=freeze, image_size=sizes.image_size)
        else:
            pretrained = PretrainedEncoder.from_config(encoder_config, freeze=freeze)
        encoder, width, config = pretrained, pretrained.width, pretrained.build_config()
    if sizes.num_cameras > 1:
        encoder, width = SharedEncoder(encoder), width * sizes.num_cameras
        config = {"_target_": f"{__name__}.{SharedEncoder.__name__}", "encoder": config}
    rest = _lewm_config(settings, sizes.action_dim, width)
    return (
        instantiate(rest, encoder=encoder),
        SIGReg(knots=settings["sigreg_knots"], num_proj=settings["sigreg_projections"]),
        {**rest, "encoder": config},
    )


def _vit_config(settings: Mapping[str, Any], image_size: tuple[int, int]) -> dict[str, Any]:
    """LeWM's own encoder."""
    if min(image_size) < settings["patch_size"]:
        raise UsageError(
            f"frames are {image_size[0]}x{image_size[1]} pixels, smaller than one patch of {settings['patch_size']}. "
            "Raise --data.image_size or lower --model.patch_size."
        )
    return {
        "_target_": "transformers.ViTModel",
        "add_pooling_layer": False,
        "config": {
            "_target_": "transformers.ViTConfig",
            "_convert_": "all",
            "hidden_size": settings["encoder_dim"],
            "num_hidden_layers": settings["encoder_depth"],
            "num_attention_heads": settings["encoder_heads"],
            "intermediate_size": 4 * settings["encoder_dim"],
            "image_size": list(image_size),
            "patch_size": settings["patch_size"],
        },
    }


def _lewm_config(settings: Mapping[str, Any], action_dim: int, width: int) -> dict[str, Any]:
    """LeWM without its encoder, which gives ``width`` numbers per frame."""
    embed_dim = settings["embed_dim"]

    def projector(num_inputs: int) -> dict[str, Any]:
        return {
            "_target_": f"{_LEWM}.module.MLP",
            "input_dim": num_inputs,
            "hidden_dim": settings["projector_dim"],
            "output_dim": embed_dim,
            "norm_fn": {"_target_": "hydra.utils.get_class", "path": "torch.nn.BatchNorm1d"},
        }

    return {
        "_target_": f"{_LEWM}.LeWM",
        "predictor": {
            "_target_": f"{_LEWM}.module.Predictor",
            "num_frames": settings["history_size"],
            "depth": settings["predictor_depth"],
            "heads": settings["predictor_heads"],
            "dim_head": settings["predictor_head_dim"],
            "mlp_dim": settings["predictor_mlp_dim"],
            "dropout": settings["predictor_dropout"],
            "input_dim": embed_dim,
            "hidden_dim": embed_dim,
        },
        "action_encoder": {"_target_": f"{_LEWM}.module.Embedder", "input_dim": action_dim, "emb_dim": embed_dim},
        "projector": projector(width),
        "pred_proj": projector(embed_dim),
    }
