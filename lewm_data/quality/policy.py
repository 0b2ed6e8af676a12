"""What a dirty-episode policy makes of findings: refuse, drop, keep or record."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import NamedTuple

from lewm_data.findings import CATALOGUE, DirtyEpisodePolicy, Finding, Handling


class Decision(NamedTuple):
    """What a dirty-episode policy makes of findings.

    Attributes:
        findings: The same findings, each with its handling.
        dropped: episode_index of every episode that is left out.
        refused: Whether the dataset is not converted at all.
    """

    findings: tuple[Finding, ...]
    dropped: frozenset[int]
    refused: bool


def decide(findings: Iterable[Finding], policy: DirtyEpisodePolicy) -> Decision:
    """Applies a dirty-episode policy. Dataset-wide errors are never skippable.

    Args:
        findings: All findings of a dataset.
        policy: ``fail`` refuses on any error; ``skip`` drops the episodes that have one; ``keep`` keeps what the
            catalogue says can still be aligned, and drops the rest.
    """
    handled: list[Finding] = []
    dropped: set[int] = set()
    refused = False
    for found in findings:
        handling: Handling = "recorded"
        if found.severity == "error":
            if policy == "fail" or (found.episode is None and not (policy == "keep" and _keepable(found))):
                handling, refused = "refused", True
            elif policy == "keep" and _keepable(found):
                handling = "kept"
            else:
                handling = "dropped"
                assert found.episode is not None
                dropped.add(found.episode)
        handled.append(dataclasses.replace(found, handling=handling))
    return Decision(tuple(handled), frozenset(dropped), refused)


def _keepable(found: Finding) -> bool:
    return CATALOGUE[found.code].keepable
