"""A conversion's output: its folder, lock and root attributes, why it cannot be written, and what came out."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lewm_data
from lewm_data.config import ConvertConfig
from lewm_data.conversion.inspect import Inspection
from lewm_data.conversion.plan import MEGABYTE
from lewm_data.errors import LewmDataError, OutputError, ResourceError
from lewm_data.findings import Finding
from lewm_data.format.codecs import settle_quality
from lewm_data.format.header import FileHeader, SourceRecord
from lewm_data.format.schema import ROW_DTYPES
from lewm_data.format.writer import sync
from lewm_data.locks import exclusive
from lewm_data.machine_errors import machine_error, system_errno, system_reason
from lewm_data.notation import count_of, parse_part
from lewm_data.source.scale import SCALER_VERSION
from lewm_data.source.selection import file_column


@dataclass(frozen=True, kw_only=True, repr=False)
class ConversionResult:
    """The outcome of a conversion.

    Attributes:
        path: The file.
        header: Its root attributes.
        num_episodes: Episodes in the file.
        num_steps: Steps in the file.
        found_while_decoding: The findings of the header that only decoding could show.
        remarks: How each camera was shifted, and why; empty if no shift was asked for.
        num_reused: Episodes whose frames were copied from an earlier conversion.
        file_bytes: Size of the file, including the shards that stay next to it.
        seconds: Time taken, including the inspection.
        frames_per_second: Frames written per second of conversion; 0 if an earlier run had written all of them.
        peak_memory_bytes: Highest resident memory of this process so far.
    """

    path: Path
    header: FileHeader
    num_episodes: int
    num_steps: int
    found_while_decoding: tuple[Finding, ...] = ()
    remarks: tuple[str, ...] = ()
    num_reused: int = 0
    file_bytes: int
    seconds: float
    frames_per_second: float = 0.0
    peak_memory_bytes: int

    def __repr__(self) -> str:
        """One line: the file, what it holds, and what it took; and one for each camera that was to be shifted."""
        line = (
            f"{self.path}: {count_of(self.num_episodes, 'episode')}, {count_of(self.num_steps, 'step')}, "
            f"{self.file_bytes / MEGABYTE:,.0f} MB in {self.seconds:,.1f} s ({self.frames_per_second:,.0f} frames/s, "
            f"{self.peak_memory_bytes / MEGABYTE:,.0f} MB of memory at the peak)"
        )
        reused = [f"reuse: frames of {count_of(self.num_reused, 'episode')}"] * (self.num_reused > 0)
        return "\n".join([line, *(f"shift: {remark}" for remark in self.remarks), *reused])

    def to_dict(self) -> dict[str, Any]:
        """The object that ``lewm-data convert --json`` prints."""
        return {
            "path": str(self.path),
            "num_episodes": self.num_episodes,
            "num_steps": self.num_steps,
            "columns": self.header.cameras,
            "file_bytes": self.file_bytes,
            "seconds": round(self.seconds, 3),
            "frames_per_second": round(self.frames_per_second, 1),
            "peak_memory_bytes": self.peak_memory_bytes,
            "shifts": self.header.sources[0].shifts,
            "num_reused": self.num_reused,
            "dropped_episodes": list(self.header.dropped_episodes),
            "findings": [found.to_json() for found in self.header.findings],
            "fingerprint": self.header.fingerprint,
        }


def work_folder(output: Path) -> Path:
    """The folder of unfinished work next to an output."""
    return output.with_name(output.name + ".partial")


def lock_path(output: Path) -> Path:
    """The lock next to an output that is being made."""
    return output.with_name(output.name + ".lock")


def check_output(output: Path, *, overwrite: bool) -> None:
    """Checks that an output can be made.

    Raises:
        OutputError: The output is a folder, exists already, or its folder cannot be written to.
    """
    if output.is_dir():
        raise OutputError(f"{output}: is a folder, but the output is one file. Give a name such as {output}/data.h5.")
    if output.exists() and not overwrite:
        raise OutputError(f"{output}: exists already. Give another name, or --overwrite to replace it.")
    parent = _existing_parent(output)
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(f"{output}: cannot be written, because {parent} is not a folder that you may write to.")


def free_disk_bytes(output: Path) -> int:
    """Free space on the output's disk."""
    return shutil.disk_usage(_existing_parent(output)).free


