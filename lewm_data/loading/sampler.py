"""The order of windows: a function of (seed, epoch, rank, world size, position), and of nothing else.

The order of an epoch is a keyed permutation that needs no table. So a billion windows cost nothing, every process
computes its own batches, and a run resumes at the very next window from two numbers.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lewm_data.errors import UsageError
from lewm_data.loading.idle_windows import Thinning
from lewm_data.loading.mixture import Mixture
from lewm_data.loading.permutation import derive_key, hash_u64, permute
from lewm_data.notation import check_least

_DRAWS_SALT = 0x6F_A1


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowOrder:
    """The windows of every batch of every epoch, for one rank.

    An epoch is a sequence of positions. Position p stands for window p, for the p-th window of the epoch's
    permutation, or for the p-th random draw. Each global batch takes the next ``world_size * batch_size`` positions,
    and rank r takes every ``world_size``-th of them, starting at the r-th. So ranks never overlap, and all ranks take
    the same number of steps.

    Attributes:
        num_windows: Windows to draw from.
        batch_size: Windows per batch and rank.
        seed: Seed of the order.
        rank: This process's number, in [0, world_size).
        world_size: Number of processes that share each epoch.
        shuffle: Visit the windows in random order. Otherwise in the file's order.
        drop_last: Drop the last batch if it is not full. Otherwise the ranks share its windows evenly, and drop them
            only if there are fewer windows than ranks.
        steps_per_epoch: Draw windows at random *with replacement*, for this many batches per epoch. None visits every
            window exactly once.
        mixture: How often an epoch visits each of several datasets. ``num_windows`` is then the mixture's number of
            draws. None visits all windows equally often.
        thinning: How often an epoch draws windows without motion. ``num_windows`` is then the number of draws. None
            draws them like the others.
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
    thinning: Thinning | None = None

    def __post_init__(self) -> None:
        for name, value in (("num_windows", self.num_windows), ("batch_size", self.batch_size)):
            check_least(name, value, 1)
        if not 0 <= self.rank < self.world_size:
            raise UsageError(f"rank is {self.rank}, but must lie in [0, {self.world_size}), the world size.")
        if self.steps_per_epoch is not None:
            check_least("steps_per_epoch", self.steps_per_epoch, 1)
        if self.mixture is not None and self.mixture.num_draws != self.num_windows:
            raise UsageError(f"num_windows is {self.num_windows}, but the mixture has {self.mixture.num_draws} draws.")

    @property
    def global_batch_size(self) -> int:
        """Number of windows that all ranks together take in one step."""
        return self.batch_size * self.world_size

    @property
    def fingerprint(self) -> int:
        """Equal for two orders whose positions stand for the same windows. Ranks and batch sizes do not matter."""
        quotas = self.mixture.quotas if self.mixture is not None else ()
        is_drawn = self.steps_per_epoch is not None
        thinned = (self.thinning.fingerprint,) if self.thinning is not None else ()
        return derive_key(self.seed, self.num_windows, self.shuffle, is_drawn, *quotas, *thinned) >> 1  # fits int64

    @property
    def num_positions(self) -> int:
        """Positions in an epoch, over all ranks."""
        if self.steps_per_epoch is None:
            return self.num_windows
        return self.steps_per_epoch * self.global_batch_size

    def num_batches(self, position: int = 0) -> int:
        """Number of steps that are left in an epoch; the same on every rank.

        Args:
            position: Windows of this epoch that all ranks together have taken.
        """
        full, rest = divmod(max(0, self.num_positions - position), self.global_batch_size)
        return full + (not self.drop_last and rest >= self.world_size)

    def positions(self, position: int = 0) -> range:
        """Positions at which the batches that are left in an epoch begin.

        Args:
            position: Windows of this epoch that all ranks together have taken.
        """
        step = self.global_batch_size
        return range(position, position + step * self.num_batches(position), step)

    def batch(self, epoch: int, position: int) -> NDArray[np.int64]:
        """The windows of this rank's next batch.

        Args:
            epoch: Number of the epoch, from 0.
            position: Windows of this epoch that all ranks together have taken.

        Returns:
            (n,) int64 window numbers; n is ``batch_size``, or fewer in a last batch that is not dropped.
        """
        positions = self._positions_of_batch(position)
        key = derive_key(self.seed, epoch)
        if self.steps_per_epoch is not None:
            draws = (hash_u64(positions.astype(np.uint64), key) % np.uint64(self.num_windows)).astype(np.int64)
        else:
            draws = permute(positions, self.num_windows, key) if self.shuffle else positions
        draws = draws if self.mixture is None else self.mixture.windows(draws, key)
        return draws if self.thinning is None else self.thinning.windows(draws, key)

    def draws(self, epoch: int, position: int) -> NDArray[np.uint64]:
        """Random numbers for the windows of this rank's next batch, for goals and augmentation.

        Args:
            epoch: Number of the epoch, from 0. Without ``shuffle``, every epoch has the same numbers, so that
                validations compare.
            position: Windows of this epoch that all ranks together have taken.

        Returns:
            (n,) uint64, uniform over all 64 bits. Each depends only on the seed, the epoch and the window's position,
            not on the batch size or the number of ranks.
        """
        key = derive_key(self.seed, epoch if self.shuffle else 0, _DRAWS_SALT)
        return hash_u64(self._positions_of_batch(position).astype(np.uint64), key)

    def _positions_of_batch(self, position: int) -> NDArray[np.int64]:
        stop = min(position + self.global_batch_size, self.num_positions)
        return np.arange(position + self.rank, stop, self.world_size, dtype=np.int64)


