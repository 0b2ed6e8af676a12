"""The room where the two wings meet: a LeRobot dataset goes in, random windows come out."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import lightning
import numpy as np
from numpy.typing import NDArray

from lewm_data.config import Compression, ConvertConfig, RemoteConfig, Resize
from lewm_data.errors import UsageError, redact
from lewm_data.findings import DirtyEpisodePolicy
from lewm_data.loading.batches import Batch, BatchDataset, Layout
from lewm_data.loading.distributed import DistributedInfo
from lewm_data.loading.loader import WindowLoader, WorkerType
from lewm_data.loading.normalizer import Normalizer, normalize_batch
from lewm_data.loading.ram_cache import CacheMode, cache_frames
from lewm_data.loading.sampler import WindowOrder, WindowSampler, check_batch_size
from lewm_data.loading.sources import Source, Sources
from lewm_data.loading.splits import Splits
from lewm_data.paths import local_path

_log = logging.getLogger(__name__)
_DEFAULT_IMAGE_SIZE = ConvertConfig().image_size


class LeWMDataModule(lightning.LightningDataModule):
    """Converts datasets once, then feeds a trainer with random windows of them.

    Batches are as ``lewm_data.format.schema`` has them. On the device, frames become floating point with ImageNet's
    mean and standard deviation, in the trainer's precision; action and state are standardised with the
    statistics of the training episodes.

    An epoch of several datasets, given as a list, visits every training window of each of them once. Given as
    a mapping to weights, an epoch takes as many windows as there are, and each dataset's share of them is its
    weight over the sum of the weights: exactly so over the epoch, in random order, and by chance in each
    batch. Of a dataset that gets fewer places than it has windows, each epoch visits others; of one that gets
    more, all windows come equally often, give or take one. Each dataset is split by episode; validation visits
    every window once, whatever the weights. Statistics count a row as often as an epoch visits a window of its
    dataset.

    Attributes:
        normalizers: ``action`` and ``state`` to their normalizers, once set up; planners call ``denormalize``.
        train_episodes: Positions in the file of the training episodes, once set up; with several datasets they
            count on from one file to the next.
        val_episodes: The same of the validation episodes.
    """

    train_episodes: NDArray[np.int64]
    val_episodes: NDArray[np.int64]

    def __init__(
        self,
        repo_id: Source | None = None,
        root: Source | None = None,
        h5_path: Source | None = None,
        *,
        revision: str | None = None,
        data_dir: str | Path = "data",
        camera: str | None = None,
        cameras: str | None = None,
        image_size: int | str = 224,
        resize: Resize = "stretch",
        compression: Compression = "lzf",
        dirty_episode_policy: DirtyEpisodePolicy = "fail",
        action: str | None = None,
        state: str | None = None,
        extra_columns: Sequence[str] = (),
        num_steps: int = 4,
        frameskip: int = 5,
        batch_size: int = 256,
        num_workers: int | None = None,
        worker_type: WorkerType = "thread",
        cache: CacheMode = "auto",
        verify_checksums: bool = False,
        remote: RemoteConfig | None = None,
        val_fraction: float = 0.1,
        steps_per_epoch: int | None = None,
        seed: int = 3072,
        normalize: bool = True,
        train_transform: Callable[[Batch], Batch] | None = None,
    ) -> None:
        """Takes settings and checks them; reads nothing yet.

        Args:
            repo_id: A LeRobot dataset on the Hub, or a list of them, or a mapping of each to its weight. Give
                exactly one of ``repo_id``, ``root`` and ``h5_path``.
            root: Folder of a local LeRobot dataset; or several, likewise.
            h5_path: A file that is converted already, or its fsspec address such as ``s3://bucket/data.h5`` or
                ``hf://datasets/owner/name/data.h5``; or several, likewise. The settings of the conversion hold
                for all datasets; where one needs others, such as another ``camera``, convert it beforehand. A file
                that holds another ``camera`` or ``image_size`` than those asked for is refused.
            revision: Branch, tag or commit on the Hub.
            data_dir: Folder for converted files.
            camera: The camera that becomes ``pixels``; needed when there are several.
            cameras: Further cameras, each as ``pixels_<name>``: ``all``, or names with commas between.
            image_size: Frame size in pixels: one number, ``HEIGHTxWIDTH`` or ``native``.
            resize: ``stretch``, ``crop`` or ``pad``.
            compression: Codec of the frames.
            dirty_episode_policy: ``fail``, ``skip`` or ``keep`` episodes with errors.
            action: Columns that make up ``action``: ``KEY[,KEY...]``, where a trailing ``*`` takes every numeric column
                with that prefix; None takes ``action``, else ``actions``.
            state: Columns that make up ``state``, likewise; ``none`` leaves it out. None takes ``observation.state``,
                else ``state``.
            extra_columns: Further numeric columns to convert, by their LeRobot keys.
            num_steps: Frames that a window keeps.
            frameskip: Steps from one kept frame to the next.
            batch_size: Windows per batch and process.
            num_workers: Threads or processes per loader; None is this process's share of the processors, at
                most 16.
            worker_type: ``thread``, or ``process``.
            cache: Decode all frames into RAM first: ``auto`` when they fit half of the available memory,
                ``ram`` always, ``none`` never.
            verify_checksums: Check every frame's checksum when it is read.
            remote: How to read from object storage, where ``h5_path`` is an address; None takes the defaults.
            val_fraction: Share of the episodes for validation, in [0, 1); 0 trains on all.
            steps_per_epoch: Draw windows with replacement, so many batches an epoch; None visits each window
                once.
            seed: Seed of the split and of the order.
            normalize: Make frames floating point and standardise action and state; otherwise batches stay as
                they are, frames uint8.
            train_transform: Called in training with the batch on the device, before normalization; frames are
                uint8 then, and may come back so or as floating point in [0, 1].

        Raises:
            UsageError: Not exactly one source is given, or a setting is out of range.
        """
        super().__init__()
        self.sources = Sources.parse(repo_id=repo_id, root=root, h5_path=h5_path)
        for name, value, least in (
            ("num_steps", num_steps, 1),
            ("frameskip", frameskip, 1),
            ("batch_size", batch_size, 1),
            ("steps_per_epoch", steps_per_epoch, 1),
            ("num_workers", num_workers, 0),
        ):
            if value is not None and value < least:
                raise UsageError(f"{name} is {value}, but must be {least} or more.")
        for name, choice, choices in (
            ("worker_type", worker_type, get_args(WorkerType)),
            ("cache", cache, get_args(CacheMode)),
        ):
            if choice not in choices:
                raise UsageError(f"{name} is {choice!r}, but must be one of {', '.join(choices)}.")
        if not 0 <= val_fraction < 1:
            raise UsageError(f"val_fraction is {val_fraction}, but must lie in [0, 1); 0 trains on every episode.")
        self.data_dir = local_path(data_dir, "data_dir")
        self.config = ConvertConfig(
            image_size=image_size,
            resize=resize,
            camera=camera,
            cameras=cameras,
            compression=compression,
            dirty_episode_policy=dirty_episode_policy,
            action=action,
            state=state,
            extra_columns=tuple(extra_columns),
            revision=revision,
            min_episode_steps=1,  # the length of a window does not change the file
        )
        self.num_steps = num_steps
        self.frameskip = frameskip
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.worker_type: WorkerType = worker_type
        self.cache: CacheMode = cache
        self.verify_checksums = verify_checksums
        self.remote = remote
        self.val_fraction = val_fraction
        self.steps_per_epoch = steps_per_epoch
        self.seed = seed
        self.normalize = normalize
        self.train_transform = train_transform
        self.normalizers: dict[str, Normalizer] = {}
        self._splits: Splits | None = None
        self._is_cache_settled = False
        self._loaders: weakref.WeakSet[WindowLoader] = weakref.WeakSet()
        self._train_loader: WindowLoader | None = None
        self._train_state: dict[str, Any] | None = None

    def __repr__(self) -> str:
        """One line: what is drawn from, and how."""
        windows = f"windows of {self.num_steps} frames {self.frameskip} steps apart in batches of {self.batch_size}"
        if self._splits is None:
            return f"LeWMDataModule({self.source}: {windows}; not set up yet)"
        train, val = self._splits.train, self._splits.val
        return (
            f"LeWMDataModule({self.source}: {windows}; training {len(train):,} of {len(self.train_episodes)} episodes, "
            f"validation {len(val):,} of {len(self.val_episodes)})"
        )

    __str__ = __repr__  # Lightning's own would go through all loaders

    @property
    def source(self) -> str:
        """The datasets' repo ids, paths or addresses (without secrets), with commas between."""
        return redact(str(self.sources))

    def prepare_data(self) -> None:
        """Downloads and converts, where that was not done before; a second call finds the work done.

        Raises:
            LewmDataError: What the conversion raises: dirty data, not enough memory or disk, stalled.
        """
        if self.sources.kind != "h5_path":
            from lewm_data.conversion.prepare import prepare_file

            for name in self.sources.names:
                prepare_file(name, self.data_dir, self.config)

    def setup(self, stage: str | None = None) -> None:
        """Opens the files, splits them by episode, and decodes them into RAM where that was asked for or fits.

        Args:
            stage: Lightning's stage; all need the same.

        Raises:
            UsageError: A file is missing, there is no window in it, there are fewer windows than a batch takes,
                or several datasets do not fit together.
            FormatError: A file is broken.
        """
        if self._splits is None:
            self._splits = self._open()
            if DistributedInfo.of(self.trainer).rank == 0:
                for told in self._splits.kept_dirt():
                    _log.warning(told)
            self.normalizers = self._splits.normalizers
            self.train_episodes, self.val_episodes = self._splits.train_episodes, self._splits.val_episodes
        num_windows, distributed = len(self._splits.train), DistributedInfo.of(self.trainer)
        if stage in (None, "fit") and self.steps_per_epoch is None:
            check_batch_size(
                self.source, num_windows=num_windows, batch_size=self.batch_size, world_size=distributed.world_size
            )
        if not len(self._splits.val) and self.trainer is not None:
            self.trainer.limit_val_batches = 0  # else Lightning warns of an empty validation loader at each run
        if not self._is_cache_settled:
            is_shared = self.worker_type == "process" or distributed.num_local > 1
            cache_frames(
                *self._splits.stores, mode=self.cache, is_shared=is_shared, show_progress=distributed.rank == 0
            )
            self._is_cache_settled = True

    def train_dataloader(self) -> WindowLoader:
        """Shuffled windows of the training episodes, full batches only."""
        overfits = getattr(self.trainer, "overfit_batches", 0) > 0  # on the same few batches
        self._train_loader = self._make_loader(self._set_up.train, shuffle=not overfits, drop_last=True)
        if self._train_state is not None:
            self._train_loader.load_state_dict(self._train_state)
            self._train_state = None
        return self._train_loader

    def val_dataloader(self) -> WindowLoader | list[Any]:
        """Windows of the validation episodes in the files' order; nothing where ``val_fraction`` is 0."""
        return self._make_loader(self._set_up.val) if len(self._set_up.val) else []

    def predict_dataloader(self) -> WindowLoader:
        """Every window, in the files' order."""
        return self._make_loader(self._set_up.predict)

    def layout(self) -> Layout:
        """Shape of one window and dtype of each column: frames (T, H, W, 3), ``action`` (T, frameskip*A), and so on."""
        return self._set_up.train.layout()

    def read_episode(self, episode: int, *, max_frames: int) -> Batch:
        """A whole episode as a batch of one window, as it is stored.

        Args:
            episode: Its number, as in ``train_episodes`` and ``val_episodes``.
            max_frames: Kept frames at most; a longer episode is cut off.

        Returns:
            Column to tensor; T is the episode's steps over ``frameskip``, rounded down. ``normalize_batch`` makes
            it what a model takes.
        """
        return self._set_up.read_episode(episode, max_frames=max_frames)

    def feature_names(self, column: str) -> tuple[str, ...]:
        """Names of a column's dimensions, as the source has them; none where it has none."""
        header = self._set_up.stores[0].header
        return header.feature_names.get(column, ()) if header is not None else ()

    def normalize_batch(self, batch: Batch) -> Batch:
        """Frames (B, T, 3, H, W) in the trainer's precision, action and state standardised; all else as it is."""
        precision = str(self.trainer.precision) if self.trainer is not None else "32-true"
        return normalize_batch(batch, self.normalizers, precision=precision)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Transforms (in training only) and normalizes a batch where it is.

        Args:
            batch: As the loader gave it, on the device.
            dataloader_idx: Which of several loaders; they are all treated alike.

        Returns:
            Frames (B, T, 3, H, W) in the trainer's precision, action and state standardised; other columns as
            stored.
        """
        if self.train_transform is not None and self.trainer is not None and self.trainer.training:
            batch = self.train_transform(batch)
        return self.normalize_batch(batch) if self.normalize else batch

    def state_dict(self) -> dict[str, Any]:
        """Where training stands. Lightning keeps it in its checkpoints.

        Other workers, batch sizes and numbers of processes may go on from there; but where the global batch has
        grown, Lightning, which counts in steps, ends the epoch that was interrupted early.
        """
        state: dict[str, Any] = {}
        if self._splits is not None:
            state["files"] = self._splits.fingerprints()
        if self._train_loader is not None:
            state["train"] = self._train_loader.state_dict()
        elif self._train_state is not None:
            state["train"] = self._train_state
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Lets training go on with the very next window after ``state_dict`` was taken.

        Raises:
            UsageError: It was taken from other data.
        """
        files = state_dict.get("files")
        if self._splits is not None and files is not None and files != self._splits.fingerprints():
            raise UsageError(
                f"{self.source}: the checkpoint was made on other data, or on the same converted otherwise. Give "
                "each run a folder of its own (in train.py --trainer.default_root_dir), or that run's data."
            )
        self._train_state = state_dict.get("train")
        if self._train_loader is not None and self._train_state is not None:
            self._train_loader.load_state_dict(self._train_state)

    def __getstate__(self) -> dict[str, Any]:
        """For another process (``ddp_spawn``): all but its loaders; the next one goes on where training stands."""
        state = {"_loaders": None, "_train_loader": None, "_train_state": self.state_dict().get("train")}
        return {**self.__dict__, **state, "_is_cache_settled": False}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._loaders = weakref.WeakSet()

    def teardown(self, stage: str | None = None) -> None:
        """Stops all threads and worker processes."""
        for loader in list(self._loaders):
            loader.close()

    def on_exception(self, exception: BaseException) -> None:
        """Stops all threads and worker processes after an error or Ctrl-C."""
        self.teardown()

    @property
    def _set_up(self) -> Splits:
        if self._splits is None:
            raise UsageError("The data module is not set up. Call prepare_data() and setup() first; a Trainer does.")
        return self._splits

    def _open(self) -> Splits:
        if self.sources.kind == "h5_path":
            paths: Sequence[str | Path] = self.sources.names
        else:
            from lewm_data.conversion.prepare import prepared_file

            paths = [prepared_file(name, self.data_dir, self.config) for name in self.sources.names]
        splits = Splits.open(
            paths,
            weights=self.sources.weights,
            num_steps=self.num_steps,
            frameskip=self.frameskip,
            val_fraction=self.val_fraction,
            seed=self.seed,
            verify_checksums=self.verify_checksums,
            remote=self.remote,
        )
        if self.sources.kind == "h5_path":
            size = None if self.config.image_size == _DEFAULT_IMAGE_SIZE else self.config.image_size
            splits.check_asked(camera=self.config.camera, image_size=size)
        return splits

    def _make_loader(self, dataset: BatchDataset, *, shuffle: bool = False, drop_last: bool = False) -> WindowLoader:
        distributed = DistributedInfo.of(self.trainer)
        order = WindowOrder(
            num_windows=len(dataset),
            batch_size=self.batch_size,
            seed=self.seed,
            rank=distributed.rank,
            world_size=distributed.world_size,
            shuffle=shuffle,
            drop_last=drop_last,
            steps_per_epoch=self.steps_per_epoch if shuffle else None,
            mixture=self._set_up.mixture if shuffle else None,
        )
        num_workers = distributed.num_workers if self.num_workers is None else self.num_workers
        loader = WindowLoader(dataset, WindowSampler(order), num_workers=num_workers, worker_type=self.worker_type)
        self._loaders.add(loader)
        return loader
