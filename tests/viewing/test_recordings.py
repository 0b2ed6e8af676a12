"""Reading files and datasets for previews: the requested frames and rows are the ones that arrive."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lewm_data.config import ConvertConfig, PreviewConfig
from lewm_data.conversion.pipeline import convert
from lewm_data.errors import DamagedChunkError, FormatError, SourceError
from lewm_data.viewing.preview import open_recording
from lewm_data.viewing.recording import Recording
from tests.loading import files
from tests.quality import dirt as spoil
from tests.recording import EPISODE_LENGTHS, read_camera, read_code, record_v3, row_values

STEPS = {0: [0, 3, 6], 3: [0, 1, 2, 11, 20], 4: [8]}


@pytest.fixture(params=["recorded", "recorded_images", "recorded_v21", "recorded_reencoded", "converted"])
def recording(request: pytest.FixtureRequest, recorded: Path, tmp_path: Path) -> Recording:
    if request.param != "converted":
        return open_recording(str(request.getfixturevalue(request.param)), PreviewConfig())
    config = ConvertConfig(camera="front", cameras="all", image_size="96x128", extra_columns=("task_index",))
    convert(str(recorded), tmp_path / "file.h5", config)
    return open_recording(str(tmp_path / "file.h5"), PreviewConfig())


def test_frames_are_those_of_the_requested_steps(recording: Recording) -> None:
    for position in (3, 0, 4, 3):  # also backwards
        for number, camera in enumerate(recording.cameras):
            frames = list(recording.frames(position, camera, STEPS[position], 96))
            assert [read_code(frame) for frame in frames if frame is not None] == [
                (position, step) for step in STEPS[position]
            ]
            assert [read_camera(frame) for frame in frames if frame is not None] == [number] * len(frames)
    half = next(iter(recording.frames(3, next(iter(recording.cameras)), [5], 48)))
    assert half is not None
    assert half.shape == (48, 64, 3)
    assert [found.code for found in recording.findings if found.severity == "error"] == []
    recording.close()


def test_rows_are_those_of_the_episode(recording: Recording) -> None:
    assert recording.lengths.tolist() == list(EPISODE_LENGTHS)
    assert recording.dimensions["state"] == tuple(f"joint_{i}" for i in range(6))
    for position in (2, 0, 4):
        rows = recording.rows(position)
        assert rows is not None
        length = EPISODE_LENGTHS[position]
        for column in ("action", "state"):
            expected = [row_values(column, position, step, 6) for step in range(length)]
            np.testing.assert_array_equal(rows[column], np.array(expected, np.float64))
        assert rows["done"][:, 0].tolist() == [0] * (length - 1) + [1]
        assert recording.tasks[int(rows["task_index"][0, 0])] == ("push the block", "lift the block")[position % 2]


def test_a_finding_keeps_its_episode_in_the_converted_file(recorded: Path, copy_of: Callable, tmp_path: Path) -> None:
    root = copy_of(recorded)
    spoil.value("action", 2, [0.0, np.nan, 0, 0, 0, 0], episode=1)(root)
    spoil.value("next.done", 3, True, episode=3)(root)
    raw = open_recording(str(root), PreviewConfig())
    assert raw.refused
    places = {f.code: (raw.position(f), f.step) for f in raw.findings if f.severity == "error"}
    assert places == {"values_not_finite": (1, 2), "done_mid_episode": (3, 3)}
    for policy, expected in (("keep", {1: 1, 3: 3}), ("skip", {1: None, 3: None})):
        config = ConvertConfig(camera="front", image_size=32, dirty_episode_policy=policy, episodes="1:5")
        convert(str(root), tmp_path / f"{policy}.h5", config)
        file = open_recording(str(tmp_path / f"{policy}.h5"), PreviewConfig())
        found = {f.episode: file.position(f) for f in file.findings if f.severity == "error"}
        # the file begins with the source's episode 1, at position 0
        assert found == {k: None if v is None else v - 1 for k, v in expected.items()}


def test_a_damaged_frame_is_reported(tmp_path: Path) -> None:
    written = files.write(tmp_path / "file.h5", (30, 25), codec="zstd")
    files.damage(written.path, int(written.offsets[1]) + 5, byte=0)
    recording = open_recording(str(written.path), PreviewConfig())
    with pytest.raises(DamagedChunkError, match="episode 1, step 5"):
        list(recording.frames(1, "pixels", [4, 5], 24))


def test_rows_are_read_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lewm_data.viewing.converted._BLOCK_ROWS", 40)
    written = files.write(tmp_path / "file.h5", (30, 25, 7, 21, 60))
    recording = open_recording(str(written.path), PreviewConfig())
    for position in (0, 1, 2, 3, 4, 1, 4):
        rows = recording.rows(position)
        assert rows is not None
        part = slice(written.offsets[position], written.offsets[position] + written.lengths[position])
        np.testing.assert_array_equal(rows["action"], written.data["action"][part])


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("none.h5", FormatError, "no such file. Convert a dataset first"),
        ("foreign.h5", FormatError, "not a lewm_data file"),
        ("text.h5", FormatError, "not a readable HDF5 file"),
        (".", SourceError, "not a LeRobot dataset"),
    ],
)
def test_an_unreadable_source_is_refused(name: str, error: type[Exception], words: str, tmp_path: Path) -> None:
    (tmp_path / "text.h5").write_text("not HDF5")
    files.write(tmp_path / "foreign.h5", ours=False)
    with pytest.raises(error, match=words):
        open_recording(str(tmp_path / name), PreviewConfig())


def test_sparse_reading_is_fast_and_correct(tmp_path: Path) -> None:
    """Frames far apart in a long video with B-frames and rare keyframes."""
    root = record_v3(tmp_path / "long", episode_lengths=(150, 90), bframes=2, gop=30)
    recording = open_recording(str(root), PreviewConfig())
    steps = [0, 1, 70, 71, 149]
    frames = list(recording.frames(0, "observation.images.front", steps, 96))
    assert [read_code(frame) for frame in frames if frame is not None] == [(0, step) for step in steps]
