"""lewm_data: LeRobot datasets in, random windows for a JEPA out, at the speed of memory.

The public names are handed on lazily (PEP 562), so that converting a dataset never imports torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from lewm_data.config import ConvertConfig, RemoteConfig
    from lewm_data.conversion.pipeline import convert
    from lewm_data.datamodule import LeWMDataModule
    from lewm_data.loading.batches import whole_batch
    from lewm_data.loading.dataset import WindowDataset

_HOMES = {
    "ConvertConfig": "lewm_data.config",
    "LeWMDataModule": "lewm_data.datamodule",
    "RemoteConfig": "lewm_data.config",
    "WindowDataset": "lewm_data.loading.dataset",
    "convert": "lewm_data.conversion.pipeline",
    "whole_batch": "lewm_data.loading.batches",
}

__all__ = ["ConvertConfig", "LeWMDataModule", "RemoteConfig", "WindowDataset", "__version__", "convert", "whole_batch"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'lewm_data' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
