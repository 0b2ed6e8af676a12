"""What is known before a conversion starts: cameras, findings, and the memory, disk and time it needs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from lewm_data.config import ConvertConfig
from lewm_data.conversion.corrections import (
    LOOK_BYTES_PER_FRAME,
    NO_CORRECTIONS,
    Corrections,
    find_corrections,
)
from lewm_data.conversion.fingerprint import open_with, source_fingerprint
from lewm_data.conversion.plan import Plan, cut_part, make_plan
from lewm_data.conversion.sample import sample_frames
from lewm_data.errors import DirtyDataError, SourceError
from lewm_data.findings import Decision, Finding, decide, dirty_error
from lewm_data.format.codecs import settle_quality
from lewm_data.format.schema import EPISODE_IDX, ROW_DTYPES, STEP_IDX
from lewm_data.notation import parse_part
from lewm_data.quality.validate import validate
from lewm_data.resources import Progress, silent
from lewm_data.source.data_files import fetch_files
from lewm_data.source.episodes import EpisodeReader, Report
from lewm_data.source.metadata import LeRobotDataset
from lewm_data.source.selection import check_columns, choose_cameras

if TYPE_CHECKING:
    from lewm_data.conversion.reuse import Donor


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What is known about a source under given settings.

    Attributes:
        source: The source, as the caller gave it.
        config: The settings.
        dataset: None if the metadata is too damaged.
        cameras: Frame column to LeRobot camera key.
        report: Findings, and where each episode's rows are.
        decision: What the dirty-episode policy does about the findings.
        image_size: (height, width) of the stored frames; None if no frame was decoded.
        plan: None if nothing can be converted.
        fingerprint: Hash of source and content settings; empty if the metadata is too damaged.
        corrections: How cameras are shifted, and which steps of each episode are converted.
        donor: A file of an earlier conversion whose frames may be used again.
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
    corrections: Corrections = NO_CORRECTIONS
    donor: Donor | None = None

    def kept_rows(self) -> list[int]:
        """Rows of the episode table to convert.

        Raises:
            UsageError: The settings ask for more parts than there are episodes.
        """
        assert self.dataset is not None
        index, dropped = self.dataset.episodes.index.tolist(), self.decision.dropped
        return [row for row in self.part_rows() if index[row] not in dropped]

    def part_rows(self) -> list[int]:
        """Rows of the part that is asked for, before corrections, which each task measures only for its own part.

        Raises:
            UsageError: The settings ask for more parts than there are episodes.
        """
        assert self.dataset is not None
        dropped = self.decision.dropped - self.corrections.dropped
        rows = [row for row, index in enumerate(self.dataset.episodes.index.tolist()) if index not in dropped]
        if self.config.shard is None or not rows:
            return rows
        part = cut_part(self.dataset.episodes.length[rows].tolist(), *parse_part(self.config.shard))
        return rows[part.start : part.stop]

    def episode_reader(self) -> EpisodeReader:
        """Opens a reader of the episodes as the file will hold them."""
        assert self.dataset is not None
        return EpisodeReader(
            self.dataset,
            self.report,
            self.cameras,
            self.config.extra_columns,
            state_dtype=self.config.state_dtype,
            shifts=self.corrections.shifts,
            kept_steps=self.corrections.kept_steps,
        )

    def num_steps(self, row: int) -> int:
        """Steps of an episode that are converted, by its row of the episode table."""
        assert self.dataset is not None
        episodes = self.dataset.episodes
        return len(self.corrections.steps(int(episodes.index[row]), int(episodes.length[row])))

    def num_trimmed_steps(self) -> int:
        """Idle steps that are cut off the episodes that are converted."""
        if self.dataset is None or not self.corrections.kept_steps:
            return 0
        lengths = dict(zip(self.dataset.episodes.index.tolist(), self.dataset.episodes.length.tolist(), strict=True))
        kept = self.corrections.kept_steps
        return sum(lengths[index] - len(steps) for index, steps in kept.items() if len(steps))

    def rows_by_episode(self) -> dict[int, int]:
        """The source's episode_index of each episode to convert, in order, and its row of the episode table."""
        assert self.dataset is not None
        return {int(self.dataset.episodes.index[row]): row for row in self.kept_rows()}

    def check_source_unchanged(self) -> None:
        """Checks that the source is still the one that was inspected.

        Raises:
            SourceError: It has changed, so a shard could hold a mixture of both.
        """
        assert self.dataset is not None
        if source_fingerprint(self.dataset, self.cameras, self.config) != self.fingerprint:
            raise SourceError(f"{self.source}: changed during the conversion. Leave the dataset alone, and run again.")

    def refuse_if_dirty(self) -> None:
        """Raises if the policy refuses the dataset.

        Raises:
            DirtyDataError: There are errors that the policy refuses, or no episode is left.
        """
        refused = [found for found in self.decision.findings if found.handling == "refused"]
        if self.decision.refused:
            raise dirty_error(self.source, refused, self.decision.findings)
        if not self.kept_rows():
            cause, count = f"the policy '{self.config.dirty_episode_policy}' drops", len(self.decision.dropped)
            if self.corrections.dropped:
                asked = ["--shift"] * (self.config.shift is not None) + ["--trim_idle"] * self.config.trim_idle
                cause = f"{' and '.join(asked)} {'leave' if len(asked) > 1 else 'leaves'} nothing of"
            part, remedy = "", ""
            if self.config.shard is not None and self.part_rows():
                part, remedy, count = f" of part {self.config.shard}", " Ask for fewer parts.", len(self.part_rows())
            raise DirtyDataError(
                f"{self.source}: no episode{part} is left, since {cause} all {count}. See the findings.{remedy}",
                [found.to_json() for found in self.decision.findings],
            )

    def to_dict(self) -> dict[str, Any]:
        """The object that ``lewm-data inspect --json`` prints."""
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
            "shifts": self.corrections.shifts,
            "trimmed_steps": self.num_trimmed_steps(),
            "plan": self.plan and self.plan.to_dict(),
            "fingerprint": self.fingerprint,
        }


