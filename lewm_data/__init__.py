"""lewm_data: LeRobot datasets in, random windows for a JEPA out, at the speed of memory.

Public names load on first use (PEP 562), so converting a dataset never imports torch.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if sys.platform == "win32":
    _REFUSAL = "lewm_data runs on Linux and macOS. On Windows, use the Windows Subsystem for Linux (WSL)."
    if sys.argv[0] == "-m" or "lewm-data" in sys.argv[0]:  # started as a command, which needs no traceback
        sys.exit(f"error: {_REFUSAL}")
    raise ImportError(_REFUSAL)

if TYPE_CHECKING:
    from lewm_data.api import assess, convert, inspect, merge, preview, verify
    from lewm_data.config import ConvertConfig
    from lewm_data.datamodule import LeWMDataModule
    from lewm_data.loading.batches import whole_batch
    from lewm_data.loading.dataset import WindowDataset
    from lewm_data.loading.remote.config import RemoteConfig

_MODULES = {
    "ConvertConfig": "lewm_data.config",
    "LeWMDataModule": "lewm_data.datamodule",
    "RemoteConfig": "lewm_data.loading.remote.config",
    "WindowDataset": "lewm_data.loading.dataset",
    "assess": "lewm_data.api",
    "convert": "lewm_data.api",
    "inspect": "lewm_data.api",
    "merge": "lewm_data.api",
    "preview": "lewm_data.api",
    "verify": "lewm_data.api",
    "whole_batch": "lewm_data.loading.batches",
}
"""Public name to the module that defines it."""

__all__ = [
    "ConvertConfig",
    "LeWMDataModule",
    "RemoteConfig",
    "WindowDataset",
    "__version__",
    "assess",
    "convert",
    "inspect",
    "merge",
    "preview",
    "verify",
    "whole_batch",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'lewm_data' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