def check_batch_size(source: str, *, num_windows: int, batch_size: int, world_size: int) -> None:
    """Checks that a training split gives each process at least one batch.

    Args:
        source: Where the windows come from, for the message.
        num_windows: Windows of the split.
        batch_size: Windows per batch and process.
        world_size: Processes.

    Raises:
        UsageError: It does not; names the largest batch size that fits.
    """
    if batch_size * world_size > num_windows:
        fits = num_windows // world_size
        remedy = f"Set batch_size to {fits} or less" if fits else "Use fewer processes"
        where = f" on each of {world_size} processes" if world_size > 1 else ""
        raise UsageError(
            f"{source}: the training split has {num_windows} windows, fewer than one batch of batch_size {batch_size}"
            f"{where}. {remedy}, or lower val_fraction."
        )


class Place(NamedTuple):
    """Where a batch begins in a run.

    Attributes:
        epoch: Number of the epoch, from 0.
        position: Windows of this epoch that all ranks together take before the batch.
    """

    epoch: int
    position: int


class WindowSampler:
    """The position of a run in a ``WindowOrder``: an epoch and a place in it. Also a batch sampler for torch.

    Loaders read ahead, so iterating yields the batches from the position on and moves nothing. ``advance`` moves it
    past one more batch. With ``follows_training`` only ``take`` moves it, for each batch that is trained on.

    Attributes:
        order: The order.
        follows_training: Whether the position follows the batches that are trained on, not those that are read.
        epoch: The current epoch.
        position: Windows of it that all ranks together have taken.
        num_moves: How often the position was set, other than by ``advance``.
    """

    def __init__(self, order: WindowOrder, *, follows_training: bool = False) -> None:
        self.order = order
        self.follows_training = follows_training
        self.epoch = 0
        self.position = 0
        self.num_moves = 0
        self._has_begun = False
        self._is_trained_on: Callable[[], bool] = lambda: False

    @property
    def sampler(self) -> WindowSampler:
        """The sampler itself, where Lightning looks for ``set_epoch``."""
        return self

    def __len__(self) -> int:
        """Number of batches in a whole epoch, as trainers count them, also after resuming in the middle of one."""
        return self.order.num_batches()

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        epoch = self.epoch
        for position in self.order.positions(self.position):
            yield self.order.batch(epoch, position)

    def begin(self) -> Place:
        """Starts a pass: the rest of the epoch after resuming, or the next epoch if this one was drawn from."""
        if self._has_begun or self.order.num_batches(self.position) == 0:
            self._go_to(self.epoch + 1, 0)
        return Place(self.epoch, self.position)

    def start_of_side_pass(self) -> Place:
        """Start of a pass that moves nothing: the rest of an epoch that was resumed, else all of the epoch."""
        return Place(self.epoch, self.position if self.follows_training and not self._has_begun else 0)

    def advance(self) -> None:
        """Moves past the batch that was handed out."""
        self.position += self.order.global_batch_size
        self._has_begun = True

    def take(self, place: Place, is_trained_on: Callable[[], bool]) -> None:
        """Moves to a batch that training takes, and past it as soon as it is trained on.

        Args:
            place: Where the batch begins.
            is_trained_on: Tells whether the training step on it is complete.
        """
        self._go_to(*place)
        self._has_begun = True
        self._is_trained_on = is_trained_on

    def set_epoch(self, epoch: int) -> None:
        """Goes to the start of an epoch, unless that is the current one. Lightning calls this."""
        if epoch != self.epoch:
            self._go_to(epoch, 0)

    def state_dict(self) -> dict[str, Any]:
        """What a run needs to continue with the very next window, also with other workers, ranks or batch sizes."""
        position = self.position + self._is_trained_on() * self.order.global_batch_size
        is_over = self.order.num_batches(position) == 0
        return {
            "epoch": self.epoch + is_over,
            "position": 0 if is_over else position,
            "order": self.order.fingerprint,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes to where ``state_dict`` was called.

        Warns:
            UserWarning: That was in the middle of an epoch of other windows, or of another seed.
        """
        if state["position"] and state.get("order", self.order.fingerprint) != self.order.fingerprint:
            warnings.warn(
                f"This run continues in the middle of epoch {state['epoch']}, but its windows, their weights or the "
                "seed are not those of the saved run. Until this epoch ends, some windows come twice and some not at "
                "all.",
                UserWarning,
                stacklevel=2,
            )
        self._go_to(int(state["epoch"]), int(state["position"]))

    def _go_to(self, epoch: int, position: int) -> None:
        self.epoch, self.position, self._has_begun = epoch, position, False
        self._is_trained_on = lambda: False
        self.num_moves += 1
