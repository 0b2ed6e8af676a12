"""Reads a LeRobot dataset for a preview, before its conversion."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from lewm_data.config import ConvertConfig
from lewm_data.conversion.inspect import inspect_source
from lewm_data.conversion.plan import MEGABYTE, Plan
from lewm_data.errors import SourceError
from lewm_data.findings import Finding, decide
from lewm_data.format.schema import ACTION, STATE, camera_name
from lewm_data.quality.assess.footage import Footage
from lewm_data.quality.assess.reading import read_dataset
from lewm_data.resources import Progress, silent
from lewm_data.source.decode import DecodedFrame, DecodeJob, Decoder
from lewm_data.source.episodes import EpisodeReader
from lewm_data.source.metadata import LeRobotDataset, done_words
from lewm_data.source.scale import Scaler
from lewm_data.viewing.recording import Picture, Rows

_TASK_INDEX = "task_index"
_BATCH_ROWS = 16
_UNREADABLE = (SourceError, ValueError, KeyError)
"""Errors of reading rows that the inspection has already reported as damaged."""


class RawDataset:
    """A LeRobot dataset in a folder or on the Hub; implements ``recording.Recording``."""

    def __init__(self, source: str, *, min_episode_steps: int, progress: Progress = silent) -> None:
        """Inspects a dataset with all of its cameras.

        Args:
            source: Folder or Hub repo id.
            min_episode_steps: Episodes shorter than this get a warning.
            progress: Called after each inspected file.

        Raises:
            SourceError: There is no dataset, or it cannot be reached.
        """
        config = ConvertConfig(min_episode_steps=min_episode_steps)
        inspection = inspect_source(source, config, any_camera=True, progress=progress)
        dataset = inspection.dataset
        self.is_converted = False
        self.refused = inspection.decision.refused
        self.findings: list[Finding] = list(inspection.decision.findings)
        self.frame_size = inspection.image_size
        self.name = dataset.repo_id if dataset else Path(source).name
        self.handle = _handle(source, self.name)
        self.fps = dataset.fps if dataset else 1.0
        self.numbers = dataset.episodes.index if dataset else np.empty(0, np.int64)
        self.source_numbers = self.numbers
        self.sources = [self.name] * len(self.numbers)
        self.lengths = dataset.episodes.length if dataset else np.empty(0, np.int64)
        self.tasks = dataset.tasks if dataset else {}
        self.shifts: dict[str, int] = {}
        self.cameras = {key: camera_name(key) for key in dataset.cameras} if dataset else {}
        self.dimensions = _dimensions(dataset)
        self.facts = _facts(dataset, inspection.plan)
        self._dataset = dataset
        self._config = config
        self._report = inspection.report
        self._first_rows = inspection.report.first_rows
        self._headers = inspection.report.headers
        if dataset is None:
            return
        extra = (_TASK_INDEX,) if _TASK_INDEX in dataset.features else ()
        self._reader = EpisodeReader(dataset, inspection.report, {}, extra)
        self._decoder = Decoder(dataset.root, threads=config.decode_threads, batch_rows=_BATCH_ROWS, sparse=True)

    def position(self, found: Finding) -> int | None:
        """See ``Recording``."""
        if found.episode is None:
            return None
        position = int(np.searchsorted(self.numbers, found.episode))
        is_there = position < len(self.numbers) and self.numbers[position] == found.episode
        return position if is_there else None

    def rows(self, position: int) -> Rows | None:
        """See ``Recording``."""
        assert self._dataset is not None
        if int(self.numbers[position]) not in self._first_rows or not self.dimensions:
            return None
        try:
            data = self._reader.read(self._dataset.episode(position))
        except _UNREADABLE:
            return None
        return {
            name: values.reshape(len(values), -1).astype(np.float64) if values.size else np.empty((0, 1))
            for name, values in data.columns.items()
        }

    def frames(self, position: int, camera: str, steps: Sequence[int], height: int) -> Iterator[Picture | None]:
        """See ``Recording``. Decoding adds its findings to ``findings``."""
        job = self._job(position, camera)
        size: tuple[int, int] | None = None
        scaler: Scaler | None = None
        for step in steps:
            picture = None
            if job is not None:
                wanted = dataclasses.replace(job, first_step=step, timestamps=np.array([step / job.fps]))
                for event in self._decoder.run(wanted):
                    if not isinstance(event, DecodedFrame):
                        self._note(event.findings)
                        continue
                    if scaler is None or size is None:
                        full_height, full_width = event.size
                        share = min(1.0, height / full_height)
                        size = max(1, round(full_height * share)), max(1, round(full_width * share))
                        scaler = Scaler(*size, "stretch")
                    picture = np.empty((*size, 3), np.uint8)
                    scaler.put(event.frame, picture, orientation=event.orientation)
            yield picture

    def footage(self, max_frames: int, progress: Progress) -> Footage | None:
        """See ``Recording``. Needs no second inspection."""
        if self._dataset is None or not self.dimensions:
            return None
        return read_dataset(
            self._dataset,
            self._report,
            source=self.handle,
            cameras=tuple(self.cameras),
            skip=decide(self.findings, "keep").dropped,
            decode_threads=self._config.decode_threads,
            max_frames=max_frames,
            progress=progress,
        )

    def close(self) -> None:
        """See ``Recording``."""
        if self._dataset is not None:
            self._reader.__exit__()
            self._decoder.__exit__()

    def _job(self, position: int, camera: str) -> DecodeJob | None:
        """The decoding job of an episode; None if the metadata or the video header rules it out."""
        assert self._dataset is not None
        episode = self._report.locate(self._dataset.episode(position))
        first_row = self._first_rows.get(episode.index)
        span = episode.videos.get(camera)
        is_image = self._dataset.features[camera].dtype == "image"
        if is_image:
            file = episode.data_file if first_row is not None else None
        else:
            is_known = span is not None and span.file in self._headers and 0 <= span.start_seconds < float("inf")
            file = span.file if span is not None and is_known else None
        if file is None:
            return None
        return DecodeJob(
            episode=episode.index,
            column=camera,
            camera=camera,
            file=file,
            is_image=is_image,
            start_seconds=0.0 if span is None else span.start_seconds,
            first_row=first_row or 0,
            timestamps=np.empty(0),
            fps=self.fps,
        )

    def _note(self, findings: Sequence[Finding]) -> None:
        """Adds findings of decoding, one per code, episode and file."""
        known = {(found.code, found.episode, found.file) for found in self.findings}
        new = [found for found in findings if (found.code, found.episode, found.file) not in known]
        decision = decide(new, self._config.dirty_episode_policy)
        self.findings += decision.findings
        self.refused |= decision.refused


def _handle(source: str, name: str) -> str:
    """The source as it was given; of an absolute path, the dataset's name alone."""
    is_relative = not source.startswith("~") and not Path(source).is_absolute()
    return source.rstrip("/") if is_relative and source.strip("./") else name


