"""Merging refuses recordings that would count twice, and otherwise copies every row and frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from lewm_data.conversion.merge import merge
from lewm_data.conversion.verify import verify_file
from lewm_data.errors import UsageError
from lewm_data.format.header import SourceRecord
from tests.loading import files


def write(path: Path, episodes: range, *, repo_id: str = "me/cube", revision: str | None = None) -> files.Written:
    source = SourceRecord(repo_id=repo_id, revision=revision, codebase_version="v3.0", episodes=tuple(episodes))
    return files.write(path, [5, 6, 7], sources=(source,), seed=episodes.start, fingerprint=path.name)


@pytest.mark.parametrize(
    "second",
    [
        {"episodes": range(3, 6)},
        {"episodes": range(3), "repo_id": "me/sphere"},
        {"episodes": range(3), "revision": "f00"},
    ],
)
def test_files_of_different_episodes_are_merged_in_order(tmp_path: Path, second: dict[str, Any]) -> None:
    written = [write(tmp_path / "a.h5", range(3)), write(tmp_path / "b.h5", **second)]
    header = merge([file.path for file in written], tmp_path / "out.h5")
    assert [record.episodes for record in header.sources] == [tuple(range(3)), tuple(second["episodes"])]
    with h5py.File(tmp_path / "out.h5") as file:
        for name in ("pixels", "action", "state", "done"):
            np.testing.assert_array_equal(file[name][:], np.concatenate([w.data[name] for w in written]))
        assert file["episode_idx"][:].tolist() == np.repeat(np.arange(6), [5, 6, 7] * 2).tolist()
    problems = verify_file(tmp_path / "out.h5")
    assert problems == []


@pytest.mark.parametrize("name", ["b.h5", "link.h5"])
def test_an_episode_that_two_files_hold_is_refused_and_accepted_on_request(tmp_path: Path, name: str) -> None:
    first = write(tmp_path / "a.h5", range(3))
    second = tmp_path / name
    if name == "link.h5":
        second.symlink_to(first.path)
        words = r"episode 0-2 of me/cube is in .*a\.h5 and in .*link\.h5"
    else:
        write(second, range(2, 5))
        words = r"episode 2 of me/cube is in .*a\.h5 and in .*b\.h5"
    with pytest.raises(UsageError, match=rf"{words}.*or accept them with --allow_duplicates"):
        merge([first.path, second], tmp_path / "out.h5")
    assert not (tmp_path / "out.h5").exists()
    merge([first.path, second], tmp_path / "out.h5", allow_duplicates=True)
    assert verify_file(tmp_path / "out.h5") == []


def test_a_merged_file_is_refused_together_with_one_of_its_inputs(tmp_path: Path) -> None:
    inputs = [write(tmp_path / f"{i}.h5", range(3 * i, 3 * i + 3)).path for i in range(2)]
    merge(inputs, tmp_path / "both.h5")
    with pytest.raises(UsageError, match=r"episode 3-5 of me/cube is in .*both\.h5 and in .*1\.h5"):
        merge([tmp_path / "both.h5", inputs[1]], tmp_path / "out.h5")
