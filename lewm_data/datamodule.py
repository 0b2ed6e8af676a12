"""The Lightning data module: LeRobot datasets go in, batches of random windows come out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lewm_data.config import Compression, ConvertConfig, Resize, shared_settings
from lewm_data.converted_files import check_opened, convert_sources, converted_files, find_rest
from lewm_data.errors import redact
from lewm_data.findings import DirtyEpisodePolicy
from lewm_data.loading.augment import Augmentation
from lewm_data.loading.batches import Batch
from lewm_data.loading.columns import DATASET_IDX, TASK, TASK_COLUMN, TASK_IDX
from lewm_data.loading.data_record import check_accepted
from lewm_data.loading.distributed import DistributedInfo
from lewm_data.loading.episode_selection import Selection
from lewm_data.loading.episode_split import SplitRule
from lewm_data.loading.full_datasets import open_datasets
from lewm_data.loading.goals import Goal
from lewm_data.loading.idle_windows import IdleWeight
from lewm_data.loading.loader import WorkerType
from lewm_data.loading.ram_cache import CacheMode, cache_frames
from lewm_data.loading.remote.config import RemoteConfig
from lewm_data.loading.sampler import check_batch_size
from lewm_data.loading.settings import (
    RUN_SETTINGS,
    Source,
    Sources,
    check_settings,
    list_of_names,
    plain_settings,
)
from lewm_data.loading.splits import Splits
from lewm_data.loading.statistics import PER_DATASET, Normalization
from lewm_data.loading.window_data_module import WindowDataModule
from lewm_data.paths import local_path
from lewm_data.resources import Progress, silent


class LeWMDataModule(WindowDataModule):
    """Converts datasets once, then feeds a trainer with random windows of them.

    ``lewm_data.format.schema`` describes the batches. On the device, frames become floating point in the trainer's
    precision, normalized with ImageNet's mean and standard deviation. Action and state are normalized with the
    statistics of the training episodes.

    The split is by source episode. An episode is on the same side of the split in every file that holds it, and for
    windows of any length. The split changes only with ``seed`` and with the settings that say how to split.

    An epoch of a list of datasets visits every training window of each dataset once. For a mapping of datasets to
    weights, an epoch takes as many windows as there are, and each dataset's share of them is its weight over the sum of
    the weights. The share is exact over an epoch, in random order. An undersampled dataset contributes a different
    subset each epoch; an oversampled one repeats all of its windows equally often, give or take one. Validation visits
    every window once, whatever the weights. Statistics count a row as often as an epoch visits a window of its dataset.

    A run that resumes from a checkpoint draws the very next window, and its ``train_transform`` draws the same random
    numbers, with any kind and number of workers. Only batches that are trained on move the position that the
    checkpoint stores; other iterations over the training loader do not. In a single process, gradients that
    ``accumulate_grad_batches`` has summed up so far are stored too. With the same number of processes and the same
    ``batch_size``, and if the model's own random numbers depend on the step only (those of ``LeWMModule`` do), the
    resumed run repeats the uninterrupted one step by step, from any checkpoint that was saved between two batches.

    Attributes:
        normalizers: ``action`` and ``state`` to their normalizers, once set up. Planners call ``denormalize``.
    """

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
        quality: int | None = None,
        shift: str | None = None,
        trim_idle: bool = False,
        dirty_episode_policy: DirtyEpisodePolicy = "fail",
        action: str | None = None,
        state: str | None = None,
        extra_columns: Sequence[str] = (),
        num_steps: int = 4,
        frameskip: int = 5,
        goal: str | None = None,
        batch_size: int = 256,
        num_workers: int | None = None,
        worker_type: WorkerType = "thread",
        cache: CacheMode = "auto",
        verify_checksums: bool = False,
        remote: RemoteConfig | None = None,
        allow_duplicates: bool = False,
        accept_changes: Sequence[str] = (),
        val_fraction: float = 0.1,
        train_episodes: Selection | None = None,
        val_episodes: Selection | None = None,
        test_episodes: Selection | None = None,
        fold: tuple[int, int] | str | None = None,
        steps_per_epoch: int | None = None,
        idle_weight: float = 1.0,
        seed: int = 3072,
        normalize: Normalization = True,
        columns: Sequence[str] = (),
        augment: dict[str, float] | None = None,
        train_transform: Callable[[Batch], Batch] | None = None,
    ) -> None:
        """Checks the settings. Reads nothing yet.

        Args:
            repo_id: A LeRobot dataset on the Hub, or a list of them, or a mapping of each to its weight. Give
                exactly one of ``repo_id``, ``root`` and ``h5_path``.
            root: Folder of a local LeRobot dataset; or several, likewise.
            h5_path: A converted file, or its fsspec address such as ``s3://bucket/data.h5`` or
                ``hf://datasets/owner/name/data.h5``; or several, likewise. A file that holds another ``camera`` or
                ``image_size`` than you ask for is refused; 224, the default, accepts every size, and ``224x224`` does
                not. The settings of the conversion apply to all datasets. If one needs others, such as another
                ``camera``, convert it beforehand.
            revision: Branch, tag or commit on the Hub.
            data_dir: Folder for converted files.
            camera: The camera that becomes ``pixels``; required if there are several.
            cameras: Further cameras, each as ``pixels_<name>``: ``all``, or names separated by commas.
            image_size: Frame size in pixels: one number, ``HEIGHTxWIDTH`` or ``native``.
            resize: ``stretch``, ``crop`` or ``pad``.
            compression: Codec of the frames.
            quality: Quality of ``compression="jpeg"``, which is lossy; None takes the default.
            shift: Correct cameras that are out of step: ``front=+2`` pairs each row with the frame two later, and
                ``auto`` lets ``assess`` measure it. For a converted file, ``lewm-data convert`` takes ``--shift``.
            trim_idle: Cut the steps at the head and tail of each episode in which the robot stands still.
            dirty_episode_policy: ``fail``, ``skip`` or ``keep`` episodes with errors.
            action: Columns that make up ``action``: ``KEY[,KEY...]``, where a trailing ``*`` takes every numeric column
                with that prefix; None takes ``action``, else ``actions``.
            state: Columns that make up ``state``, likewise; ``none`` leaves it out. None takes ``observation.state``,
                else ``state``.
            extra_columns: Further numeric columns to convert, by their LeRobot keys.
            num_steps: Frames that a window keeps.
            frameskip: Steps from one kept frame to the next.
            goal: Adds a later step of the same episode to each window, as ``goal_pixels``, ``goal_state``, ... and
                ``goal_steps``: ``uniform`` draws all later steps equally often, ``geometric:0.98`` nearer ones more
                often. None adds nothing.
            batch_size: Windows per batch and process.
            num_workers: Threads or processes per loader. None is this process's share of the processors, at most 16;
                and at most 4 threads for uncompressed and lz4 files, which more threads slow down.
            worker_type: ``thread``, or ``process``.
            cache: Decode all frames into RAM first: ``auto`` if they fit into half of the available memory, ``ram``
                always, ``none`` never.
            verify_checksums: Check every frame's checksum when it is read.
            remote: How to read from object storage, if ``h5_path`` is an address. None takes the defaults.
            allow_duplicates: Accept the same episode of the same source in several files. Training uses every copy,
                validation only one.
            accept_changes: Changes to accept when a checkpoint of other data or settings is resumed: ``data``,
                ``split``, ``normalizers``, or the name of a setting such as ``seed``. The error names what changed.
            val_fraction: Share of the episodes that validate, in [0, 1); 0 trains on all. ``val_episodes`` or ``fold``
                takes its place.
            train_episodes: The only episodes to train on, by their number in the source: ``"0:8,12"``, or a list of
                numbers and slices. ``"40:"`` takes all from 40 on. With several sources, a mapping of each to its
                episodes. None trains on all that neither validate nor test.
            val_episodes: The only episodes that validate, likewise.
            test_episodes: Episodes for ``trainer.test``, likewise. They neither train nor validate.
            fold: ``(i, k)`` or ``"i/k"``: k-fold cross-validation, where the i-th of k folds validates, i from 0.
            steps_per_epoch: Draw windows with replacement, for this many batches per epoch. None visits each window
                once.
            idle_weight: Share of the training windows without motion that an epoch draws, in [0, 1], different ones in
                each epoch; 1 draws all. State and action rest throughout such a window, by the noise floor of
                ``assess``. Rows stay contiguous, and validation is untouched.
            seed: Seed of the split, of the order, and of ``train_transform``.
            normalize: True normalizes frames, action and state, with statistics of all datasets together;
                ``per_dataset`` does so with the statistics of each window's own dataset, and adds ``dataset_idx`` to
                the batch. With False, batches stay as they are stored, with frames in uint8.
            columns: Columns to add to the batch: ``task_idx``, ``task``, ``episode_idx``, ``step_idx`` and
                ``dataset_idx``. Other columns of the file are in every batch. ``tasks`` and ``episodes`` say what the
                numbers mean.
            augment: Names and strengths of random changes to the training frames, on the device, such as
                ``{"shift": 0.05, "brightness": 0.2}``; ``lewm_data.loading.augment.Augmentation`` lists them. One draw
                per window changes all its frames, cameras and its goal alike.
            train_transform: A function of your own that takes and returns a batch. Training calls it on the device,
                after ``augment`` and before normalization. Frames are uint8 then, or floating point in [0, 1] if
                ``augment`` does more than shift them; it may return either. For each batch, torch, numpy and random
                are seeded with the batch's place in the run.

        Raises:
            UsageError: Not exactly one source is given, or a setting is out of range.
        """
        given = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__()
        self.save_hyperparameters(plain_settings(given))
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.worker_type = worker_type
        self.steps_per_epoch = steps_per_epoch
        self.seed = seed
        self.normalize = normalize
        self._augmentation = Augmentation.parse({} if augment is None else augment)
        self.augment = self._augmentation.strengths()
        self.train_transform = train_transform
        self.accept_changes = list_of_names(accept_changes)
        self.sources = Sources.parse(repo_id=repo_id, root=root, h5_path=h5_path)
        check_settings(given)
        check_accepted(self.accept_changes, RUN_SETTINGS)
        self.split_rule = shared_settings(SplitRule, given)
        self.columns = list_of_names(columns)
        if {TASK, TASK_IDX} & {*self.columns} and self.sources.kind != "h5_path":
            given["extra_columns"] = dict.fromkeys([*list_of_names(extra_columns), TASK_COLUMN])
        self.data_dir = local_path(data_dir, "data_dir")
        self.config = shared_settings(ConvertConfig, given, min_episode_steps=1)  # no window's length changes the file
        self.num_steps = num_steps
        self.frameskip = frameskip
        self.goal = None if goal is None else str(Goal.parse(goal))
        self.cache: CacheMode = cache
        self.verify_checksums = verify_checksums
        self.remote = remote
        self.allow_duplicates = allow_duplicates
        self.idle_weight = idle_weight
        self.val_fraction = val_fraction
        self._is_cache_settled = False

    def __repr__(self) -> str:
        """One line with the source, the windows and the split."""
        goals = f" with {self.goal} goals" if self.goal is not None else ""
        windows = (
            f"windows of {self.num_steps} frames {self.frameskip} steps apart{goals} in batches of {self.batch_size}"
        )
        if self._splits is None:
            return f"LeWMDataModule({self.source}: {windows}; not set up yet)"
        return f"LeWMDataModule({self.source}: {windows}; {self._splits})"

    __str__ = __repr__  # Lightning's own would iterate over all loaders

    @property
    def source(self) -> str:
        """The datasets' repo ids, paths or addresses (without secrets), separated by commas."""
        return redact(str(self.sources))

    def prepare_data(self) -> None:
        """Downloads and converts the datasets, unless that is done.

        Raises:
            LewmDataError: The conversion failed: dirty data, not enough memory or disk, or it stalled.
        """
        convert_sources(self.sources, self.data_dir, self.config)

    def setup(self, stage: str | None = None) -> None:
        """Opens the files, splits them by episode, and decodes them into RAM as ``cache`` says.

        Args:
            stage: Lightning's stage. All stages need the same.

        Raises:
            UsageError: A file does not exist or holds no window, there are fewer windows than a batch takes, several
                datasets do not fit together or hold the same episodes, or the checkpoint to resume belongs to other
                data.
            FormatError: A file is broken.
        """
        distributed = DistributedInfo.of(self.trainer)
        progress = None if distributed.rank == 0 else silent
        if self._splits is None:
            settings = {name: getattr(self, name) for name in RUN_SETTINGS}
            if not self.split_rule.is_by_fraction:
                del settings["val_fraction"]
            settings["weights"] = list(self.sources.weights) if self.sources.weights is not None else None
            self.serve(self._open(progress, warn=distributed.rank == 0), settings)
        super().setup(stage)
        if stage in (None, "fit") and self.steps_per_epoch is None:
            check_batch_size(
                self.source,
                num_windows=self.splits.num_train_draws,
                batch_size=self.batch_size,
                world_size=distributed.world_size,
            )
        if not self._is_cache_settled:
            is_shared = self.worker_type == "process" or distributed.num_local > 1
            cache_frames(*self.splits.stores, mode=self.cache, is_shared=is_shared, progress=progress)
            self._is_cache_settled = True

    def __getstate__(self) -> dict[str, Any]:
        """See ``WindowDataModule``. The other process finds the RAM cache by itself."""
        return {**super().__getstate__(), "_is_cache_settled": False}

    def _open(self, progress: Progress | None, *, warn: bool) -> Splits:
        is_numbered = len(self.sources.names) > 1 and self.normalize == PER_DATASET
        datasets = open_datasets(
            converted_files(self.sources, self.data_dir, self.config),
            num_steps=self.num_steps,
            frameskip=self.frameskip,
            goal=self.goal,
            verify_checksums=self.verify_checksums,
            remote=self.remote,
            progress=progress,
            columns=(*self.columns, DATASET_IDX) if is_numbered else self.columns,
        )
        check_opened(datasets, self.sources, self.config, warn=warn)
        return Splits.of(
            datasets,
            self.split_rule,
            names=self.sources.names,
            weights=self.sources.weights,
            idle=None if self.idle_weight == 1 else IdleWeight(self.idle_weight, find_rest),
            allow_duplicates=self.allow_duplicates,
            normalize=self.normalize,
        )
