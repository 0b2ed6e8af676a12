"""Pure arithmetic: whether a conversion fits, how long it takes, and where to cut parts and shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from lewm_data.config import ConvertConfig
from lewm_data.errors import UsageError
from lewm_data.notation import count_of

MEBIBYTE = 1 << 20
MEGABYTE = 10**6

BASE_MEMORY_BYTES = 165 * MEBIBYTE
"""Interpreter, numpy, pyarrow, PyAV, HDF5 and imagecodecs: 124 to 136 MB resident after import, on Linux, and 20 MB
more at work. Two thirds are pages of libraries, and the kernel decides how many of those it maps: of some sixty runs
of one conversion, one peaked at 213 MB, the others at 180 to 191."""

CODEC_MEMORY_BYTES = {"blosc2": 50 * MEBIBYTE, "lz4": 12 * MEBIBYTE, "zstd": 12 * MEBIBYTE, "jpeg": 12 * MEBIBYTE}
"""What importing a codec's own libraries adds: 44 MB for blosc2 with hdf5plugin, measured the same way."""

READ_AHEAD_BYTES = 8 * MEBIBYTE
"""Decoded frames that may wait for scaling and compression."""

DECODER_FRAMES = 16
"""Frames that a decoder keeps: up to 8 references, plus one or two per thread."""

FILE_OVERHEAD_BYTES = 64 * 1024
DISK_MARGIN = 1.05
"""The estimate comes from a few sample frames, and other frames may compress less."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """Measurements of a handful of real frames.

    Attributes:
        frames: Number of decoded frames.
        bytes_per_frame: Stored bytes of one frame, on average.
        frames_per_second: Decoded, scaled and compressed, with all threads.
        source_height: Rows of the largest decoded frame.
        source_width: Columns of the largest decoded frame.
    """

    frames: int
    bytes_per_frame: float
    frames_per_second: float
    source_height: int
    source_width: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What a conversion needs.

    Attributes:
        num_episodes: Episodes to convert.
        num_steps: Their steps.
        num_frames: Steps times cameras.
        height: Rows of a stored frame.
        width: Columns of a stored frame.
        bytes_per_frame: Stored bytes of one frame, measured on ``sample_frames`` of them.
        sample_frames: Frames that were measured.
        num_shards: Temporary files, joined at the end. A single one needs no joining.
        output_bytes: Size of the finished file.
        temporary_bytes: Peak disk usage, including the output.
        peak_memory_bytes: Resident memory of the process.
        seconds: Time that the conversion takes. Frames that are reused take none.
        reused_frames: Frames that are expected to be copied from an earlier conversion.
    """

    num_episodes: int
    num_steps: int
    num_frames: int
    height: int
    width: int
    bytes_per_frame: float
    sample_frames: int
    num_shards: int
    output_bytes: int
    temporary_bytes: int
    peak_memory_bytes: int
    seconds: float
    reused_frames: int = 0

    def to_dict(self) -> dict[str, Any]:
        """All fields as a dictionary."""
        return asdict(self)

    def reusing(self, num_frames: int) -> Plan:
        """The same plan if so many of its frames are copied from an earlier conversion."""
        share = 1 - num_frames / max(self.num_frames, 1)
        return replace(self, reused_frames=num_frames, seconds=self.seconds * share)


def make_plan(
    *,
    lengths: Sequence[int],
    num_cameras: int,
    row_bytes: int,
    height: int,
    width: int,
    sample: Sample,
    compression: str,
    micro_batch: int,
    shard_bytes: int,
    stays_sharded: bool = False,
    look_bytes: int = 0,
) -> Plan:
    """Computes what a conversion needs.

    Args:
        lengths: Steps of each episode to convert.
        num_cameras: Cameras to convert.
        row_bytes: Bytes of all small columns in one step.
        height: Rows of a stored frame.
        width: Columns of a stored frame.
        sample: Measurements of a few frames.
        compression: Codec.
        micro_batch: Frames in a micro-batch.
        shard_bytes: Size at which a shard is closed.
        stays_sharded: Whether the shards stay as they are.
        look_bytes: Memory that measuring corrections takes, before anything is converted.
    """
    num_steps = sum(lengths)
    step_bytes = num_cameras * sample.bytes_per_frame + row_bytes
    shards = cut_shards(lengths, step_bytes=step_bytes, shard_bytes=shard_bytes)
    output_bytes = round(num_steps * step_bytes * DISK_MARGIN) + FILE_OVERHEAD_BYTES
    source_frame_bytes = sample.source_height * sample.source_width * 3  # 4:2:0 with margins, 4:4:4 at most
    batch_bytes = micro_batch * height * width * 3
    decoder_bytes = num_cameras * DECODER_FRAMES * source_frame_bytes
    at_work_bytes = CODEC_MEMORY_BYTES.get(compression, 0) + READ_AHEAD_BYTES + 2 * batch_bytes
    at_work_bytes += max(lengths, default=0) * row_bytes * 2
    return Plan(
        num_episodes=len(lengths),
        num_steps=num_steps,
        num_frames=num_steps * num_cameras,
        height=height,
        width=width,
        bytes_per_frame=sample.bytes_per_frame,
        sample_frames=sample.frames,
        num_shards=len(shards),
        output_bytes=output_bytes,
        temporary_bytes=output_bytes * (2 if len(shards) > 1 and not stays_sharded else 1),
        peak_memory_bytes=BASE_MEMORY_BYTES + decoder_bytes + max(at_work_bytes, look_bytes),
        seconds=num_steps * num_cameras / max(sample.frames_per_second, 1e-9),
    )


