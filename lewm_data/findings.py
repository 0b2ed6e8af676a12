"""What dirty means: every finding's code, its severity, its remedy, and whether ``keep`` can still align it.

``error``: the episode (or, without an episode, the dataset) cannot be converted truthfully.
``warning``: suspicious; converted and recorded in the file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

DirtyEpisodePolicy = Literal["fail", "skip", "keep"]
POLICIES: tuple[str, ...] = get_args(DirtyEpisodePolicy)

Severity = Literal["error", "warning"]

Handling = Literal["refused", "dropped", "kept", "recorded"]


class Verdict(NamedTuple):
    """What a set of findings amounts to.

    Attributes:
        level: ``good``: nothing to do; ``fair``: look at it first, or a choice is open; ``bad``: unusable as it is.
        sentence: The reason, in one line.
        next: A command to type next; empty if there is none.
    """

    level: Literal["good", "fair", "bad"]
    sentence: str
    next: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing found wrong, or suspicious, in a source dataset.

    Attributes:
        code: Stable name from the catalogue, such as ``rows_missing``.
        severity: ``error``: cannot be converted truthfully; ``warning``: converted and recorded.
        episode: The source's episode_index, or None where the whole dataset is concerned.
        step: The step of the episode that it is about, or begins at; None where it is about no single one.
        file: Path within the dataset's folder, or None.
        expected: What should have been there, in words.
        found: What was there, in words.
        remedy: What to do about it.
        handling: What the dirty-episode policy did about it.
    """

    code: str
    severity: Severity
    episode: int | None = None
    step: int | None = None
    file: str | None = None
    expected: str
    found: str
    remedy: str
    handling: Handling = "recorded"

    def sentence(self) -> str:
        """The finding in one line, as errors and logs print it."""
        subject = "dataset" if self.episode is None else f"episode {self.episode}"
        where = f" ({self.file})" if self.file else ""
        return f"{subject}: {self.code}: expected {self.expected}, found {self.found}{where}. {self.remedy}"

    def to_json(self) -> dict[str, Any]:
        """All attributes as a JSON-ready dictionary."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Finding:
        """Rebuilds a finding from ``to_json``, ignoring keys of later versions."""
        known = {f.name for f in dataclasses.fields(cls)}
        return cls(**{key: value for key, value in data.items() if key in known})


@dataclass(frozen=True, slots=True)
class Rule:
    """One kind of dirt.

    Attributes:
        severity: ``error`` or ``warning``.
        remedy: What its reader can do, as one or two sentences.
        keepable: Whether frames and rows can still be aligned, so that ``keep`` may convert it.
    """

    severity: Severity
    remedy: str
    keepable: bool = False


LEAVE_OUT = "Exclude it with --episodes, or drop it with --dirty_episode_policy skip."
"""How the remedies of errors that concern one episode end."""

_FETCH = "Download the dataset again (for Git: git lfs pull)."

CATALOGUE: dict[str, Rule] = {
    # Metadata
    "metadata_missing": Rule("error", _FETCH),
    "metadata_unreadable": Rule("error", f"The file is damaged or cut off. {_FETCH}"),
    "tasks_missing": Rule("warning", "Task texts are left out."),
    "lfs_pointer": Rule("error", "This is a Git LFS pointer, not the file itself: run git lfs pull."),
    "file_missing": Rule("error", f"{_FETCH} Or: {LEAVE_OUT}"),
    "version_unknown": Rule("error", "Convert it with LeRobot first: v2.0, v2.1 and v3.0 are read."),
    "version_mismatch": Rule("error", "Folder and codebase_version disagree: correct meta/info.json, or fetch again."),
    "fps_invalid": Rule("error", "Correct fps in meta/info.json."),
    "path_unsafe": Rule("error", "A path must stay inside the dataset's folder. Do not trust this dataset."),
    "camera_none": Rule("error", "A world model needs a camera: record one, or choose another dataset."),
    "column_missing": Rule("error", "Record the column, or choose a dataset that has it."),
    "column_dtype": Rule("error", "Only numbers can be converted: correct the dataset's features."),
    "column_width": Rule("error", "Every row must be as wide as meta/info.json says: record or correct it."),
    "total_mismatch": Rule(
        "error",
        f"The dataset is incomplete or its metadata is stale. {_FETCH} Or: keep what is there with "
        "--dirty_episode_policy keep.",
        keepable=True,
    ),
    "episode_index_hole": Rule("warning", "Episodes are looked up by value, so the others are right."),
    "episode_index_repeated": Rule("error", f"Nobody can tell which one is meant. {LEAVE_OUT}"),
    "location_null": Rule("error", f"The metadata does not say where the episode is stored. {LEAVE_OUT}"),
    "span_backwards": Rule("error", f"The video span ends before it begins. {LEAVE_OUT}"),
    "span_overlap": Rule("error", f"Two episodes claim the same frames. {LEAVE_OUT}"),
    "span_length": Rule("error", f"Span and rows disagree on the number of frames. {LEAVE_OUT}"),
    "span_past_file": Rule("error", f"The video ends before the episode begins. {LEAVE_OUT}"),
    "span_gap": Rule("warning", "Frames that belong to no episode are passed over."),
    "episode_empty": Rule("error", f"An episode without steps holds nothing. {LEAVE_OUT}"),
    "episode_too_long": Rule("error", f"Its rows would not fit into memory. {LEAVE_OUT}"),
    "episode_short": Rule("warning", "It is converted, but no window of this length fits into it."),
    # Parquet
    "parquet_unreadable": Rule("error", f"The file is damaged or cut off. {_FETCH} Or: {LEAVE_OUT}"),
    "rows_missing": Rule("error", f"Steps are missing. {LEAVE_OUT}", keepable=True),
    "rows_extra": Rule("error", f"There are more steps than the metadata knows. {LEAVE_OUT}"),
    "rows_unlisted": Rule("warning", "Rows of episodes that the metadata does not list are passed over."),
    "rows_misplaced": Rule("error", f"Rows are not where the metadata says. {LEAVE_OUT}"),
    "index_mismatch": Rule(
        "warning",
        "Rows are found by episode_index, so they are right; LeRobot's own reader would fetch others.",
    ),
    "frame_index_broken": Rule("error", f"Steps are missing, repeated or out of order. {LEAVE_OUT}", keepable=True),
    "timestamps_not_increasing": Rule("error", f"Steps are out of order. {LEAVE_OUT}", keepable=True),
    "timestamps_off_fps": Rule("error", f"Rows and frames would drift apart. {LEAVE_OUT}", keepable=True),
    "timestamps_jitter": Rule("warning", "Below half a frame, so rows and frames still agree."),
    "values_not_finite": Rule("error", f"NaN or Inf poisons training. {LEAVE_OUT}", keepable=True),
    "action_constant": Rule("warning", "A constant action teaches nothing; check the recording."),
    "action_zero": Rule("warning", "An action of zeros teaches nothing; check the recording."),
    "state_frozen": Rule("warning", "The robot does not move or its sensors were not read; check the recording."),
    "done_mid_episode": Rule("error", f"The episode goes on after its end. {LEAVE_OUT}", keepable=True),
    "done_not_last": Rule("error", f"The episode goes on after its end. {LEAVE_OUT}", keepable=True),
    "done_never": Rule("warning", "Written as recorded; the episode was probably cut off by a time limit."),
    # Video, by its header
    "video_empty": Rule("error", f"The file holds nothing. {_FETCH} Or: {LEAVE_OUT}"),
    "video_truncated": Rule("error", f"The file is cut off. {_FETCH} Or: {LEAVE_OUT}"),
    "video_unreadable": Rule("error", f"No decoder makes sense of the file. {_FETCH} Or: {LEAVE_OUT}"),
    "video_no_stream": Rule("error", f"Record the camera again. Or: {LEAVE_OUT}"),
    "video_frames_short": Rule("error", f"Frames were lost while recording. {LEAVE_OUT}", keepable=True),
    "video_frames_extra": Rule("warning", "Frames that belong to no episode are passed over."),
    "video_fps": Rule("error", f"Rows and frames would drift apart. {LEAVE_OUT}"),
    "video_start_offset": Rule("warning", "Times are counted from the file's first frame."),
    "video_too_large": Rule("error", f"A frame would fill the memory. Scale the video down. Or: {LEAVE_OUT}"),
    "video_size": Rule("warning", "The decoded size is trusted."),
    # Video, by its pictures
    "video_timestamps": Rule("error", f"The frame of a row cannot be told for certain. {LEAVE_OUT}"),
    "video_timestamps_jitter": Rule("warning", "Below half a frame, so rows and frames still agree."),
    "video_size_changes": Rule("error", f"The camera changed its resolution. {LEAVE_OUT}"),
    "video_codec_changes": Rule("error", f"The file was pieced together from different recordings. {LEAVE_OUT}"),
    "decode_error": Rule("error", f"The video is damaged in the middle. {LEAVE_OUT}"),
    "frames_black": Rule("warning", "Black pictures teach nothing; check the camera."),
    "frames_constant": Rule("warning", "Pictures of one colour teach nothing; check the camera."),
    "camera_frozen": Rule("warning", "The picture does not change for long; check the camera."),
}


def finding(
    code: str,
    *,
    expected: str,
    found: str,
    episode: int | None = None,
    step: int | None = None,
    file: str | None = None,
) -> Finding:
    """Makes a finding of the catalogue.

    Args:
        code: A key of ``CATALOGUE``.
        expected: What should have been there, in words.
        found: What was there, in words.
        episode: The source's episode_index; None for the whole dataset.
        step: The step of the episode that it is about, where it is about one.
        file: Path within the dataset's folder.

    Returns:
        The finding, with the catalogue's severity and remedy.
    """
    rule = CATALOGUE[code]
    return Finding(
        code=code,
        severity=rule.severity,
        episode=episode,
        step=step,
        file=file,
        expected=expected,
        found=found,
        remedy=rule.remedy,
    )


HANDLED = {
    "refused": "refuses the dataset",
    "dropped": "dropped",
    "kept": "kept and marked",
    "recorded": "recorded",
}
"""What was done about a finding, in words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FindingGroup:
    """Findings of one code that were handled alike.

    Attributes:
        first: The first of them, as an example.
        count: How many there are.
        episodes: episode_index of those that concern an episode, ascending, each once.
    """

    first: Finding
    count: int
    episodes: tuple[int, ...]

    def where(self, most: int = 6) -> str:
        """The episodes concerned, in words; ``most`` ranges at most."""
        if not self.episodes:
            return "the whole dataset"
        return f"{'episode' if len(self.episodes) == 1 else 'episodes'} {episode_ranges(self.episodes, most)}"


