"""Which of a dataset's cameras go into a file, and under which names."""

from __future__ import annotations

from collections.abc import Sequence

from lewm_data.config import ConvertConfig
from lewm_data.errors import UsageError
from lewm_data.format.schema import PIXELS, RESERVED_NAMES, camera_name, is_pixels, pixels_column
from lewm_data.source.metadata import LeRobotDataset


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


def check_columns(keys: Sequence[str]) -> None:
    """Refuses extra columns that the file cannot hold beside each other.

    Raises:
        UsageError: A name has a meaning of its own in the format, or two keys would share one.
    """
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
        UsageError: The name has a meaning of its own in the format.
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
