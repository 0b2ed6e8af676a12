"""Does the robot move? Judged from a sample of the rows alone, with the noise floor that ``assess`` uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lewm_data.findings import Finding, finding
from lewm_data.format.motion import moving_dimensions
from lewm_data.format.schema import ACTION, STATE
from lewm_data.notation import count_of
from lewm_data.quality.assess.footage import Footage
from lewm_data.quality.assess.idle import find_idle, num_still, still_words

MAX_SAMPLE_STEPS = 50_000
"""Steps that are kept for it: 8 MB for an arm of six joints."""

IDLE_SHARE = 0.15
"""A robot that waits between two movements rests for less of the time."""

_MIN_STEPS = 40
_MAX_NAMES = 8
_THROUGHOUT = 0.95


class MotionSample:
    """Rows of evenly chosen episodes.

    Args:
        index: (E,) episode_index of every episode.
        lengths: (E,) steps of each.
    """

    def __init__(self, index: NDArray[np.int64], lengths: NDArray[np.int64]) -> None:
        share = min(1.0, MAX_SAMPLE_STEPS / max(1, int(lengths.sum())))
        count = max(1, int(len(index) * share))
        places = np.linspace(0, max(0, len(index) - 1), count).round().astype(np.int64)
        self._wanted = {int(number) for number in index[places[: len(index)]]}
        self._rows: dict[int, dict[str, NDArray[np.float64]]] = {}

    def add(self, episode: int, columns: Mapping[str, np.ndarray], parts: Mapping[str, Sequence[str]]) -> None:
        """Takes the rows of an episode, if it was chosen and all of its values are finite numbers.

        Args:
            episode: episode_index.
            columns: LeRobot's key to values of shape (L,) or (L, width).
            parts: ``action`` and ``state`` to the keys that make them up.
        """
        if episode not in self._wanted:
            return
        rows = {}
        for name in (ACTION, STATE):
            keys = parts.get(name, ())
            if any(key not in columns for key in keys):
                return
            values = [columns[key].reshape(len(columns[key]), -1)[:MAX_SAMPLE_STEPS] for key in keys]
            if values:
                rows[name] = np.concatenate(values, axis=1).astype(np.float64)
        if rows and all(np.isfinite(values).all() for values in rows.values()):
            self._rows[episode] = rows

    def findings(self, fps: float, names: Mapping[str, Sequence[str]]) -> list[Finding]:
        """What is suspicious: dimensions that never move, and a robot that stands still for long.

        Args:
            fps: Steps per second.
            names: ``action`` and ``state`` to the names of their dimensions; none where there are none.
        """
        episodes = sorted(self._rows)
        lengths = [len(next(iter(self._rows[episode].values()))) for episode in episodes]
        if sum(lengths) < _MIN_STEPS:
            return []
        episode = np.repeat(np.arange(len(episodes)), lengths)
        found = []
        columns = {name: self._column(name, episodes, len(episode)) for name in (ACTION, STATE)}
        moving = {name: moving_dimensions(values, episode, fps) for name, values in columns.items()}
        still = {  # where none moves, a finding of each episode says so
            name: _still(moves, names.get(name, ()))
            for name, moves in moving.items()
            if moves.any() and not moves.all()
        }
        if still:
            words = f"{count_of(num_still(still), 'dimension')} at rest: {still_words(still)}"
            found.append(finding("dimension_still", expected="dimensions that move more than their noise", found=words))
        if any(moves.any() for moves in moving.values()):
            found += _idle(columns, episode, np.array(episodes, np.int64), fps)
        return found

    def _column(self, name: str, episodes: Sequence[int], num_steps: int) -> NDArray[np.float64]:
        parts = [self._rows[episode][name] for episode in episodes if name in self._rows[episode]]
        return np.concatenate(parts) if parts else np.empty((num_steps, 0))


def _still(moves: NDArray[np.bool_], names: Sequence[str]) -> list[str]:
    still = np.flatnonzero(~moves).tolist()
    return [names[place] if len(names) == len(moves) else f"number {place}" for place in still]


def _idle(
    columns: Mapping[str, NDArray[np.float64]], episode: NDArray[np.int64], numbers: NDArray[np.int64], fps: float
) -> list[Finding]:
    footage = Footage(
        name="", fps=fps, episode=episode, numbers=numbers, action=columns[ACTION], state=columns[STATE], names={}
    )
    idle = find_idle(footage)
    if idle.share < IDLE_SHARE:
        return []
    shares = np.bincount(episode, idle.is_idle) / np.bincount(episode)
    throughout = numbers[shares >= _THROUGHOUT].tolist()
    words = f"state and action at rest in {idle.share:.0%} of the steps"
    if throughout:
        more = ", ..." if len(throughout) > _MAX_NAMES else ""
        words += f", and throughout {'episode' if len(throughout) == 1 else 'episodes'} "
        words += ", ".join(map(str, throughout[:_MAX_NAMES])) + more
    return [finding("robot_idle", expected=f"a robot at rest in less than {IDLE_SHARE:.0%} of the steps", found=words)]