@contextmanager
def output_place(
    output: Path, *, overwrite: bool, waiting: Callable[[], None] = lambda: None, kept: str = ""
) -> Iterator[None]:
    """Makes the output's folder, holds the output's lock, and explains failures to write.

    Args:
        output: The file to make.
        overwrite: Whether it may exist.
        waiting: Called once if another process is making the same output.
        kept: A sentence for the message of a failure: what is kept for the next run.

    Raises:
        OutputError: The output exists (another process may have just made it) or cannot be written.
        ResourceError: The disk is full.
    """
    made = [folder for folder in output.parents if not folder.exists()]
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        for folder in made:  # otherwise a power loss could lose the new folder and the finished file in it
            sync(folder.parent)
        with exclusive(lock_path(output), waiting=waiting):
            check_output(output, overwrite=overwrite)
            yield
    except (OSError, RuntimeError) as error:  # HDF5 raises RuntimeError for a file that it cannot close on a full disk
        code = system_errno(error)
        if isinstance(error, RuntimeError) and code is None:
            raise
        raise write_failure(output, error, kept=kept) from error
    finally:
        for folder in made:  # innermost first; rmdir leaves folders that are in use
            with contextlib.suppress(OSError):
                folder.rmdir()


def write_failure(output: Path, error: Exception, *, kept: str = "") -> LewmDataError:
    """Makes the error for an output that cannot be written.

    Args:
        output: The file or folder.
        error: What the system or HDF5 raised.
        kept: A sentence for the message: what is kept for the next run.
    """
    code = system_errno(error)
    reason = system_reason(code) if code else str(error).splitlines()[0]  # HDF5's own text is a stack dump
    if code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return ResourceError(
            f"{output}: the disk is full, or does not allow files of this size ({reason}). Free some space, then "
            f"run the same command again. {kept}".rstrip()
        )
    if code in (errno.ENOMEM, errno.EMFILE, errno.ENFILE):  # another place would not help
        return machine_error(error, output) or ResourceError(reason)
    return OutputError(f"{output}: cannot be written ({reason}). Choose another place.")


def _existing_parent(output: Path) -> Path:
    parent = output.absolute().parent
    while not parent.exists():
        parent = parent.parent
    return parent


def part_name(config: ConvertConfig) -> str:
    """The header's ``part`` under some settings: ``i/n``, or empty for a whole dataset."""
    return "/".join(map(str, parse_part(config.shard))) if config.shard else ""


def file_header(
    inspection: Inspection,
    *,
    episodes: Sequence[int],
    kept_steps: Sequence[tuple[int, int]],
    digests: Sequence[str],
    findings: Sequence[Finding],
) -> FileHeader:
    """Makes the root attributes of a file or a shard. The writer's ``finish`` adds the statistics.

    Args:
        inspection: The source and the settings.
        episodes: The source's episode_index of each episode in the file, in order.
        kept_steps: The source's steps [start, stop) of each of them; recorded only if corrections were asked for.
        digests: Digest of each of their frames' bytes in the source.
        findings: The findings to record, each with its handling.
    """
    dataset, config = inspection.dataset, inspection.config
    assert dataset is not None
    assert inspection.image_size is not None
    columns = dataset.row_columns(config.extra_columns)
    names = {name: dataset.dimension_names(keys) for name, keys in columns.items()}
    dropped = {found.episode for found in findings if found.handling == "dropped" and found.episode is not None}
    return FileHeader(
        lewm_data_version=lewm_data.__version__,
        sources=(
            SourceRecord(
                repo_id=dataset.repo_id,
                revision=dataset.revision,
                codebase_version=dataset.codebase_version,
                episodes=tuple(episodes),
                shifts=dict(inspection.corrections.shifts),
                kept_steps=tuple(kept_steps) if inspection.corrections.is_active else (),
                digests=tuple(digests),
            ),
        ),
        fps=dataset.fps,
        cameras=dict(inspection.cameras),
        image_height=inspection.image_size[0],
        image_width=inspection.image_size[1],
        resize=config.resize,
        scaler_version=SCALER_VERSION,
        compression=config.compression,
        lossy_quality=settle_quality(config.compression, config.quality),
        done_source=inspection.report.done_source(dataset),
        columns={name if name in ROW_DTYPES else file_column(name): keys for name, keys in columns.items()},
        feature_names={name: dimensions for name, dimensions in names.items() if dimensions},
        tasks=dataset.tasks,
        dirty_episode_policy=config.dirty_episode_policy,
        findings=tuple(findings),
        dropped_episodes=tuple(sorted(dropped)),
        fingerprint=inspection.fingerprint,
        part=part_name(config),
    )
