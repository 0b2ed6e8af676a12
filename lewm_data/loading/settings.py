"""The data module's settings: checked before anything is read, passed on, and kept in checkpoints."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any, get_args

from lewm_data.errors import UsageError, redact
from lewm_data.loading.episode_selection import parse_selections
from lewm_data.loading.loader import WorkerType
from lewm_data.loading.ram_cache import CacheMode
from lewm_data.loading.sources import Sources
from lewm_data.loading.statistics import PER_DATASET
from lewm_data.notation import check_choice, check_count

RUN_SETTINGS = (
    "seed", "val_fraction", "num_steps", "frameskip", "steps_per_epoch", "normalize", "idle_weight", "goal", "augment",
)  # fmt: skip
"""Settings that must be the same when a run resumes. Batch size, workers and cache may change."""

_LEAST = {"num_steps": 1, "frameskip": 1, "batch_size": 1, "steps_per_epoch": 1, "num_workers": 0}
_CHOICES: Mapping[str, tuple[object, ...]] = {
    "worker_type": get_args(WorkerType),
    "cache": get_args(CacheMode),
    "normalize": (True, False, PER_DATASET),
}


def check_settings(settings: Mapping[str, Any]) -> None:
    """Refuses numbers that are too small, values that are not a choice, and corrections of a converted file.

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
    if settings["h5_path"] and (settings["shift"] is not None or settings["trim_idle"]):
        name = "trim_idle" if settings["shift"] is None else "shift"
        source = redact(str(Sources.parse(h5_path=settings["h5_path"])))
        raise UsageError(
            f"{name} changes how a recording is converted, but h5_path {source} is converted already. Convert it "
            "again with --shift or --trim_idle, or leave it out."
        )


def shared_settings[T](cls: type[T], settings: Mapping[str, Any], **others: Any) -> T:
    """Makes a configuration from the settings that have the names of its fields.

    Args:
        cls: A dataclass.
        settings: The arguments of ``LeWMDataModule``.
        **others: Its further fields. The rest keep their defaults.
    """
    fields = [field.name for field in dataclasses.fields(cls) if field.init]  # type: ignore[arg-type]
    return cls(**{name: settings[name] for name in fields if name in settings}, **others)


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
