"""The catalog of dirt, kind by kind: what metadata, rows and video headers tell before any frame is decoded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from lewm_data.catalog import CATALOG
from lewm_data.config import ConvertConfig
from lewm_data.conversion.pipeline import convert
from lewm_data.findings import Finding
from lewm_data.quality.validate import validate
from lewm_data.source.open import open_source
from tests.quality.dirt import (
    DECODED,
    FRONT,
    INSPECTED,
    VIDEO,
    VIDEO_V2,
    Dirt,
    Spoil,
    append,
    both,
    feature,
    no_info,
    retime,
    retype,
    rows,
)
from tests.recording import LAYOUTS, edit_info, quiet, record_v3, to_v20


def inspect(root: Path, **options: object) -> list[Finding]:
    """Every finding of a dataset before decoding, its front camera chosen."""
    opened = open_source(str(root))
    if opened.dataset is None:
        return opened.findings
    return [*opened.findings, *validate(opened.dataset, **{"cameras": (FRONT,), **options}).findings]


@pytest.mark.parametrize("dataset", LAYOUTS)
def test_a_clean_dataset_has_no_findings(dataset: str, request: pytest.FixtureRequest) -> None:
    assert inspect(request.getfixturevalue(dataset)) == []


def lists_of_one(*columns: str) -> Spoil:
    return both(*(retype(column, lambda cells: pa.array([[cell] for cell in cells])) for column in columns))


ODDITIES: dict[str, tuple[str, Spoil]] = {
    "index columns of shape (1,)": (
        "recorded",
        lists_of_one("timestamp", "frame_index", "episode_index", "index", "next.done"),
    ),
    "wider numbers than declared": (
        "recorded",
        retype("action", lambda cells: pa.array(cells, pa.large_list(pa.float64()))),
    ),
    "whole numbers for done": ("recorded", retype("next.done", lambda cells: pa.array([int(cell) for cell in cells]))),
    "a column that nothing declares": (
        "recorded",
        rows(lambda table: table.append_column("note", pa.array(["x"] * table.num_rows))),
    ),
    "a feature without a shape": (
        "recorded",
        lambda root: edit_info(root, lambda content: content["features"].update(note={"dtype": "string"})),
    ),
    "info with little in it": (
        "recorded",
        no_info("data_path", "video_path", "chunks_size", "total_episodes", "total_frames"),
    ),
    "info with little in it, v2.1": (
        "recorded_v21",
        no_info("data_path", "video_path", "chunks_size", "total_episodes", "total_frames", "total_videos"),
    ),
    "channel-first shapes": ("recorded", feature(FRONT, shape=[3, 96, 128])),
    "a last frame that lasts": ("recorded_v21", retime(VIDEO_V2, lambda number, pts: pts, rate=15)),
    "camera and state under other names": ("recorded_like_pusht", lambda root: None),
    "bytes behind the last box": ("recorded", append(VIDEO, b"\xfe\x01" * 50)),
}


@pytest.fixture(scope="module")
def recorded_like_pusht(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As ``lerobot/pusht``: ``observation.image``, 10 fps, a state and an action of two numbers, a reward."""
    folder = tmp_path_factory.mktemp("pusht")
    reward = {"dtype": "float32", "shape": (1,), "names": None}
    root = record_v3(
        folder / "v3",
        cameras=("observation.image",),
        size=(96, 96),
        fps=10,
        state_dim=2,
        action_dim=2,
        extra_features={"next.reward": (reward, lambda episode, step: np.array([0.1 * step], np.float32))},
    )
    return to_v20(root, folder / "v20")


@pytest.mark.parametrize(("dataset", "change"), ODDITIES.values(), ids=ODDITIES)
def test_habits_of_real_datasets_are_not_dirt(
    dataset: str, change: Spoil, copy_of: Callable[[Path], Path], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    root = copy_of(request.getfixturevalue(dataset))
    change(root)
    opened = open_source(str(root))
    assert opened.dataset is not None
    camera = opened.dataset.cameras[0]
    assert [*opened.findings, *validate(opened.dataset, cameras=(camera,)).findings] == []
    config = ConvertConfig(camera=camera, image_size=32, min_episode_steps=1)
    assert convert(str(root), tmp_path / "data.h5", config).header.findings == ()


def test_what_lerobots_own_tools_make_has_no_findings(
    recorded_files: Path, recorded_v21: Path, copy_of: Callable[[Path], Path], tmp_path: Path
) -> None:
    with quiet():
        from lerobot.datasets.dataset_tools import delete_episodes, merge_datasets
        from lerobot.datasets.lerobot_dataset import LeRobotDataset
        from lerobot.scripts.convert_dataset_v21_to_v30 import convert_dataset

        whole = LeRobotDataset("tests/whole", root=recorded_files)
        cut = delete_episodes(whole, [1, 3], output_dir=tmp_path / "cut", repo_id="tests/cut")
        merge_datasets([whole, cut], output_repo_id="tests/merged", output_dir=tmp_path / "merged")
        upgraded = copy_of(recorded_v21)
        convert_dataset("tests/v21", root=upgraded, push_to_hub=False)
    for root in (tmp_path / "cut", tmp_path / "merged", upgraded):
        assert inspect(root) == []


@pytest.mark.shared
def test_the_shared_dataset_has_no_findings(so101: Path) -> None:
    opened = open_source(str(so101))
    assert validate(opened.dataset, cameras=opened.dataset.cameras).findings == ()


@pytest.mark.parametrize("dirt", INSPECTED, ids=str)
def test_dirt_is_found_and_named(dirt: Dirt, copy_of: Callable[[Path], Path], request: pytest.FixtureRequest) -> None:
    root = copy_of(request.getfixturevalue(dirt.dataset))
    dirt.spoil(root)
    findings = inspect(root, **(dirt.options or {}))

    mine = sorted((found for found in findings if found.code == dirt.code), key=lambda found: found.episode or 0)
    assert {found.code for found in findings} == {dirt.code} | dirt.also
    assert [found.episode for found in mine] == dirt.episodes
    for found in mine:
        assert found.severity == CATALOG[dirt.code].severity
        assert found.file == dirt.file
    assert any(dirt.expected in found.expected and dirt.found in found.found for found in mine)


def test_every_code_of_the_catalog_is_made_by_some_dirt() -> None:
    of_corrections = {"episode_cut_away"}  # tests/conversion/test_corrections.py makes it
    assert {dirt.code for dirt in (*INSPECTED, *DECODED)} == set(CATALOG) - of_corrections
