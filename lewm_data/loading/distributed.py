"""Which of how many training processes this one is."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from lewm_data.resources import num_cpus

if TYPE_CHECKING:
    import lightning

_MOST_WORKERS = 16


@dataclass(frozen=True, slots=True)
class World:
    """The training processes of a run.

    Attributes:
        rank: This process's number, in [0, size).
        size: Processes of the run.
        num_local: Of them, those on this node.
    """

    rank: int
    size: int
    num_local: int

    @classmethod
    def of(cls, trainer: lightning.Trainer | None) -> World:
        """Asks the trainer, or torch where there is none."""
        num_local = int(os.environ.get("LOCAL_WORLD_SIZE", 0))  # torchrun's
        if trainer is not None:
            return cls(int(trainer.global_rank), int(trainer.world_size), num_local or int(trainer.num_devices))
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return cls(torch.distributed.get_rank(), torch.distributed.get_world_size(), num_local or 1)
        return cls(0, 1, 1)

    @property
    def num_workers(self) -> int:
        """Workers for a loader of this process: its share of the processors, at most 16."""
        return max(1, min(_MOST_WORKERS, num_cpus() // self.num_local))
