"""Which episodes validate: a function of an episode's number in its source, the seed and the share only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lewm_data.errors import UsageError
from lewm_data.loading.permutation import hash_u64

_SPLIT_SALT = 0x5EED_0F_5B11


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
    if not 0 <= val_fraction < 1:
        raise UsageError(f"val_fraction is {val_fraction}, but must lie in [0, 1); 0 trains on every episode.")
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
