"""What a checkpoint records about its run's data, and how another run's data differs from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from lewm_data.errors import UsageError
from lewm_data.loading.episode_selection import episodes_text
from lewm_data.loading.episode_split import SIDES, Side
from lewm_data.loading.file_split import SideEpisodes
from lewm_data.loading.normalizer import Normalizer
from lewm_data.loading.splits import Splits
from lewm_data.notation import episode_ranges, parse_episodes

_SAME_SHARE_OF_STD = 1e-4
"""Statistics that differ by less than this share of the standard deviation are the same, computed elsewhere."""

_USE: Mapping[Side, str] = {"train": "trained on", "val": "validated", "test": "tested"}


@dataclass(frozen=True, kw_only=True, slots=True)
class DataRecord:
    """The data of a run.

    Attributes:
        files: Content fingerprint of each file; empty for a file that another program wrote.
        settings: The settings that decide which windows come in which order, by name.
        split: Side to source to the numbers of its episodes, with those too short for a window.
        normalizers: Column to its normalizer.
    """

    files: tuple[str, ...]
    settings: Mapping[str, Any]
    split: Mapping[Side, SideEpisodes]
    normalizers: Mapping[str, Normalizer]

    @classmethod
    def of(cls, splits: Splits, settings: Mapping[str, Any]) -> DataRecord:
        """Records splits, with episodes too short for a window, so that the length of windows makes no difference."""
        return cls(
            files=tuple(store.header.fingerprint if store.header is not None else "" for store in splits.stores),
            settings=dict(settings),
            split={side: splits.source_episodes(side) for side in SIDES},
            normalizers=splits.statistics.normalizers,
        )

    def state_dict(self) -> dict[str, Any]:
        """The record as lists, numbers, text and tensors. Episodes are text such as ``0:8,9``."""
        return {
            "files": list(self.files),
            "settings": dict(self.settings),
            "split": self.split_text(),
            "normalizers": {
                name: {"mean": normalizer.mean, "std": normalizer.std} for name, normalizer in self.normalizers.items()
            },
        }

    def split_text(self) -> dict[str, dict[str, str]]:
        """Side to source to its episodes, as text such as ``0:8,9`` that ``val_episodes`` reads."""
        return {
            side: {source: episodes_text(found) for source, found in by_source.items()}
            for side, by_source in self.split.items()
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> DataRecord | None:
        """Reads a record back; None if the checkpoint is older than records."""
        if "split" not in state:
            return None
        return cls(
            files=tuple(state["files"]),
            settings=state["settings"],
            split={
                side: {source: _from_text(text) for source, text in state["split"].get(side, {}).items()}
                for side in SIDES
            },
            normalizers={
                name: Normalizer.from_tensors(saved["mean"], saved["std"])
                for name, saved in state["normalizers"].items()
            },
        )

    def differences(self, now: DataRecord) -> dict[str, str]:
        """How the data of a run that resumes differs from this record.

        Args:
            now: The data of the run that resumes.

        Returns:
            The name of each difference to a sentence: ``data``, ``split``, ``normalizers``, or the name of a setting.
        """
        found = {}
        if self.files != now.files:
            found["data"] = "data: other files, or the same converted otherwise"
        for name, value in now.settings.items():
            saved = self.settings.get(name, value)
            if saved != value:
                found[name] = f"{name}: {saved!r} in the checkpoint, {value!r} now"
        if self.split != now.split:
            found["split"] = f"split: {self._words_for_split(now)}"
        changed = [
            name
            for name in dict.fromkeys([*self.normalizers, *now.normalizers])
            if not _is_same(self.normalizers.get(name), now.normalizers.get(name))
        ]
        if changed:
            found["normalizers"] = f"normalizers: the mean or std of {' and '.join(changed)} moved"
        return found

    def leaks(self, now: DataRecord, side: Side) -> dict[str, str]:
        """How an evaluation on other data would be contaminated: the difference ``split``, or nothing.

        Args:
            now: The data of the run that evaluates a model of this record's run.
            side: What it evaluates on.
        """
        leaked = _overlap(self.split["train"], now.split[side])
        return {"split": f"split: {_moved(leaked, 'train', side)}"} if leaked else {}

    def check_normalizers(self, source: str, now: DataRecord, *, is_per_dataset: bool) -> None:
        """Refuses to evaluate a model that was trained with statistics of each dataset on other datasets.

        Args:
            source: Where the data comes from, for the message.
            now: The data to evaluate on.
            is_per_dataset: Whether its batches say which dataset a window comes from.

        Raises:
            UsageError: The number of datasets differs, or batches do not say it.
        """
        for name, normalizer in self.normalizers.items():
            if normalizer.is_per_dataset and (len(normalizer.mean) != len(now.files) or not is_per_dataset):
                raise UsageError(
                    f"{source}: the checkpoint normalizes {name} by the statistics of each of {len(normalizer.mean)} "
                    "datasets. Give the same datasets, and normalize='per_dataset' (in train.py: --data.normalize "
                    "per_dataset)."
                )

    def _words_for_split(self, now: DataRecord) -> str:
        moves: tuple[tuple[Side, Side], ...] = ("train", "val"), ("train", "test"), ("val", "train"), ("test", "train")
        for before, after in moves:
            moved = _overlap(self.split[before], now.split[after])
            if moved:
                return _moved(moved, before, after)
        counts = [", ".join(f"{_count(record.split[side])} {side}" for side in SIDES) for record in (now, self)]
        return f"episodes now: {counts[0]}; before: {counts[1]}"


def check_accepted(accepted: Sequence[str], settings: Sequence[str]) -> None:
    """Refuses names that no difference has.

    Args:
        accepted: Names of the differences that the user accepts.
        settings: Names of the settings that a record holds.

    Raises:
        UsageError: A name is unknown.
    """
    known = {*settings, "weights", "data", "split", "normalizers"}
    unknown = set(accepted) - known
    if unknown:
        raise UsageError(
            f"accept_changes names {', '.join(sorted(unknown))}, but only {', '.join(sorted(known))} can change."
        )


def check_resumable(source: str, differences: Mapping[str, str], accepted: Sequence[str]) -> None:
    """Refuses to resume with other data, unless the user accepts the differences.

    Args:
        source: Where the data comes from, for the message.
        differences: Name of each difference to a sentence, from ``DataRecord``.
        accepted: Names of the differences that the user accepts.

    Raises:
        UsageError: A difference is not accepted; names it, and the flag that accepts it.
    """
    refused = {name: words for name, words in differences.items() if name not in accepted}
    if refused:
        names = sorted({*accepted, *refused})
        raise UsageError(
            f"{source}: the checkpoint was made on other data or with other settings. "
            f"{'; '.join(refused.values())}. Give each run a folder of its own (in train.py: "
            "--trainer.default_root_dir), use the settings of the "
            f"checkpoint, or accept the change with accept_changes={names} (in train.py: "
            f"--data.accept_changes='[{', '.join(names)}]')."
        )


def _is_same(one: Normalizer | None, other: Normalizer | None) -> bool:
    if one is None or other is None:
        return one is other
    if one.mean.shape != other.mean.shape:
        return False
    scale, moved = one.std.double(), (one.mean.double() - other.mean.double()).abs()
    stretched = (scale - other.std.double()).abs()
    return bool((torch.maximum(moved, stretched) <= _SAME_SHARE_OF_STD * scale).all())


def _overlap(one: SideEpisodes, other: SideEpisodes) -> SideEpisodes:
    shared = {source: one[source] & other[source] for source in one.keys() & other.keys()}
    return {source: episodes for source, episodes in sorted(shared.items()) if episodes}


def _count(side: SideEpisodes) -> int:
    return sum(map(len, side.values()))


def _moved(episodes: SideEpisodes, before: Side, after: Side) -> str:
    words = ", ".join(f"episode {episode_ranges(sorted(found))} of {source}" for source, found in episodes.items())
    return f"{words} {_USE[after]} now, but {_USE[before]} before"


def _from_text(text: str) -> set[int]:
    return {episode for part in parse_episodes(text) for episode in part}
