"""Where training stands among the batches, and what else a resumed run needs to repeat an uninterrupted one."""

from __future__ import annotations

import contextlib
import random
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from lewm_data.loading.goals import draws_from_torch
from lewm_data.loading.loader import WindowLoader
from lewm_data.loading.permutation import derive_key
from lewm_data.loading.sampler import Place

if TYPE_CHECKING:
    import lightning

_TRANSFORM_SALT = 0x7A_0F_A3


class TrainingState:
    """Follows the batches that a trainer trains on.

    Only these move the position. Another iteration over the training loader, such as a callback's, does not.

    Attributes:
        place: Where the latest of these batches begins; None before the first.
    """

    def __init__(self) -> None:
        self.place: Place | None = None
        self._loader: WindowLoader | None = None
        self._saved: dict[str, Any] | None = None
        self._gradients: dict[str, torch.Tensor] = {}
        self._num_trained_before = 0

    def follow(self, loader: WindowLoader, trainer: lightning.Trainer | None) -> None:
        """Follows a new loader. It starts at the restored position, if there is one that no loader has used."""
        self._loader = loader
        self._num_trained_before = _num_trained(trainer) if trainer is not None else 0
        if self._saved is not None:
            loader.load_state_dict(self._saved)
            if trainer is not None:
                reopen_epoch(trainer, Place(self._saved["epoch"], self._saved["position"]))
            self._saved = None

    def take(self, place: Place, trainer: lightning.Trainer) -> None:
        """Notes that training takes a batch.

        Args:
            place: Where the batch begins.
            trainer: Tells whether the step on it is complete.
        """
        assert self._loader is not None
        num_before = _num_trained(trainer)
        self._loader.batch_sampler.take(place, lambda: _num_trained(trainer) > num_before)
        self.place = place
        if self._gradients:
            restore_gradients(trainer.lightning_module, self._gradients)
            self._gradients = {}

    @contextlib.contextmanager
    def step_random_state(self, seed: int, rank: int) -> Iterator[None]:
        """Seeds torch, numpy and random for the batch that training took, and puts their states back afterwards.

        So a random transform of a batch depends on the batch's place in the run only.

        Args:
            seed: Seed of the run.
            rank: This process's rank.
        """
        key = derive_key(seed, *(self.place or Place(0, 0)), rank, _TRANSFORM_SALT)
        python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002  # transforms use it
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(key >> 1)
            random.seed(key)
            np.random.seed(key & 0xFFFF_FFFF)  # noqa: NPY002
            try:
                yield
            finally:
                random.setstate(python_state)
                np.random.set_state(numpy_state)  # noqa: NPY002

    def draws(self, num_windows: int) -> NDArray[np.uint64]:
        """Random numbers for the windows of the batch that training took.

        Args:
            num_windows: Windows in the batch.

        Returns:
            (num_windows,) uint64 from ``WindowOrder.draws``. Torch draws them for a batch that the loader did not give.
        """
        if self._loader is None or self.place is None:
            return draws_from_torch(num_windows)
        draws = self._loader.batch_sampler.order.draws(*self.place)
        return draws if len(draws) == num_windows else draws_from_torch(num_windows)

    def state_dict(self, trainer: lightning.Trainer | None) -> dict[str, Any]:
        """Position, and the gradients of a step that accumulates them over several batches and is incomplete."""
        state: dict[str, Any] = {}
        if self._loader is not None:
            state["train"] = self._loader.state_dict()
        elif self._saved is not None:
            state["train"] = self._saved
        if self._gradients:
            state["gradients"] = self._gradients
        elif trainer is not None and self.place is not None:
            state |= accumulated_gradients(trainer)
        elif trainer is not None and self._loader is not None and _num_trained(trainer) > self._num_trained_before:
            warnings.warn(
                "The data module has not seen the batches that were trained on, so the checkpoint stores no position. "
                "If you override on_before_batch_transfer in it, call super().on_before_batch_transfer() there.",
                UserWarning,
                stacklevel=3,
            )
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Lets training continue where ``state_dict`` was called."""
        self._saved = state.get("train")
        self._gradients = state.get("gradients", {})
        lost = state.get("lost_gradients", 0)
        if lost:
            warnings.warn(
                f"The checkpoint was saved within an optimizer step, and the gradients of {lost} of its batches are "
                "not in it. This step differs from the uninterrupted run's.",
                UserWarning,
                stacklevel=3,
            )
        if self._loader is not None and self._saved is not None:
            self._loader.load_state_dict(self._saved)


def _num_trained(trainer: lightning.Trainer) -> int:
    """How many batches the trainer has trained on, the runs before it included."""
    progress: Any = trainer.fit_loop.epoch_loop.batch_progress
    return int(progress.total.processed)


def accumulated_gradients(trainer: lightning.Trainer) -> dict[str, Any]:
    """The gradients of an optimizer step that has seen some of its batches, if there is such a step.

    Args:
        trainer: A trainer that may be fitting.

    Returns:
        ``gradients``: parameter name to gradient, or ``lost_gradients``: number of the batches whose gradients cannot
        be saved, because each process has its own, or because a batch was in progress. Empty between two steps.
    """
    progress: Any = trainer.fit_loop.epoch_loop.batch_progress
    num_batches = progress.current.processed % trainer.accumulate_grad_batches
    if not num_batches or progress.is_last_batch:
        return {}
    if trainer.world_size > 1 or progress.current.ready > progress.current.processed:
        return {"lost_gradients": num_batches}
    parameters = trainer.lightning_module.named_parameters()
    return {"gradients": {name: p.grad.detach().cpu().clone() for name, p in parameters if p.grad is not None}}


def reopen_epoch(trainer: lightning.Trainer, place: Place) -> None:
    """Lets a resumed run finish the epoch in which the earlier run stopped.

    A run that ends in mid-epoch, at ``max_steps`` for instance, counts this epoch as complete when it ends. A run that
    resumes from there would skip the rest of the epoch, so that a part of the data is never trained on.

    Args:
        trainer: The trainer that resumes. Its counts are changed.
        place: Where training continues.
    """
    progress: Any = trainer.fit_loop.epoch_progress
    was_cut = place.position > 0 and not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
    if was_cut and progress.current.processed == place.epoch + 1:
        for count in (progress.current, progress.total):
            count.processed -= 1
            count.completed = min(count.completed, count.processed)
        trainer.fit_loop.restarting = True  # so that the count of batches goes on, too


def restore_gradients(model: torch.nn.Module, gradients: dict[str, torch.Tensor]) -> None:
    """Gives parameters the gradients that were saved."""
    for name, parameter in model.named_parameters():
        if name in gradients:
            parameter.grad = gradients[name].to(parameter.device, parameter.dtype)
