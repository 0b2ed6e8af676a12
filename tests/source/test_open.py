"""Three layouts, one dataset: what is read from a folder, by value, without the Hub."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from lewm_data.errors import SourceError
from lewm_data.source.data_files import fetch_files, identity, needed_files
from lewm_data.source.info import read_feature
from lewm_data.source.metadata import Episode, LeRobotDataset
from lewm_data.source.open import Opened, open_source
from tests.quality.dirt import DATA_V2, FRONT, INFO, META, info, jsonl, no_info, remove, unlist, write
from tests.recording import EPISODE_LENGTHS, edit_info, edit_parquet, set_column

TOP = "observation.images.top"


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        pytest.fail(f"the Hub was asked for {args} {options}")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)


def opened(root: Path, **options: str) -> LeRobotDataset:
    result = open_source(str(root), **options)
    assert result.dataset is not None, [found.sentence() for found in result.findings]
    return result.dataset


def episodes(dataset: LeRobotDataset) -> list[Episode]:
    return [dataset.episode(row) for row in range(len(dataset.episodes))]


def spans(dataset: LeRobotDataset, camera: str = FRONT) -> list[tuple[float, float]]:
    return [episode.videos[camera][1:] for episode in episodes(dataset)]


# --- layouts


@pytest.mark.parametrize("name", ["recorded", "recorded_v21", "recorded_v20", "recorded_images", "recorded_files"])
def test_every_layout_gives_the_same_dataset(name: str, request: pytest.FixtureRequest) -> None:
    dataset = opened(request.getfixturevalue(name))
    assert dataset.episodes.index.tolist() == [0, 1, 2, 3, 4]
    assert dataset.episodes.length.tolist() == list(EPISODE_LENGTHS)
    assert dataset.fps == 30
    assert set(dataset.tasks.values()) == {"push the block", "lift the block"}
    assert (dataset.total_episodes, dataset.total_steps) == (5, sum(EPISODE_LENGTHS))
    assert dataset.features["action"].width == 6
    assert dataset.done_source == "next.done"
    assert dataset.repo_id == request.getfixturevalue(name).name
    assert dataset.revision is None


@pytest.mark.parametrize("name", ["recorded", "recorded_v21", "recorded_images", "recorded_files", "recorded_av1"])
def test_every_file_that_is_needed_is_there(name: str, request: pytest.FixtureRequest) -> None:
    root = request.getfixturevalue(name)
    dataset = opened(root)
    needed = set(needed_files(dataset, dataset.cameras))
    stored = [path for folder in ("data", "videos") for path in (root / folder).rglob("*") if path.is_file()]
    assert needed == {path.relative_to(root).as_posix() for path in stored}


def test_spans_of_one_file_follow_each_other(recorded: Path) -> None:
    stops = np.cumsum(EPISODE_LENGTHS) / 30
    expected = list(zip([0, *stops[:-1]], stops, strict=True))
    np.testing.assert_allclose(spans(opened(recorded)), expected)


def test_spans_of_v2_begin_at_zero(recorded_v21: Path) -> None:
    np.testing.assert_allclose(spans(opened(recorded_v21)), [(0, length / 30) for length in EPISODE_LENGTHS])


def test_image_cameras_have_no_span(recorded_images: Path) -> None:
    dataset = opened(recorded_images)
    assert dataset.cameras == (FRONT,)
    assert dataset.episode(0).videos == {}


def test_chunk_folders_of_v2_hold_as_many_episodes_as_info_says(copy_of, recorded_v21: Path) -> None:
    root = copy_of(recorded_v21)
    info(chunks_size=2)(root)
    dataset = opened(root)
    assert [dataset.data_path(row) for row in (1, 2, 4)] == [
        "data/chunk-000/episode_000001.parquet",
        "data/chunk-001/episode_000002.parquet",
        "data/chunk-002/episode_000004.parquet",
    ]


# --- looked up by value


def test_shuffled_metadata_gives_the_same_episodes(copy_of, recorded: Path) -> None:
    root = copy_of(recorded)
    edit_parquet(root / META, lambda table: table.take([3, 0, 4, 2, 1]))
    assert episodes(opened(root)) == episodes(opened(recorded))


def test_shuffled_lines_give_the_same_episodes(copy_of, recorded_v21: Path) -> None:
    root = copy_of(recorded_v21)
    jsonl("meta/episodes.jsonl", lambda lines: lines[::-1])(root)
    assert episodes(opened(root)) == episodes(opened(recorded_v21))


def test_after_a_hole_every_episode_still_has_its_own_video(copy_of, recorded: Path) -> None:
    root = copy_of(recorded)
    unlist(1)(root)
    whole = {episode.index: episode for episode in episodes(opened(recorded))}
    for episode in episodes(opened(root)):
        assert episode == whole[episode.index]


def test_tasks_are_looked_up_by_index(copy_of, recorded: Path) -> None:
    root = copy_of(recorded)
    edit_parquet(root / "meta/tasks.parquet", lambda table: set_column(table, "task_index", [7, 3]))
    assert sorted(opened(root).tasks) == [3, 7]


def test_a_selection_is_by_episode_index(copy_of, recorded: Path) -> None:
    root = copy_of(recorded)
    unlist(1)(root)
    assert opened(root, episodes="2:4").episodes.index.tolist() == [2, 3]


def test_a_selection_of_absent_episodes_is_refused(recorded: Path) -> None:
    with pytest.raises(SourceError, match=r"asks for 7:9, but the dataset has episodes 0 to 4\. Choose among those"):
        open_source(str(recorded), episodes="0,7:9")


def test_a_selection_counts_the_whole_dataset_for_its_totals(recorded: Path) -> None:
    dataset = opened(recorded, episodes="1")
    assert (dataset.listed_episodes, len(dataset.episodes)) == (5, 1)


# --- datasets as they are found


def test_whole_numbers_that_pandas_made_floats_are_read(copy_of, recorded: Path) -> None:
    root = copy_of(recorded)

    def floats(table: pa.Table) -> pa.Table:
        for name in ("data/file_index", f"videos/{FRONT}/chunk_index", "length"):
            position = table.schema.get_field_index(name)
            table = table.set_column(position, name, table[name].cast(pa.float64()))
        return table

    edit_parquet(root / META, floats)
    assert episodes(opened(root)) == episodes(opened(recorded))


def test_further_columns_of_the_metadata_are_passed_over(copy_of, recorded: Path) -> None:
    root = copy_of(recorded)
    edit_parquet(root / META, lambda table: table.append_column("operator", pa.array(["Ann"] * table.num_rows)))
    assert episodes(opened(root)) == episodes(opened(recorded))


@pytest.mark.parametrize("name", ["recorded", "recorded_v21"])
def test_what_info_need_not_say_is_as_lerobot_has_it(copy_of, name: str, request: pytest.FixtureRequest) -> None:
    whole = request.getfixturevalue(name)
    root = copy_of(whole)
    no_info("data_path", "video_path", "chunks_size", "total_episodes", "total_frames", "robot_type")(root)
    assert episodes(opened(root)) == episodes(opened(whole))
    assert opened(root).total_episodes is None


def test_line_separators_inside_a_task_are_text(copy_of, recorded_v21: Path) -> None:
    root = copy_of(recorded_v21)
    write("meta/tasks.jsonl", '{"task_index": 0, "task": "push\u2028the\x85block"}\n\n'.encode())(root)
    assert opened(root).tasks == {0: "push\u2028the\x85block"}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["x", "y"], ("x", "y")),
        ({"motors": ["x", "y"]}, ("x", "y")),
        ({"delta_y": 1, "delta_x": 0}, ("delta_x", "delta_y")),
        (None, ()),
        ([], ()),
        ({}, ()),
        ([["x"], ["y"]], ()),
        ("xy", ()),
    ],
)
def test_names_in_every_form_that_datasets_have(names: object, expected: tuple[str, ...]) -> None:
    assert read_feature("action", {"dtype": "float32", "shape": [2], "names": names}).names == expected


@pytest.mark.parametrize(
    "spec",
    [
        {"info": {"is_depth_map": True}},
        {"info": {"video.is_depth_map": True}},
        {"info": {"has_audio": False}, "video_info": {"video.is_depth_map": True}},
    ],
)
def test_any_of_lerobots_flags_marks_a_depth_camera(spec: dict[str, object]) -> None:
    feature = read_feature(FRONT, {"dtype": "video", "shape": [96, 128, 1], **spec})
    assert feature.is_depth
    assert not feature.is_camera


def test_a_depth_camera_is_left_out(copy_of, recorded: Path) -> None:
    root = copy_of(recorded)
    edit_info(root, lambda content: content["features"][TOP]["info"].update({"is_depth_map": True}))
    dataset = opened(root)
    assert dataset.cameras == (FRONT,)
    assert dataset.depth_cameras == (TOP,)
    assert dataset.find_camera("top") is None
    assert list(dataset.episode(0).videos) == [FRONT]


@pytest.mark.parametrize("key", ["observation.image", "observation.images.front", "pixels"])
def test_cameras_by_any_name(key: str) -> None:
    feature = read_feature(key, {"dtype": "video", "shape": [3, 96, 128], "names": ["channels", "height", "width"]})
    assert feature.is_camera
    assert feature.shape == (3, 96, 128)


# --- a local folder


def test_missing_files_of_a_folder_are_never_fetched(copy_of, recorded_v21: Path) -> None:
    root = copy_of(recorded_v21)
    remove(DATA_V2)(root)
    result = open_source(str(root))
    assert isinstance(result, Opened)
    assert result.dataset is not None
    fetch_files(result.location, result.dataset, result.dataset.cameras, all_episodes=True)
    assert not (root / DATA_V2).exists()


def test_a_folder_without_info_is_not_a_dataset(copy_of, recorded: Path) -> None:
    root = copy_of(recorded)
    remove(INFO)(root)
    with pytest.raises(SourceError, match=r"not a LeRobot dataset, because it has no meta/info\.json"):
        open_source(str(root))


def test_a_folder_has_no_revisions(recorded: Path) -> None:
    with pytest.raises(SourceError, match="a local folder has no revisions"):
        open_source(str(recorded), revision="main")


@pytest.mark.parametrize("source", ["no/such/folder", "../up", "a b/c", "name"])
def test_a_source_that_is_neither_folder_nor_repo_id_is_refused(source: str) -> None:
    with pytest.raises(SourceError, match="no such folder, and no Hub repo id either"):
        open_source(source)


def test_identity_of_a_folder_changes_with_its_metadata_and_files(copy_of, recorded: Path) -> None:
    def identity_of(root: Path) -> str:
        dataset = opened(root)
        return identity(dataset, needed_files(dataset, dataset.cameras))

    root = copy_of(recorded)
    before = identity_of(root)
    assert identity_of(root) == before
    edit_parquet(root / "data/chunk-000/file-000.parquet", lambda table: table.slice(1))
    between = identity_of(root)
    info(robot_type="other")(root)
    assert len({before, between, identity_of(root)}) == 3


def test_only_the_chosen_cameras_and_episodes_are_asked_of_the_hub(recorded_files: Path) -> None:
    result = open_source(str(recorded_files), episodes="2")
    asked: list[str] = []
    location = result.location._replace(fetch=lambda patterns, names: asked.extend([*patterns, *names]))
    assert result.dataset is not None
    fetch_files(location, result.dataset, [FRONT], all_episodes=False)
    assert asked == ["data/chunk-000/file-002.parquet", f"videos/{FRONT}/chunk-000/file-001.mp4"]
