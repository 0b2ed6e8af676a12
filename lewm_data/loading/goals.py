"""Goals: a later frame of each window's episode, chosen by one random number per window."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from lewm_data.errors import UsageError

_FORMS = '"uniform", or "geometric:DISCOUNT" with a discount between 0 and 1, such as "geometric:0.98"'


@dataclass(frozen=True, slots=True)
class Goal:
    """How far ahead of a window its goal lies.

    Attributes:
        discount: Chance that the goal lies further ahead than any given step, in (0, 1). A goal beyond the episode's
            end becomes its last step, as in OGBench. None draws all later steps of the episode equally often.
    """

    discount: float | None = None

    @classmethod
    def parse(cls, text: str) -> Goal:
        """Parses ``uniform`` or ``geometric:0.98``.

        Raises:
            UsageError: The text is neither.
        """
        name, _, number = text.partition(":") if isinstance(text, str) else ("", "", "")
        if (name, number) == ("uniform", ""):
            return cls()
        try:
            discount = float(number)
        except ValueError:
            discount = math.nan
        if name != "geometric" or not 0 < discount < 1:
            raise UsageError(f"goal is {text!r}, but must be {_FORMS}.")
        return cls(discount)

    def __str__(self) -> str:
        return "uniform" if self.discount is None else f"geometric:{self.discount:g}"

    def steps(self, draws: NDArray[np.uint64], steps_left: NDArray[np.int64]) -> NDArray[np.int64]:
        """Chooses the goals of windows.

        Args:
            draws: (B,) random numbers, uniform over all 64 bits.
            steps_left: (B,) steps of the episode after each window's last frame, 0 or more.

        Returns:
            (B,) int64 in [1, steps_left]; 0 where no step is left, so that the last frame is its own goal.

        Example:
            >>> draws = np.array([0, 2**63, 2**64 - 1], np.uint64)
            >>> Goal().steps(draws, np.array([10, 10, 10])).tolist()
            [1, 6, 10]
        """
        share = (draws >> np.uint64(11)).astype(np.float64) * 2.0**-53  # in [0, 1)
        if self.discount is None:
            steps = 1 + np.floor(share * steps_left)
        else:
            steps = 1 + np.floor(np.log1p(-share) / math.log(self.discount))
        return np.minimum(steps, steps_left).astype(np.int64)


def draws_from_torch(num_windows: int) -> NDArray[np.uint64]:
    """Random numbers for windows that are read outside of a run. ``torch.manual_seed`` repeats them.

    Args:
        num_windows: Number of windows.

    Returns:
        (num_windows,) uint64, uniform over all 64 bits.
    """
    halves = torch.randint(1 << 32, (2, num_windows)).numpy().astype(np.uint64)
    draws: NDArray[np.uint64] = halves[0] << np.uint64(32) | halves[1]
    return draws
