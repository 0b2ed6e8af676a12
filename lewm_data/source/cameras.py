"""Which of a dataset's cameras go into a file, and under which names."""

from __future__ import annotations

from lewm_data.config import ConvertConfig
from lewm_data.errors import UsageError
from lewm_data.format.schema import PIXELS, camera_name, pixels_column
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
