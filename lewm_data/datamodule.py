"""The room where the two wings meet: a LeRobot dataset goes in, random windows come out."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import lightning
import numpy as np
import torch

from lewm_data.config import ConvertConfig
from lewm_data.errors import UsageError
from lewm_data.loading.cache import CacheMode, cache_frames
from lewm_data.loading.dataset import Batch, WindowDataset
from lewm_data.loading.loader import WindowLoader, WorkerType
from lewm_data.loading.normalizer import Normalizer, normalize_pixels
from lewm_data.loading.sampler import WindowOrder, WindowSampler
from lewm_data.loading.store import FrameStore
from lewm_data.loading.windows import split_episodes
from lewm_data.resources import num_cpus
from lewm_data.schema import ACTION, STATE, Compression, DirtyEpisodePolicy, Resize, is_pixels

_MOST_THREADS = 16
_DTYPES = {"16": torch.float16, "bf16": torch.bfloat16, "32": torch.float32, "64": torch.float64}


class LeWMDataModule(lightning.LightningDataModule):
    """Converts a dataset once, then feeds a trainer with random windows of it.

    Batches are as ``lewm_data.schema`` has them. On the device, frames become floating point with ImageNet's
    mean and standard deviation, in the trainer's precision; action and state are standardised with the
    statistics of the training episodes.

    Attributes:
        normalizers: ``action`` and ``state`` to their normalizers, once set up; a planner inverts them with
            ``normalizers["action"].denormalize(...)``.
        train_episodes: Positions in the file of the training episodes, once set up.
        val_episodes: The same of the validation episodes.
    """

    def __init__(
        self,
        repo_id: str | None = None,
        root: str | Path | None = None,
        h5_path: str | Path | None = None,
        *,
        revision: str | None = None,
        data_dir: str | Path = "data",
        camera: str | None = None,
        cameras: str | None = None,
        image_size: int | str = 224,
        resize: Resize = "stretch",
        compression: Compression = "lzf",
        dirty_episode_policy: DirtyEpisodePolicy = "fail",
        extra_columns: Sequence[str] = (),
        num_steps: int = 4,
        frameskip: int = 5,
        batch_size: int = 256,
        num_workers: int | None = None,
        worker_type: WorkerType = "thread",
        cache: CacheMode = "auto",
        verify_checksums: bool = False,
        val_fraction: float = 0.1,
        steps_per_epoch: int | None = None,
        seed: int = 3072,
        normalize: bool = True,
        train_transform: Callable[[Batch], Batch] | None = None,
    ) -> None:
        """Takes settings and checks them; reads nothing yet.

        Args:
            repo_id: A LeRobot dataset on the Hub. Give exactly one of ``repo_id``, ``root`` and ``h5_path``.
            root: Folder of a local LeRobot dataset.
            h5_path: A file that is converted already.
            revision: Branch, tag or commit on the Hub.
            data_dir: Folder for converted files.
            camera: The camera that becomes ``pixels``; needed when there are several.
            cameras: Further cameras, each as ``pixels_<name>``: ``all``, or names with commas between.
            image_size: Frame size in pixels: one number, ``HEIGHTxWIDTH`` or ``native``.
            resize: ``stretch``, ``crop`` or ``pad``.
            compression: Codec of the frames.
            dirty_episode_policy: ``fail``, ``skip`` or ``keep`` episodes with errors.
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
        given = [name for name, value in (("repo_id", repo_id), ("root", root), ("h5_path", h5_path)) if value]
        if len(given) != 1:
            raise UsageError(
                f"{' and '.join(given) or 'nothing'} given as the source, but it takes exactly one of repo_id (on the "
                "Hub), root (a local LeRobot folder) and h5_path (a converted file)."
            )
        for name, value in (("num_steps", num_steps), ("frameskip", frameskip), ("batch_size", batch_size)):
            if value < 1:
                raise UsageError(f"{name} is {value}, but must be 1 or more.")
        for name, choice, choices in (
            ("worker_type", worker_type, get_args(WorkerType)),
            ("cache", cache, get_args(CacheMode)),
        ):
            if choice not in choices:
                raise UsageError(f"{name} is {choice!r}, but must be one of {', '.join(choices)}.")
        if not 0 <= val_fraction < 1:
            raise UsageError(f"val_fraction is {val_fraction}, but must lie in [0, 1); 0 trains on every episode.")
        self.source = str(repo_id or root or "")
        self.h5_path = Path(h5_path) if h5_path else None
        self.data_dir = Path(data_dir)
        self.config = ConvertConfig(
            image_size=image_size,
            resize=resize,
            camera=camera,
            cameras=cameras,
            compression=compression,
            dirty_episode_policy=dirty_episode_policy,
            extra_columns=tuple(extra_columns),
            revision=revision,
            min_episode_steps=num_steps * frameskip,
        )
        self.num_steps = num_steps
        self.frameskip = frameskip
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.worker_type: WorkerType = worker_type
        self.cache: CacheMode = cache
        self.verify_checksums = verify_checksums
        self.val_fraction = val_fraction
        self.steps_per_epoch = steps_per_epoch
        self.seed = seed
        self.normalize = normalize
        self.train_transform = train_transform
        self.normalizers: dict[str, Normalizer] = {}
        self._store: FrameStore | None = None
        self._loaders: weakref.WeakSet[WindowLoader] = weakref.WeakSet()
        self._train_loader: WindowLoader | None = None
        self._train_state: dict[str, Any] | None = None

    def prepare_data(self) -> None:
        """Downloads and converts, where that was not done before; a second call finds the work done.

        Raises:
            LewmDataError: What the conversion raises: dirty data, not enough memory or disk, stalled, and so
                on.
        """
        if self.h5_path is None:
            from lewm_data.conversion.prepare import prepare_file

            prepare_file(self.source, self.data_dir, self.config)

    def setup(self, stage: str | None = None) -> None:
        """Opens the file, splits it by episode, and decodes it into RAM where that was asked for or fits.

        Args:
            stage: Lightning's stage; all need the same.

        Raises:
            UsageError: There is no file, no window in it, or fewer windows than a batch takes.
            FormatError: The file is broken.
        """
        if self._store is not None:
            return
        if self.h5_path is None:
            from lewm_data.conversion.prepare import prepared_file

            path = prepared_file(self.source, self.data_dir, self.config)
        else:
            path = self.h5_path
        store = FrameStore(path, verify_checksums=self.verify_checksums)
        span = self.num_steps * self.frameskip
        longest = int(store.ep_len.max(initial=0))
        if longest < span:
            raise UsageError(
                f"{path}: a window takes num_steps * frameskip = {self.num_steps} * {self.frameskip} = {span} steps, "
                f"but the longest of {len(store.ep_len)} episodes has {longest}. Lower num_steps or frameskip."
            )
        self.train_episodes, self.val_episodes = split_episodes(
            store.ep_len, span=span, val_fraction=self.val_fraction, seed=self.seed
        )
        whole = WindowDataset(store, num_steps=self.num_steps, frameskip=self.frameskip)
        self._datasets = {
            "train": whole.restrict(self.train_episodes),
            "val": whole.restrict(self.val_episodes),
            "predict": whole,
        }
        self._check_batch_size(path, len(self._datasets["train"]))
        if not len(self.val_episodes) and self.trainer is not None:
            self.trainer.limit_val_batches = 0  # else Lightning warns of an empty validation loader at each run
        self.normalizers = {
            name: Normalizer.fit(whole.values(name), _rows_of(store, self.train_episodes))
            for name in (ACTION, STATE)
            if name in whole.columns
        }
        cache_frames(
            store,
            mode=self.cache,
            is_shared=self.worker_type == "process" or self._num_local_processes() > 1,
            show_progress=self._rank() == 0,
        )
        self._store = store

    def train_dataloader(self) -> WindowLoader:
        """Shuffled windows of the training episodes, full batches only."""
        overfits = getattr(self.trainer, "overfit_batches", 0) > 0  # on the same few batches
        self._train_loader = self._make_loader("train", shuffle=not overfits, drop_last=True)
        if self._train_state is not None:
            self._train_loader.load_state_dict(self._train_state)
            self._train_state = None
        return self._train_loader

    def val_dataloader(self) -> WindowLoader | list[Any]:
        """Windows of the validation episodes in the file's order; nothing where ``val_fraction`` is 0."""
        return self._make_loader("val") if len(self.val_episodes) else []

    def predict_dataloader(self) -> WindowLoader:
        """Every window of the file, in its order."""
        return self._make_loader("predict")

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
        if not self.normalize:
            return batch
        precision = str(self.trainer.precision) if self.trainer is not None else "32-true"
        dtype = _DTYPES.get(precision.split("-")[0], torch.bfloat16)  # else transformer-engine's
        batch = dict(batch)
        for name, values in batch.items():
            if is_pixels(name):
                batch[name] = normalize_pixels(values, dtype)
            elif name in self.normalizers:
                values = self.normalizers[name].normalize(values)
                batch[name] = values.to(dtype) if precision.endswith("true") else values
        return batch

    def state_dict(self) -> dict[str, Any]:
        """Where training stands: epoch and position. Lightning keeps it in its checkpoints."""
        if self._train_loader is not None:
            return {"train": self._train_loader.state_dict()}
        return {"train": self._train_state} if self._train_state is not None else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Lets training go on with the very next window after ``state_dict`` was taken."""
        self._train_state = state_dict.get("train")
        if self._train_loader is not None and self._train_state is not None:
            self._train_loader.load_state_dict(self._train_state)

    def teardown(self, stage: str | None = None) -> None:
        """Stops all threads and worker processes."""
        for loader in list(self._loaders):
            loader.close()

    def on_exception(self, exception: BaseException) -> None:
        """Stops all threads and worker processes after an error or Ctrl-C."""
        self.teardown()

    def _make_loader(self, split: str, *, shuffle: bool = False, drop_last: bool = False) -> WindowLoader:
        dataset = self._datasets[split]
        order = WindowOrder(
            num_windows=len(dataset),
            batch_size=self.batch_size,
            seed=self.seed,
            rank=self._rank(),
            world_size=self._world_size(),
            shuffle=shuffle,
            drop_last=drop_last,
            steps_per_epoch=self.steps_per_epoch if shuffle else None,
        )
        loader = WindowLoader(
            dataset,
            WindowSampler(order),
            num_workers=self._num_workers(),
            worker_type=self.worker_type,
        )
        self._loaders.add(loader)
        return loader

    def _check_batch_size(self, path: Path, num_windows: int) -> None:
        world_size = self._world_size()
        if self.steps_per_epoch is None and self.batch_size * world_size > num_windows:
            raise UsageError(
                f"{path}: the training split has {num_windows} windows in {len(self.train_episodes)} episodes, fewer "
                f"than one batch of batch_size {self.batch_size} on each of {world_size} processes. Set batch_size to "
                f"{num_windows // world_size} or less, or lower val_fraction."
            )

    def _rank(self) -> int:
        if self.trainer is not None:
            return int(self.trainer.global_rank)
        return torch.distributed.get_rank() if _is_distributed() else 0

    def _world_size(self) -> int:
        if self.trainer is not None:
            return int(self.trainer.world_size)
        return torch.distributed.get_world_size() if _is_distributed() else 1

    def _num_local_processes(self) -> int:
        """Training processes on this node."""
        return int(os.environ.get("LOCAL_WORLD_SIZE", 0)) or (self.trainer.num_devices if self.trainer else 1)

    def _num_workers(self) -> int:
        if self.num_workers is not None:
            return self.num_workers
        return max(1, min(_MOST_THREADS, num_cpus() // self._num_local_processes()))


def _is_distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _rows_of(store: FrameStore, episodes: np.ndarray[Any, np.dtype[np.int64]]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which of a file's rows belong to some episodes, (N,) bool."""
    edges = np.zeros(store.num_rows + 1, np.int32)
    np.add.at(edges, store.ep_offset[episodes], 1)
    np.add.at(edges, store.ep_offset[episodes] + store.ep_len[episodes], -1)
    return np.cumsum(edges[:-1]) > 0