def refuse(inspection: Inspection, findings: Sequence[Finding]) -> NoReturn:
    """Refuses the dataset, because of what decoding found or because no episode is left.

    Raises:
        DirtyDataError: Always.
    """
    errors = [found for found in findings if found.severity == "error"]
    raise dirty_error(inspection.source, errors, (*inspection.decision.findings, *findings))


def inspect_source(
    source: str,
    config: ConvertConfig,
    *,
    any_camera: bool = False,
    progress: Progress = silent,
) -> Inspection:
    """Reads metadata, rows and video headers, and decodes a few frames to make a plan.

    Args:
        source: Folder or Hub repo id.
        config: The settings.
        any_camera: If the settings leave open which camera is ``pixels``, inspect all cameras instead of raising.
        progress: Called after each file.

    Raises:
        SourceError: There is no dataset, or it cannot be reached.
        DirtyDataError: ``image_size`` is ``native``, but no frame can be decoded to learn the size.
        UsageError: A camera or column does not exist, there are several cameras and no choice, or the codec has no such
            quality.
        MachineError: The machine cannot read a file.
    """
    settle_quality(config.compression, config.quality)
    opened = open_with(source, config)
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
    check_columns(config.extra_columns, dataset.features)
    whole = config.episodes is None
    fetch_files(opened.location, dataset, cameras.values(), all_episodes=whole)
    fingerprint = source_fingerprint(dataset, cameras, config)  # before the first read, so that later changes show
    report = validate(
        dataset,
        cameras=tuple(cameras.values()),
        extra_columns=config.extra_columns,
        state_dtype=config.state_dtype,
        min_episode_steps=config.min_episode_steps,
        whole=whole,
        progress=progress,
    )
    report = dataclasses.replace(report, findings=(*opened.findings, *report.findings))
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
    inspection = _with_corrections(inspection, progress)
    return _with_plan(inspection, progress) if inspection.kept_rows() else inspection


def _with_corrections(inspection: Inspection, progress: Progress) -> Inspection:
    dataset, decision = inspection.dataset, inspection.decision
    assert dataset is not None
    corrections = find_corrections(
        dataset,
        inspection.report,
        inspection.cameras,
        inspection.config,
        dropped=decision.dropped,
        part=frozenset(dataset.episodes.index[inspection.part_rows()].tolist()),
        progress=progress,
    )
    decision = decision._replace(
        findings=(*decision.findings, *corrections.findings), dropped=decision.dropped | corrections.dropped
    )
    return dataclasses.replace(inspection, decision=decision, corrections=corrections)


def _with_plan(inspection: Inspection, progress: Progress) -> Inspection:
    dataset, config = inspection.dataset, inspection.config
    assert dataset is not None
    kept = inspection.kept_rows()
    reader = inspection.episode_reader()
    picked = sorted({kept[0], kept[len(kept) // 2], kept[-1]})
    sampled = sample_frames(dataset, reader, [dataset.episode(row) for row in picked], config, progress)
    if sampled.size is None:
        raise dirty_error(inspection.source, sampled.damage, [*inspection.decision.findings, *sampled.damage])
    indices = dict.fromkeys((EPISODE_IDX, STEP_IDX), (ROW_DTYPES[STEP_IDX], None))
    columns = {**reader.file_columns(), **indices}
    plan = make_plan(
        lengths=[inspection.num_steps(row) for row in kept],
        num_cameras=len(inspection.cameras),
        row_bytes=sum(np.dtype(dtype).itemsize * (width or 1) for dtype, width in columns.values()),
        height=sampled.size[0],
        width=sampled.size[1],
        sample=sampled.sample,
        compression=config.compression,
        micro_batch=config.micro_batch,
        shard_bytes=config.shard_bytes,
        stays_sharded=config.layout == "sharded",
        look_bytes=inspection.corrections.num_frames_seen * LOOK_BYTES_PER_FRAME,
    )
    return dataclasses.replace(inspection, image_size=sampled.size, plan=plan)
