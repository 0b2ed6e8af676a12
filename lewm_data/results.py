"""What the functions of ``lewm_data.api`` return: frozen values that print as a short summary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lewm_data import report
from lewm_data.conversion.comparison import Loss
from lewm_data.conversion.inspect import Inspection
from lewm_data.errors import VerificationError
from lewm_data.findings import Finding, Verdict, group_findings
from lewm_data.notation import count_of


@dataclass(frozen=True, kw_only=True, repr=False)
class InspectResult:
    """The result of ``inspect``.

    Attributes:
        inspection: Everything that is known about the source.
        shortfalls: Why the conversion does not fit into this machine's memory; empty if it fits.
    """

    inspection: Inspection
    shortfalls: tuple[str, ...]

    @property
    def findings(self) -> Sequence[Finding]:
        """What is wrong or suspicious in the dataset."""
        return self.inspection.decision.findings

    @property
    def verdict(self) -> Verdict:
        """Whether the dataset can be converted with these settings, in one sentence."""
        return report.verdict(self.inspection, self.shortfalls)

    @property
    def next_commands(self) -> list[str]:
        """Commands that make sense now, the most likely first."""
        return [command.line for command in report.next_commands(self.inspection, fits=not self.shortfalls)]

    def to_dict(self) -> dict[str, Any]:
        """The object that ``lewm-data inspect --json`` prints."""
        return {**self.inspection.to_dict(), "verdict": self.verdict.sentence}

    def __repr__(self) -> str:
        """The facts, the findings by kind, the plan, and the verdict."""
        plan = self.inspection.plan
        pairs = [*report.dataset_facts(self.inspection), *(report.plan_facts(plan) if plan else ())]
        groups = group_findings(self.findings)
        pairs += [(group.first.severity, f"{group.first.code} in {group.where()}") for group in groups]
        width = max((len(label) for label, _ in pairs), default=0) + 2
        return "\n".join([*(f"{label:<{width}}{value}" for label, value in pairs), self.verdict.sentence])


@dataclass(frozen=True, kw_only=True, repr=False)
class VerifyResult:
    """The result of ``verify``.

    Attributes:
        path: The file, or its address.
        problems: Each problem or difference as one sentence; empty if there is none.
        against: The source that the file was compared with, or None.
        frames_compared: Number of frames that were decoded from the source and compared.
        loss: The error of a lossy file's frames, if it was compared with its source; else None.
    """

    path: Path | str
    problems: tuple[str, ...]
    against: str | None
    frames_compared: int
    loss: Loss | None = None

    @property
    def is_whole(self) -> bool:
        """Whether no problem was found."""
        return not self.problems

    def raise_for_problems(self) -> None:
        """Raises an error if there are problems.

        Raises:
            VerificationError: There are problems.
        """
        if self.problems:
            raise VerificationError(
                f"{self.path}: {count_of(len(self.problems), 'problem')}, the first: {self.problems[0]}. Do not train "
                "from this file; convert the dataset again.",
                self.problems,
            )

    def to_dict(self) -> dict[str, Any]:
        """The object that ``lewm-data verify --json`` prints."""
        return {
            "path": str(self.path),
            "problems": list(self.problems),
            "against": self.against,
            "frames_compared": self.frames_compared,
            "loss": None if self.loss is None else self.loss.to_dict(),
        }

    def __repr__(self) -> str:
        """One line if the file is whole, otherwise one more line for each problem."""
        if self.problems:
            return "\n- ".join([f"{self.path} has {count_of(len(self.problems), 'problem')}:", *self.problems])
        if self.against is None:
            return f"{self.path} is whole."
        if self.loss is not None:
            count = count_of(self.frames_compared, "frame")
            return f"{self.path} is whole and agrees with {self.against} in all {count}. {self.loss}"
        return f"{self.path} is whole and equals {self.against} in all {count_of(self.frames_compared, 'frame')}."


@dataclass(frozen=True, kw_only=True, repr=False)
class MergeResult:
    """The result of ``merge``.

    Attributes:
        path: The merged file.
        num_episodes: Number of its episodes.
        inputs: The files that it was merged from.
    """

    path: Path
    num_episodes: int
    inputs: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The object that ``lewm-data merge --json`` prints."""
        return {"path": str(self.path), "num_episodes": self.num_episodes, "inputs": list(self.inputs)}

    def __repr__(self) -> str:
        """One line: the file and what it was made of."""
        return f"{self.path}: {count_of(self.num_episodes, 'episode')} from {count_of(len(self.inputs), 'file')}"
