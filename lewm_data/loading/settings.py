"""The data module's settings: the datasets, checked before anything is read, and what checkpoints keep."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from lewm_data.errors import UsageError, redact
from lewm_data.loading.episode_selection import parse_selections
from lewm_data.loading.loader import WorkerType
from lewm_data.loading.ram_cache import CacheMode
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


Source = str | Path | Sequence[str | Path] | Mapping[str, float]
"""One dataset, or several, or a mapping of several to their weights."""


@dataclass(frozen=True, slots=True)
class Sources:
    """Datasets to train on.

    Attributes:
        kind: What the names are: ``repo_id``, ``root`` or ``h5_path``.
        names: Repo ids or paths, each once.
        weights: Positive weight of each. None visits every window of all datasets once per epoch.
    """

    kind: str
    names: tuple[str, ...]
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not self.names or not all(self.names):
            raise UsageError(f"{self.kind} is empty. Name at least one dataset.")
        for name in self.names:
            if self.names.count(name) > 1:
                raise UsageError(
                    f"{self.kind} names {name} twice. Name each dataset once; to draw more from one, give weights: "
                    f"{{{name}: 2, ...}}."
                )
            if self.kind != "h5_path" and name.lower().endswith((".h5", ".hdf5")):
                raise UsageError(
                    f"{self.kind} is {name}, which looks like a converted file. Pass it by name: h5_path={name!r}."
                )
        for name, weight in zip(self.names, self.weights or (), strict=False):
            if not (math.isfinite(weight) and weight > 0):
                raise UsageError(
                    f"{self.kind} gives {name} the weight {weight}, but a weight is a number above 0. To train without "
                    "a dataset, leave it out."
                )

    @classmethod
    def parse(cls, **given: Source | None) -> Sources:
        """Parses the data module's arguments.

        Args:
            **given: Each kind with one dataset, several, or several with weights. None or empty if not given.

        Returns:
            The datasets.

        Raises:
            UsageError: Not exactly one kind is given, a dataset is named twice, or a weight is not above 0.
        """
        kinds = [kind for kind, value in given.items() if value is not None and value != ""]
        if len(kinds) != 1:
            found = f"The source is given by {' and '.join(kinds)}" if kinds else "No source is given"
            raise UsageError(
                f"{found}. Give exactly one of repo_id (on the Hub), "
                "root (a local LeRobot folder) and h5_path (a converted file)."
            )
        [kind] = kinds
        value = given[kind]
        assert value is not None
        if isinstance(value, (str, Path)):
            return cls(kind, (str(value),))
        if not isinstance(value, (Mapping, Sequence)):
            raise UsageError(
                f"{kind} is {value!r}, but must be a name or path, a list of them, or a mapping to weights."
            )
        weights = tuple(float(weight) for weight in value.values()) if isinstance(value, Mapping) else None
        return cls(kind, tuple(str(name) for name in value), weights)

    def __str__(self) -> str:
        return ", ".join(self.names)


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


def list_of_names(value: Any) -> tuple[str, ...]:
    """Reads a list of names, which may be one text with commas."""
    return tuple(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else tuple(value)


class PlainSettings(dict[str, Any]):
    """Settings for ``save_hyperparameters``, which compares them with every argument of ``__init__``.

    An argument may be an array of episodes, whose ``==`` would give an array instead of False.
    """

    __array_ufunc__ = None  # numpy leaves the comparison to dict then


def plain_settings(settings: Mapping[str, Any]) -> PlainSettings:
    """Settings for checkpoints and loggers: text, numbers, lists and dictionaries, without secrets.

    Args:
        settings: The arguments of ``LeWMDataModule``. ``remote``, which may hold credentials, and ``train_transform``
            are left out.
    """
    plain = PlainSettings()
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
