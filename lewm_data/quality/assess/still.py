"""The words for dimensions that never move: a joint that rests in action and in state is one joint, named once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

MAX_NAMES = 8


def still_words(still: Mapping[str, Sequence[str]]) -> str:
    """Names the dimensions that never move, such as ``wrist_roll.pos in action and state; aux in state``.

    Args:
        still: ``action`` and ``state`` to the names of their dimensions that never move.

    Returns:
        Each name once, the first ``MAX_NAMES`` of them; empty if all dimensions move.
    """
    columns_of: dict[str, list[str]] = {}
    for column, names in still.items():
        for name in dict.fromkeys(names):
            columns_of.setdefault(name, []).append(column)
    groups: dict[str, list[str]] = {}
    for name, columns in list(columns_of.items())[:MAX_NAMES]:
        groups.setdefault(" and ".join(columns), []).append(name)
    more = f"; and {len(columns_of) - MAX_NAMES} more" if len(columns_of) > MAX_NAMES else ""
    return "; ".join(f"{', '.join(names)} in {columns}" for columns, names in groups.items()) + more


def num_still(still: Mapping[str, Sequence[str]]) -> int:
    """Counts the dimensions that never move, each name once."""
    return len({name for names in still.values() for name in names})
