"""Corrections of a recording on its way into a file: cameras that are shifted, and idle steps that are cut."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from lewm_data.config import ConvertConfig
from lewm_data.findings import Finding, finding
from lewm_data.format.schema import camera_name
from lewm_data.notation import AUTO, count_of
from lewm_data.quality.assess.footage import Footage
from lewm_data.quality.assess.idle import find_idle
from lewm_data.quality.assess.lag import MAX_INTERVAL, Lag, find_lag
from lewm_data.quality.assess.reading import MAX_FRAMES, read_dataset
from lewm_data.quality.checks import check_length
from lewm_data.resources import Progress
from lewm_data.source.crop import overlap, steps_with_frames, without_idle
from lewm_data.source.episodes import Report
from lewm_data.source.metadata import LeRobotDataset
from lewm_data.source.selection import choose_shifts

MARGIN_SECONDS = 0.2
"""Idle steps that stay before the first movement and after the last: where it begins is known to about that."""

MIN_KEPT_SECONDS = 1.0

LOOK_BYTES_PER_FRAME = 12_000
"""Memory for each frame that is looked at: 6.9 KB as a thumbnail, and 4.6 KB more in gray while it is judged."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Corrections:
    """What is corrected, and how it came about.

    Attributes:
        shifts: Frame column to its shift in frames; step t is paired with frame t + shift. Only those that are not 0.
        kept_steps: episode_index to the steps that stay when idle ones are cut.
        is_active: Whether corrections were asked for, even if they change nothing.
        remarks: What was decided and why, a sentence each.
        findings: Episodes that the corrections leave without a step.
        num_frames_seen: Frames that were looked at together, to measure.
    """

    shifts: dict[str, int] = field(default_factory=dict)
    kept_steps: dict[int, range] = field(default_factory=dict)
    is_active: bool = False
    remarks: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    num_frames_seen: int = 0

    @property
    def dropped(self) -> frozenset[int]:
        """episode_index of each episode that the corrections leave nothing of."""
        dropped = (found.episode for found in self.findings if found.handling == "dropped")
        return frozenset(index for index in dropped if index is not None)

    def steps(self, episode: int, length: int) -> range:
        """The steps of an episode that are converted.

        Args:
            episode: The source's episode_index.
            length: Its steps.
        """
        return overlap(steps_with_frames(length, self.shifts.values()), self.kept_steps.get(episode, range(length)))


NO_CORRECTIONS = Corrections()


def find_corrections(
    dataset: LeRobotDataset,
    report: Report,
    cameras: Mapping[str, str],
    config: ConvertConfig,
    *,
    dropped: frozenset[int],
    part: frozenset[int],
    progress: Progress,
) -> Corrections:
    """Decides how each episode is corrected. Measures only what the settings leave open.

    Args:
        dataset: The dataset, its files at hand.
        report: Its report, which knows where rows begin.
        cameras: Frame column to LeRobot camera key.
        config: The settings.
        dropped: episode_index of each episode that is left out anyway.
        part: episode_index of each episode that this run converts. Idle steps are looked for in these and in the few
            that are judged together with them, so that the parts find what a whole conversion finds. Shifts are
            measured on all episodes.
        progress: Called after each episode that is looked at.
    """
    requested = choose_shifts(dataset, cameras, config)
    if not requested and not config.trim_idle:
        return NO_CORRECTIONS
    lengths = {
        index: int(dataset.episodes.length[row])
        for row, index in enumerate(dataset.episodes.index.tolist())
        if index not in dropped and index in report.first_rows
    }

    def read(columns: Sequence[str], episodes: Sequence[int], *, max_frames: int = MAX_FRAMES) -> Footage:
        return read_dataset(
            dataset,
            report,
            source=dataset.repo_id,
            cameras=[cameras[column] for column in columns],
            skip=frozenset(dataset.episodes.index.tolist()).difference(episodes),
            decode_threads=config.decode_threads,
            max_frames=max_frames,
            progress=progress,
        )

    measured = [column for column, shift in requested.items() if shift == AUTO]
    kept_steps: dict[int, range] = {}
    footage: Footage | None = None
    every_group = _groups(lengths, len(cameras)) if config.trim_idle else []
    groups = [group for group in every_group if part.intersection(group)]
    for group in groups:
        num_frames = sum(lengths[index] for index in group) * len(cameras)
        footage = read(tuple(cameras), group, max_frames=2 * num_frames)  # whole episodes, and all of them
        found_steps = _kept_steps(footage, config.min_episode_steps)
        kept_steps |= {index: steps for index, steps in found_steps.items() if index in part}
    if measured and lengths and len(every_group) != 1:
        footage = read(measured, list(lengths))
    shifts, remarks = {}, []
    for column, shift in requested.items():
        name = camera_name(cameras[column])
        if isinstance(shift, str):
            lag = None if footage is None else find_lag(footage, footage.cameras[name])
            shift, remark = judged_shift(name, lag)
            remarks.append(remark)
        else:
            remarks.append(f"{name} by {shift:+d}, as requested")
        if shift:
            shifts[column] = shift
    found = Corrections(shifts=shifts, kept_steps=kept_steps)
    own = {index: length for index, length in lengths.items() if index in part}
    largest = max((sum(lengths[index] for index in group) * len(cameras) for group in groups), default=0)
    return Corrections(
        shifts=shifts,
        kept_steps=kept_steps,
        is_active=True,
        remarks=tuple(remarks),
        findings=tuple(_findings(found, own, config.min_episode_steps)),
        num_frames_seen=max(largest, min(MAX_FRAMES, sum(lengths.values()) * len(measured))),
    )


