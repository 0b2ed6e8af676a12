"""The rule for joining files, and the search for episodes that occur twice."""

from __future__ import annotations

import dataclasses
import doctest
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lewm_data.errors import UsageError
from lewm_data.findings import DirtyEpisodePolicy
from lewm_data.format import compatibility, segments
from lewm_data.format.compatibility import (
    Member,
    SourceEpisode,
    check_joinable,
    duplicates,
    refuse_duplicates,
    source_episodes,
)
from lewm_data.format.header import FileHeader, SourceRecord
from lewm_data.format.segments import Column, group_by_segment
from tests.format.test_header import HEADER

COLUMNS = {
    "pixels": Column((96, 128, 3), np.dtype(np.uint8)),
    "action": Column((2,), np.dtype(np.float32)),
    "done": Column((), np.dtype(np.bool_)),
}


def member(name: str, columns: dict[str, Column] = COLUMNS, **changes: Any) -> Member:
    return Member(name=name, columns=columns, header=dataclasses.replace(HEADER, **changes))


FOR_BOTH: list[tuple[dict[str, Any], str]] = [
    ({"fps": 30.0}, "fps: 29.97 in a.h5, but 30 in b.h5"),
    ({"resize": "pad"}, "resize: crop in a.h5, but pad in b.h5"),
    (
        {"cameras": {"pixels": "observation.images.side"}},
        "camera of pixels: observation.images.top in a.h5, but observation.images.side in b.h5",
    ),
    ({"feature_names": {"action": ("y", "x")}}, "the dimensions of action: x, y in a.h5, but y, x in b.h5"),
    (
        {"columns": {**COLUMNS, "action": Column((3,), np.dtype(np.float32))}},
        r"action: 2 wide \(float32\) in a.h5, but 3 wide \(float32\) in b.h5",
    ),
    (
        {"columns": {**COLUMNS, "action": Column((2,), np.dtype(np.float64))}},
        r"action: 2 wide \(float32\) in a.h5, but 2 wide \(float64\) in b.h5",
    ),
    (
        {"columns": {**COLUMNS, "pixels": Column((96, 96, 3), np.dtype(np.uint8))}},
        "pixels: 96x128 pixels in a.h5, but 96x96 pixels in b.h5",
    ),
    (
        {"columns": {name: COLUMNS[name] for name in ("pixels", "action")}},
        "columns: action, done, pixels in a.h5, but action, pixels in b.h5",
    ),
]
FOR_ONE_FILE: list[tuple[dict[str, Any], str]] = [
    ({"compression": "lzf"}, "compression: zstd in a.h5, but lzf in b.h5"),
    ({"done_source": "last_step"}, "done_source: next.done in a.h5, but last_step in b.h5"),
    ({"feature_names": {}}, "the dimensions of action: x, y in a.h5, but none in b.h5"),
]


@pytest.mark.parametrize("into", ["file", "batch"])
@pytest.mark.parametrize(("change", "words"), FOR_BOTH)
def test_what_must_agree_everywhere_is_refused_with_both_files_named(
    change: dict[str, Any], words: str, into: Any
) -> None:
    with pytest.raises(UsageError, match=f"cannot be joined: .*{words}.* same settings"):
        check_joinable([member("a.h5"), member("b.h5", **change)], into=into)


@pytest.mark.parametrize(("change", "words"), FOR_ONE_FILE)
def test_what_one_header_holds_once_must_agree_only_in_one_file(change: dict[str, Any], words: str) -> None:
    members = [member("a.h5"), member("b.h5", **change)]
    check_joinable(members, into="batch")
    with pytest.raises(UsageError, match=words):
        check_joinable(members, into="file")


def test_other_names_of_dimensions_are_a_warning_in_a_batch_and_an_error_in_a_file() -> None:
    members = [member("a.h5"), member("b.h5", feature_names={"action": ("x", "gripper")})]
    with pytest.warns(UserWarning, match=r"x, y in a\.h5, but x, gripper in b\.h5\. Make sure"):
        check_joinable(members, into="batch")
    with pytest.raises(UsageError, match=r"x, y in a\.h5, but x, gripper in b\.h5"):
        check_joinable(members, into="file")