def group_findings(findings: Iterable[Finding]) -> list[FindingGroup]:
    """Groups findings by code and handling.

    Returns:
        Errors first, then in the order in which their first one was found.
    """
    groups: dict[tuple[str, str], list[Finding]] = {}
    for found in findings:
        groups.setdefault((found.code, found.handling), []).append(found)
    made = [
        FindingGroup(
            first=members[0],
            count=len(members),
            episodes=tuple(sorted({found.episode for found in members if found.episode is not None})),
        )
        for members in groups.values()
    ]
    return sorted(made, key=lambda group: group.first.severity != "error")


def episode_ranges(episodes: Iterable[int], most: int = 6) -> str:
    """Ascending episode numbers as ranges, both ends included: ``0-2, 5``.

    Args:
        episodes: Ascending, each once.
        most: Ranges that are written out; the episodes of the rest are counted.
    """
    ranges: list[tuple[int, int]] = []
    for episode in episodes:
        if ranges and episode == ranges[-1][1] + 1:
            ranges[-1] = ranges[-1][0], episode
        else:
            ranges.append((episode, episode))
    shown = [str(first) if first == last else f"{first}-{last}" for first, last in ranges[:most]]
    rest = sum(last - first + 1 for first, last in ranges[most:])
    return ", ".join(shown) + (f" and {rest:,} more" if rest else "")


def count_of(number: int, what: str) -> str:
    """A number of things in words: ``1 error``, ``2,000 errors``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
