"""What dirty means: the code, severity and remedy of every finding, and whether ``keep`` can still align it.

``error``: the episode (or, without an episode, the dataset) cannot be converted truthfully.
``warning``: suspicious; converted and recorded in the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Rule:
    """One kind of finding.

    Attributes:
        severity: ``error`` or ``warning``.
        remedy: What the reader can do, as one or two sentences.
        keepable: Whether frames and rows can still be aligned, so that ``keep`` converts the episode.
    """

    severity: Severity
    remedy: str
    keepable: bool = False


LEAVE_OUT = "Exclude it with --episodes, or drop it with --dirty_episode_policy skip."
"""How every remedy for an error of one episode ends."""

_FETCH = "If you downloaded the dataset, download it again (for Git: git lfs pull)."

_RESTORE = f"{_FETCH} If you recorded it, restore the file from a backup."

CATALOG: dict[str, Rule] = {
    # Metadata
    "metadata_missing": Rule("error", _RESTORE),
    "metadata_unreadable": Rule("error", f"The file is damaged or cut off. {_RESTORE}"),
    "tasks_missing": Rule("warning", "The file holds no task texts; nothing else needs them."),
    "lfs_pointer": Rule("error", "This is a Git LFS pointer, not the file itself: run git lfs pull."),
    "file_missing": Rule("error", f"{_FETCH} Otherwise: {LEAVE_OUT}"),
    "files_ignored": Rule(
        "warning", "LeRobot does not write files with these names, so they are ignored. Delete them."
    ),
    "version_unknown": Rule("error", "Only v2.0, v2.1 and v3.0 can be read: convert the dataset with LeRobot first."),
    "version_mismatch": Rule(
        "error",
        "The folder has the layout of another LeRobot version. Correct codebase_version in meta/info.json, or "
        "download the dataset again.",
    ),
    "fps_invalid": Rule("error", "Correct fps in meta/info.json."),
    "link_leads_out": Rule(
        "error",
        "If you keep this part of the recording elsewhere yourself, follow its links with --follow_links. If the "
        "dataset is someone else's, do not trust it: a link can lead to any file of yours.",
    ),
    "path_unsafe": Rule("error", "A path must stay inside the dataset's folder. Do not trust this dataset."),
    "camera_none": Rule("error", "A world model needs a camera: record one, or choose another dataset."),
    "camera_absent": Rule("warning", "The camera is left out. Remove it from meta/info.json, or fetch its videos."),
    "column_missing": Rule("error", "Choose another column, or a dataset that has this one."),
    "column_dtype": Rule("error", "Only numbers can be converted: correct the dataset's features."),
    "column_width": Rule("error", "Every row must be as wide as meta/info.json says: correct the rows or the shape."),
    "column_derived": Rule("warning", "The order of the rows says the same, so the values are derived from it."),
    "precision_lost": Rule(
        "error",
        "Keep the values with --state_dtype float64, which stores action and state in double precision; leave an extra "
        "column out of --extra_columns.",
        keepable=True,
    ),
    "state_absent": Rule("warning", "The file has no state. To add one, name its columns with --state KEY[,KEY...]."),
    "total_mismatch": Rule(
        "error",
        f"The dataset is incomplete or its metadata is stale. {_FETCH} Or keep what is there with "
        "--dirty_episode_policy keep.",
        keepable=True,
    ),
    "episode_index_hole": Rule("warning", "Episodes are looked up by value, so the others are right."),
    "episode_index_repeated": Rule("error", f"Two entries claim the same episode. {LEAVE_OUT}"),
    "location_null": Rule("error", f"The metadata does not say where the episode is stored. {LEAVE_OUT}"),
    "span_backwards": Rule("error", f"The video span ends before it begins. {LEAVE_OUT}"),
    "span_overlap": Rule("error", f"Two episodes claim the same frames. {LEAVE_OUT}"),
    "span_length": Rule("error", f"Span and rows disagree on the number of frames. {LEAVE_OUT}"),
    "span_stop_short": Rule(
        "warning",
        "The field to_timestamp holds the time of the last frame, not its end. The file and the next span confirm the "
        "number of rows, and LeRobot reads only from_timestamp.",
    ),
    "span_past_file": Rule("error", f"The video ends before the episode begins. {LEAVE_OUT}"),
    "span_gap": Rule("warning", "Frames that belong to no episode are skipped."),
    "episode_empty": Rule("error", f"The episode has no steps. {LEAVE_OUT}"),
    "episode_too_long": Rule("error", f"The episode's rows do not fit into memory. {LEAVE_OUT}"),
    "episode_cut_away": Rule("warning", "No step is left of it after --shift or --trim_idle, so it is dropped."),
    "episode_short": Rule("warning", "It is converted, but no window of this length fits into it."),
    # Parquet
    "parquet_unreadable": Rule("error", f"The file is damaged or cut off. {_RESTORE} Otherwise: {LEAVE_OUT}"),
    "rows_missing": Rule("error", f"Steps are missing. {LEAVE_OUT}", keepable=True),
    "rows_extra": Rule("error", f"There are more steps than the metadata lists. {LEAVE_OUT}"),
    "rows_unlisted": Rule("warning", "Rows of episodes that the metadata does not list are skipped."),
    "rows_misplaced": Rule("error", f"The rows are not where the metadata says. {LEAVE_OUT}"),
    "rows_relocated": Rule("warning", "The metadata names another file. The rows are taken from where they are."),
    "index_mismatch": Rule(
        "warning",
        "Rows are found by episode_index, so they are right; LeRobot's own reader would fetch others.",
    ),
    "frame_index_broken": Rule("error", f"Steps are missing, repeated or out of order. {LEAVE_OUT}", keepable=True),
    "timestamps_not_increasing": Rule("error", f"Steps are out of order. {LEAVE_OUT}", keepable=True),
    "timestamps_off_fps": Rule(
        "error",
        "The timestamps do not say which frame belongs to a row. --dirty_episode_policy keep matches rows and frames "
        f"by position. Otherwise: {LEAVE_OUT}",
        keepable=True,
    ),
    "timestamps_offset": Rule("warning", "Frames are matched by position, and rows and frames are equally many."),
    "timestamps_wall_clock": Rule("warning", "The pictures are stored in the rows, so they cannot drift apart."),
    "timestamps_jitter": Rule("warning", "Less than half a frame, so rows and frames still agree."),
    "values_not_finite": Rule("error", f"NaN or Inf ruins training. {LEAVE_OUT}", keepable=True),
    "action_constant": Rule("warning", "A constant action teaches nothing; check the recording."),
    "action_zero": Rule("warning", "An action of zeros teaches nothing; check the recording."),
    "state_frozen": Rule("warning", "The robot does not move or its sensors were not read; check the recording."),
    "dimension_still": Rule(
        "warning",
        "No other judgment counts such a dimension. If the joint should have moved, check its motor and its sensor.",
    ),
    "robot_idle": Rule(
        "warning",
        "Windows without motion teach nothing. lewm-data assess, which looks at the pictures too, shows where it "
        "rests; convert --trim_idle cuts the idle ends of episodes.",
    ),
    "done_run": Rule("warning", "An unbroken run of end flags is one end; it is written as the last step."),
    "done_mid_episode": Rule("error", f"The episode goes on after its end. {LEAVE_OUT}", keepable=True),
    "done_not_last": Rule("error", f"The episode goes on after its end. {LEAVE_OUT}", keepable=True),
    "done_never": Rule("warning", "Written as recorded; a time limit probably cut the episode off."),
    # Video, by its header
    "video_empty": Rule("error", f"The file is empty. {_RESTORE} Otherwise: {LEAVE_OUT}"),
    "video_truncated": Rule("error", f"The file is cut off. {_RESTORE} Otherwise: {LEAVE_OUT}"),
    "video_unreadable": Rule("error", f"No decoder can read the file. {_RESTORE} Otherwise: {LEAVE_OUT}"),
    "video_no_stream": Rule("error", f"Record the camera again. Otherwise: {LEAVE_OUT}"),
    "video_frames_short": Rule("error", f"Frames were lost while recording. {LEAVE_OUT}", keepable=True),
    "video_frames_extra": Rule("warning", "Frames that belong to no episode are skipped."),
    "video_fps": Rule(
        "error", f"Rows and frames drift apart. Encode the video at the dataset's fps. Otherwise: {LEAVE_OUT}"
    ),
    "video_start_offset": Rule("warning", "Times are counted from the file's first frame."),
    "video_too_large": Rule("error", f"A frame would fill the memory. Scale the video down. Otherwise: {LEAVE_OUT}"),
    "video_size": Rule("warning", "The decoded size is trusted."),
    "video_rotation": Rule(
        "error", f"Only quarter turns and flips can be applied. Encode the video again, upright. Otherwise: {LEAVE_OUT}"
    ),
    "video_display": Rule(
        "warning",
        "Frames are stored as they are decoded, as LeRobot reads them. Check that with lewm-data preview; if you need "
        "what a player shows, encode the video that way.",
    ),
    # Video, by its pictures
    "video_timestamps": Rule("error", f"The times of the frames do not say which row a frame belongs to. {LEAVE_OUT}"),
    "video_timestamps_jitter": Rule("warning", "Less than half a frame, so rows and frames still agree."),
    "video_interlaced": Rule(
        "warning",
        "Moving edges look like combs, because a frame shows two moments. Frames are stored as they are decoded.",
    ),
    "video_size_changes": Rule("error", f"The camera changed its resolution. {LEAVE_OUT}"),
    "video_codec_changes": Rule("error", f"The file was pieced together from different recordings. {LEAVE_OUT}"),
    "decode_error": Rule("error", f"The video is damaged in the middle. {LEAVE_OUT}"),
    "frames_black": Rule("warning", "Black pictures teach nothing; check the camera."),
    "frames_constant": Rule("warning", "Pictures of one color teach nothing; check the camera."),
    "camera_frozen": Rule("warning", "The picture does not change for a long time; check the camera."),
}
