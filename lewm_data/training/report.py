"""How far training is, what a batch holds, and how long the trainer waits for data."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import lightning
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.profilers import PassThroughProfiler, Profiler
from rich.console import Console
from rich.table import Table
from torch import Tensor

from lewm_data.training.diagnosis import blindness_words


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


SECONDS_BETWEEN_READINGS = 0.5
_BLINDNESS = "val/blindness"
_SECONDS_BETWEEN_LINES = 30.0


class TrainingReport(lightning.Callback):
    """Prints the keys, dtypes and shapes of the first batch, a line every 30 seconds in a log file, and a summary.

    The rate leaves out validation and diagnostics. The time that Lightning's fetcher spends in the loader counts as
    waiting for data.

    Attributes:
        num_steps: Batches trained on.
        num_windows: Windows that this process trained on.
        seconds: Time spent training.
        waiting_seconds: Part of it that was spent waiting for the next batch.
    """

    def __init__(self) -> None:
        self.num_steps = 0
        self.num_windows = 0
        self.seconds = 0.0
        self.waiting_seconds = 0.0
        self._console = Console()
        self._since = 0.0
        self._printed = 0.0
        self._began = 0.0
        self._first_step = 0
        self._paused = 0.0
        self._wait: _WaitProfiler | None = None

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Times the trainer's fetcher, unless the user profiles."""
        if type(trainer.profiler) is PassThroughProfiler:  # type: ignore[attr-defined]
            trainer.profiler = self._wait = _WaitProfiler()  # type: ignore[attr-defined]

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Starts the clock."""
        self._since = self._printed = self._began = time.perf_counter()
        self._first_step = trainer.global_step

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Prints the first batch's shapes."""
        if self.num_steps == 0 and trainer.is_global_zero:
            self._console.print(_describe(batch))

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Counts, and shows windows/s and the share of time spent waiting for data on the progress bar."""
        self.num_steps += 1
        self.num_windows += len(next(iter(batch.values())))
        now = time.perf_counter()
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        paused = sum(float(getattr(callback, "paused_seconds", 0.0)) for callback in callbacks)
        self.seconds += now - self._since - (paused - self._paused)
        self._since, self._paused = now, paused
        pl_module.log("windows/s", self.num_windows / self.seconds, prog_bar=True)
        if self._wait is not None:
            pl_module.log("waiting", self._wait.seconds / self.seconds, prog_bar=True)
        is_due = now - self._printed >= _SECONDS_BETWEEN_LINES
        if is_due and not self._console.is_terminal and trainer.is_global_zero:
            self._printed = now
            self._console.print(self._line(trainer), highlight=False, soft_wrap=True)

    def progress(self, trainer: lightning.Trainer) -> Progress:
        """Steps and time so far, and how many are left."""
        return Progress.of(trainer, first_step=self._first_step, seconds=time.perf_counter() - self._began)

    def _line(self, trainer: lightning.Trainer) -> str:
        """How far training is, for a log file, where a progress bar shows nothing."""
        progress, metrics = self.progress(trainer), trainer.callback_metrics
        parts = [f"loss {float(metrics['train/loss']):.3g}"] if "train/loss" in metrics else []
        if _BLINDNESS in metrics:
            blindness = float(metrics[_BLINDNESS])
            yet = " (not yet better than repeating the last frame)" if blindness >= 1 else ""
            parts.append(f"blindness {blindness_words(blindness)}{yet}")
        parts += [f"{self.num_windows / self.seconds:,.0f} windows/s", progress.time()]
        return f"{progress.steps()}: {', '.join(filter(None, parts))}"

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Stops the clock."""
        if not trainer.sanity_checking:
            self.seconds += time.perf_counter() - self._since

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Restarts the clock."""
        self._since = time.perf_counter()

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Takes the sums. ``teardown`` prints them, when the progress bar is gone."""
        self.waiting_seconds = self._wait.seconds if self._wait else float("nan")

    def teardown(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Prints the summary."""
        if self.num_steps and trainer.is_global_zero:
            self._console.print(self.summary(), highlight=False)

    def summary(self) -> str:
        """One sentence: steps, windows, time, windows/s and the share of time spent waiting for data."""
        rate = self.num_windows / self.seconds
        waiting = ""
        if self.waiting_seconds == self.waiting_seconds:
            waiting = f", {self.waiting_seconds / self.seconds:.1%} of the time waiting for data"
        return (
            f"{self.num_steps:,} steps, {self.num_windows:,} windows in {self.seconds:.1f} s: "
            f"{rate:,.0f} windows/s{waiting}."
        )


class ProgressBar(RichProgressBar):
    """Lightning's progress bar of an epoch, with the epochs and steps of the whole run in words.

    It reads the losses twice a second, not after each step: reading waits for the device to finish the step, and
    meanwhile nothing prepares the next one.
    """

    _metrics: Mapping[str, Any] = {}
    _read_at = float("-inf")

    def _get_train_description(self, current_epoch: int) -> str:
        epochs = self.trainer.max_epochs
        text = f"Epoch {current_epoch + 1}"
        if epochs is not None and epochs > 0 and self.trainer.max_steps < 0:
            text += f" of {epochs}"
        return f"{text:{len(self.validation_description)}}"

    def get_metrics(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> dict[str, Any]:
        """The logged metrics, after the steps and the time left that ``TrainingReport`` counts."""
        now = time.perf_counter()
        if now - self._read_at >= SECONDS_BETWEEN_READINGS:
            self._metrics, self._read_at = super().get_metrics(trainer, pl_module), now
        items = dict(self._metrics)
        items.pop("v_num", None)
        if _BLINDNESS in items:
            items[_BLINDNESS] = blindness_words(float(items[_BLINDNESS]))
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, TrainingReport) and callback.num_steps:
                progress = callback.progress(trainer)
                total = "" if progress.max_steps is None else f"/{progress.max_steps:,}"
                left = {} if math.isnan(progress.seconds_left) else {"left": clock(progress.seconds_left)}
                return {"step": f"{progress.step:,}{total}", **left, **items}
        return items


class _WaitProfiler(Profiler):
    """Adds up the time from Lightning's request for a training batch to its arrival."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0
        self._since = 0.0

    def start(self, action_name: str) -> None:
        if action_name.endswith(".train_dataloader_next"):
            self._since = time.perf_counter()

    def stop(self, action_name: str) -> None:
        if action_name.endswith(".train_dataloader_next"):
            self.seconds += time.perf_counter() - self._since


def _describe(batch: dict[str, Tensor]) -> Table:
    table = Table(title="a batch, as the model gets it", title_justify="left")
    for heading in ("key", "dtype", "shape", "device"):
        table.add_column(heading)
    for key, values in batch.items():
        table.add_row(key, str(values.dtype).removeprefix("torch."), str(tuple(values.shape)), str(values.device))
    return table
