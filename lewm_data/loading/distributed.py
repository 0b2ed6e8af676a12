"""Rank and size of a distributed run, from the trainer or from torch."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from lewm_data.resources import MAX_WORKERS, num_cpus

if TYPE_CHECKING:
    import lightning


@dataclass(frozen=True, slots=True)
class DistributedInfo:
    """This process's place among the processes of a training run.

    Attributes:
        rank: This process's number, in [0, world_size).
        world_size: Number of processes in the run.
        num_local: How many of them run on this node.
    """

    rank: int
    world_size: int
    num_local: int

    @classmethod
    def of(cls, trainer: lightning.Trainer | None) -> DistributedInfo:
        """Asks the trainer; without one, asks ``torch.distributed``."""
        num_local = int(os.environ.get("LOCAL_WORLD_SIZE", 0))  # set by torchrun
        if trainer is not None:
            return cls(int(trainer.global_rank), int(trainer.world_size), num_local or int(trainer.num_devices))
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return cls(torch.distributed.get_rank(), torch.distributed.get_world_size(), num_local or 1)
        return cls(0, 1, 1)

    @property
    def num_workers(self) -> int:
        """Default number of loader workers: this process's share of the processors, at most ``MAX_WORKERS``."""
        return max(1, min(MAX_WORKERS, num_cpus() // self.num_local))
