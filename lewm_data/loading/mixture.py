"""How often an epoch visits the windows of each of several datasets: pure arithmetic, no table."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lewm_data.errors import UsageError
from lewm_data.loading.permutation import derive_key, permute


@dataclass(frozen=True, slots=True)
class Mixture:
    """Each dataset's share of an epoch.

    An epoch has as many places as there are windows. Each dataset has a quota of them, and the quotas are in
    proportion to the weights, to the nearest window. A dataset with n windows and quota q gives each window
    ``q // n`` times, and ``q % n`` of them, others in each epoch, once more. So shares are exact and not only
    expected, no window of a dataset comes twice before each has come once, and where the weights are
    proportional to the windows every window comes once.

    Attributes:
        num_windows: Windows of each dataset; they are numbered dataset after dataset.
        quotas: Places of each dataset in an epoch.
    """

    num_windows: tuple[int, ...]
    quotas: tuple[int, ...]

    @classmethod
    def weighted(cls, num_windows: Sequence[int], weights: Sequence[float]) -> Mixture:
        """Gives each dataset its quota, by the largest remainder.

        Args:
            num_windows: Windows of each dataset, 1 or more.
            weights: Weight of each, above 0; only their proportions count.

        Returns:
            The mixture.

        Raises:
            UsageError: The numbers are not as many, or not as large, as they should be.
        """
        if len(num_windows) != len(weights) or min(num_windows, default=0) < 1 or not min(weights, default=0) > 0:
            raise UsageError(
                f"the windows are {tuple(num_windows)} and the weights {tuple(weights)}, but each dataset has 1 window "
                "or more and a weight above 0."
            )
        num_places = sum(num_windows)
        largest = max(weights)  # first divided by it, or the sum could overflow
        total = sum(weight / largest for weight in weights)
        exact = [weight / largest / total * num_places for weight in weights]
        quotas = [int(quota) for quota in exact]
        by_remainder = sorted(range(len(exact)), key=lambda number: quotas[number] - exact[number])
        for number in itertools.islice(itertools.cycle(by_remainder), num_places - sum(quotas)):
            quotas[number] += 1
        return cls(tuple(num_windows), tuple(quotas))

    @property
    def num_places(self) -> int:
        """Places in an epoch."""
        return sum(self.quotas)

    def visits(self) -> tuple[float, ...]:
        """How often an epoch visits a window of each dataset, on average."""
        return tuple(quota / num for quota, num in zip(self.quotas, self.num_windows, strict=True))

    def windows(self, places: NDArray[np.int64], key: int) -> NDArray[np.int64]:
        """The windows at some places.

        Args:
            places: (B,) int64 in [0, num_places), dataset after dataset.
            key: The epoch's; it decides which windows come once more than others.

        Returns:
            (B,) int64 window numbers.
        """
        windows = np.empty_like(places)
        part_of_place = np.searchsorted(np.cumsum(self.quotas), places, side="right")
        for number in np.unique(part_of_place).tolist():
            chosen = part_of_place == number
            num = self.num_windows[number]
            rounds, local = np.divmod(places[chosen] - sum(self.quotas[:number]), num)
            is_extra = rounds == self.quotas[number] // num
            local[is_extra] = permute(local[is_extra], num, derive_key(key, number))
            windows[chosen] = local + sum(self.num_windows[:number])
        return windows
