"""Real recordings get in, exactly: every pattern of docs/recordings.md, through the public door."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest

import lewm_data
from lewm_data.errors import DirtyDataError, UsageError
from tests.documents import ROOT
from tests.quality import dirt as spoil
from tests.quality.dirt import DATA, FRONT, INFO, META, VIDEO
from tests.quality.patterns import PATTERNS, Pattern, column, drop, end_flags, rename_features, split_feature
from tests.recording import EPISODE_LENGTHS, edit_info, edit_parquet, read_code, row_values

SETTINGS = {"camera": "front", "image_size": 64, "micro_batch": 8, "min_episode_steps": 1}


def convert(root: Path, output: Path, **settings: Any) -> Any:
    return lewm_data.convert(root, output, **{**SETTINGS, **settings})


def check_whole(path: Path, *, episodes: range | tuple[int, ...] = range(5), has_state: bool = True) -> None:
    """Every frame, action, state and end of the clean recording, by the codes in its pictures."""
    with h5py.File(path) as file:
        lengths = [EPISODE_LENGTHS[episode] for episode in episodes]
        assert file["ep_len"][:].tolist() == lengths
        expected = [(episode, step) for episode in episodes for step in range(EPISODE_LENGTHS[episode])]
        assert [read_code(frame) for frame in file["pixels"][:]] == expected
        for kind in ("action", "state") if has_state else ("action",):
            values = [row_values(kind, episode, step, 6) for episode, step in expected]
            np.testing.assert_array_equal(file[kind][:], values)
        assert ("state" in file) == has_state
        assert file["done"][:].nonzero()[0].tolist() == (np.cumsum(lengths) - 1).tolist()
        assert file["step_idx"][:].tolist() == [step for _, step in expected]


CASES = [
    pytest.param(pattern, dataset, id=f"{number}-{re.sub(r'[^a-z_]+', '-', pattern.name.lower())}-{dataset}")
    for number, pattern in enumerate(PATTERNS)
    for dataset in pattern.datasets
]


@pytest.mark.parametrize(("pattern", "dataset"), CASES)
def test_a_pattern_of_real_recordings_converts_exactly_with_its_warnings(
    pattern: Pattern,
    dataset: str,
    copy_of: Callable[[Path], Path],
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    root = copy_of(request.getfixturevalue(dataset))
    pattern.make(root)
    output = tmp_path / "data.h5"
    header = convert(root, output, **pattern.settings).header
    assert {found.code for found in header.findings} == pattern.codes
    assert {found.severity for found in header.findings} <= {"warning"}
    assert (header.dropped_episodes, header.done_source) == ((), pattern.done_source)
    check_whole(output, has_state=pattern.has_state)


def test_every_pattern_has_its_row_in_the_documentation() -> None:
    rows = re.findall(r"^\| ([^|]+?) \|", (ROOT / "docs" / "recordings.md").read_text(), re.MULTILINE)
    assert {pattern.name for pattern in PATTERNS} | {name for name, _ in REFUSALS} <= set(rows)


# --- columns


def test_columns_and_their_dimension_names_are_recorded_in_the_file(
    recorded: Path, copy_of: Callable[[Path], Path], tmp_path: Path
) -> None:
    root = copy_of(recorded)
    split_feature("action", {"action.arm": slice(0, 5), "action.gripper": slice(5, 6)})(root)
    convert(root, tmp_path / "data.h5", action="action.gripper,action.arm", state="none")
    with h5py.File(tmp_path / "data.h5") as file:
        assert json.loads(file.attrs["columns"]) == {"action": ["action.gripper", "action.arm"], "done": ["next.done"]}
        names = json.loads(file.attrs["feature_names"])["action"]
        assert names == ["gripper", "goal_0", "goal_1", "goal_2", "goal_3", "goal_4"]
        expected = [
            row_values("action", episode, step, 6)[[5, 0, 1, 2, 3, 4]]
            for episode, length in enumerate(EPISODE_LENGTHS)
            for step in range(length)
        ]
        np.testing.assert_array_equal(file["action"][:], expected)
        assert "state" not in file
    assert lewm_data.verify(tmp_path / "data.h5", against=root).problems == ()


def test_other_columns_make_another_file(recorded: Path) -> None:
    fingerprints = {
        lewm_data.inspect(recorded, **SETTINGS, **columns).to_dict()["fingerprint"]
        for columns in ({}, {"state": "none"}, {"state": "action"}, {"action": "observation.state"})
    }
    assert len(fingerprints) == 4


def test_columns_are_never_guessed_but_listed_with_the_flag(recorded: Path, copy_of: Callable[[Path], Path]) -> None:
    root = copy_of(recorded)
    split_feature("action", {"action.arm": slice(0, 5), "action.gripper": slice(5, 6)})(root)
    rename_features({"observation.state": "observation.joints"})(root)
    with pytest.raises(DirtyDataError) as caught:
        convert(root, root.parent / "data.h5")
    missing = {found["expected"]: found for found in caught.value.findings if found["code"] == "column_missing"}
    action = missing["a column 'action' or 'actions'"]
    state = missing["a column 'observation.state' or 'state'"]
    for found in (action, state):
        for listed in ("action.arm (5 wide)", "action.gripper (1 wide)", "observation.joints (6 wide)"):
            assert listed in found["found"]
    assert "--action KEY[,KEY...]" in action["remedy"]
    assert "--state KEY[,KEY...]" in state["remedy"]
    assert "--state none" in state["remedy"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"action": "actoin"},
            r"--action actoin: the dataset has no such column\. Numeric columns: .*action \(6 wide\)",
        ),
        ({"action": "goal.*"}, r"--action goal\.\*: no numeric column begins with that"),
        ({"state": FRONT}, r"--state observation\.images\.front: it is of dtype 'video', not numeric"),
        ({"state": "action,action"}, r"--state action,action: 'action' is given twice"),
        ({"action": "none"}, "--action none: the dataset has no such column"),
    ],
)
def test_a_column_that_cannot_be_taken_is_a_usage_error(settings: dict[str, str], words: str, recorded: Path) -> None:
    with pytest.raises(UsageError, match=words):
        lewm_data.inspect(recorded, **SETTINGS, **settings)


def test_a_star_leaves_a_named_column_in_its_place(recorded: Path, copy_of: Callable[[Path], Path]) -> None:
    root = copy_of(recorded)
    split_feature("action", {f"action.{name}": slice(n, n + 1) for n, name in enumerate("abcdef")})(root)
    result = convert(root, root.parent / "data.h5", action="action.d,action.*")
    assert result.header.columns["action"] == tuple(f"action.{name}" for name in "dabcef")


# --- cameras


def test_a_camera_without_files_is_neither_suggested_nor_converted(
    recorded: Path, copy_of: Callable[[Path], Path], tmp_path: Path
) -> None:
    root = copy_of(recorded)
    edit_info(
        root, lambda content: content["features"].update({"observation.images.aside": content["features"][FRONT]})
    )
    with pytest.raises(UsageError, match=r"has 2 cameras: front, top\."):
        convert(root, tmp_path / "data.h5", camera=None)
    assert set(convert(root, tmp_path / "all.h5", cameras="all").header.cameras) == {"pixels", "pixels_top"}
    with pytest.raises(DirtyDataError, match="file_missing|location_null"):
        convert(root, tmp_path / "data.h5", camera="aside")


def test_the_only_camera_with_files_needs_no_choice(
    recorded_v21: Path, copy_of: Callable[[Path], Path], tmp_path: Path
) -> None:
    root = copy_of(recorded_v21)
    spoil.remove("videos/chunk-000/observation.images.top")(root)
    assert convert(root, tmp_path / "data.h5", camera=None).header.cameras == {"pixels": FRONT}
    check_whole(tmp_path / "data.h5")


# --- what stays refused


def drift(root: Path) -> None:
    """Episodes 1 and 3 fall behind; the others keep time."""
    column("timestamp", lambda episode, step: step / 30 * np.where(np.isin(episode, (1, 3)), 1.4, 1.0))(root)


def test_drift_is_refused_with_the_truth_and_exact_with_keep(
    recorded_v21: Path, copy_of: Callable[[Path], Path], tmp_path: Path
) -> None:
    root = copy_of(recorded_v21)
    drift(root)
    words = r"2 of 5 episodes drift by up to 0\.27 s: the recorder fell behind 30 fps\. .* --dirty_episode_policy keep"
    with pytest.raises(DirtyDataError, match=words):
        convert(root, tmp_path / "data.h5")
    header = convert(root, tmp_path / "data.h5", dirty_episode_policy="keep").header
    assert sorted(header.kept_episodes()) == [1, 3]
    check_whole(tmp_path / "data.h5")


REFUSALS = [
    ("Wall-clock timestamps with a video", drift),
    ("`next.done` true, then false", spoil.value("next.done", 3, True)),
]


@pytest.mark.parametrize(("name", "make"), REFUSALS)
def test_what_would_be_a_guess_stays_refused(
    name: str, make: Callable[[Path], Any], recorded: Path, copy_of: Callable[[Path], Path], tmp_path: Path
) -> None:
    root = copy_of(recorded)
    make(root)
    with pytest.raises(DirtyDataError):
        convert(root, tmp_path / "data.h5")


def test_an_offset_is_refused_where_rows_and_frames_differ_in_number(
    recorded_v21: Path, copy_of: Callable[[Path], Path], tmp_path: Path
) -> None:
    root = copy_of(recorded_v21)
    column("timestamp", lambda episode, step: (step + 1) / 30)(root)
    spoil.replace_with(spoil.VIDEO_V2, spoil.VIDEO_V2.replace("1.mp4", "3.mp4"))(root)
    with pytest.raises(DirtyDataError, match="episode 1: timestamps_off_fps: .* begin at 1 frame .* differ in number"):
        convert(root, tmp_path / "data.h5")


def test_an_empty_dataset_says_that_nothing_was_recorded(
    recorded: Path, recorded_v21: Path, copy_of: Callable[[Path], Path], tmp_path: Path
) -> None:
    for source, file in ((recorded, "meta/episodes"), (recorded_v21, "meta/episodes.jsonl")):
        root = copy_of(source)
        spoil.remove(file)(root)
        spoil.info(total_episodes=0, total_frames=0)(root)
        with pytest.raises(DirtyDataError, match="nothing was recorded"):
            convert(root, tmp_path / "data.h5")
    (root / "meta/episodes.jsonl").write_text("")
    with pytest.raises(DirtyDataError, match="nothing was recorded"):
        convert(root, tmp_path / "data.h5")


def test_an_episode_table_of_another_schema_is_named_as_such(
    recorded: Path, copy_of: Callable[[Path], Path], tmp_path: Path
) -> None:
    root = copy_of(recorded)
    edit_parquet(root / META, lambda table: table.rename_columns({"length": "num_frames"}))
    with pytest.raises(DirtyDataError, match="a column 'length'.*Another version of LeRobot wrote this file"):
        convert(root, tmp_path / "data.h5")


def test_utf_16_metadata_is_named_as_such(recorded: Path, copy_of: Callable[[Path], Path], tmp_path: Path) -> None:
    root = copy_of(recorded)
    (root / INFO).write_bytes((root / INFO).read_text().encode("utf-16"))
    with pytest.raises(DirtyDataError, match=r"UTF-16, by its byte order mark .*Save it as UTF-8"):
        convert(root, tmp_path / "data.h5")


# --- sessions that were killed


def second_session(root: Path) -> None:
    """Episodes 3 and 4 of ``recorded_files`` were recorded later; their files have no end."""
    for number in (3, 4):
        for folder in ("meta/episodes", "data"):
            spoil.cut(f"{folder}/chunk-000/file-{number:03d}.parquet", keep=0.7)(root)


def empty_files(root: Path) -> None:
    for number in (3, 4):
        for folder in ("meta/episodes", "data"):
            spoil.write(f"{folder}/chunk-000/file-{number:03d}.parquet", b"")(root)


def magic_only(root: Path) -> None:
    for number in (3, 4):
        spoil.write(f"meta/episodes/chunk-000/file-{number:03d}.parquet", b"PAR1")(root)


def unwritten_metadata(root: Path) -> None:
    """The metadata of the last episodes was still in memory; ``info.json`` counts them already."""
    for number in (3, 4):
        spoil.remove(f"meta/episodes/chunk-000/file-{number:03d}.parquet")(root)


@pytest.mark.parametrize("kill", [second_session, empty_files, magic_only, unwritten_metadata])
def test_an_unfinished_session_leaves_the_earlier_ones_reachable(
    kill: Callable[[Path], None], recorded_files: Path, copy_of: Callable[[Path], Path], tmp_path: Path
) -> None:
    root = copy_of(recorded_files)
    kill(root)
    with pytest.raises(DirtyDataError, match=r"session was not finished.*\(0-2\)"):
        convert(root, tmp_path / "data.h5")
    for name, settings in (
        ("skip", {"dirty_episode_policy": "skip"}),
        ("keep", {"dirty_episode_policy": "keep"}),
        ("chosen", {"episodes": "0:3"}),
    ):
        convert(root, tmp_path / f"{name}.h5", **settings)
        check_whole(tmp_path / f"{name}.h5", episodes=range(3))


def test_only_rows_without_a_footer_drop_only_their_episodes(
    recorded_files: Path, copy_of: Callable[[Path], Path], tmp_path: Path
) -> None:
    root = copy_of(recorded_files)
    spoil.cut("data/chunk-000/file-004.parquet", keep=0.7)(root)
    with pytest.raises(DirtyDataError, match=r"episode 4: parquet_unreadable: .*session was not finished"):
        convert(root, tmp_path / "data.h5")
    convert(root, tmp_path / "data.h5", dirty_episode_policy="skip")
    check_whole(tmp_path / "data.h5", episodes=range(4))


@pytest.mark.parametrize("lost", [1, 2, 12, 60])
def test_half_a_last_line_leaves_the_lines_before_it(
    lost: int, recorded_v21: Path, copy_of: Callable[[Path], Path], tmp_path: Path
) -> None:
    root = copy_of(recorded_v21)
    path = root / "meta/episodes.jsonl"
    content = path.read_bytes()
    path.write_bytes(content[:-lost])
    if lost == 1:  # only the line break is missing
        convert(root, tmp_path / "data.h5")
        check_whole(tmp_path / "data.h5")
        return
    with pytest.raises(DirtyDataError, match=r"half a line.*session was not finished.*\(0-3\)"):
        convert(root, tmp_path / "data.h5")
    convert(root, tmp_path / "data.h5", dirty_episode_policy="skip")
    check_whole(tmp_path / "data.h5", episodes=range(4))
    convert(root, tmp_path / "chosen.h5", episodes="0:4")
    check_whole(tmp_path / "chosen.h5", episodes=range(4))


def test_a_damaged_line_in_the_middle_stays_refused(
    recorded_v21: Path, copy_of: Callable[[Path], Path], tmp_path: Path
) -> None:
    root = copy_of(recorded_v21)
    path = root / "meta/episodes.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], lines[1][:20], *lines[2:]]))
    with pytest.raises(DirtyDataError, match="metadata_unreadable"):
        convert(root, tmp_path / "data.h5", dirty_episode_policy="skip")


# --- against an independent decoder and an independent reader of Parquet


@pytest.mark.parametrize("dataset", ["recorded", "recorded_v20"])
def test_frames_and_rows_equal_those_that_pyav_and_pyarrow_read(
    dataset: str, copy_of: Callable[[Path], Path], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    root = copy_of(request.getfixturevalue(dataset))
    end_flags(2)(root)
    column("timestamp", lambda episode, step: (step + 1) / 30)(root)
    drop("frame_index", "index")(root)
    convert(root, tmp_path / "data.h5", image_size="native")
    if dataset == "recorded":
        videos, files = [root / VIDEO], [root / DATA]
    else:
        videos = sorted((root / "videos/chunk-000" / FRONT).glob("*.mp4"))
        files = sorted((root / "data/chunk-000").glob("*.parquet"))
    frames = []
    for video in videos:
        with av.open(str(video)) as container:
            frames += [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    tables = [pq.read_table(file) for file in files]
    with h5py.File(tmp_path / "data.h5") as file:
        np.testing.assert_array_equal(file["pixels"][:], frames)
        for name, key in (("action", "action"), ("state", "observation.state")):
            expected = [row for table in tables for row in table[key].to_pylist()]
            np.testing.assert_array_equal(file[name][:], np.array(expected, np.float32))
