"""Says once what a batch holds, and at the end how fast training was and how long it waited for data."""

from __future__ import annotations

import time
from typing import Any

import lightning
from lightning.pytorch.profilers import PassThroughProfiler, Profiler
from rich.console import Console
from rich.table import Table
from torch import Tensor

_SECONDS_BETWEEN_LINES = 30.0


class TrainingReport(lightning.Callback):
    """Prints the keys, dtypes and shapes of the first batch, and a closing summary; in a log file, a line now and then.

    Validation is left out of the times. Time waiting for data is what Lightning's fetcher spends in the loader.

    Attributes:
        num_steps: Batches trained on.
        num_windows: Windows trained on, of this process.
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
        self._told = 0.0
        self._wait: _WaitProfiler | None = None

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Listens to the trainer's fetcher, unless the user profiles."""
        if type(trainer.profiler) is PassThroughProfiler:  # type: ignore[attr-defined]
            trainer.profiler = self._wait = _WaitProfiler()  # type: ignore[attr-defined]

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Starts the clock."""
        self._since = self._told = time.perf_counter()

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
        self.seconds += now - self._since
        self._since = now
        pl_module.log("windows/s", self.num_windows / self.seconds, prog_bar=True)
        if self._wait is not None:
            pl_module.log("waiting", self._wait.seconds / self.seconds, prog_bar=True)
        if not self._console.is_terminal and now - self._told >= _SECONDS_BETWEEN_LINES and trainer.is_global_zero:
            self._told = now
            self._console.print(self._line(trainer), highlight=False, soft_wrap=True)

    def _line(self, trainer: lightning.Trainer) -> str:
        """Where training stands, for a log file, in which a progress bar shows nothing."""
        loss = trainer.callback_metrics.get("train/loss")
        return (
            f"step {trainer.global_step:,}, epoch {trainer.current_epoch}: "
            + (f"loss {float(loss):.4g}, " if loss is not None else "")
            + f"{self.num_windows / self.seconds:,.0f} windows/s"
        )

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Stops the clock."""
        if not trainer.sanity_checking:
            self.seconds += time.perf_counter() - self._since

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Goes on with the clock."""
        self._since = time.perf_counter()

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Takes the sums; the summary waits for ``teardown``, when the progress bar is gone."""
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


class _WaitProfiler(Profiler):
    """Adds up the time between Lightning's asking for a training batch and getting it."""

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
