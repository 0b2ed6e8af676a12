"""Every contender of the throughput benchmark, by name.

All draw the same windows in the same order, that of our ``WindowOrder``. Peers get it through torch's
``DataLoader(batch_sampler=...)``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from benchmarks.contenders.base import Contender
from benchmarks.contenders.limits import CachedBatch, MemoryLimit
from benchmarks.contenders.ours import Ours
from benchmarks.contenders.peers import LeRobotMp4, TheirHdf5, TheirLance
from lewm_data.config import COMPRESSIONS
from lewm_data.format.codecs import CODECS


class Entry(NamedTuple):
    """A contender before it is opened.

    Attributes:
        group: ``limit``, ``ours``, ``peer`` or ``mp4``.
        label: Its name in tables and charts.
        open: Opens it, from ``Prepared`` and ``Settings``.
        imports: A module that is slow to import; it is imported before anything is timed.
        least_psnr_db: None if its frames must equal the reference; otherwise the least PSNR.
    """

    group: str
    label: str
    open: Callable[..., Contender]
    imports: str = "numpy"
    least_psnr_db: float | None = None


LOSSY_DB = 30.0
"""Of files with a lossy codec, ours and Lance's. The next frame of the same recording is 24 to 29 dB away."""

_MP4_DB = 31.0
"""LeRobot's frames are resized after their conversion to RGB, ours together with it, by another filter. The next frame
of the same recording is 24 to 29 dB away."""


def _ours(label: str, codec: str, worker_type: str, *, cache: bool = False) -> Entry:
    opened = partial(Ours, codec=codec, cache=cache, worker_type=worker_type)
    is_lossless = CODECS[codec].is_lossless
    return Entry("ours", label, opened, "lewm_data.loading.loader", None if is_lossless else LOSSY_DB)


def _theirs(label: str, *, ours: str | None = None, plain: bool = False) -> Entry:
    return Entry("peer", label, partial(TheirHdf5, ours=ours, plain=plain), "stable_worldmodel.data.formats.hdf5")


def _mp4(backend: str) -> Entry:
    # LeRobot reads its folders from the environment when it is imported, so only torch is imported early.
    return Entry("mp4", f"LeRobotDataset, MP4, {backend}", partial(LeRobotMp4, backend=backend), "torch", _MP4_DB)


def _name(codec: str) -> str:
    return codec if CODECS[codec].is_lossless else f"{codec} (lossy)"


_CODECS = ("none", *(codec for codec in COMPRESSIONS if codec != "none"))

CONTENDERS: dict[str, Entry] = {
    "cached_batch": Entry("limit", "no loader: one batch, again and again", CachedBatch),
    "limit_mmap": Entry("limit", "memory limit: only copy, mapped file", partial(MemoryLimit, mapped=True)),
    "limit_ram": Entry("limit", "memory limit: only copy, RAM, huge pages", partial(MemoryLimit, mapped=False)),
    "ram_thread": _ours("RAM cache, threads", "lzf", "thread", cache=True),
    "ram_process": _ours("RAM cache, processes", "lzf", "process", cache=True),
    **{f"{codec}_thread": _ours(f"{_name(codec)}, threads", codec, "thread") for codec in _CODECS},
    "lzf_process": _ours("lzf, processes", "lzf", "process"),
    **{
        f"{codec}_process": _ours(f"{_name(codec)}, processes", codec, "process") for codec in _CODECS if codec != "lzf"
    },
    "swm_hdf5": _theirs("stable-worldmodel, its own HDF5"),
    "swm_lance": Entry(
        "peer", "stable-worldmodel, Lance (JPEG)", TheirLance, "stable_worldmodel.data.formats.lance", LOSSY_DB
    ),
    "swm_on_lzf": _theirs("stable-worldmodel on our lzf file", ours="lzf"),
    "swm_on_lzf_plain": _theirs("stable-worldmodel on our lzf file, its defaults", ours="lzf", plain=True),
    "lerobot_torchcodec": _mp4("torchcodec"),
    "lerobot_pyav": _mp4("pyav"),
}
"""In the order of the table."""
