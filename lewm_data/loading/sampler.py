"""Which windows in which order: a function of (seed, epoch, rank, world size, position), and nothing else.

The order of an epoch is a keyed permutation that needs no table, so a billion windows cost nothing, every
process computes its own batches, and a run resumes on the very next window by remembering two numbers.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lewm_data.errors import UsageError
from lewm_data.loading.mixture import Mixture
from lewm_data.loading.permutation import derive_key, hash_u64, permute


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowOrder:
    """The windows of every batch of every epoch, for one rank.

    An epoch is a sequence of positions. Position p stands for window p, or the p-th of the epoch's
    permutation, or the p-th random draw. Global batch g takes the next ``world_size * batch_size`` positions;
    of these, rank r takes every ``world_size``-th, from the r-th on. So ranks never overlap, and with equal
    batch sizes all take equally many steps.

    Attributes:
        num_windows: Windows to draw from.
        batch_size: Windows per batch and rank.
        seed: Seed of the order.
        rank: This process's number, in [0, world_size).
        world_size: Processes that share each epoch.
        shuffle: Visit the windows in random order, else in the file's.
        drop_last: Leave out the last batch where it would not be full. Otherwise its windows are shared
            evenly among the ranks, and left out only when they are fewer than the ranks.
        steps_per_epoch: Draw windows at random *with replacement*, so many batches an epoch; None visits
            every window exactly once.
        mixture: Of several datasets, how often each one's windows come; ``num_windows`` is then its number of
            places, and what is said above of windows holds for these. None has every window come alike.
    """

    num_windows: int
    batch_size: int
    seed: int = 0
    rank: int = 0
    world_size: int = 1
    shuffle: bool = True
    drop_last: bool = True
    steps_per_epoch: int | None = None
    mixture: Mixture | None = None

    def __post_init__(self) -> None:
        for name, value in (("num_windows", self.num_windows), ("batch_size", self.batch_size)):
            if value < 1:
                raise UsageError(f"{name} is {value}, but must be 1 or more.")
        if not 0 <= self.rank < self.world_size:
            raise UsageError(f"rank is {self.rank}, but must lie in [0, {self.world_size}), the world size.")
        if self.steps_per_epoch is not None and self.steps_per_epoch < 1:
            raise UsageError(f"steps_per_epoch is {self.steps_per_epoch}, but must be 1 or more.")
        if self.mixture is not None and self.mixture.num_places != self.num_windows:
            raise UsageError(
                f"num_windows is {self.num_windows}, but the mixture has {self.mixture.num_places} places."
            )

    @property
    def global_batch_size(self) -> int:
        """Windows that all ranks together take in one step."""
        return self.batch_size * self.world_size

    @property
    def fingerprint(self) -> int:
        """Equal where an epoch's positions stand for the same windows, whatever ranks and batch sizes."""
        quotas = self.mixture.quotas if self.mixture is not None else ()
        is_drawn = self.steps_per_epoch is not None
        return derive_key(self.seed, self.num_windows, self.shuffle, is_drawn, *quotas) >> 1  # fits int64

    @property
    def num_positions(self) -> int:
        """Positions in an epoch, over all ranks."""
        if self.steps_per_epoch is None:
            return self.num_windows
        return self.steps_per_epoch * self.global_batch_size

    def num_batches(self, position: int = 0) -> int:
        """Steps that are left in an epoch; the same number on every rank.

        Args:
            position: Windows of this epoch that all ranks together have taken.
        """
        full, rest = divmod(max(0, self.num_positions - position), self.global_batch_size)
        return full + (not self.drop_last and rest >= self.world_size)

    def batch(self, epoch: int, position: int) -> NDArray[np.int64]:
        """The windows of this rank's next batch.

        Args:
            epoch: Number of the epoch, from 0.
            position: Windows of this epoch that all ranks together have taken.

        Returns:
            (n,) int64 window numbers; n is ``batch_size``, or fewer in a last batch that is not dropped.
        """
        stop = min(position + self.global_batch_size, self.num_positions)
        positions = np.arange(position + self.rank, stop, self.world_size, dtype=np.int64)
        key = derive_key(self.seed, epoch)
        if self.steps_per_epoch is not None:
            places = (hash_u64(positions.astype(np.uint64), key) % np.uint64(self.num_windows)).astype(np.int64)
        else:
            places = permute(positions, self.num_windows, key) if self.shuffle else positions
        return places if self.mixture is None else self.mixture.windows(places, key)


