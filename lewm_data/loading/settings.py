"""Checks of the data module's settings, before anything is read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, get_args

from lewm_data.errors import UsageError, redact
from lewm_data.loading.episode_selection import parse_selections
from lewm_data.loading.loader import WorkerType
from lewm_data.loading.ram_cache import CacheMode
from lewm_data.loading.statistics import PER_DATASET
from lewm_data.notation import check_choice, check_count

_LEAST = {"num_steps": 1, "frameskip": 1, "batch_size": 1, "steps_per_epoch": 1, "num_workers": 0}
_CHOICES: Mapping[str, tuple[object, ...]] = {
    "worker_type": get_args(WorkerType),
    "cache": get_args(CacheMode),
    "normalize": (True, False, PER_DATASET),
}


def check_settings(settings: Mapping[str, Any]) -> None:
    """Refuses numbers that are too small, and values that are not one of the choices.

    Args:
        settings: The arguments of ``LeWMDataModule``. None stands for a default.

    Raises:
        UsageError: Names the setting, its value and what it may be.
    """
    for name, least in _LEAST.items():
        if settings[name] is not None or name in ("num_steps", "frameskip", "batch_size"):
            check_count(name, settings[name], least=least)
    if not 0 <= settings["idle_weight"] <= 1:
        raise UsageError(
            f"idle_weight is {settings['idle_weight']}, but must lie in [0, 1]; 1 draws every window alike."
        )
    for name, choices in _CHOICES.items():
        check_choice(name, settings[name], choices)


def check_converted(settings: Mapping[str, Any], source: str) -> None:
    """Refuses corrections of a recording where there is only a converted file.

    Raises:
        UsageError: Names the setting.
    """
    if settings["shift"] is not None or settings["trim_idle"]:
        name = "trim_idle" if settings["shift"] is None else "shift"
        raise UsageError(
            f"{name} changes how a recording is converted, but h5_path {source} is converted already. Convert it "
            "again with --shift or --trim_idle, or leave it out."
        )


def list_of_names(value: Any) -> tuple[str, ...]:
    """Reads a list of names, which may be one text with commas."""
    return tuple(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else tuple(value)


def plain_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings for checkpoints and loggers: text, numbers, lists and dictionaries, without secrets.

    Args:
        settings: The arguments of ``LeWMDataModule``. ``remote``, which may hold credentials, and ``train_transform``
            are left out.
    """
    plain = {}
    for name, value in settings.items():
        if name in ("train_episodes", "val_episodes", "test_episodes") and value is not None:
            found = {source: str(chosen) for source, chosen in parse_selections(value, setting=name).items()}
            plain[name] = found.get(None, found)
        elif name not in ("remote", "train_transform"):
            plain[name] = _plain(value)
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, (str, os.PathLike)):
        return redact(os.fspath(value))
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