def cut_shards(lengths: Sequence[int], *, step_bytes: float, shard_bytes: int) -> list[range]:
    """Cuts episodes into runs of about ``shard_bytes`` each.

    Returns:
        Ranges [start, stop) of positions in ``lengths``, in order and without gaps. A run holds at least one
        episode, and ends before the episode that would exceed the size.
    """
    shards, start, size = [], 0, 0.0
    for position, length in enumerate(lengths):
        episode_bytes = length * step_bytes
        if position > start and size + episode_bytes > shard_bytes:
            shards.append(range(start, position))
            start, size = position, 0.0
        size += episode_bytes
    if len(lengths) > start:
        shards.append(range(start, len(lengths)))
    return shards


def cut_part(lengths: Sequence[int], number: int, num_parts: int) -> range:
    """One of n runs of whole episodes with about the same number of steps each.

    The cut depends only on the lengths, so independent jobs agree on it. An episode belongs to the part that holds
    its middle step. A part that would be empty takes an episode from a neighbor.

    Args:
        lengths: Steps of each episode, 1 or more.
        number: Which part, in [0, num_parts).
        num_parts: Number of parts.

    Returns:
        Positions [start, stop) in ``lengths``. The parts cover all positions in order, and none is empty.

    Raises:
        UsageError: There are fewer episodes than parts.
    """
    if num_parts > len(lengths):
        raise UsageError(
            f"shard is {number}/{num_parts}, but only {count_of(len(lengths), 'episode')} can be converted, and a part "
            "holds one or more. Ask for fewer parts."
        )
    ends = np.cumsum(lengths, dtype=np.float64)
    middles = ends - np.asarray(lengths) / 2
    starts = np.searchsorted(middles, ends[-1] * np.arange(num_parts + 1) / num_parts)
    starts[0], starts[-1] = 0, len(lengths)
    parts = np.arange(num_parts + 1)
    starts = np.maximum.accumulate(starts - parts) + parts  # each part begins after the one before it,
    starts = np.minimum(starts, len(lengths) - num_parts + parts)  # and leaves one episode to each that follows
    return range(int(starts[number]), int(starts[number + 1]))


def shortfalls(plan: Plan, *, config: ConvertConfig, available_memory_bytes: int, free_disk_bytes: int) -> list[str]:
    """Lists the reasons why a plan does not fit, each with its remedies; empty if it fits.

    Args:
        plan: The plan.
        config: The settings of the plan. Remedies that they already contain are not suggested.
        available_memory_bytes: Memory that the conversion may use.
        free_disk_bytes: Space on the output's disk.
    """
    num_cameras = plan.num_frames // max(plan.num_steps, 1)
    problems = []
    if plan.peak_memory_bytes > available_memory_bytes:
        problems.append(
            f"memory: {plan.peak_memory_bytes / MEGABYTE:,.0f} MB are needed at the peak, but "
            f"{available_memory_bytes / MEGABYTE:,.0f} MB are available. {memory_remedies(config, num_cameras)}"
        )
    if plan.temporary_bytes > free_disk_bytes:
        is_copied = plan.temporary_bytes > plan.output_bytes
        remedies = [
            "a smaller --image_size",
            "--compression blosc2 (the smallest files)" if config.compression != "blosc2" else "",
            "fewer --cameras at a time" if num_cameras > 1 else "",
            "fewer --episodes" if plan.num_episodes > 1 else "",
            "--layout sharded (no second copy)" if is_copied else "",
            "another disk",
        ]
        problems.append(
            f"disk: {plan.temporary_bytes / MEGABYTE:,.0f} MB are needed (output "
            f"{plan.output_bytes / MEGABYTE:,.0f} MB in {count_of(plan.num_shards, 'shard')}), but "
            f"{free_disk_bytes / MEGABYTE:,.0f} MB are free. What helps: {_listed(remedies)}."
        )
    return problems


def memory_remedies(config: ConvertConfig, num_cameras: int) -> str:
    """What helps against too little memory, as a sentence."""
    remedies = [
        "a lower --micro_batch" if config.micro_batch > 1 else "",
        "a smaller --image_size",
        "fewer --cameras at a time" if num_cameras > 1 else "",
        "closing other programs",
    ]
    return f"What helps: {_listed(remedies)}."


def _listed(remedies: Sequence[str]) -> str:
    """The remedies that apply, as a list in words."""
    *first, last = filter(None, remedies)
    return f"{', '.join(first)} or {last}" if first else last
