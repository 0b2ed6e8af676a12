"""Parts that jobs convert without speaking to each other, and the whole that merge makes of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lewm_data.config import ConvertConfig
from lewm_data.conversion.merge import merge
from lewm_data.conversion.pipeline import convert
from lewm_data.conversion.plan import cut_part
from lewm_data.conversion.verify import verify_file
from lewm_data.errors import UsageError
from tests.conversion.test_pipeline import assert_equal_contents, header_of


@given(lengths=st.lists(st.integers(1, 10_000), min_size=1, max_size=60), data=st.data())
def test_parts_follow_each_other_cover_all_and_none_is_empty(lengths, data):
    num_parts = data.draw(st.integers(1, len(lengths)))
    parts = [cut_part(lengths, number, num_parts) for number in range(num_parts)]
    assert [position for part in parts for position in part] == list(range(len(lengths)))
    assert min(map(len, parts)) >= 1
    assert parts == [cut_part(list(lengths), number, num_parts) for number in range(num_parts)]


@given(lengths=st.lists(st.integers(50, 150), min_size=40, max_size=80), num_parts=st.integers(1, 10))
def test_parts_have_about_as_many_steps(lengths, num_parts):
    steps = [sum(lengths[position] for position in cut_part(lengths, i, num_parts)) for i in range(num_parts)]
    assert max(steps) - min(steps) <= 2 * max(lengths)


def test_more_parts_than_episodes_is_an_error():
    with pytest.raises(UsageError, match=r"shard is 2/4, but only 3 episodes can be converted"):
        cut_part([5, 5, 5], 2, 4)


@pytest.mark.parametrize("text", ["", "1", "2/2", "-1/2", "a/b", "1/2/3", "0/0"])
def test_an_invalid_part_is_refused(text):
    with pytest.raises(UsageError, match=r"must be i/n with i from 0 to n-1\. Example: 0/8"):
        ConvertConfig(shard=text)


SETTINGS = {"camera": "front", "image_size": 32}


@pytest.fixture(scope="module")
def parts(recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("parts")
    paths = [folder / f"part-{number}.h5" for number in range(3)]
    for number, path in enumerate(paths):
        convert(str(recorded), path, ConvertConfig(**SETTINGS, shard=f"{number}/3", shard_bytes=20_000))
    return paths


def test_parts_merge_to_what_a_whole_conversion_makes_in_whatever_order(recorded, parts, tmp_path):
    convert(str(recorded), tmp_path / "whole.h5", ConvertConfig(**SETTINGS))
    episodes = [header_of(path).sources[0].episodes for path in parts]
    assert [index for part in episodes for index in part] == [0, 1, 2, 3, 4]
    assert [header_of(path).part for path in parts] == ["0/3", "1/3", "2/3"]
    for path in parts:
        assert verify_file(path) == []
    merge([parts[2], parts[0], parts[1]], tmp_path / "merged.h5")
    assert_equal_contents(tmp_path / "merged.h5", tmp_path / "whole.h5")
    assert header_of(tmp_path / "merged.h5") == header_of(tmp_path / "whole.h5")
    assert verify_file(tmp_path / "merged.h5") == []


def test_findings_come_together_as_a_whole_conversion_has_them(copy_of, recorded, tmp_path):
    import pyarrow.parquet as pq

    root = copy_of(recorded)
    [path] = root.glob("data/*/*.parquet")
    table = pq.read_table(path)
    action = np.stack(table["action"].to_numpy())
    for episode in (1, 3):
        action[np.flatnonzero(table["episode_index"].to_numpy() == episode)[2], 0] = np.nan
    table = table.set_column(table.column_names.index("action"), "action", [action.tolist()])
    pq.write_table(table, path)
    settings = {**SETTINGS, "dirty_episode_policy": "skip"}
    convert(str(root), tmp_path / "whole.h5", ConvertConfig(**settings))
    assert header_of(tmp_path / "whole.h5").dropped_episodes == (1, 3)
    halves = [tmp_path / f"{number}.h5" for number in range(2)]
    for number, half in enumerate(halves):
        convert(str(root), half, ConvertConfig(**settings, shard=f"{number}/2"))
    merge(halves, tmp_path / "merged.h5")
    assert_equal_contents(tmp_path / "merged.h5", tmp_path / "whole.h5")
    assert header_of(tmp_path / "merged.h5") == header_of(tmp_path / "whole.h5")


def test_merge_asks_for_every_part_once(recorded, parts, tmp_path):
    with pytest.raises(UsageError, match="Part 1/3 is missing"):
        merge([parts[0], parts[2]], tmp_path / "merged.h5")
    with pytest.raises(UsageError, match="Part 0/3 is given twice"):
        merge([*parts, parts[0]], tmp_path / "merged.h5")
    convert(str(recorded), tmp_path / "other.h5", ConvertConfig(**SETTINGS, resize="crop", shard="1/3"))
    with pytest.raises(UsageError, match="not the parts of one dataset"):
        merge([parts[0], tmp_path / "other.h5", parts[2]], tmp_path / "merged.h5")
    convert(str(recorded), tmp_path / "whole.h5", ConvertConfig(**SETTINGS))
    with pytest.raises(UsageError, match="not the parts of one dataset"):
        merge([*parts, tmp_path / "whole.h5"], tmp_path / "merged.h5")
    assert not (tmp_path / "merged.h5").exists()


def test_the_command_line_takes_a_part(recorded, tmp_path):
    command = [sys.executable, "-m", "lewm_data", "convert", str(recorded), str(tmp_path / "a.h5"), "--json"]
    done = subprocess.run(
        [*command, "--camera=front", "--image_size=16", "--shard=4/5"], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["num_episodes"] == 1
    assert header_of(tmp_path / "a.h5").part == "4/5"
