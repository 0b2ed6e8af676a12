"""How to split episodes into training, validation and test: a function of an episode's source and number only."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lewm_data.errors import UsageError
from lewm_data.loading.episode_selection import EpisodeSelection, Selection, parse_selections
from lewm_data.loading.permutation import hash_u64

Side = Literal["train", "val", "test"]
SIDES: tuple[Side, ...] = ("train", "val", "test")

_SPLIT_SALT = 0x5EED_0F_5B11
_FOLD_SALT = 0x5EED_0F_F01D
_MAX_FOLDS = 1_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitRule:
    """Which episodes train, which validate, and which are for the final test.

    Episodes that a list names are on its side. Of the others, ``val_episodes``, ``fold`` or ``val_fraction`` decides
    which validate; the rest trains, unless ``train_episodes`` names the only ones that do.

    Attributes:
        seed: Seed of ``val_fraction`` and ``fold``.
        val_fraction: Share of the episodes that validate, in [0, 1). ``val_episodes`` and ``fold`` take its place.
        fold: ``(i, k)`` or ``"i/k"``: the i-th of k folds validates, with i from 0 to k - 1.
        train_episodes: The only episodes to train on.
        val_episodes: The only episodes that validate.
        test_episodes: Episodes that neither train nor validate.
    """

    seed: int
    val_fraction: float = 0.1
    fold: tuple[int, int] | str | None = None
    train_episodes: Selection | None = None
    val_episodes: Selection | None = None
    test_episodes: Selection | None = None
    named: Mapping[Side, Mapping[str | None, EpisodeSelection]] = field(init=False, repr=False, compare=False)
    """What the lists name: side to source to episodes."""

    def __post_init__(self) -> None:
        _check_fraction(self.val_fraction)
        if self.fold is not None:
            object.__setattr__(self, "fold", parse_fold(self.fold))
            for name in ("train_episodes", "val_episodes"):
                if getattr(self, name) is not None:
                    raise UsageError(
                        f"fold and {name} are both given, and both say which episodes validate. Give one of them; "
                        "test_episodes may stand next to fold."
                    )
        lists = {"train": self.train_episodes, "val": self.val_episodes, "test": self.test_episodes}
        named = {
            side: parse_selections(value, setting=f"{side}_episodes")
            for side, value in lists.items()
            if value is not None
        }
        object.__setattr__(self, "named", named)

    @property
    def is_by_fraction(self) -> bool:
        """Whether ``val_fraction`` decides which episodes validate."""
        return self.fold is None and self.val_episodes is None

    @property
    def wants_validation(self) -> bool:
        """Whether some episodes should validate."""
        return not self.is_by_fraction or self.val_fraction > 0

    def validates(self, numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which episodes validate if no list names them.

        Args:
            numbers: (E,) int64 ``episode_index`` of each episode in its source.

        Returns:
            (E,) bool.
        """
        if self.val_episodes is not None:
            return np.zeros(len(numbers), np.bool_)
        if self.fold is not None:
            fold, num_folds = parse_fold(self.fold)
            return fold_of(numbers, num_folds=num_folds, seed=self.seed) == fold
        return is_validation(numbers, val_fraction=self.val_fraction, seed=self.seed)

    def __str__(self) -> str:
        """The settings that decide, in words."""
        by_seed = f"fold {self.fold}" if self.fold is not None else f"val_fraction {self.val_fraction}"
        parts = [f"{side}_episodes" for side in SIDES if side in self.named]
        parts += [] if self.val_episodes is not None else [f"{by_seed} and seed {self.seed}"]
        return ", ".join(parts)


