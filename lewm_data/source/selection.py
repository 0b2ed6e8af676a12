"""Which cameras and columns of a dataset go into a file, and under which names. Decisions only; no file is opened."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from lewm_data.config import ConvertConfig
from lewm_data.errors import UsageError
from lewm_data.findings import Finding, finding
from lewm_data.format.schema import ACTION, PIXELS, RESERVED_NAMES, STATE, camera_name, is_pixels, pixels_column
from lewm_data.notation import AUTO, parse_shift
from lewm_data.source.info import INFO_FILE, Feature
from lewm_data.source.metadata import DONE_KEYS, INDEX_COLUMNS, LeRobotDataset

NO_STATE = "none"
"""The value of ``--state`` that leaves the state out."""

DEFAULT_KEYS = {ACTION: ("action", "actions"), STATE: ("observation.state", "state")}
"""Columns that are taken without a flag: the first one that the dataset has. LeRobot's name, then openpi's."""

_BOOKKEEPING = frozenset({*INDEX_COLUMNS, "task_index"})
_NO_STATE_PREFIXES = ("next.", "action", "annotation.")
_NO_STATE_NAMES = frozenset(
    {*DONE_KEYS, "is_first", "reward", "discount", "done", "success", "terminated", "truncated"}
)


# --- action and state


class ChosenColumns(NamedTuple):
    """What makes up ``action`` and ``state``.

    Attributes:
        action: Keys, in order; empty if the dataset has no column of that name.
        state: Keys, in order; empty if the dataset has no state or the user left it out.
        findings: What is missing, with the flag to type.
    """

    action: tuple[str, ...]
    state: tuple[str, ...]
    findings: list[Finding]


def choose_columns(features: Mapping[str, Feature], *, action: str | None, state: str | None) -> ChosenColumns:
    """Decides which columns are ``action`` and ``state``.

    Args:
        features: Key to feature, in the order of ``info.json``.
        action: ``KEY[,KEY...]``: these columns side by side, in this order. A trailing ``*`` stands for every numeric
            column with that prefix, in the order of ``info.json``. None takes ``action``, else ``actions``.
        state: As ``action``; ``none`` leaves the state out. None takes ``observation.state``, else ``state``.

    Returns:
        The keys. If no column has one of the usual names, a finding lists the numeric columns. A dataset without any
        column that could be a state converts without one.

    Raises:
        UsageError: A key does not exist, is not numeric, or is given twice.

    Example:
        >>> joints = {f"action.{name}": Feature(key=f"action.{name}", dtype="float32", shape=(1,)) for name in "xy"}
        >>> choose_columns(joints, action="action.*", state="none").action
        ('action.x', 'action.y')
    """
    findings: list[Finding] = []
    if action is not None:
        actions = parse_keys(features, action, flag="--action")
    else:
        actions = _default(features, ACTION)
        if not actions:
            findings.append(_missing(features, ACTION))
    if state is not None:
        states = () if state.strip() == NO_STATE else parse_keys(features, state, flag="--state")
    else:
        states = _default(features, STATE)
        candidates = [] if states else list(_state_candidates(features, actions))
        if candidates:
            findings.append(_missing(features, STATE))
        elif not states:
            findings.append(
                finding("state_absent", file=INFO_FILE, expected="a column that could be a state", found="none")
            )
    return ChosenColumns(actions, states, findings)


def parse_keys(features: Mapping[str, Feature], text: str, *, flag: str) -> tuple[str, ...]:
    """Reads ``KEY[,KEY...]``; arguments and errors as for ``choose_columns``."""
    keys: dict[str, None] = {}
    for item in (part.strip() for part in text.split(",")):
        if item.endswith("*"):
            matching = [key for key, feature in features.items() if feature.is_number and key.startswith(item[:-1])]
            if not matching:
                raise UsageError(f"{flag} {item}: no numeric column begins with that. {_columns_in_words(features)}")
            keys.update(dict.fromkeys(matching))  # a column that was named before keeps its place
            continue
        if item not in features:
            raise UsageError(f"{flag} {item}: the dataset has no such column. {_columns_in_words(features)}")
        if not features[item].is_number:
            raise UsageError(
                f"{flag} {item}: it is of dtype {features[item].dtype!r}, not numeric. {_columns_in_words(features)}"
            )
        if item in keys:
            raise UsageError(f"{flag} {text}: {item!r} is given twice. Leave one of them out.")
        keys[item] = None
    return tuple(keys)


def _default(features: Mapping[str, Feature], column: str) -> tuple[str, ...]:
    return next(((key,) for key in DEFAULT_KEYS[column] if key in features), ())


def _state_candidates(features: Mapping[str, Feature], actions: Iterable[str]) -> Iterator[str]:
    """Columns that could be a state: numbers that are neither bookkeeping nor actions, rewards or flags."""
    for key, feature in features.items():
        is_other = key in _BOOKKEEPING or key in _NO_STATE_NAMES or key in actions or key.endswith("_index")
        if feature.is_number and feature.dtype != "bool" and not is_other and not key.startswith(_NO_STATE_PREFIXES):
            yield key


def _missing(features: Mapping[str, Feature], column: str) -> Finding:
    names = " or ".join(map(repr, DEFAULT_KEYS[column]))
    without = f"; --{column} {NO_STATE} converts without a state" if column == STATE else ""
    return finding(
        "column_missing",
        file=INFO_FILE,
        expected=f"a column {names}",
        found=f"none of that name. {_columns_in_words(features)[:-1]}",
        remedy=(
            f"Say which columns make up the {column}: --{column} KEY[,KEY...], where a trailing * takes every column "
            f"with that prefix{without}."
        ),
    )


def _columns_in_words(features: Mapping[str, Feature]) -> str:
    numeric = [feature for feature in features.values() if feature.is_number]
    numeric.sort(key=lambda feature: feature.key in _BOOKKEEPING)
    listed = ", ".join(f"{feature.key} ({feature.width} wide)" for feature in numeric)
    return f"Numeric columns: {listed}." if listed else "It has no numeric column."


# --- cameras


def choose_cameras(dataset: LeRobotDataset, config: ConvertConfig, *, any_camera: bool = False) -> dict[str, str]:
    """Decides which camera goes to which column.

    Args:
        dataset: The dataset.
        config: The settings; ``camera`` and ``cameras`` matter.
        any_camera: Take all cameras if the settings do not say which one is ``pixels``, instead of raising an error.

    Returns:
        Frame column to LeRobot camera key; empty if the dataset has no camera.

    Raises:
        UsageError: A camera is unknown, none of several is chosen, or two would share a column.
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
            f"--camera {camera_name(dataset.cameras[0])} (camera={camera_name(dataset.cameras[0])!r} in Python); "
            "cameras 'all' adds the others."
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


