"""Settings as frozen dataclasses: a field is a YAML key is a command-line flag."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from lewm_data.errors import UsageError
from lewm_data.findings import POLICIES, DirtyEpisodePolicy
from lewm_data.notation import check_choice, check_least, parse_episodes, parse_image_size, parse_part, parse_shift

FORMAT_VERSION = 1

Compression = Literal["lzf", "none", "lz4", "zstd", "blosc2", "jpeg"]

Resize = Literal["stretch", "crop", "pad"]

StateDtype = Literal["float32", "float64"]

COMPRESSIONS: tuple[str, ...] = get_args(Compression)

RESIZES: tuple[str, ...] = get_args(Resize)


_NOT_CONTENT = frozenset(
    {
        "micro_batch", "watchdog_seconds", "overwrite", "shard_bytes", "decode_threads", "revision", "layout", "shard",
        "engine", "address", "follow_links", "reuse",
    }
)  # fmt: skip


_CORRECTIONS = frozenset({"shift", "trim_idle"})

Layout = Literal["single", "sharded"]
Engine = Literal["local", "ray"]

MAX_WATCHDOG_SECONDS = 1e6


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvertConfig:
    """What to convert and how.

    Attributes:
        image_size: Frame size in pixels: one number for a square, ``HEIGHTxWIDTH``, or ``native``.
        resize: ``stretch`` ignores the aspect ratio, ``crop`` fills and cuts the center, ``pad`` fits and adds
            black bars.
        camera: The camera that becomes ``pixels``: its LeRobot key or short name. Required if there are several.
        cameras: Further cameras, each as ``pixels_<name>``: ``all``, or names separated by commas.
        compression: Codec of the frames. All are lossless except ``jpeg``, which makes the smallest files.
        quality: How close a lossy codec stays to the frames, 1 to 100; None takes the codec's default. Lossless codecs
            have no quality.
        shift: Corrects cameras that are out of step, as ``CAMERA=FRAMES[,CAMERA=FRAMES...]``: ``front=+2`` pairs each
            row with the frame two later and drops the rows left without one. ``CAMERA=auto`` lets ``assess`` measure
            the shift and takes what is beyond doubt; ``auto`` alone does so for every converted camera.
        trim_idle: Cut the steps at the head and tail of each episode in which the robot stands still, as ``assess``
            finds them. An episode in which it never moves is dropped. This reads every frame once more.
        micro_batch: Frames that are decoded, compressed and written together.
        dirty_episode_policy: ``fail`` refuses the dataset, ``skip`` drops episodes with errors, ``keep`` converts
            what can still be aligned and marks it.
        watchdog_seconds: Stop with status 5 after this long without progress; 0 turns the watchdog off.
        episodes: Episodes to convert, by episode_index: half-open ranges and single numbers, such as ``0:50,60``.
        action: Columns that make up ``action``, side by side in this order: ``KEY[,KEY...]``. A trailing ``*`` takes
            every numeric column with that prefix. None takes ``action``, else ``actions``.
        state: Columns that make up ``state``, in the same form; ``none`` leaves the state out. None takes
            ``observation.state``, else ``state``.
        state_dtype: How ``action`` and ``state`` are stored. ``float64`` keeps values that float32 would merge, such as
            a clock in seconds since 1970 or a GPS position.
        extra_columns: Further numeric columns to convert, by their LeRobot keys.
        revision: Branch, tag or commit on the Hub.
        follow_links: Read data and video files that are links to places outside the dataset's folder, such as another
            disk. For your own recordings only: a link in someone else's dataset can lead to any file of yours.
        overwrite: Replace an output that exists.
        reuse: A file that an earlier conversion of this recording made. Frames of episodes whose source bytes are
            unchanged are copied from it instead of decoded. Without it, the file that ``overwrite`` replaces.
        min_episode_steps: Episodes shorter than this get a warning, which the file records. Set it to the steps of
            your training window, ``num_steps * frameskip``. ``LeWMDataModule`` leaves it at 1, so that one file serves
            every window.
        shard_bytes: Size at which a shard is closed, in bytes; an interruption costs at most one shard.
        decode_threads: Threads of the video decoder; 0 means as many as there are processors.
        layout: ``single`` makes one file. ``sharded`` keeps the shards in a folder next to the output, which is then a
            small virtual file (HDF5 virtual datasets over the shards). This needs no second copy on the disk.
        shard: Convert only one of n parts, given as ``i/n`` with i from 0 to n-1, such as ``0/8``; ``lewm-data merge``
            joins the parts.
        engine: ``local`` converts in this process; ``ray`` lets a Ray cluster make the shards, with the output on a
            file system that all its nodes share.
        address: Address of the Ray cluster; None starts one on this machine.
    """

    image_size: int | str = 224
    resize: Resize = "stretch"
    camera: str | None = None
    cameras: str | None = None
    compression: Compression = "lzf"
    quality: int | None = None
    shift: str | None = None
    trim_idle: bool = False
    micro_batch: int = 64
    dirty_episode_policy: DirtyEpisodePolicy = "fail"
    watchdog_seconds: float = 120.0
    episodes: str | None = None
    action: str | None = None
    state: str | None = None
    state_dtype: StateDtype = "float32"
    extra_columns: tuple[str, ...] = ()
    revision: str | None = None
    follow_links: bool = False
    overwrite: bool = False
    reuse: str | None = None
    min_episode_steps: int = 20
    shard_bytes: int = 1 << 30
    decode_threads: int = 0
    layout: Layout = "single"
    shard: str | None = None
    engine: Engine = "local"
    address: str | None = None

    def __post_init__(self) -> None:
        given: object = self.extra_columns  # one text with commas, as for the other lists, is taken too
        columns = filter(None, map(str.strip, given.split(","))) if isinstance(given, str) else self.extra_columns
        object.__setattr__(self, "extra_columns", tuple(columns))
        parse_image_size(self.image_size)
        if self.episodes is not None:
            parse_episodes(self.episodes)
        if self.shard is not None:
            parse_part(self.shard)
        if self.shift is not None:
            parse_shift(self.shift)
        for name, value, choices in (
            ("resize", self.resize, RESIZES),
            ("compression", self.compression, COMPRESSIONS),
            ("dirty_episode_policy", self.dirty_episode_policy, POLICIES),
            ("state_dtype", self.state_dtype, get_args(StateDtype)),
            ("layout", self.layout, get_args(Layout)),
            ("engine", self.engine, get_args(Engine)),
        ):
            check_choice(name, value, choices)
        if self.watchdog_seconds > MAX_WATCHDOG_SECONDS:
            raise UsageError(
                f"watchdog_seconds is {self.watchdog_seconds:g}, but must be {MAX_WATCHDOG_SECONDS:g} or less; "
                "0 turns the watchdog off."
            )
        for name, number, least in (
            ("micro_batch", self.micro_batch, 1),
            ("watchdog_seconds", self.watchdog_seconds, 0),
            ("min_episode_steps", self.min_episode_steps, 1),
            ("shard_bytes", self.shard_bytes, 1),
            ("decode_threads", self.decode_threads, 0),
        ):
            check_least(name, number, least)

    def content_settings(self) -> dict[str, Any]:
        """The settings that can change the file's content; the others change only speed, safety or place.

        Corrections that are off and a quality that is not set are left out, so that files of versions without them keep
        their fingerprint.
        """
        settings = {name: value for name, value in dataclasses.asdict(self).items() if name not in _NOT_CONTENT}
        return {name: value for name, value in settings.items() if value or name not in (*_CORRECTIONS, "quality")}

    def to_json(self) -> dict[str, Any]:
        """All fields as a JSON-ready dictionary."""
        return {**dataclasses.asdict(self), "extra_columns": list(self.extra_columns)}


@dataclass(frozen=True, kw_only=True, slots=True)
class PreviewConfig:
    """What a preview shows.

    Attributes:
        num_steps: Frames that a training window keeps.
        frameskip: Steps from one kept frame to the next.
        max_episodes: Episodes that are shown with pictures and curves; all are listed with their numbers.
        episodes: Episodes to choose them from: half-open ranges and single numbers, such as ``0:50,60``. None prefers
            those with findings and the odd ones, and takes the rest evenly.
        assess: Also judge whether a world model will learn from it, as ``assess`` does, on at most 9,000 frames. A
            contact sheet and a page of a file in object storage leave it out.
        overwrite: Replace an output that exists.
        val_fraction: Share of the episodes that validate. These settings show the split that training makes of them.
        seed: Seed of val_fraction and fold.
        fold: ``i/k``: the i-th of k folds validates.
        train_episodes: The only episodes to train on, by episode_index in the source, such as ``0:8,12``.
        val_episodes: The only episodes that validate.
        test_episodes: Episodes that neither train nor validate.
    """

    num_steps: int = 4
    frameskip: int = 5
    max_episodes: int = 200
    episodes: str | None = None
    assess: bool = True
    overwrite: bool = False
    val_fraction: float = 0.1
    seed: int = 3072
    fold: str | None = None
    train_episodes: str | None = None
    val_episodes: str | None = None
    test_episodes: str | None = None

    def __post_init__(self) -> None:
        if self.episodes is not None:
            parse_episodes(self.episodes)
        for name, number in (
            ("num_steps", self.num_steps),
            ("frameskip", self.frameskip),
            ("max_episodes", self.max_episodes),
        ):
            check_least(name, number, 1)

    @property
    def span(self) -> int:
        """Steps in a training window."""
        return self.num_steps * self.frameskip


@dataclass(frozen=True, kw_only=True, slots=True)
class AssessConfig:
    """What ``assess`` looks at.

    Attributes:
        camera: The only camera to judge: its LeRobot key or short name. None judges all of them.
        frameskip: The frameskip that you mean to train with.
        episodes: Episodes to judge, by episode_index, such as ``0:50,60``. None takes all of them.
        action: Columns that make up ``action``, as in ``convert``.
        state: Columns that make up ``state``, as in ``convert``.
        revision: Branch, tag or commit on the Hub.
    """

    camera: str | None = None
    frameskip: int = 5
    episodes: str | None = None
    action: str | None = None
    state: str | None = None
    revision: str | None = None

    def __post_init__(self) -> None:
        if self.episodes is not None:
            parse_episodes(self.episodes)
        check_least("frameskip", self.frameskip, 1)


def shared_settings[T](cls: type[T], settings: Mapping[str, Any], **others: Any) -> T:
    """Makes a configuration from the settings that have the names of its fields.

    Args:
        cls: A dataclass.
        settings: The settings of something that has more of them, by name.
        **others: Its further fields. The rest keep their defaults.
    """
    fields = [field.name for field in dataclasses.fields(cls) if field.init]  # type: ignore[arg-type]
    return cls(**{name: settings[name] for name in fields if name in settings}, **others)
