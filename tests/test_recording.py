"""The recorder itself: what the other tests take for granted about their datasets."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.recording import (
    EPISODE_LENGTHS,
    SIZE,
    edit_info,
    edit_parquet,
    frame_times,
    frame_types,
    picture,
    read_camera,
    read_code,
    read_episodes,
    set_column,
)

FRAMES = [(episode, step) for episode, length in enumerate(EPISODE_LENGTHS) for step in range(length)]


def decoded(path: Path, **reformat: object) -> list[np.ndarray]:
    import av

    with av.open(str(path)) as source:
        return [frame.to_ndarray(format="rgb24", **reformat) for frame in source.decode(video=0)]


def codes(root: Path, camera: str = "front", **reformat: object) -> list[tuple[int, int]]:
    paths = sorted(path for path in root.rglob("*.mp4") if f"observation.images.{camera}" in path.parts)
    return [read_code(frame) for path in paths for frame in decoded(path, **reformat)]


@pytest.mark.parametrize("code", [(0, 0, 0), (1, 3, 17), (7, 1023, 8191)])
def test_a_picture_says_which_one_it_is(code: tuple[int, int, int]) -> None:
    frame = picture(*code)
    assert (read_camera(frame), *read_code(frame)) == code


def test_a_mixture_of_two_frames_has_no_code() -> None:
    mixed = picture(0, 0, 5).copy()
    mixed[:, 64:] = picture(0, 0, 6)[:, 64:]
    with pytest.raises(ValueError, match="no frame code here"):
        read_code(mixed)


@pytest.mark.parametrize(
    "dataset", ["recorded", "recorded_files", "recorded_hevc", "recorded_av1", "recorded_reencoded"]
)
def test_every_decoded_frame_is_read_in_order(dataset: str, request: pytest.FixtureRequest) -> None:
    root = request.getfixturevalue(dataset)
    assert codes(root) == FRAMES
    assert codes(root, width=224, height=224, interpolation="AREA") == FRAMES


def test_second_camera_shows_other_pictures(recorded: Path) -> None:
    path = next((recorded / "videos" / "observation.images.top").rglob("*.mp4"))
    assert {read_camera(frame) for frame in decoded(path)} == {1}


@pytest.mark.parametrize("dataset", ["recorded_files", "recorded_hevc", "recorded_reencoded"])
def test_b_frames_are_there_and_presentation_times_are_regular(dataset: str, request: pytest.FixtureRequest) -> None:
    for path in request.getfixturevalue(dataset).rglob("*.mp4"):
        assert "BB" in frame_types(path)
        assert frame_times(path) == pytest.approx([i / 30 for i in range(len(frame_times(path)))])


def test_reencoded_episodes_begin_without_keyframes(recorded_reencoded: Path) -> None:
    path = next((recorded_reencoded / "videos").rglob("*.mp4"))
    starts = np.cumsum(EPISODE_LENGTHS)[:-1]
    assert any(frame_types(path)[start] != "I" for start in starts)


def test_episodes_begin_in_later_files(recorded_files: Path) -> None:
    episodes = read_episodes(recorded_files)
    assert [e["videos/observation.images.front/file_index"] for e in episodes] == [0, 0, 1, 1, 2]
    assert [e["data/file_index"] for e in episodes] == [0, 1, 2, 3, 4]
    assert len(list((recorded_files / "meta" / "episodes").rglob("*.parquet"))) > 1


@pytest.mark.parametrize("dataset", ["recorded_v21", "recorded_v20"])
def test_v2_layouts_hold_the_same_frames(dataset: str, recorded: Path, request: pytest.FixtureRequest) -> None:
    root = request.getfixturevalue(dataset)
    ours = sorted(root.glob("videos/chunk-000/observation.images.front/episode_*.mp4"))
    frames = [frame for path in ours for frame in decoded(path)]
    theirs = decoded(next((recorded / "videos" / "observation.images.front").rglob("*.mp4")))
    np.testing.assert_array_equal(frames, theirs)
    assert [frame_times(path)[0] for path in ours] == [0] * len(EPISODE_LENGTHS)


def test_v21_opens_after_lerobots_own_upgrade(recorded_v21: Path, copy_of, monkeypatch) -> None:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset
    from lerobot.scripts.convert_dataset_v21_to_v30 import convert_dataset

    root = copy_of(recorded_v21)
    convert_dataset("tests/v21", root=root, push_to_hub=False)
    dataset = LeRobotDataset("tests/v21", root=root, video_backend="pyav", return_uint8=True)
    assert dataset.num_frames == sum(EPISODE_LENGTHS)
    frame = dataset[len(dataset) - 1]["observation.images.front"].permute(1, 2, 0).numpy()
    assert read_code(frame) == FRAMES[-1]


def test_images_are_stored_as_recorded(recorded_images: Path) -> None:
    import io

    import pyarrow.parquet as pq
    from PIL import Image

    table = pq.read_table(next((recorded_images / "data").rglob("*.parquet")))
    stored = table["observation.images.front"][30].as_py()["bytes"]
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(stored))), picture(0, *FRAMES[30], SIZE))


def test_edits_change_the_copy_only(recorded: Path, copy_of) -> None:
    import pyarrow.parquet as pq

    mine = copy_of(recorded)
    path = next((mine / "data").rglob("*.parquet"))
    before = pq.read_table(path)
    edit_parquet(path, lambda table: set_column(table, "action", np.zeros((table.num_rows, 6))))
    edit_info(mine, lambda info: info.update(fps=31))
    after = pq.read_table(path)
    assert after.schema.equals(before.schema, check_metadata=True)
    assert not np.stack(after["action"].to_numpy()).any()
    assert json.loads((mine / "meta" / "info.json").read_text())["fps"] == 31
    assert json.loads((recorded / "meta" / "info.json").read_text())["fps"] == 30
