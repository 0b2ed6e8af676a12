"""What a checkpoint records about its run's data, and how another run's data differs from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from lewm_data.errors import UsageError
from lewm_data.loading.normalizer import Normalizer
from lewm_data.loading.splits import Splits
from lewm_data.notation import episode_ranges, parse_episodes

_SAME_SHARE_OF_STD = 1e-4
"""Statistics that differ by less than this share of the standard deviation are the same, computed elsewhere."""

type Side = dict[str, set[int]]
"""Source to the numbers of its episodes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataRecord:
    """The data of a run.

    Attributes:
        files: Content fingerprint of each file; empty for a file that another program wrote.
        settings: The settings that decide which windows come in which order, by name.
        train: Episodes on the training side of the split, by source.
        val: Episodes on the validation side.
        normalizers: Column to its normalizer.
    """

    files: tuple[str, ...]
    settings: Mapping[str, Any]
    train: Side
    val: Side
    normalizers: Mapping[str, Normalizer]

    @classmethod
    def of(cls, splits: Splits, settings: Mapping[str, Any]) -> DataRecord:
        """Records splits, with episodes too short for a window, so that the length of windows makes no difference."""
        train: Side = {}
        val: Side = {}
        for file in splits.files:
            for source, validates in zip(file.sources, file.validates.tolist(), strict=True):
                (val if validates else train).setdefault(source.repo_id, set()).add(source.episode)
        return cls(
            files=tuple(store.header.fingerprint if store.header is not None else "" for store in splits.stores),
            settings=dict(settings),
            train=train,
            val=val,
            normalizers=splits.normalizers,
        )

    def state_dict(self) -> dict[str, Any]:
        """The record as lists, numbers, text and tensors. Episodes are text such as ``0:8,9``."""
        return {
            "files": list(self.files),
            "settings": dict(self.settings),
            "split": {
                name: {source: _to_text(episodes) for source, episodes in side.items()}
                for name, side in (("train", self.train), ("val", self.val))
            },
            "normalizers": {
                name: {"mean": normalizer.mean, "std": normalizer.std} for name, normalizer in self.normalizers.items()
            },
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> DataRecord | None:
        """Reads a record back; None if the checkpoint is older than records."""
        if "split" not in state:
            return None
        train, val = (
            {source: _from_text(text) for source, text in state["split"][side].items()} for side in ("train", "val")
        )
        return cls(
            files=tuple(state["files"]),
            settings=state["settings"],
            train=train,
            val=val,
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
        if (self.train, self.val) != (now.train, now.val):
            found["split"] = f"split: {self._words_for_split(now)}"
        changed = [
            name
            for name in dict.fromkeys([*self.normalizers, *now.normalizers])
            if not _is_same(self.normalizers.get(name), now.normalizers.get(name))
        ]
        if changed:
            found["normalizers"] = f"normalizers: the mean or std of {' and '.join(changed)} moved"
        return found

    def leaks(self, now: DataRecord) -> dict[str, str]:
        """How validation on other data would be contaminated: the difference ``split``, or nothing.

        Args:
            now: The data of the run that validates a model of this record's run.
        """
        return {"split": f"split: {self._words_for_split(now)}"} if _overlap(self.train, now.val) else {}

    def _words_for_split(self, now: DataRecord) -> str:
        leaked = _overlap(self.train, now.val)
        if leaked:
            return f"{_words(leaked)} validated now, but trained on before"
        moved = _overlap(self.val, now.train)
        if moved:
            return f"{_words(moved)} trained on now, but validated before"
        return (
            f"{_count(now.train)} training and {_count(now.val)} validation episodes now, but {_count(self.train)} and "
            f"{_count(self.val)} before"
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
        names = ", ".join(sorted({*accepted, *refused}))
        raise UsageError(
            f"{source}: the checkpoint was made on other data or with other settings. "
            f"{'; '.join(refused.values())}. Give each run a folder of its own (in train.py: "
            "--trainer.default_root_dir), use the settings of the "
            f"checkpoint, or accept the change with accept_changes=[{names}] (in train.py: "
            f"--data.accept_changes='[{names}]')."
        )


def _is_same(one: Normalizer | None, other: Normalizer | None) -> bool:
    if one is None or other is None:
        return one is other
    if one.mean.shape != other.mean.shape:
        return False
    scale, moved = one.std.double(), (one.mean.double() - other.mean.double()).abs()
    stretched = (scale - other.std.double()).abs()
    return bool((torch.maximum(moved, stretched) <= _SAME_SHARE_OF_STD * scale).all())


def _overlap(one: Side, other: Side) -> Side:
    shared = {source: one[source] & other[source] for source in one.keys() & other.keys()}
    return {source: episodes for source, episodes in sorted(shared.items()) if episodes}


def _count(side: Side) -> int:
    return sum(map(len, side.values()))


def _words(side: Side) -> str:
    return ", ".join(f"episode {episode_ranges(sorted(episodes))} of {source}" for source, episodes in side.items())


def _to_text(episodes: set[int]) -> str:
    """Episode numbers as half-open ranges: ``0:8,9``."""
    ranges: list[list[int]] = []
    for episode in sorted(episodes):
        if ranges and ranges[-1][1] == episode:
            ranges[-1][1] = episode + 1
        else:
            ranges.append([episode, episode + 1])
    return ",".join(f"{start}:{stop}" if stop > start + 1 else str(start) for start, stop in ranges)


def _from_text(text: str) -> set[int]:
    return {episode for part in parse_episodes(text) for episode in part}