def _dimensions(dataset: LeRobotDataset | None) -> dict[str, tuple[str, ...]]:
    """Names of the dimensions of ``action`` and, if there is one, ``state``; empty without an action."""
    if dataset is None or not dataset.action:
        return {}
    named = {}
    for column, keys in ((ACTION, dataset.action), (STATE, dataset.state)):
        width = sum(dataset.features[key].width for key in keys)
        names = dataset.dimension_names(keys) if keys else ()
        if keys:
            named[column] = names if len(names) == width else tuple(f"{column} {number}" for number in range(width))
    return named


def _facts(dataset: LeRobotDataset | None, plan: Plan | None) -> list[tuple[str, str]]:
    if dataset is None:
        return []
    facts = [
        ("dataset", f"{dataset.repo_id} (LeRobot {dataset.codebase_version})"),
        ("revision", dataset.revision or "local folder"),
        *((f"camera {camera_name(key)}", dataset.features[key].dtype) for key in dataset.cameras),
        *((f"camera {camera_name(key)}", "depth, left out") for key in dataset.depth_cameras),
        ("done from", done_words(dataset.done_source)),
    ]
    if plan is not None:
        disk, memory = plan.output_bytes / MEGABYTE, plan.peak_memory_bytes / MEGABYTE
        facts.append(("converting all cameras takes", f"{disk:,.0f} MB of disk, {memory:,.0f} MB of memory"))
    return facts
