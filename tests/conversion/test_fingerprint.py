"""The fingerprint against the bytes that a conversion makes: equal for equal content, different for any other."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import imagecodecs
import numpy as np
import pyarrow as pa
import pytest

from lewm_data.config import ConvertConfig
from lewm_data.conversion.pipeline import convert
from lewm_data.conversion.prepare import prepare_file
from tests.recording import edit_info, edit_jsonl, edit_parquet, record_v3, store_pictures_beside

FRONT = "observation.images.front"


def content(path: Path) -> dict[str, Any]:
    """Everything in a file but what stands for the rest."""
    with h5py.File(path) as file:
        names = set(file.attrs) - {"fingerprint", "attributes_sha256"}
        return {name: file[name][:] for name in file} | {f"@{name}": file.attrs[name] for name in names}


def is_equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def assert_keys_follow_content(made: dict[str, tuple[str, dict[str, Any]]]) -> None:
    """Two of the files have equal fingerprints exactly if they have equal content."""
    num_equal = 0
    for (first, (key, mine)), (second, (other_key, theirs)) in itertools.combinations(made.items(), 2):
        assert (key == other_key) == is_equal(mine, theirs), f"{first} and {second}"
        num_equal += key == other_key
    assert 0 < num_equal < len(made) * (len(made) - 1) // 2


SETTINGS: dict[str, dict[str, Any]] = {
    "base": {},
    "the camera's full key": {"camera": FRONT},
    "a size as text": {"image_size": "16"},
    "a size as height and width": {"image_size": "16x16"},
    "small batches": {"micro_batch": 3},
    "many shards": {"shard_bytes": 1},
    "one decoding thread": {"decode_threads": 1},
    "no watchdog": {"watchdog_seconds": 0},
    "the default columns by name": {"action": "action", "state": "observation.state"},
    "another camera": {"camera": "top"},
    "two cameras": {"cameras": "all"},
    "two cameras by name": {"cameras": "front,top"},
    "another size": {"image_size": 18},
    "cropped": {"resize": "crop"},
    "another codec": {"compression": "none"},
    "another policy": {"dirty_episode_policy": "keep"},
    "some episodes": {"episodes": "0:3"},
    "the same episodes": {"episodes": "2,0:2"},
    "other episodes": {"episodes": "1:3"},
    "an extra column": {"extra_columns": ("task_index",)},
    "state as action": {"action": "observation.state"},
    "no state": {"state": "none"},
    "a shorter window": {"min_episode_steps": 6},
    "a shift": {"shift": "front=+1"},
    "the same shift by the camera's full key": {"shift": f"{FRONT}=1"},
    "a shift of nothing": {"shift": "front=0"},
    "another shift": {"shift": "front=-1"},
}


def test_a_setting_changes_the_key_exactly_if_it_changes_the_content(recorded: Path, tmp_path: Path) -> None:
    made = {}
    for number, (name, changes) in enumerate(SETTINGS.items()):
        config = ConvertConfig(**{"camera": "front", "image_size": 16, **changes})
        result = convert(str(recorded), tmp_path / f"{number}.h5", config)
        made[name] = result.header.fingerprint, content(result.path)
    assert_keys_follow_content(made)


def later(path: Path) -> None:
    """Gives a file a time of its own, as an edit does that comes later than a tick of the file system's clock."""
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 10**9))


def paint(root: Path) -> None:
    path = next((root / "pictures").glob("*.png"))
    path.write_bytes(imagecodecs.png_encode(255 - imagecodecs.png_decode(path.read_bytes())))
    later(path)


def set_action(root: Path) -> None:
    def change(table: pa.Table) -> pa.Table:
        values = table["action"].to_pylist()
        values[3][0] += 1
        return table.set_column(
            table.column_names.index("action"), table.schema.field("action"), pa.array(values, table["action"].type)
        )

    path = next((root / "data").rglob("*.parquet"))
    edit_parquet(path, change)
    later(path)


def rename_dimension(root: Path) -> None:
    edit_info(root, lambda info: info["features"]["action"]["names"].__setitem__(0, "renamed"))


def add(name: str, text: bytes) -> Callable[[Path], None]:
    def edit(root: Path) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(text)

    return edit


EDITS: dict[str, Callable[[Path], None]] = {
    "untouched": lambda root: None,
    "other statistics": add("meta/stats.json", b"{}"),
    "a readme": add("README.md", b"# Mine"),
    "an unrelated file": add("videos/notes.txt", b"x"),
    "another picture": paint,
    "another action": set_action,
    "another name of a dimension": rename_dimension,
    "a stray copy": add("data/chunk-000/file-000 (1).parquet", b"x"),
}


@pytest.fixture(scope="module")
def pictures_by_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset whose rows name files of pictures, instead of holding them."""
    root = record_v3(tmp_path_factory.mktemp("by_path") / "recorded", episode_lengths=(5, 4), use_videos=False)
    return store_pictures_beside(root)


def test_a_byte_of_the_source_changes_the_key_exactly_if_it_changes_the_content(
    pictures_by_path: Path, tmp_path: Path
) -> None:
    made = {}
    for number, (name, edit) in enumerate(EDITS.items()):
        root = tmp_path / str(number) / "recorded"
        shutil.copytree(pictures_by_path, root)  # keeps the files' times
        edit(root)
        result = convert(str(root), tmp_path / f"{number}.h5", ConvertConfig(camera="front", image_size=16))
        made[name] = result.header.fingerprint, content(result.path)
    assert_keys_follow_content(made)


def test_another_picture_file_is_converted_again(pictures_by_path: Path, tmp_path: Path) -> None:
    root = tmp_path / "recorded"
    shutil.copytree(pictures_by_path, root)
    config = ConvertConfig(camera="front", image_size=16)
    before = prepare_file(str(root), tmp_path / "data", config)
    paint(root)
    after = prepare_file(str(root), tmp_path / "data", config)
    assert before != after
    assert not np.array_equal(content(before)["pixels"], content(after)["pixels"])


def test_the_name_of_the_folder_is_recorded_and_part_of_the_key(pictures_by_path: Path, tmp_path: Path) -> None:
    config = ConvertConfig(camera="front", image_size=16)
    made = []
    for name in ("one", "two"):
        shutil.copytree(pictures_by_path, tmp_path / name)
        made.append(convert(str(tmp_path / name), tmp_path / f"{name}.h5", config).header)
    assert [header.sources[0].repo_id for header in made] == ["one", "two"]
    assert made[0].fingerprint != made[1].fingerprint


def test_every_metadata_file_that_is_read_is_part_of_the_key(recorded_v21: Path, copy_of, tmp_path: Path) -> None:
    config = ConvertConfig(camera="front", image_size=16)
    root = copy_of(recorded_v21)
    keys = [convert(str(root), tmp_path / "0.h5", config).header.fingerprint]
    edit_jsonl(root / "meta" / "tasks.jsonl", lambda lines: [{**line, "task": line["task"] + "!"} for line in lines])
    keys.append(convert(str(root), tmp_path / "1.h5", config).header.fingerprint)
    (root / "meta" / "episodes_stats.jsonl").write_text("{}\n")  # LeRobot's statistics, which are not read
    keys.append(convert(str(root), tmp_path / "2.h5", config).header.fingerprint)
    assert keys[0] != keys[1] == keys[2]
    with h5py.File(tmp_path / "1.h5") as file:
        assert json.loads(file.attrs["tasks"])["0"].endswith("!")