def choose_shifts(dataset: LeRobotDataset, cameras: Mapping[str, str], config: ConvertConfig) -> dict[str, int | str]:
    """Decides which cameras are shifted.

    Args:
        dataset: The dataset.
        cameras: Frame column to LeRobot camera key.
        config: The settings; ``shift`` matters.

    Returns:
        Frame column to its shift in frames, or to ``auto``; shifts of 0 are left out.

    Raises:
        UsageError: A camera does not exist, is not converted, or gets two shifts.
    """
    if config.shift is None:
        return {}
    named: dict[str, int | str] = {}
    given = parse_shift(config.shift)
    columns = {key: column for column, key in cameras.items()}
    for name, shift in given.items():
        if name is None:
            continue
        key = dataset.find_camera(name)
        if key not in columns:
            have = ", ".join(map(camera_name, columns))
            what = "no such camera" if key is None else "this camera is not converted (see --camera and --cameras)"
            raise UsageError(f"--shift {name}={shift}: {what}. Converted are: {have}. Choose one of those.")
        if columns[key] in named:
            raise UsageError(f"--shift {config.shift}: camera {name!r} is given twice. Leave one of them out.")
        named[columns[key]] = shift
    if None in given:
        named = {**dict.fromkeys(cameras, AUTO), **named}
    return {column: named[column] for column in cameras if named.get(column, 0) != 0}


# --- extra columns


def check_columns(keys: Sequence[str], features: Iterable[str] = ()) -> None:
    """Refuses extra columns whose names in the file would clash, and the text of the task.

    Args:
        keys: LeRobot's keys.
        features: The keys that the dataset has.

    Raises:
        UsageError: The format uses a name itself, two keys would share one, or a key means ``task_index``.
    """
    if "task" in keys and "task" not in features:
        raise UsageError(
            "extra_columns: LeRobot keeps the text of a task once, not at every step. Write task_index instead; "
            "the file's header has the texts."
        )
    names: dict[str, str] = {}
    for key in keys:
        other = names.setdefault(file_column(key), key)
        if other != key:
            raise UsageError(
                f"extra_columns: {other!r} and {key!r} would both be {file_column(key)!r}. Leave one of them out."
            )


def file_column(key: str) -> str:
    """Name of an extra column in our file.

    Raises:
        UsageError: The format uses that name itself.
    """
    name = column_name(key)
    if name in RESERVED_NAMES or is_pixels(name) or not name.strip("."):
        raise UsageError(
            f"extra_columns: {key!r} would be the column {name!r}, which the format uses itself. Leave it out."
        )
    return name


def column_name(key: str) -> str:
    """LeRobot's key as the name of a dataset: ``/``, which HDF5 takes for a group, becomes ``_``."""
    return key.replace("/", "_")