def judged_shift(camera: str, lag: Lag | None) -> tuple[int, str]:
    """The whole frames by which a camera is shifted, and why, as the rest of a sentence.

    Args:
        camera: Its name.
        lag: What ``assess`` measured; None if there was nothing to look at.
    """
    if lag is None or lag.frames is None or lag.low is None or lag.high is None:
        known = "" if lag is None or lag.correlation is None else f", with a correlation of {lag.correlation:.2f}"
        return 0, f"{camera} by 0: cannot tell whether it is late{known}"
    side = "late" if lag.frames >= 0 else "early"
    measured = f"its picture is {abs(lag.frames):.1f} frames {side} (95 % interval {lag.low:.1f} to {lag.high:.1f})"
    if lag.high - lag.low > MAX_INTERVAL + 1e-9:
        return 0, f"{camera} by 0: {measured}, which is too uncertain"
    shift = int(math.copysign(math.floor(abs(lag.frames) + 0.5), lag.frames))
    return shift, f"{camera} by {shift:+d}: {measured}" if shift else f"{camera} by 0: {measured}"


def _groups(lengths: Mapping[int, int], num_cameras: int) -> list[list[int]]:
    """Runs of episodes that are looked at together: few enough frames for memory, and about as many in each."""
    total = sum(lengths.values()) * num_cameras
    count = max(1, math.ceil(total / MAX_FRAMES))
    groups: dict[int, list[int]] = {}
    for (index, length), stop in zip(lengths.items(), itertools.accumulate(lengths.values()), strict=True):
        middle = (stop - length / 2) * num_cameras
        groups.setdefault(min(count - 1, int(middle * count / max(total, 1))), []).append(index)
    return list(groups.values())


def _kept_steps(footage: Footage, min_steps: int) -> dict[int, range]:
    idle = find_idle(footage)
    margin = max(1, round(MARGIN_SECONDS * footage.fps))
    least = max(min_steps, round(MIN_KEPT_SECONDS * footage.fps))
    kept = {}
    lengths = np.bincount(footage.episode, minlength=footage.num_episodes).tolist()
    for index, length, head, tail in zip(
        footage.numbers.tolist(), lengths, idle.head.tolist(), idle.tail.tolist(), strict=True
    ):
        is_idle = head == length
        kept[index] = range(0) if is_idle else without_idle(length, head=head, tail=tail, margin=margin, least=least)
    return kept


def _findings(found: Corrections, lengths: Mapping[int, int], min_steps: int) -> Iterator[Finding]:
    """What the corrections do to episodes: they leave nothing of one, or less than a window."""
    for index, length in lengths.items():
        if not len(found.kept_steps.get(index, range(length))):
            yield cut_away(index, f"{count_of(length, 'step')} without motion")
        elif not len(found.steps(index, length)):
            yield cut_away(index, f"{count_of(length, 'step')}, fewer than the shifts leave out")
        elif length >= min_steps:  # else the inspection has said so
            yield from check_length(index, len(found.steps(index, length)), min_steps, length)


def cut_away(episode: int, found: str) -> Finding:
    """The finding for an episode that has no step left after a correction. It is dropped under any policy.

    Args:
        episode: The source's episode_index.
        found: What it has, in words.
    """
    made = finding("episode_cut_away", episode=episode, expected="a step that stays after corrections", found=found)
    return dataclasses.replace(made, handling="dropped")
