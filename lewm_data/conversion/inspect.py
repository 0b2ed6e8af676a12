"""Everything that is known before a conversion: cameras, findings, and what it would take."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lewm_data.config import ConvertConfig, parse_image_size
from lewm_data.conversion import source as sources
from lewm_data.conversion.decode import DecodedFrame, Decoder
from lewm_data.conversion.encode import encoder
from lewm_data.conversion.episodes import EpisodeReader, check_columns
from lewm_data.conversion.layout import Episode, LeRobotDataset
from lewm_data.conversion.plan import Plan, Sample, make_plan
from lewm_data.conversion.scale import Scaler
from lewm_data.conversion.validate import Decision, Progress, Report, decide, validate
from lewm_data.errors import DirtyDataError, UsageError
from lewm_data.resources import num_cpus
from lewm_data.schema import PIXELS, Finding, camera_name, pixels_column

_SAMPLE_EPISODES = 3
_SAMPLE_FRAMES = 16
MAX_DECODE_THREADS = 4
"""Each decoder thread keeps frames of its own; beyond four, scaling and compressing are the limit anyway."""


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What is known of a source under given settings.

    Attributes:
        source: As it was given.
        config: The settings.
        dataset: None where the metadata is too damaged.
        cameras: Frame column to LeRobot camera key.
        report: Findings, and where things are.
        decision: What the dirty-episode policy makes of the findings.
        image_size: (height, width) of the stored frames; None where no frame could be looked at.
        plan: None where nothing can be converted.
        fingerprint: Hash of source and content settings; empty where the metadata is too damaged.
    """

    source: str
    config: ConvertConfig
    dataset: LeRobotDataset | None
    cameras: dict[str, str]
    report: Report
    decision: Decision
    image_size: tuple[int, int] | None
    plan: Plan | None
    fingerprint: str

    def kept_rows(self) -> list[int]:
        """Rows of the episode table that are converted."""
        assert self.dataset is not None
        dropped = self.decision.dropped
        return [row for row, index in enumerate(self.dataset.episodes.index.tolist()) if index not in dropped]

    def refuse_if_dirty(self) -> None:
        """Raises what the policy refuses.

        Raises:
            DirtyDataError: There are errors that the policy does not let pass, or no episode is left.
        """
        refused = [found for found in self.decision.findings if found.handling == "refused"]
        if self.decision.refused:
            raise dirty_error(self.source, refused, self.decision.findings)
        if not self.kept_rows():
            raise DirtyDataError(
                f"{self.source}: no episode is left, since the policy "
                f"'{self.config.dirty_episode_policy}' drops all {len(self.decision.dropped)}. See the findings.",
                [found.to_json() for found in self.decision.findings],
            )

    def to_json(self) -> dict[str, Any]:
        """What ``lewm-data inspect --json`` prints."""
        dataset = self.dataset
        return {
            "source": self.source,
            "repo_id": dataset and dataset.repo_id,
            "revision": dataset and dataset.revision,
            "codebase_version": dataset and dataset.codebase_version,
            "fps": dataset and dataset.fps,
            "num_episodes": dataset and len(dataset.episodes),
            "num_steps": dataset and int(dataset.episodes.length.sum()),
            "cameras": list(dataset.cameras) if dataset else [],
            "depth_cameras": list(dataset.depth_cameras) if dataset else [],
            "columns": self.cameras,
            "done_source": dataset and dataset.done_source,
            "findings": [found.to_json() for found in self.decision.findings],
            "refused": self.decision.refused,
            "dropped_episodes": sorted(self.decision.dropped),
            "plan": self.plan and self.plan.to_json(),
            "fingerprint": self.fingerprint,
        }


def dirty_error(source: str, refused: Sequence[Finding], findings: Sequence[Finding]) -> DirtyDataError:
    """The refusal of a dataset, with its first reason in words and all of them attached."""
    first = refused[0].sentence() if refused else "No episode has a frame to every row."
    more = f" ({len(refused) - 1} more in the report)" if len(refused) > 1 else ""
    return DirtyDataError(
        f"{source}: refused, since better no data than toxic data. {first}{more}",
        [found.to_json() for found in findings],
    )


