"""Every frame is the right one. The oracle is LeRobot's own reader, at native size, frame by frame."""

from __future__ import annotations

import dataclasses
import functools
import shutil
from pathlib import Path

import av
import h5py
import hdf5plugin  # noqa: F401
import numpy as np
import pytest

from lewm_data.config import ConvertConfig
from lewm_data.conversion import output, shard
from lewm_data.conversion.pipeline import convert
from lewm_data.conversion.verify import verify_against
from lewm_data.errors import UsageError
from lewm_data.source.scale import SCALER_VERSION, Scaler
from tests.recording import EPISODE_LENGTHS, LAYOUTS, camera_key, read_camera, read_code
from tests.source.media import area_average, set_matrix

V3_LAYOUTS = [name for name in LAYOUTS if name not in ("recorded_v21", "recorded_v20", "recorded_hevc")]


def lerobot_frames(root: Path, camera: str) -> list[np.ndarray]:
    """Every frame as LeRobotDataset (pyav) returns it, uint8 (H, W, 3)."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    dataset = LeRobotDataset("local/oracle", root=root, video_backend="pyav")
    frames = (dataset[index][camera_key(camera)] for index in range(len(dataset)))
    return [np.rint(frame.numpy() * 255).astype(np.uint8).transpose(1, 2, 0) for frame in frames]


def decoded_in_order(root: Path, camera: str) -> list[np.ndarray]:
    """Every frame of the only MP4, decoded from start to end by PyAV alone."""
    (path,) = (root / "videos" / camera_key(camera)).rglob("*.mp4")
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(int) - b.astype(int)).mean())


def assert_same_frames(pixels: np.ndarray, oracle: list[np.ndarray]) -> None:
    assert len(pixels) == len(oracle) == sum(EPISODE_LENGTHS)
    for row, frame in enumerate(pixels):
        assert np.abs(frame.astype(int) - oracle[row].astype(int)).max() <= 1, f"row {row} is a different picture"
        for neighbor in {row - 1, row + 1} & set(range(len(oracle))):
            nearer = distance(frame, oracle[neighbor]) <= distance(frame, oracle[row])
            assert not nearer, f"row {row} is nearer to {neighbor}"


@pytest.mark.parametrize("layout", V3_LAYOUTS)
def test_every_frame_equals_lerobots_and_not_its_neighbor(
    layout: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    root: Path = request.getfixturevalue(layout)
    convert(str(root), tmp_path / "out.h5", ConvertConfig(image_size="native", camera="front"))
    with h5py.File(tmp_path / "out.h5") as file:
        assert_same_frames(file["pixels"][:], lerobot_frames(root, "front"))


def test_hevc_with_b_frames_equals_plain_decoding(recorded_hevc: Path, tmp_path: Path) -> None:
    """LeRobot 0.6.1 cannot seek in x265's open groups (FrameTimestampError), so plain decoding is the oracle."""
    convert(str(recorded_hevc), tmp_path / "out.h5", ConvertConfig(image_size="native"))
    with h5py.File(tmp_path / "out.h5") as file:
        assert_same_frames(file["pixels"][:], decoded_in_order(recorded_hevc, "front"))


@pytest.mark.parametrize(
    ("layout", "resize"),
    [
        pytest.param(layout, resize, marks=[] if resize == "stretch" or layout == "recorded" else pytest.mark.slow)
        for layout in LAYOUTS
        for resize in ("stretch", "crop", "pad")
    ],
)
def test_every_frame_shows_its_own_number_after_resizing(
    layout: str, resize: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    convert(
        str(request.getfixturevalue(layout)),
        tmp_path / "out.h5",
        ConvertConfig(image_size=224, camera="front", resize=resize),  # type: ignore[arg-type]
    )
    with h5py.File(tmp_path / "out.h5") as file:
        pixels = file["pixels"][:]
    expected = [(episode, step) for episode, length in enumerate(EPISODE_LENGTHS) for step in range(length)]
    assert [read_code(frame, resize=resize) for frame in pixels] == expected


def test_each_camera_is_in_its_own_column(recorded: Path, tmp_path: Path) -> None:
    convert(str(recorded), tmp_path / "out.h5", ConvertConfig(camera="top", cameras="all"))
    with h5py.File(tmp_path / "out.h5") as file:
        assert [read_camera(frame) for frame in file["pixels"]] == [1] * sum(EPISODE_LENGTHS)
        assert [read_camera(frame) for frame in file["pixels_front"]] == [0] * sum(EPISODE_LENGTHS)


@pytest.mark.parametrize("layout", ["recorded_reencoded", "recorded_hevc", "recorded_av1", "recorded_v21"])
def test_selected_episodes_are_found_by_seeking(layout: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    root = str(request.getfixturevalue(layout))
    convert(root, tmp_path / "out.h5", ConvertConfig(camera="front", episodes="4,1:3"))
    with h5py.File(tmp_path / "out.h5") as file:
        codes = [read_code(frame) for frame in file["pixels"]]
        assert list(file["ep_len"]) == [EPISODE_LENGTHS[episode] for episode in (1, 2, 4)]
    assert codes == [(episode, step) for episode in (1, 2, 4) for step in range(EPISODE_LENGTHS[episode])]


@pytest.mark.parametrize("image_size", ["native", "60x40"])
def test_rotated_recording_is_stored_upright(image_size: str, recorded: Path, tmp_path: Path) -> None:
    config = ConvertConfig(image_size=image_size, camera="front")
    convert(str(recorded), tmp_path / "lying.h5", dataclasses.replace(config, image_size="96x128"))
    root = shutil.copytree(recorded, tmp_path / "recording")
    for path in root.rglob("*.mp4"):
        set_matrix(path, (0, 1, -1, 0))
    convert(str(root), tmp_path / "upright.h5", config)
    with h5py.File(tmp_path / "upright.h5") as file, h5py.File(tmp_path / "lying.h5") as lying:
        assert file["pixels"].shape[1:3] == ((128, 96) if image_size == "native" else (60, 40))
        for row, frame in enumerate(file["pixels"]):
            height, width = frame.shape[:2]
            expected = area_average(np.rot90(lying["pixels"][row], -1), height, width)
            assert np.abs(frame - expected).max() <= 2.5
    assert verify_against(tmp_path / "upright.h5", str(root))[:2] == ([], sum(EPISODE_LENGTHS))


def test_file_of_an_older_scaler_is_verified_with_it(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, config = tmp_path / "old.h5", ConvertConfig(image_size=40, camera="front")
    with monkeypatch.context() as patch:
        patch.setattr(shard, "Scaler", functools.partial(Scaler, version=1))
        patch.setattr(output, "SCALER_VERSION", 1)
        convert(str(recorded), path, config)
    with h5py.File(path, "r+") as file:
        del file.attrs["attributes_sha256"], file.attrs["scaler_version"]  # as such a file is
    assert verify_against(path, str(recorded))[:2] == ([], sum(EPISODE_LENGTHS))
    with h5py.File(path, "r+") as file:
        file.attrs["scaler_version"] = 2
    assert "differs from the source" in verify_against(path, str(recorded))[0][0]
    with h5py.File(path, "r+") as file:
        file.attrs["scaler_version"] = 9
    with pytest.raises(UsageError, match="version 9 of the scaler made its frames"):
        verify_against(path, str(recorded))


def test_new_files_name_their_scaler(recorded: Path, tmp_path: Path) -> None:
    convert(str(recorded), tmp_path / "new.h5", ConvertConfig(image_size=40, camera="front"))
    with h5py.File(tmp_path / "new.h5") as file:
        assert file.attrs["scaler_version"] == SCALER_VERSION