policies: st.SearchStrategy[DirtyEpisodePolicy] = st.sampled_from(["fail", "skip", "keep"])
records = st.builds(
    SourceRecord,
    repo_id=st.sampled_from(["me/a", "me/b", "folder"]),
    revision=st.sampled_from([None, "f00", "ba5"]),
    codebase_version=st.just("v3.0"),
    episodes=st.lists(st.integers(0, 9), max_size=6).map(tuple),
)
sources = st.lists(records, max_size=3).map(tuple)


@given(sources, st.dictionaries(st.integers(0, 3), st.text(max_size=3)), policies, st.sampled_from(["file", "batch"]))
def test_what_may_differ_is_accepted(found: Any, tasks: dict[int, str], policy: DirtyEpisodePolicy, into: Any) -> None:
    other = member("b.h5", sources=found, tasks=tasks, dirty_episode_policy=policy, fingerprint="other", findings=())
    check_joinable([member("a.h5"), other, member("c.h5")], into=into)


def test_what_a_file_of_another_program_does_not_state_is_not_compared() -> None:
    check_joinable([member("a.h5"), Member(name="b.h5", columns=COLUMNS, header=None)], into="batch")


@given(st.lists(sources, max_size=4))
def test_an_episode_is_a_duplicate_exactly_if_it_occurs_more_than_once(files: list[tuple[SourceRecord, ...]]) -> None:
    """The oracle counts occurrences without knowing which file they are in."""
    headers = {f"{number}.h5": dataclasses.replace(HEADER, sources=found) for number, found in enumerate(files)}
    counts = Counter((r.repo_id, r.revision, e) for found in files for r in found for e in r.episodes)
    expected = {source: count for source, count in counts.items() if count > 1}
    episodes = {name: source_episodes(header) for name, header in headers.items()}
    assert {tuple(source): len(names) for source, names in duplicates(episodes).items()} == expected
    for source, names in duplicates(episodes).items():
        assert all(source in episodes[name] for name in names)
    if expected:
        with pytest.raises(UsageError, match="The same recording would count twice"):
            refuse_duplicates(episodes, remedy="allow them")
    else:
        refuse_duplicates(episodes, remedy="allow them")


def test_duplicates_are_named_by_source_episodes_and_files() -> None:
    first = [SourceEpisode("me/cube", None, episode) for episode in range(8)]
    second = [SourceEpisode("me/cube", None, episode) for episode in range(4, 12)]
    with pytest.raises(UsageError, match=r"episode 4-7 of me/cube is in a\.h5 and in b\.h5\. .*, or allow them\."):
        refuse_duplicates({"a.h5": first, "b.h5": second}, remedy="allow them")
    with pytest.raises(UsageError, match=r"episode 3 of me/cube \(revision f00\) is in a\.h5 twice"):
        refuse_duplicates({"a.h5": [SourceEpisode("me/cube", "f00", 3)] * 2}, remedy="allow them")


def test_a_later_revision_holds_the_same_recording() -> None:
    old, new = SourceEpisode("me/cube", "f00", 3), SourceEpisode("me/cube", "ba5", 3)
    assert old.recording == new.recording
    assert duplicates({"a.h5": [old], "b.h5": [new]}) == {}


def test_a_file_of_another_program_names_no_sources() -> None:
    assert source_episodes(None) == []
    header: FileHeader = HEADER
    assert len(source_episodes(header)) == 4


@given(st.lists(st.integers(0, 5), min_size=1, max_size=5).filter(sum), st.data())
def test_numbers_are_grouped_by_the_segment_that_holds_them(lengths: list[int], data: st.DataObject) -> None:
    owners = [(segment, own) for segment, length in enumerate(lengths) for own in range(length)]
    numbers = np.array(data.draw(st.lists(st.integers(0, len(owners) - 1), max_size=9)), np.int64)
    found = {}
    for segment, chosen, own in group_by_segment(numbers, np.cumsum(lengths)):
        found.update(
            {position: (segment, number) for position, number in zip(chosen.tolist(), own.tolist(), strict=True)}
        )
    assert found == {position: owners[number] for position, number in enumerate(numbers.tolist())}


@pytest.mark.parametrize("module", [compatibility, segments])
def test_the_examples_in_the_docstrings_run(module: Any) -> None:
    results = doctest.testmod(module, extraglobs={"np": np})
    assert results.attempted > 0
    assert results.failed == 0
