"""How often an epoch visits the windows of each of several datasets: pure arithmetic, without a table."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lewm_data.errors import UsageError
from lewm_data.format.segments import group_by_segment
from lewm_data.loading.permutation import derive_key, permute


@dataclass(frozen=True, slots=True)
class Mixture:
    """Each dataset's share of an epoch.

    An epoch makes as many draws as there are windows. Each dataset has a quota of them, in proportion to its weight and
    rounded to whole draws. With n windows and quota q, a dataset gives each window ``q // n`` times, and ``q % n`` of
    its windows once more. Each epoch selects different ones for that. So the shares are exact, no window of a dataset
    comes twice before each has come once, and with weights in proportion to the windows every window comes once.

    Attributes:
        num_windows: Number of windows of each dataset. Windows are numbered dataset after dataset.
        quotas: Number of draws from each dataset in an epoch.
    """

    num_windows: tuple[int, ...]
    quotas: tuple[int, ...]

    @classmethod
    def weighted(cls, num_windows: Sequence[int], weights: Sequence[float]) -> Mixture:
        """Gives each dataset its quota, by the largest-remainder method.

        Args:
            num_windows: Number of windows of each dataset, 1 or more.
            weights: Weight of each dataset, above 0. Only their ratios matter.

        Returns:
            The mixture.

        Raises:
            UsageError: The counts differ, or a number is too small.
        """
        if len(num_windows) != len(weights) or min(num_windows, default=0) < 1 or not min(weights, default=0) > 0:
            raise UsageError(
                f"The window counts are {tuple(num_windows)} and the weights {tuple(weights)}, but each dataset needs "
                "at least 1 window and a weight above 0."
            )
        num_draws = sum(num_windows)
        largest = max(weights)  # dividing by it first keeps the sum from overflowing
        total = sum(weight / largest for weight in weights)
        exact = [weight / largest / total * num_draws for weight in weights]
        quotas = [int(quota) for quota in exact]
        by_remainder = sorted(range(len(exact)), key=lambda number: quotas[number] - exact[number])
        for number in itertools.islice(itertools.cycle(by_remainder), num_draws - sum(quotas)):
            quotas[number] += 1
        return cls(tuple(num_windows), tuple(quotas))

    @property
    def num_draws(self) -> int:
        """Number of draws in an epoch."""
        return sum(self.quotas)

    def visits(self) -> tuple[float, ...]:
        """How often an epoch visits a window of each dataset, on average."""
        return tuple(quota / num for quota, num in zip(self.quotas, self.num_windows, strict=True))

    def windows(self, draws: NDArray[np.int64], key: int) -> NDArray[np.int64]:
        """Maps draws to windows.

        Args:
            draws: (B,) int64 in [0, num_draws), dataset after dataset.
            key: The epoch's key. It selects the windows that come once more than the others.

        Returns:
            (B,) int64 window numbers.
        """
        windows = np.empty_like(draws)
        for number, chosen, own_draws in group_by_segment(draws, np.cumsum(self.quotas)):
            num = self.num_windows[number]
            rounds, local = np.divmod(own_draws, num)
            is_extra = rounds == self.quotas[number] // num
            local[is_extra] = permute(local[is_extra], num, derive_key(key, number))
            windows[chosen] = local + sum(self.num_windows[:number])
        return windows
