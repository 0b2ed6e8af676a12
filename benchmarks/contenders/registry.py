"""The contenders by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from benchmarks.contenders.base import Contender, Settings
from benchmarks.contenders.limits import CachedBatch, MemoryLimit
from benchmarks.contenders.ours import Ours
from benchmarks.contenders.peers import LeRobotMp4, TheirHdf5, TheirLance
from benchmarks.prepared import Prepared
from lewm_data.config import COMPRESSIONS


class Entry(NamedTuple):
    """A contender before it is opened.

    Attributes:
        group: A key of ``GROUPS``.
        label: What a table calls it.
        open: Opens it.
        least_psnr_db: None where its frames must be equal to the reference's; else how near they must come.
        imports: The module that takes long to import, if any; it is imported before anything is timed.
    """

    group: str
    label: str
    open: Callable[[Prepared, Settings], Contender]
    least_psnr_db: float | None = None
    imports: str | None = None


GROUPS = {
    "limit": "memory limit",
    "ours": "lewm_data (codec of the file, or RAM cache)",
    "peer": "stable-worldmodel (PyPI)",
    "mp4": "LeRobotDataset, MP4 seek (PyPI)",
}

_MP4_DB = 31.0
"""LeRobot's frames are reduced from RGB at native size here, and in one pass from YUV by the conversion: 38 dB at 224
pixels, where the next frame of the same recording is 24 to 29 dB away."""


def _ours(label: str, codec: str, *, cache: bool = False, worker_type: str = "thread") -> Entry:
    return Entry(
        "ours",
        label,
        lambda data, settings: Ours(data, settings, codec=codec, cache=cache, worker_type=worker_type),
        imports="lewm_data.loading.loader",
    )


def _theirs(label: str, *, ours: str | None, plain: bool = False) -> Entry:
    return Entry(
        "peer",
        label,
        lambda data, settings: TheirHdf5(data, settings, ours=ours, plain=plain),
        imports="stable_worldmodel.data.formats.hdf5",
    )


def _mp4(backend: str) -> Entry:
    return Entry(
        "mp4",
        f"LeRobotDataset, MP4, {backend}",
        lambda data, settings: LeRobotMp4(data, settings, backend=backend),
        _MP4_DB,
        imports="torch",  # LeRobot reads its folders from the environment when it is imported
    )


def _limit(label: str, *, mapped: bool) -> Entry:
    return Entry("limit", label, lambda data, settings: MemoryLimit(data, settings, mapped=mapped))


CONTENDERS: dict[str, Entry] = {
    "cached_batch": Entry("limit", "no loader: one batch, again and again", CachedBatch),
    "limit_mmap": _limit("memory limit: only copy, mapped file", mapped=True),
    "limit_ram": _limit("memory limit: only copy, RAM, huge pages", mapped=False),
    "ram_thread": _ours("RAM cache, threads", "lzf", cache=True),
    "ram_process": _ours("RAM cache, processes", "lzf", cache=True, worker_type="process"),
    **{
        f"{codec}_thread": _ours(f"{codec}, threads", codec)
        for codec in ("none", *(name for name in COMPRESSIONS if name != "none"))
    },
    "lzf_process": _ours("lzf, processes", "lzf", worker_type="process"),
    **{
        f"{codec}_process": _ours(f"{codec}, processes", codec, worker_type="process")
        for codec in COMPRESSIONS
        if codec != "lzf"
    },
    "swm_hdf5": _theirs("stable-worldmodel, its own HDF5", ours=None),
    "swm_lance": Entry(
        "peer", "stable-worldmodel, Lance (JPEG)", TheirLance, 30.0, imports="stable_worldmodel.data.formats.lance"
    ),
    "swm_on_lzf": _theirs("stable-worldmodel on our lzf file", ours="lzf"),
    "swm_on_lzf_plain": _theirs("stable-worldmodel on our lzf file, its defaults", ours="lzf", plain=True),
    "lerobot_torchcodec": _mp4("torchcodec"),
    "lerobot_pyav": _mp4("pyav"),
}
"""Everybody by name, in the order of the table."""
