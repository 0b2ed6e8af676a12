"""Which episodes of a source a user names: ``"0:8,12"``, ``[3, "5:9"]``, ``slice(10, None)`` and the like."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lewm_data.errors import UsageError

EpisodeNumbers = str | Sequence[int | str]
"""Episodes of one source: ``"0:8,12"``, or a list of numbers and such texts. Slices and arrays are accepted too."""

Selection = EpisodeNumbers | Mapping[str, EpisodeNumbers]
"""Episodes of the only source, or a mapping of sources to their episodes."""

MAX_EPISODES = 10_000_000
"""A longer range is a slip of the keyboard, and would fill the memory."""

_PART = re.compile(r"\s*(\d{0,18})\s*(?:(:)\s*(\d{0,18})\s*)?")


@dataclass(frozen=True, slots=True)
class EpisodeSelection:
    """Episodes by number: those that are named one by one, and those from some number on.

    Attributes:
        named: Numbers that must exist.
        from_number: Takes every episode from this number on, as ``10:`` does; None takes no more than those named.
    """

    named: frozenset[int]
    from_number: int | None = None

    @classmethod
    def parse(cls, value: Any, *, setting: str) -> EpisodeSelection:
        """Reads a selection.

        Args:
            value: A number; text such as ``0:8,12`` or ``10:`` with half-open ranges; a slice; or an iterable of these.
            setting: The setting's name, for messages.

        Raises:
            UsageError: It is not such a thing, or it selects nothing.

        Example:
            >>> EpisodeSelection.parse("0:3,7", setting="val_episodes").numbers([0, 1, 2, 3, 7])
            {0, 1, 2, 7}
            >>> EpisodeSelection.parse([1, "5:"], setting="val_episodes").numbers([0, 1, 5, 6])
            {1, 5, 6}
        """
        named: set[int] = set()
        starts: list[int] = []
        for start, stop in _ranges(value, setting):
            if stop is None:
                starts.append(start)
            elif stop > MAX_EPISODES:
                raise UsageError(
                    f"{setting} names episode {stop - 1}, beyond the {MAX_EPISODES:,} that a source may have. To take "
                    f"all episodes from {start} on, write {start}: without an end."
                )
            elif stop <= start:
                raise UsageError(f"{setting}: the range {start}:{stop} is empty, since it stops before it begins.")
            else:
                named.update(range(start, stop))
        if not named and not starts:
            raise UsageError(f"{setting} is empty. Name at least one episode, such as 0:8,12, or leave it out.")
        return cls(frozenset(named), min(starts) if starts else None)

    def __str__(self) -> str:
        """Text that ``parse`` reads back."""
        rest = "" if self.from_number is None else f"{self.from_number}:"
        return ",".join(filter(None, (episodes_text(self.named), rest)))

    def numbers(self, existing: Iterable[int]) -> set[int]:
        """The existing episodes that it selects."""
        return {
            number
            for number in existing
            if number in self.named or (self.from_number is not None and number >= self.from_number)
        }


def parse_selections(value: Any, *, setting: str) -> dict[str | None, EpisodeSelection]:
    """Reads a setting such as ``val_episodes``.

    Args:
        value: A selection, or a mapping of sources to selections.
        setting: Its name, for messages.

    Returns:
        Name of the source to its selection. The name None stands for the only source.

    Raises:
        UsageError: A selection cannot be read.
    """
    if not isinstance(value, Mapping):
        return {None: EpisodeSelection.parse(value, setting=setting)}
    if not value:
        raise UsageError(f"{setting} is an empty mapping. Name at least one source, or leave it out.")
    return {str(name): EpisodeSelection.parse(chosen, setting=f"{setting} of {name}") for name, chosen in value.items()}


def episodes_text(numbers: Iterable[int]) -> str:
    """Numbers as ``EpisodeSelection.parse`` reads them: half-open ranges such as ``0:8,9``.

    Example:
        >>> episodes_text([9, 0, 1, 2])
        '0:3,9'
    """
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and ranges[-1][1] == number:
            ranges[-1][1] = number + 1
        else:
            ranges.append([number, number + 1])
    return ",".join(f"{start}:{stop}" if stop > start + 1 else str(start) for start, stop in ranges)


def _ranges(value: Any, setting: str) -> Iterable[tuple[int, int | None]]:
    """Start and end of each range, half-open. The end None stands for all further episodes."""
    if isinstance(value, str):
        yield from _parse_text(value, setting)
    elif isinstance(value, slice):
        yield _parse_slice(value, setting)
    elif hasattr(value, "tolist"):  # an array or a tensor
        yield from _ranges(value.tolist(), setting)
    elif isinstance(value, Iterable):
        for item in value:
            yield from _ranges(item, setting)
    else:
        number = _integer(value, setting)
        yield number, number + 1


def _parse_text(text: str, setting: str) -> Iterable[tuple[int, int | None]]:
    for part in text.split(","):
        match = _PART.fullmatch(part)
        if match is None or not part.strip():
            raise UsageError(
                f"{setting} is {text!r}: {part.strip()!r} is neither a number nor a range start:stop. "
                "Example: 0:8,12 takes episodes 0 to 7 and 12, and 20: takes all from 20 on."
            )
        start = int(match[1] or 0)
        if not match[2]:
            yield start, start + 1
        else:
            yield start, int(match[3]) if match[3] else None


def _parse_slice(value: slice, setting: str) -> tuple[int, int | None]:
    if value.step not in (None, 1):
        raise UsageError(f"{setting}: {value} has a step. List the numbers instead: list(range(start, stop, step)).")
    start = 0 if value.start is None else _integer(value.start, setting)
    return start, None if value.stop is None else _integer(value.stop, setting)


def _integer(value: Any, setting: str) -> int:
    if isinstance(value, bool) or type(value).__name__ in ("bool", "bool_"):
        raise UsageError(
            f"{setting} holds True or False, but takes episode numbers. From a mask: numpy.flatnonzero(mask)."
        )
    try:
        number = operator.index(value)
    except TypeError:
        raise UsageError(
            f"{setting} holds {value!r}, but takes episode numbers, slices, and text such as 0:8,12."
        ) from None
    if number < 0:
        raise UsageError(f"{setting} holds {number}, but episodes are numbered from 0, and do not count from the end.")
    return number
