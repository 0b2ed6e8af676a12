"""A pretrained vision transformer: any that transformers loads, behind the call that LeWM makes."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from lewm_data.errors import UsageError
from lewm_data.loading.normalizer import IMAGENET_MEAN, IMAGENET_STD

_PROCESSORS = ("preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json")
_VIDEO = "pixel_values_videos"


class PretrainedEncoder(nn.Module):
    """Features of a frame: the class token, if the network has one, and the mean of the patch tokens.

    DINOv2's authors evaluate linear classifiers on these two. The frames of a batch are normalized with ImageNet's mean
    and standard deviation; the encoder changes that to what its network was trained with.

    Attributes:
        network: transformers' network.
        is_frozen: The network stays as it was loaded: no gradients, and always in evaluation mode.
        width: Numbers per frame.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self, network: nn.Module, *, pixel_mean: Sequence[float], pixel_std: Sequence[float], freeze: bool
    ) -> None:
        """Wraps a network.

        Args:
            network: One of transformers' vision transformers.
            pixel_mean: Mean of each channel that the network expects to be subtracted, for RGB in [0, 1].
            pixel_std: Standard deviation of each channel that it expects to be divided by.
            freeze: Keep the network as it is.
        """
        super().__init__()
        self.network = network
        self.is_frozen = freeze
        scale = torch.tensor(IMAGENET_STD) / torch.tensor(pixel_std)
        shift = (torch.tensor(IMAGENET_MEAN) - torch.tensor(pixel_mean)) / torch.tensor(pixel_std)
        self.register_buffer("scale", scale.view(3, 1, 1))
        self.register_buffer("shift", shift.view(3, 1, 1))
        for name, weight in network.named_parameters():
            if freeze or name.endswith("mask_token"):  # no loss depends on a mask token
                weight.requires_grad_(False)
        accepted = inspect.signature(network.forward).parameters
        self._is_video = _VIDEO in accepted
        self._options = {"interpolate_pos_encoding": True} if "interpolate_pos_encoding" in accepted else {}
        config: Any = network.config
        self._patch = int(config.patch_size)
        self._has_class_token = not self._is_video and config.model_type != "ijepa"
        self.width = int(config.hidden_size) * (1 + self._has_class_token)
        self.train(self.training)

    @classmethod
    def load(cls, name: str, *, freeze: bool, image_size: tuple[int, int]) -> PretrainedEncoder:
        """Loads a network and its normalization from a folder or the Hub.

        Args:
            name: A folder that transformers saved, or a repo id such as ``facebook/dinov2-small``.
            freeze: Keep the network as it is.
            image_size: (height, width) of the frames, in pixels.

        Raises:
            UsageError: transformers cannot load it, it is not a vision transformer, or the frames do not fit.
        """
        from transformers import AutoModel

        try:
            network = _tower(AutoModel.from_pretrained(name))
            mean, std = _normalization(name)
        except (OSError, ValueError) as error:
            reason = str(error).strip().split("\n")[0]
            raise UsageError(
                f"model.encoder is {name!r}, which transformers cannot load ({reason}). Name a folder with config.json "
                "and weights, or a repo on the Hub such as facebook/dinov2-small."
            ) from error
        _check(name, network, image_size)
        return cls(network, pixel_mean=mean, pixel_std=std, freeze=freeze)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, freeze: bool = False) -> PretrainedEncoder:
        """Builds an encoder without its weights, for a checkpoint that has them.

        Args:
            config: The network's, from ``build_config``.
            freeze: Keep the network as it is.
        """
        from transformers import AutoConfig, AutoModel

        settings = dict(config)
        network = _tower(AutoModel.from_config(AutoConfig.for_model(settings.pop("model_type"), **settings)))
        return cls(network, pixel_mean=IMAGENET_MEAN, pixel_std=IMAGENET_STD, freeze=freeze)

    def build_config(self) -> dict[str, Any]:
        """How Hydra builds this encoder without its weights, JSON-ready."""
        network: Any = self.network
        config = json.loads(network.config.to_json_string(use_diff=False))
        return {"_target_": f"{__name__}.{type(self).__name__}.from_config", "_convert_": "all", "config": config}

    def train(self, mode: bool = True) -> PretrainedEncoder:
        """Sets training mode; a frozen network stays in evaluation mode."""
        super().train(mode)
        if self.is_frozen:
            self.network.eval()
        return self

    def forward(self, pixels: Tensor, **_: Any) -> Any:
        """Features of frames.

        Args:
            pixels: float (N, 3, H, W), normalized with ImageNet's mean and standard deviation.

        Returns:
            An object whose ``last_hidden_state`` is float (N, 1, width), where LeWM looks for the class token.
        """
        pixels = pixels * self.scale + self.shift
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.is_frozen):
            inputs = {_VIDEO: pixels[:, None], "skip_predictor": True} if self._is_video else {"pixel_values": pixels}
            tokens = self.network(**inputs, **self._options).last_hidden_state
        num_patches = (pixels.shape[-2] // self._patch) * (pixels.shape[-1] // self._patch)
        features = tokens[:, -num_patches:].mean(dim=1)
        if self._has_class_token:
            features = torch.cat([tokens[:, 0], features], dim=-1)
        return SimpleNamespace(last_hidden_state=features[:, None])


def _tower(network: Any) -> nn.Module:
    """The part of a network that sees images, without parts that features do not depend on."""
    network = getattr(network, "vision_model", network)
    for name, nothing in (("pooler", None), ("predictor", nn.Identity())):
        if hasattr(network, name):
            setattr(network, name, nothing)
    tower: nn.Module = network
    return tower


def _normalization(name: str) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and standard deviation that a network was trained with, of RGB in [0, 1]. ImageNet's if it names none."""
    from transformers.utils.hub import cached_file

    for file in _PROCESSORS:
        path = cached_file(
            name,
            file,
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        if path is None:
            continue
        settings = json.loads(Path(path).read_text())
        settings = settings.get("image_processor") or settings.get("video_processor") or settings
        if settings.get("do_normalize", True) and {"image_mean", "image_std"} <= settings.keys():
            return _three(settings["image_mean"]), _three(settings["image_std"])
        if not settings.get("do_normalize", True):
            return (0.0,) * 3, (1.0,) * 3
    return IMAGENET_MEAN, IMAGENET_STD


def _three(values: float | list[float]) -> Sequence[float]:
    return values if isinstance(values, list) else (values,) * 3


def _check(name: str, network: Any, image_size: tuple[int, int]) -> None:
    config = network.config
    if not isinstance(getattr(config, "patch_size", None), int) or not hasattr(config, "hidden_size"):
        raise UsageError(
            f"model.encoder is {name!r}, a {config.model_type}, which is not a vision transformer. Name one, such as "
            "facebook/dinov2-small."
        )
    size = getattr(config, "crop_size", None)
    if size is not None and image_size != (size, size):  # V-JEPA 2 knows the positions of its own grid alone
        raise UsageError(
            f"model.encoder {name!r} sees frames of {size}x{size} pixels only, but the data has {image_size[0]}x"
            f"{image_size[1]}. Convert with --image_size {size}."
        )
    if min(image_size) < config.patch_size:
        raise UsageError(
            f"frames are {image_size[0]}x{image_size[1]} pixels, smaller than one patch of {config.patch_size} of "
            f"model.encoder {name!r}. Raise --data.image_size."
        )
