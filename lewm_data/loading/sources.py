"""The datasets to train on and their weights, parsed from any form in which a user may give them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lewm_data.errors import UsageError

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
            raise UsageError(
                f"The source is given by {' and '.join(kinds) or 'nothing'}. Give exactly one of repo_id (on the Hub), "
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
