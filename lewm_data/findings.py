"""A finding is one thing that is wrong, or suspicious, in a dataset; and what a dirty-episode policy does about it.

``lewm_data.catalog`` lists every kind of finding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

from lewm_data.catalog import CATALOG, Severity
from lewm_data.errors import DirtyDataError
from lewm_data.notation import episode_ranges

DirtyEpisodePolicy = Literal["fail", "skip", "keep"]
POLICIES: tuple[str, ...] = get_args(DirtyEpisodePolicy)

Handling = Literal["refused", "dropped", "kept", "recorded"]


class Verdict(NamedTuple):
    """The conclusion from a set of findings.

    Attributes:
        level: ``good``: nothing to do; ``fair``: look at it or choose first; ``bad``: unusable as it is.
        sentence: The reason, in one line.
        next: A command to type next; empty if there is none.
    """

    level: Literal["good", "fair", "bad"]
    sentence: str
    next: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that is wrong, or suspicious, in a source dataset.

    Attributes:
        code: Stable name from the catalog, such as ``rows_missing``.
        severity: ``error``: cannot be converted truthfully; ``warning``: converted and recorded.
        episode: The source's episode_index, or None if the finding concerns the whole dataset.
        step: The step of the episode where it begins; None if it concerns no single step.
        file: Path within the dataset's folder, or None.
        expected: What should have been there, in words.
        found: What was there, in words.
        remedy: What the reader can do about it.
        handling: What the dirty-episode policy did about it.
        is_skippable: For an error without an episode: the listed episodes are complete even so, and ``skip`` and
            ``keep`` convert them.
    """

    code: str
    severity: Severity
    episode: int | None = None
    step: int | None = None
    file: str | None = None
    expected: str
    found: str
    remedy: str
    handling: Handling = "recorded"
    is_skippable: bool = False

    def sentence(self) -> str:
        """The finding in one line, as errors and logs print it."""
        subject = "dataset" if self.episode is None else f"episode {self.episode}"
        where = f" ({self.file})" if self.file else ""
        return f"{subject}: {self.code}: expected {self.expected}, found {self.found}{where}. {self.remedy}"

    def to_json(self) -> dict[str, Any]:
        """All attributes as a JSON-ready dictionary."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Finding:
        """Rebuilds a finding from ``to_json``, ignoring keys of later versions."""
        known = {f.name for f in dataclasses.fields(cls)}
        return cls(**{key: value for key, value in data.items() if key in known})


def finding(
    code: str,
    *,
    expected: str,
    found: str,
    episode: int | None = None,
    step: int | None = None,
    file: str | None = None,
    remedy: str | None = None,
    is_skippable: bool = False,
) -> Finding:
    """Makes a finding of a kind that the catalog lists.

    Args:
        code: A key of ``CATALOG``.
        expected: What should have been there, in words.
        found: What was there, in words.
        episode: The source's episode_index; None for the whole dataset.
        step: The step of the episode, if it concerns one.
        file: Path within the dataset's folder.
        remedy: What to do in this case; None takes the catalog's remedy.
        is_skippable: Whether ``skip`` and ``keep`` convert the other episodes.

    Returns:
        The finding, with the catalog's severity.
    """
    rule = CATALOG[code]
    return Finding(
        code=code,
        severity=rule.severity,
        episode=episode,
        step=step,
        file=file,
        expected=expected,
        found=found,
        remedy=rule.remedy if remedy is None else remedy,
        is_skippable=is_skippable,
    )


HANDLED = {
    "refused": "refuses the dataset",
    "dropped": "dropped",
    "kept": "kept and marked",
    "recorded": "recorded",
}
"""What the policy did about a finding, in words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FindingGroup:
    """Findings of one code with the same handling.

    Attributes:
        first: The first of them, as an example.
        count: How many findings the group holds.
        episodes: episode_index of each episode concerned, ascending.
    """

    first: Finding
    count: int
    episodes: tuple[int, ...]

    def where(self, most: int = 6) -> str:
        """The episodes concerned, in words, as no more than ``most`` ranges."""
        if not self.episodes:
            return "the whole dataset"
        return f"{'episode' if len(self.episodes) == 1 else 'episodes'} {episode_ranges(self.episodes, most)}"


def group_findings(findings: Iterable[Finding]) -> list[FindingGroup]:
    """Groups findings by code and handling.

    Returns:
        Errors first; otherwise in the order of each group's first finding.
    """
    groups: dict[tuple[str, str], list[Finding]] = {}
    for found in findings:
        groups.setdefault((found.code, found.handling), []).append(found)
    made = [
        FindingGroup(
            first=members[0],
            count=len(members),
            episodes=tuple(sorted({found.episode for found in members if found.episode is not None})),
        )
        for members in groups.values()
    ]
    return sorted(made, key=lambda group: group.first.severity != "error")


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


def dirty_error(source: str, refused: Sequence[Finding], findings: Sequence[Finding]) -> DirtyDataError:
    """Makes the error that refuses a dataset. It states the first reason and carries all findings."""
    first = refused[0].sentence() if refused else "No episode has a frame for every row."
    more = f" ({len(refused) - 1} more in the report)" if len(refused) > 1 else ""
    return DirtyDataError(
        f"{source}: refused: better no data than toxic data. {first}{more}",
        [found.to_json() for found in findings],
    )


def _handling(found: Finding, policy: DirtyEpisodePolicy) -> Handling:
    if found.severity == "warning":
        return "recorded"
    if policy == "fail":
        return "refused"
    if policy == "keep" and CATALOG[found.code].keepable:
        return "kept"
    return "dropped" if found.episode is not None or found.is_skippable else "refused"
