"""The loading half of the data module: it serves split files to a trainer, and keeps its place in checkpoints."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import AttributeDict, rank_zero_info

from lewm_data.errors import UsageError
from lewm_data.loading.augment import Augmentation
from lewm_data.loading.batches import Batch, BatchDataset
from lewm_data.loading.data_record import DataRecord, check_resumable
from lewm_data.loading.distributed import DistributedInfo
from lewm_data.loading.episode_split import SIDES
from lewm_data.loading.loader import PlacedBatch, WindowLoader, WorkerType
from lewm_data.loading.normalizer import Normalizer, normalize_batch
from lewm_data.loading.sampler import WindowOrder, WindowSampler
from lewm_data.loading.served_data import ServedData
from lewm_data.loading.splits import Splits
from lewm_data.loading.statistics import PER_DATASET, Normalization
from lewm_data.loading.training_state import TrainingState
from lewm_data.loading.transformed import check_batch, check_range

if TYPE_CHECKING:
    from lewm_data.loading.picture import Picture


class WindowDataModule(ServedData, lightning.LightningDataModule):
    """Serves random windows of files that are split already. ``LeWMDataModule`` sets and describes the settings.

    Attributes:
        normalizers: ``action`` and ``state`` to their normalizers, once set up. Planners call ``denormalize``.
    """

    batch_size: int
    num_workers: int | None
    worker_type: WorkerType
    steps_per_epoch: int | None
    seed: int
    normalize: Normalization
    augment: dict[str, float]
    train_transform: Callable[[Batch], Batch] | None
    accept_changes: tuple[str, ...]
    _augmentation: Augmentation

    def __init__(self) -> None:
        """Makes a data module without data; see ``serve``."""
        super().__init__()
        self.normalizers: dict[str, Normalizer] = {}
        self._record: DataRecord | None = None
        self._training = TrainingState()
        self._loaded_state: dict[str, Any] | None = None
        self._is_range_checked = False
        self._loaders: weakref.WeakSet[WindowLoader] = weakref.WeakSet()

    @property
    def hparams_initial(self) -> AttributeDict:
        """The settings as loggers get them, as ``data/batch_size`` and so on: a model may have one of the same name."""
        return AttributeDict({f"data/{name}": value for name, value in super().hparams_initial.items()})

    @property
    def source(self) -> str:
        """Where the windows come from, for messages."""
        raise NotImplementedError

    def serve(self, splits: Splits, settings: Mapping[str, Any]) -> None:
        """Takes the data to serve, and prints the split.

        Args:
            splits: The windows of each side.
            settings: Settings that must be the same when a run resumes, by name.
        """
        self._splits = splits
        self.train_positions, self.val_positions, self.test_positions = map(splits.episodes, SIDES)
        self._record = DataRecord.of(splits, settings)
        unscaled = splits.statistics.unscaled if self.normalize else ()
        rank_zero_info("\n".join([*splits.describe(), *unscaled]))

    def setup(self, stage: str | None = None) -> None:
        """Prepares a stage, once data is served.

        Args:
            stage: Lightning's stage. All stages need the same.

        Raises:
            UsageError: The checkpoint to resume belongs to other data.
        """
        self.normalizers = self.splits.statistics.normalizers
        if self._loaded_state is not None:
            self._check_resumable(self._loaded_state)
            self._loaded_state = None
        if not len(self.splits.val) and self.trainer is not None:
            self.trainer.limit_val_batches = 0  # otherwise Lightning warns of an empty validation loader at each run

    def train_dataloader(self) -> WindowLoader:
        """Shuffled windows of the training episodes, in full batches."""
        overfits = getattr(self.trainer, "overfit_batches", 0) > 0  # trains on the same few batches
        loader = self._make_loader(
            self.splits.train,
            shuffle=not overfits,
            drop_last=True,
            follows_training=self.trainer is not None and self._is_fitting and self.trainer.state.status == "running",
        )
        self._training.follow(loader, self.trainer)
        return loader

    def val_dataloader(self) -> WindowLoader | list[Any]:
        """Windows of the validation episodes in the files' order; an empty list if ``val_fraction`` is 0."""
        return self._make_loader(self.splits.val) if len(self.splits.val) else []

    def test_dataloader(self) -> WindowLoader:
        """Windows of the test episodes in the files' order.

        Raises:
            UsageError: There are no test episodes.
        """
        if not len(self.splits.test):
            raise UsageError(
                f"{self.source}: there are no test episodes. Before you train, name some: test_episodes='40:50' (in "
                "train.py: --data.test_episodes 40:50). Or call trainer.validate."
            )
        return self._make_loader(self.splits.test)

    def predict_dataloader(self) -> WindowLoader:
        """All windows, in the files' order."""
        return self._make_loader(self.splits.predict)

    def show(self, window: int = 0, path: str | Path | None = None) -> Picture:
        """Draws a training window as training sees it, ``augment`` included.

        Args:
            window: Its number among the training windows; -1 is the last one.
            path: Where to write the picture as a PNG file. None writes nothing.

        Returns:
            The picture. A notebook displays it by itself.

        Raises:
            IndexError: There is no such window.
            UsageError: The data module is not set up.
        """
        from lewm_data.loading.picture import show_window

        return show_window(self.splits.train, window, path, self._augmentation.apply)

    def normalize_batch(self, batch: Batch) -> Batch:
        """Normalizes frames (B, T, 3, H, W), action and state; frames take the trainer's precision."""
        precision = str(self.trainer.precision) if self.trainer is not None else "32-true"
        return normalize_batch(batch, self.normalizers, precision=precision)

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Moves the position of the run to a batch that training takes.

        Args:
            batch: A batch from one of the loaders.
            dataloader_idx: Number of the loader.

        Returns:
            The batch, unchanged.
        """
        if self.trainer is not None and self.trainer.training and isinstance(batch, PlacedBatch) and batch.place:
            self._training.take(batch.place, self.trainer)
        return batch

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augments and transforms (in training only) and normalizes a batch on its device.

        Args:
            batch: A batch from one of the loaders, on the device.
            dataloader_idx: Number of the loader. All are treated alike.

        Returns:
            Frames (B, T, 3, H, W) in the trainer's precision, action and state normalized, other columns as stored.

        Raises:
            UsageError: ``train_transform`` returned something else than a batch, or frames that are not in [0, 1].
        """
        if self.trainer is not None and self.trainer.training:
            if self.augment:
                batch = self._augmentation.apply(batch, self._training.draws(len(next(iter(batch.values())))))
            if self.train_transform is not None:
                with self._training.step_random_state(self.seed, int(self.trainer.global_rank)):
                    batch = check_batch(self.train_transform(batch))
                if self.normalize and not self._is_range_checked:  # once, because it waits for the device
                    check_range(batch)
                    self._is_range_checked = True
        return self.normalize_batch(batch) if self.normalize else batch

    def state_dict(self) -> dict[str, Any]:
        """The position of training, the split, the normalizers and the settings. Lightning stores it in checkpoints.

        A run may resume with other workers, batch sizes and numbers of processes. Lightning counts in steps, so if the
        global batch has grown, it ends the interrupted epoch early.
        """
        state = self._training.state_dict(self.trainer if self._is_fitting else None)
        return state | (self._record.state_dict() if self._record is not None else {})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues training with the very next window, or validates with the normalizers that the model knows.

        Args:
            state_dict: From ``state_dict``.

        Raises:
            UsageError: It was made on other data or with other settings, and ``accept_changes`` does not accept them.
        """
        if self._record is not None:
            self._check_resumable(state_dict)
        else:
            self._loaded_state = state_dict
        if self._is_fitting:
            self._training.load_state_dict(state_dict)

    def __getstate__(self) -> dict[str, Any]:
        """For another process (``ddp_spawn``): everything but the loaders. It continues at the same position."""
        training = TrainingState()
        training.load_state_dict(self._training.state_dict(None))
        return {**self.__dict__, "_loaders": None, "_training": training}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._loaders = weakref.WeakSet()

    def teardown(self, stage: str | None = None) -> None:
        """Stops all threads and worker processes of the loaders."""
        for loader in list(self._loaders):
            loader.close()

    def on_exception(self, exception: BaseException) -> None:
        """Stops all threads and worker processes of the loaders after an error or Ctrl-C."""
        self.teardown()

    @property
    def _is_fitting(self) -> bool:
        """Whether the trainer trains. Without a trainer, the caller does."""
        return self.trainer is None or self.trainer.state.fn in (None, TrainerFn.FITTING)

    @property
    def _is_testing(self) -> bool:
        return self.trainer is not None and self.trainer.state.fn == TrainerFn.TESTING

    def _check_resumable(self, state: dict[str, Any]) -> None:
        assert self._record is not None
        saved = DataRecord.from_state_dict(state)
        if saved is None:
            return
        found = saved.differences(self._record)
        if not self._is_fitting:  # other windows are fine; episodes that were trained on are not
            found = {name: words for name, words in found.items() if name == "data"}
            found |= saved.leaks(self._record, "test" if self._is_testing else "val")
            saved.check_normalizers(self.source, self._record, is_per_dataset=self.normalize == PER_DATASET)
            self.normalizers = dict(saved.normalizers)
        check_resumable(self.source, found, self.accept_changes)

    def _make_loader(
        self, dataset: BatchDataset, *, shuffle: bool = False, drop_last: bool = False, follows_training: bool = False
    ) -> WindowLoader:
        distributed = DistributedInfo.of(self.trainer)
        order = WindowOrder(
            num_windows=self.splits.num_train_draws if shuffle else len(dataset),
            batch_size=self.batch_size,
            seed=self.seed,
            rank=distributed.rank,
            world_size=distributed.world_size,
            shuffle=shuffle,
            drop_last=drop_last,
            steps_per_epoch=self.steps_per_epoch if shuffle else None,
            mixture=self.splits.mixture if shuffle else None,
            thinning=self.splits.thinning if shuffle else None,
        )
        num_workers = distributed.num_workers if self.num_workers is None else self.num_workers
        if self.num_workers is None and self.worker_type == "thread":
            num_workers = min(num_workers, max(store.max_threads() for store in self.splits.stores))
        loader = WindowLoader(
            dataset,
            WindowSampler(order, follows_training=follows_training),
            num_workers=num_workers,
            worker_type=self.worker_type,
        )
        self._loaders.add(loader)
        return loader
