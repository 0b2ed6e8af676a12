"""The functions for notebooks and scripts; the commands of the same names are thin callers of them.

Settings are keyword arguments with the names of the flags. Each result prints as a short summary, and its ``to_dict()``
is the object that the command prints with ``--json``.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lewm_data.arguments import ProgressReporter, StrPath, merged_config, place_of, source_of
from lewm_data.config import AssessConfig, ConvertConfig, PreviewConfig, shared_settings
from lewm_data.conversion import merge as merging
from lewm_data.conversion import pipeline
from lewm_data.conversion.inspect import inspect_source
from lewm_data.conversion.output import ConversionResult, check_output
from lewm_data.conversion.plan import shortfalls
from lewm_data.conversion.reuse import with_donor
from lewm_data.conversion.verify import verify_against, verify_file
from lewm_data.errors import UsageError, redact
from lewm_data.findings import advised_policy
from lewm_data.loading.remote.config import RemoteConfig
from lewm_data.paths import is_address, local_path, png_path
from lewm_data.resources import Progress, available_memory_bytes, silent
from lewm_data.results import InspectResult, MergeResult, VerifyResult

if TYPE_CHECKING:
    from lewm_data.quality.assess.assessment import Assessment
    from lewm_data.quality.assess.footage import Footage
    from lewm_data.quality.assess.reading import Conversion
    from lewm_data.viewing.preview import PreviewResult


def inspect(
    source: StrPath, config: ConvertConfig | None = None, *, progress: Progress = silent, **settings: Any
) -> InspectResult:
    """Reports what is wrong with a LeRobot dataset and what a conversion would take, without converting anything.

    Args:
        source: Dataset folder or Hub repo id.
        config: Settings to start from; None starts from the defaults.
        progress: Called with what is being read, how much is done, and the total.
        **settings: Fields of ``ConvertConfig``, such as ``camera="front"``.

    Raises:
        SourceError: There is no dataset, or it cannot be reached.
        UsageError: A setting is invalid, or names a camera, column or file that does not exist.

    Example:
        >>> import lewm_data
        >>> result = lewm_data.inspect("recording", camera="front")  # doctest: +SKIP
        >>> result.verdict.sentence  # doctest: +SKIP
        'Clean, and ready to convert.'
    """
    inspection = inspect_source(
        source_of(source), merged_config(ConvertConfig, config, settings), any_camera=True, progress=progress
    )
    problems: list[str] = []
    if inspection.plan is not None:
        inspection = with_donor(inspection)
        assert inspection.plan is not None
        problems = shortfalls(
            inspection.plan,
            config=inspection.config,
            available_memory_bytes=available_memory_bytes(),
            free_disk_bytes=sys.maxsize,
        )
    return InspectResult(inspection=inspection, shortfalls=tuple(problems))


def convert(
    source: StrPath,
    output: StrPath,
    config: ConvertConfig | None = None,
    *,
    progress: Progress = silent,
    reporter: pipeline.Reporter | None = None,
    **settings: Any,
) -> ConversionResult:
    """Converts a LeRobot dataset to one HDF5 file.

    It resumes by itself after an interruption: finished shards stay in ``<output>.partial`` until the file is complete.

    Args:
        source: Dataset folder or Hub repo id.
        output: The HDF5 file to write.
        config: Settings to start from; None starts from the defaults.
        progress: Called with what is being done, how much is done, and the total.
        reporter: Receives every step of the conversion; replaces ``progress``.
        **settings: Fields of ``ConvertConfig``, such as ``camera="front"``.

    Raises:
        UsageError: The source, a camera, a setting or the output is invalid.
        DirtyDataError: The dataset has errors that the dirty-episode policy refuses. Nothing is left behind.
        ResourceError: There is not enough memory or disk space.
        InterruptedConversionError: Ctrl-C. Call it again to resume.
    """
    return pipeline.convert(
        source_of(source),
        local_path(output, "output"),
        merged_config(ConvertConfig, config, settings),
        reporter=reporter or ProgressReporter(progress),
    )


def verify(
    path: StrPath,
    against: StrPath | None = None,
    *,
    remote: RemoteConfig | None = None,
    progress: Progress = silent,
) -> VerifyResult:
    """Checks every checksum and invariant of a converted file, and compares it with its source on request.

    Args:
        path: The file, or its address in object storage, such as ``s3://bucket/so101.h5``, which is downloaded first
            and removed afterwards.
        against: The dataset folder or Hub repo id that it was converted from. Its videos are decoded again, and every
            frame and row is compared. Frames of a lossy file must be as close to the source as encoding them again.
        remote: How to read from object storage; None uses the defaults.
        progress: Called with what is being read, how much is done, and the total.

    Returns:
        The problems found. To stop on problems, call the result's ``raise_for_problems()``.

    Raises:
        FormatError: The file is not in lewm_data's format.
        UsageError: The file holds episodes of several sources, or ``against`` is not its source.
    """
    from lewm_data.loading.data_files import local_copy

    place = place_of(path)
    source = None if against is None else source_of(against)
    compared, loss = 0, None
    with local_copy(place, remote=remote, progress=progress) as copy:
        problems = verify_file(copy, progress=progress)
        if source is not None and not problems:
            problems, compared, loss = verify_against(copy, source, progress=progress)
    shown = redact(place) if isinstance(place, str) else place
    return VerifyResult(path=shown, problems=tuple(problems), against=source, frames_compared=compared, loss=loss)


def merge(
    paths: Iterable[StrPath],
    output: StrPath,
    *,
    overwrite: bool = False,
    allow_duplicates: bool = False,
    remote: RemoteConfig | None = None,
    progress: Progress = silent,
) -> MergeResult:
    """Joins converted files into one by copying their stored chunks, without compressing anything again.

    Args:
        paths: The files in the wanted order, or one sharded file. Remote files are downloaded first, then removed.
        output: The HDF5 file to write.
        overwrite: Replace an existing output.
        allow_duplicates: Accept files that hold the same episode of the same source.
        remote: How to read from object storage; None uses the defaults.
        progress: Called with ``"merge"``, the number of episodes copied, and their total.

    Raises:
        UsageError: The files do not match, a part is missing, or the output is one of them.
        OutputError: The output exists, or it cannot be written.
        DamagedChunkError: A stored frame of an input is damaged.
    """
    from lewm_data.loading.data_files import local_copy

    inputs = [place_of(path) for path in paths]
    if not inputs:
        raise UsageError("merge needs at least one input file and an output: lewm-data merge FILE.h5... OUTPUT.h5")
    file = local_path(output, "output")
    with ExitStack() as copies:
        header = merging.merge(
            [copies.enter_context(local_copy(place, remote=remote, progress=progress)) for place in inputs],
            file,
            overwrite=overwrite,
            allow_duplicates=allow_duplicates,
            progress=progress,
        )
    episodes = sum(len(record.episodes) for record in header.sources)
    return MergeResult(path=file, num_episodes=episodes, inputs=tuple(redact(str(place)) for place in inputs))


def preview(
    source: StrPath,
    output: StrPath,
    config: PreviewConfig | None = None,
    *,
    progress: Progress = silent,
    waiting: Callable[[], None] = lambda: None,
    **settings: Any,
) -> PreviewResult:
    """Makes a page or a contact sheet from which people can judge a dataset, before its conversion or after.

    Args:
        source: A converted file or its address in object storage, a dataset folder, or a Hub repo id.
        output: The page (``.html``) or the contact sheet (``.png``) to write.
        config: Settings to start from; None starts from the defaults.
        progress: Called with what is being read, how much is done, and the total.
        waiting: Called once if another process is making the same output.
        **settings: Fields of ``PreviewConfig``, such as ``max_episodes=20``.

    Raises:
        UsageError: The source cannot be opened, or the output exists or has another suffix.
        DamagedChunkError: A stored frame of a converted file is damaged.
    """
    from lewm_data.viewing.preview import make_preview

    return make_preview(
        source_of(source),
        local_path(output, "output"),
        merged_config(PreviewConfig, config, settings),
        progress=progress,
        waiting=waiting,
    )


def assess(
    source: StrPath,
    config: AssessConfig | None = None,
    *,
    png: StrPath | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
    **settings: Any,
) -> Assessment:
    """Judges, without a GPU, whether a world model can learn from a recording.

    It decodes each camera once, at 96 pixels, and asks whether the robot stands still, whether a camera is out of step
    with the joints, what each camera sees, whether the state follows the action, and whether there are enough episodes.
    An answer without enough evidence is None. Of a long recording, evenly chosen episodes are looked at.

    Args:
        source: A converted file or its address in object storage, a dataset folder, or a Hub repo id.
        config: Settings to start from; None starts from the defaults.
        png: Also draw the judgment into this file.
        overwrite: Replace that file if it exists.
        progress: Called with what is being done, how much is done, and the total.
        **settings: Fields of ``AssessConfig``, such as ``frameskip=10``.

    Raises:
        UsageError: The source, a camera or a setting is invalid, or no episode can be read.
        DirtyDataError: The metadata is too damaged to read anything.
        OutputError: The picture exists, or cannot be written.

    Example:
        >>> import lewm_data
        >>> result = lewm_data.assess("recording", png="judgment.png")  # doctest: +SKIP
        >>> result.verdict  # doctest: +SKIP
        'ready'
    """
    from lewm_data.quality.assess.answers import answer
    from lewm_data.quality.assess.judge import judge
    from lewm_data.quality.assess.next_steps import settle

    settled = merged_config(AssessConfig, config, settings)
    name = source_of(source)
    if (picture := None if png is None else png_path(png)) is not None:
        check_output(picture, overwrite=overwrite)
    footage, made = _footage(name, settled, progress)
    result = judge(footage, answer(footage, progress), source=name, frameskip=settled.frameskip, policy=made.policy)
    result = settle(result, settled, source=made.source, shifts=made.shifts)
    if picture is not None:
        from lewm_data.viewing.judgment_picture import write_judgment

        write_judgment(result, picture, overwrite=overwrite)
    return result


def _footage(source: str, config: AssessConfig, progress: Progress) -> tuple[Footage, Conversion]:
    """Reads a recording as small arrays; with how it was converted, or how to convert it."""
    from lewm_data.quality.assess import reading

    if is_address(source) or Path(source).suffix in (".h5", ".hdf5") or Path(source).is_file():
        from lewm_data.loading.data_files import local_copy

        with local_copy(source, progress=progress) as copy:
            footage = reading.read_converted(copy, camera=config.camera, progress=progress)
            return footage, reading.conversion_of(copy)
    settings = shared_settings(ConvertConfig, dataclasses.asdict(config), dirty_episode_policy="keep")
    inspection = inspect_source(source, settings, any_camera=True, progress=progress)
    if inspection.dataset is None:
        inspection.refuse_if_dirty()
        raise AssertionError("a dataset whose metadata cannot be read is refused")
    footage = reading.read_dataset(
        inspection.dataset,
        inspection.report,
        source=source,
        cameras=tuple(inspection.cameras.values()),
        skip=inspection.decision.dropped,
        progress=progress,
    )
    findings, num_episodes = inspection.report.findings, len(inspection.dataset.episodes)
    return footage, reading.Conversion(advised_policy(findings, num_episodes), source)
