"""Applies a dirty-episode policy to findings: refuse, drop, keep or record."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from lewm_data.catalog import CATALOG
from lewm_data.findings import DirtyEpisodePolicy, Finding, Handling


class Decision(NamedTuple):
    """The outcome of a dirty-episode policy.

    Attributes:
        findings: The same findings, each with its handling.
        dropped: episode_index of every episode that is left out.
        refused: Whether the dataset is not converted at all.
    """

    findings: tuple[Finding, ...]
    dropped: frozenset[int]
    refused: bool


def decide(findings: Iterable[Finding], policy: DirtyEpisodePolicy) -> Decision:
    """Applies a dirty-episode policy.

    An error of the whole dataset refuses it, unless the listed episodes are complete even so
    (``Finding.is_skippable``), or the policy is ``keep`` and the catalog allows it.

    Args:
        findings: All findings of a dataset.
        policy: ``fail`` refuses on any error; ``skip`` drops the episodes that have one; ``keep`` keeps
            episodes that can still be aligned according to the catalog, and drops the rest.
    """
    handled = tuple(dataclasses.replace(found, handling=_handling(found, policy)) for found in findings)
    dropped = {found.episode for found in handled if found.handling == "dropped" and found.episode is not None}
    return Decision(handled, frozenset(dropped), any(found.handling == "refused" for found in handled))


def advised_policy(findings: Sequence[Finding], num_episodes: int) -> DirtyEpisodePolicy | None:
    """The policy under which a refused dataset is best converted.

    Args:
        findings: All findings of the dataset.
        num_episodes: Its episodes.

    Returns:
        ``skip``; ``keep`` where ``skip`` would drop more than half of the episodes, and ``keep`` fewer. None where
        ``fail`` refuses nothing, or neither helps.
    """
    if not decide(findings, "fail").refused:
        return None
    skipped, kept = decide(findings, "skip"), decide(findings, "keep")
    dropped = num_episodes if skipped.refused else len(skipped.dropped)
    if not kept.refused and len(kept.dropped) < dropped and 2 * dropped > num_episodes:
        return "keep"
    return "skip" if dropped < num_episodes else None


def _handling(found: Finding, policy: DirtyEpisodePolicy) -> Handling:
    if found.severity == "warning":
        return "recorded"
    if policy == "fail":
        return "refused"
    if policy == "keep" and CATALOG[found.code].keepable:
        return "kept"
    return "dropped" if found.episode is not None or found.is_skippable else "refused"