def check_batch_size(source: str, *, num_windows: int, batch_size: int, world_size: int) -> None:
    """Makes sure that a training split gives each process one batch at least.

    Args:
        source: Where the windows come from, for the message.
        num_windows: Windows of the split.
        batch_size: Windows per batch and process.
        world_size: Processes.

    Raises:
        UsageError: It does not; says what would.
    """
    if batch_size * world_size > num_windows:
        fits = num_windows // world_size
        remedy = f"Set batch_size to {fits} or less" if fits else "Use fewer processes"
        where = f" on each of {world_size} processes" if world_size > 1 else ""
        raise UsageError(
            f"{source}: the training split has {num_windows} windows, fewer than one batch of batch_size {batch_size}"
            f"{where}. {remedy}, or lower val_fraction."
        )


class WindowSampler:
    """Where a run stands in a ``WindowOrder``: an epoch and a position. Usable as a torch batch sampler.

    Iterating yields the batches from there on and moves nothing, since loaders read ahead; what was really
    handed to the trainer is told with ``advance``.

    Attributes:
        order: The order.
        epoch: The current epoch.
        position: Windows of it that all ranks together have taken.
    """

    def __init__(self, order: WindowOrder) -> None:
        self.order = order
        self.epoch = 0
        self.position = 0
        self._begun = False

    @property
    def sampler(self) -> WindowSampler:
        """Itself: where Lightning looks for what it tells the epoch."""
        return self

    def __len__(self) -> int:
        """Batches in a whole epoch, as trainers count them, also after resuming in the middle of one."""
        return self.order.num_batches()

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        epoch, position = self.epoch, self.position
        for step in range(self.order.num_batches(position)):
            yield self.order.batch(epoch, position + step * self.order.global_batch_size)

    def begin(self) -> None:
        """Prepares a pass: the rest of the epoch after resuming, the next epoch if this one was already drawn from."""
        if self._begun or self.order.num_batches(self.position) == 0:
            self._go_to(self.epoch + 1, 0)

    def advance(self) -> None:
        """Notes that one more batch was handed out."""
        self.position += self.order.global_batch_size
        self._begun = True

    def set_epoch(self, epoch: int) -> None:
        """Goes to the start of an epoch, unless that is the current one. Lightning calls this."""
        if epoch != self.epoch:
            self._go_to(epoch, 0)

    def state_dict(self) -> dict[str, Any]:
        """What is needed to go on with the very next window, also with other workers, ranks or batch sizes."""
        over = self.order.num_batches(self.position) == 0
        position = 0 if over else self.position
        return {"epoch": self.epoch + over, "position": position, "order": self.order.fingerprint}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes to where ``state_dict`` was taken.

        Warns:
            UserWarning: That was in the middle of an epoch of other windows, or of another seed.
        """
        if state["position"] and state.get("order", self.order.fingerprint) != self.order.fingerprint:
            warnings.warn(
                f"This run goes on in the middle of epoch {state['epoch']}, but the windows, their weights or the seed "
                "are not those of the run that was saved: until this epoch ends, some windows come twice and some not "
                "at all.",
                UserWarning,
                stacklevel=2,
            )
        self._go_to(int(state["epoch"]), int(state["position"]))

    def _go_to(self, epoch: int, position: int) -> None:
        self.epoch, self.position, self._begun = epoch, position, False