def parse_fold(value: Any) -> tuple[int, int]:
    """Reads ``(i, k)`` or ``"i/k"``: the i-th of k folds.

    Raises:
        UsageError: It is not such a thing, or i is not in [0, k), or k is below 2.
    """
    numbers = re.fullmatch(r"\s*(\d{1,9})\s*/\s*(\d{1,9})\s*", value) if isinstance(value, str) else None
    try:
        fold, num_folds = map(int, numbers.groups() if numbers else value)
    except (TypeError, ValueError):
        fold, num_folds = -1, 0
    if not 0 <= fold < num_folds or not 2 <= num_folds <= _MAX_FOLDS:
        raise UsageError(
            f"fold is {value!r}, but must be (i, k) or 'i/k' with k from 2 to {_MAX_FOLDS:,} and i from 0 to k - 1. "
            "Example: (0, 5) validates on the first of five folds."
        )
    return fold, num_folds


def fold_of(source_episodes: NDArray[np.int64], *, num_folds: int, seed: int) -> NDArray[np.int64]:
    """Decides for each episode in which fold it validates.

    The numbers 0, 1, 2, ... are cut into runs of ``num_folds``. A hash of the seed and the number shuffles each run,
    and the place of an episode in its run is its fold. So the folds of the episodes 0 to E - 1 differ in size by no
    more than one, and a later recording moves no earlier episode.

    Args:
        source_episodes: (E,) int64 ``episode_index`` of each episode in its source.
        num_folds: 2 or more.
        seed: Selects the folds.

    Returns:
        (E,) int64 in [0, num_folds).

    Example:
        >>> fold_of(np.arange(8), num_folds=3, seed=3072).tolist()
        [0, 2, 1, 0, 2, 1, 2, 0]
    """
    run, place = np.divmod(source_episodes, num_folds)
    runs, row = np.unique(run, return_inverse=True)
    members = runs[:, None] * num_folds + np.arange(num_folds)
    hashes = hash_u64(members.astype(np.uint64).reshape(-1), seed ^ _FOLD_SALT).reshape(members.shape)
    folds: NDArray[np.int64] = hashes.argsort(axis=1).argsort(axis=1)[row, place]
    return folds


def is_validation(source_episodes: NDArray[np.int64], *, val_fraction: float, seed: int) -> NDArray[np.bool_]:
    """Decides for each episode whether it validates or trains.

    The numbers 0, 1, 2, ... are cut into runs of ``1 / val_fraction`` (give or take one if that is not a whole number).
    A hash of the seed and the run's number draws one episode of each run. The first run draws from its first two only.

    So an episode falls on the same side in every file that holds it, in any order, whatever other episodes are there,
    and however long the windows are. Of the episodes 0 to E - 1 the share is exact to one episode, and two of them
    are enough for both sides to have one.

    Args:
        source_episodes: (E,) int64 ``episode_index`` of each episode in its source.
        val_fraction: Share of the episodes that validate, in [0, 1); 0 trains on all.
        seed: Selects the split.

    Returns:
        (E,) whether each episode validates.

    Raises:
        UsageError: ``val_fraction`` is out of range.

    Example:
        >>> is_validation(np.arange(10), val_fraction=0.2, seed=3072).nonzero()[0].tolist()
        [1, 8]
        >>> is_validation(np.array([8, 4, 1]), val_fraction=0.2, seed=3072).tolist()
        [True, False, True]
    """
    _check_fraction(val_fraction)
    if val_fraction == 0:
        return np.zeros(len(source_episodes), np.bool_)

    def start_of(run: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.ceil(run / val_fraction).astype(np.int64)

    run = np.floor(source_episodes * val_fraction).astype(np.int64)
    run += start_of(run + 1) <= source_episodes  # the product is rounded
    run -= start_of(run) > source_episodes
    start = start_of(run)
    num_choices = start_of(run + 1) - start
    num_choices = np.where(run == 0, np.minimum(num_choices, 2), num_choices)
    hashes = hash_u64(run.astype(np.uint64), seed ^ _SPLIT_SALT)
    drawn = start + (hashes % num_choices.astype(np.uint64)).astype(np.int64)
    validates: NDArray[np.bool_] = drawn == source_episodes
    return validates


def _check_fraction(val_fraction: float) -> None:
    if not 0 <= val_fraction < 1:
        raise UsageError(f"val_fraction is {val_fraction}, but must lie in [0, 1); 0 trains on every episode.")