def inspect_source(
    source: str,
    config: ConvertConfig,
    *,
    any_camera: bool = False,
    progress: Progress = lambda what, done, total: None,
) -> Inspection:
    """Reads metadata, rows and video headers, and looks at a few frames to make a plan.

    Args:
        source: Folder or Hub repo id.
        config: The settings.
        any_camera: Inspect all cameras where the settings leave open which one is ``pixels``; else that is an error.
        progress: Called after each file that was read.

    Raises:
        SourceError: No dataset there, or it cannot be reached.
        DirtyDataError: ``image_size`` is ``native``, but no frame can be decoded to learn it from.
        UsageError: A camera or column that does not exist, or several cameras and no choice.
    """
    opened = sources.open_source(source, revision=config.revision, episodes=config.episodes)
    dataset = opened.dataset
    if dataset is None:
        report = Report(findings=tuple(opened.findings))
        decision = decide(report.findings, config.dirty_episode_policy)
        return Inspection(
            source=source,
            config=config,
            dataset=None,
            cameras={},
            report=report,
            decision=decision._replace(refused=True),
            image_size=None,
            plan=None,
            fingerprint="",
        )
    cameras = choose_cameras(dataset, config, any_camera=any_camera)
    check_columns(config.extra_columns)
    whole = config.episodes is None
    sources.fetch_files(opened.location, dataset, cameras.values(), all_episodes=whole)
    fingerprint = source_fingerprint(dataset, cameras, config)  # before anything is read: what changes later is noticed
    report = validate(
        dataset,
        cameras=tuple(cameras.values()),
        extra_columns=config.extra_columns,
        min_episode_steps=config.min_episode_steps,
        whole=whole,
        progress=progress,
    )
    report = Report(findings=(*opened.findings, *report.findings), first_rows=report.first_rows, headers=report.headers)
    decision = decide(report.findings, config.dirty_episode_policy)
    inspection = Inspection(
        source=source,
        config=config,
        dataset=dataset,
        cameras=cameras,
        report=report,
        decision=decision,
        image_size=None,
        plan=None,
        fingerprint=fingerprint,
    )
    if decision.refused or not inspection.kept_rows() or not cameras:
        return inspection
    return _with_plan(inspection, progress)


def source_fingerprint(dataset: LeRobotDataset, cameras: Mapping[str, str], config: ConvertConfig) -> str:
    """Hash of the source as it is now, and of the settings."""
    files = sources.needed_files(dataset, tuple(cameras.values()))
    return config.content_fingerprint(sources.identity(dataset, files))


def choose_cameras(dataset: LeRobotDataset, config: ConvertConfig, *, any_camera: bool = False) -> dict[str, str]:
    """Which camera goes to which column.

    Returns:
        Frame column to LeRobot camera key; empty if the dataset has no camera.

    Raises:
        UsageError: An unknown camera, several without a choice, or two that would share a column.
    """
    have = ", ".join(camera_name(key) for key in dataset.cameras) or "none"

    def find(name: str, option: str) -> str:
        key = dataset.find_camera(name)
        if key is None:
            depth = " (it is a depth camera, which pixels cannot hold)" if name in dataset.depth_cameras else ""
            raise UsageError(f"{option} {name}: no such camera{depth}; the dataset has: {have}. Choose one of those.")
        return key

    chosen: dict[str, str] = {}
    if config.camera is not None:
        chosen[PIXELS] = find(config.camera, "--camera")
    elif len(dataset.cameras) == 1:
        chosen[PIXELS] = dataset.cameras[0]
    elif dataset.cameras and not any_camera:
        raise UsageError(
            f"{dataset.repo_id} has {len(dataset.cameras)} cameras: {have}. Say which one is 'pixels', such as "
            f"--camera {camera_name(dataset.cameras[0])}; --cameras all adds the others."
        )
    further: list[str] = []
    if config.cameras == "all" or (any_camera and not chosen):
        further = list(dataset.cameras)
    elif config.cameras:
        further = [find(name.strip(), "--cameras") for name in config.cameras.split(",")]
    for key in further:
        if key in chosen.values():
            continue
        column = pixels_column(key)
        if column in chosen:
            raise UsageError(
                f"cameras {chosen[column]!r} and {key!r} would both be {column!r}. Convert one of them at a time."
            )
        chosen[column] = key
    return chosen


