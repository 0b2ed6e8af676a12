"""How far training is, and how long it will take."""

from __future__ import annotations

import math
from dataclasses import dataclass

import lightning


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """Where a run stands.

    Attributes:
        step: Optimizer steps so far, with those of an interrupted run that this one continues.
        max_steps: Steps in all; None if training has no end.
        first_step: Steps that were done when this run started.
        seconds: Time since then, with validation.
    """

    step: int
    max_steps: int | None
    first_step: int
    seconds: float

    @classmethod
    def of(cls, trainer: lightning.Trainer, *, first_step: int, seconds: float) -> Progress:
        """The progress of a trainer.

        Args:
            trainer: While it trains.
            first_step: Steps that were done when this run started.
            seconds: Time since then.
        """
        total = trainer.estimated_stepping_batches
        max_steps = int(total) if math.isfinite(total) and total > 0 else None
        return cls(step=trainer.global_step, max_steps=max_steps, first_step=first_step, seconds=seconds)

    @property
    def seconds_left(self) -> float:
        """Time to the last step, at the rate so far. NaN if it is unknown."""
        done = self.step - self.first_step
        if self.max_steps is None or done < 1:
            return float("nan")
        return max(0, self.max_steps - self.step) * self.seconds / done

    def steps(self) -> str:
        """For example ``step 1,200 of 4,000 (30%)``."""
        if self.max_steps is None:
            return f"step {self.step:,}"
        return f"step {self.step:,} of {self.max_steps:,} ({self.step / self.max_steps:.0%})"

    def time(self) -> str:
        """For example ``3:20 left of 5:10``. Empty if it is unknown."""
        left = self.seconds_left
        return "" if math.isnan(left) else f"{clock(left)} left of {clock(self.seconds + left)}"


def clock(seconds: float) -> str:
    """A duration as ``0:07``, ``12:34`` or ``1:02:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