def decode_threads(config: ConvertConfig) -> int:
    """Threads of the video decoder under these settings."""
    return config.decode_threads or min(num_cpus(), MAX_DECODE_THREADS)


def _with_plan(inspection: Inspection, progress: Progress) -> Inspection:
    dataset, config = inspection.dataset, inspection.config
    assert dataset is not None
    kept = inspection.kept_rows()
    reader = EpisodeReader(dataset, inspection.report, inspection.cameras, config.extra_columns)
    picked = sorted({kept[0], kept[len(kept) // 2], kept[-1]})[:_SAMPLE_EPISODES]
    size, sample = _sample(
        dataset,
        reader,
        inspection.cameras,
        [dataset.episode(row) for row in picked],
        config,
        inspection.report,
        progress,
    )
    row_bytes = 9 + sum(np.dtype(dtype).itemsize * (width or 1) for dtype, width in reader.file_columns().values())
    plan = make_plan(
        lengths=dataset.episodes.length[kept].tolist(),
        num_cameras=len(inspection.cameras),
        row_bytes=row_bytes,
        height=size[0],
        width=size[1],
        sample=sample,
        compression=config.compression,
        micro_batch=config.micro_batch,
        shard_bytes=config.shard_bytes,
    )
    return dataclasses.replace(inspection, image_size=size, plan=plan)


def _sample(
    dataset: LeRobotDataset,
    reader: EpisodeReader,
    cameras: Mapping[str, str],
    episodes: list[Episode],
    config: ConvertConfig,
    report: Report,
    progress: Progress,
) -> tuple[tuple[int, int], Sample]:
    """Decodes, scales and compresses the first frames of a few episodes."""
    encode = encoder(config.compression)
    wanted = parse_image_size(config.image_size)
    size, source_size = wanted, (0, 0)
    frames, stored, seconds = 0, 0, 0.0
    damage: list[Finding] = []
    sizes: dict[tuple[int, int], str] = {}
    with Decoder(dataset.root, threads=decode_threads(config), batch_rows=_SAMPLE_FRAMES) as decoder:
        for number, episode in enumerate(episodes):
            progress("a few frames", number, len(episodes))
            timestamps = np.arange(min(_SAMPLE_FRAMES, episode.length)) / dataset.fps
            first_row = report.first_rows[episode.index]
            for column, camera in cameras.items():
                started = time.perf_counter()
                for event in decoder.run(reader.job(episode, column, camera, timestamps, first_row)):
                    if not isinstance(event, DecodedFrame):
                        damage += event.findings  # told by the conversion, if it comes to that
                        continue
                    frame = event.frame
                    sizes.setdefault((frame.height, frame.width), event.job.file)
                    size = size or (frame.height, frame.width)
                    source_size = max(source_size, (frame.height, frame.width))
                    out = np.empty((*size, 3), np.uint8)
                    Scaler(*size, config.resize).put(frame, out)
                    stored += len(encode(out).data)
                    frames += 1
                seconds += time.perf_counter() - started
    if wanted is None and len(sizes) > 1:
        listed = "; ".join(f"{width}x{height} in {file}" for (height, width), file in sizes.items())
        raise UsageError(f"image_size native, but frames differ in size: {listed}. Choose a size, such as 224.")
    if size is None:
        raise dirty_error(dataset.repo_id, damage, [*report.findings, *damage])
    return size, Sample(
        frames=frames,
        bytes_per_frame=stored / max(frames, 1) if frames else float(size[0] * size[1] * 3),
        frames_per_second=frames / seconds if seconds and frames else 1.0,
        source_height=source_size[0],
        source_width=source_size[1],
    )
