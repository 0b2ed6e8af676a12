"""An episode in Rerun, read back with Rerun's own reader."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lewm_data.errors import DamagedChunkError, OutputError, UsageError
from lewm_data.viewing.viewer import view_episode
from tests.loading import files
from tests.recording import read_camera, read_code, row_values
from tests.viewing.pages import coded

pytest.importorskip("rerun", reason="Rerun is not installed (extra view)")

LENGTHS = (9, 23, 14)


@pytest.fixture(scope="module")
def coded_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return coded(tmp_path_factory.mktemp("viewer") / "coded.h5", LENGTHS)


def read_back(path: Path) -> dict[str, dict[str, Any]]:
    """Entity to its columns, rows in the order of ``frame_index``."""
    reader = pytest.importorskip("rerun.chunk", reason="this Rerun has no reader for its recordings").RrdReader(
        str(path)
    )
    entities: dict[str, list[Any]] = {}
    for chunk in reader.stream():
        if not chunk.is_static:
            entities.setdefault(str(chunk.entity_path).strip("/"), []).append(chunk.to_record_batch())
    found = {}
    for entity, batches in entities.items():
        rows = [row for batch in batches for row in batch.to_pylist()]
        if "frame_index" in rows[0]:
            rows.sort(key=lambda row: row["frame_index"])
            found[entity] = {name: [row[name] for row in rows] for name in rows[0]}
    return found


def component(columns: dict[str, Any], name: str) -> list[Any]:
    [key] = [key for key in columns if key.endswith(name)]
    return columns[key]


def test_a_recording_holds_every_frame_and_row(coded_file: Path, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    viewed = view_episode(coded_file, 1, save=tmp_path / "one.rrd", progress=lambda *done: seen.append(done))
    assert (viewed.num_steps, seen[-1]) == (23, ("frames", 46, 46))
    assert viewed.cameras == ("observation.images.front", "observation.images.top")
    assert [path.name for path in tmp_path.iterdir()] == ["one.rrd"]
    entities = read_back(tmp_path / "one.rrd")
    for camera, entity in enumerate(viewed.cameras):
        columns = entities[entity]
        assert columns["frame_index"] == list(range(23))
        seconds = [time.total_seconds() for time in columns["timestamp"]]
        np.testing.assert_allclose(seconds, np.arange(23) / 30, atol=1e-6)
        for step, [blob] in enumerate(component(columns, "blob")):
            frame = np.asarray(Image.open(io.BytesIO(bytes(blob))))
            assert read_code(frame) == (1, step)
            assert read_camera(frame) == camera
    for column in ("action", "state"):
        expected = [row_values(column, 1, step, 6) for step in range(23)]
        np.testing.assert_array_equal(component(entities[column], "scalars"), np.array(expected, np.float64))
    assert component(entities["done"], "scalars") == [[0.0]] * 22 + [[1.0]]


def test_lines_have_the_names_of_their_dimensions(coded_file: Path, tmp_path: Path) -> None:
    view_episode(coded_file, 0, save=tmp_path / "names.rrd")
    reader = pytest.importorskip("rerun.chunk").RrdReader(str(tmp_path / "names.rrd"))
    static = [chunk.to_record_batch().to_pylist()[0] for chunk in reader.stream() if chunk.is_static]
    names = [value for row in static for key, value in row.items() if key.endswith("names")]
    assert [f"goal_{i}" for i in range(6)] in names
    assert [f"joint_{i}" for i in range(6)] in names


@pytest.mark.parametrize(
    ("episode", "save", "error", "words"),
    [
        (3, "out.rrd", UsageError, "there is no episode 3. Choose one from 0 to 2"),
        (-1, "out.rrd", UsageError, "there is no episode -1"),
        (0, "out.mp4", UsageError, "ends in .rrd"),
        (0, "mine.rrd", OutputError, "exists already"),
    ],
)
def test_an_impossible_request_is_refused(
    episode: int, save: str, error: type[Exception], words: str, coded_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.rrd").write_text("mine")
    with pytest.raises(error, match=words):
        view_episode(coded_file, episode, save=tmp_path / save)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.rrd"]
    assert (tmp_path / "mine.rrd").read_text() == "mine"


def test_a_damaged_frame_leaves_nothing_behind(tmp_path: Path) -> None:
    written = files.write(tmp_path / "file.h5", (12,), codec="zstd")
    files.damage(written.path, 9, byte=0)
    with pytest.raises(DamagedChunkError, match="episode 0, step 9"):
        view_episode(written.path, 0, save=tmp_path / "out.rrd")
    assert [path.name for path in tmp_path.iterdir()] == ["file.h5"]


def test_without_rerun_the_error_names_the_extra(
    coded_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(UsageError, match=r"pip install 'lewm_data\[view\]'") as caught:
        view_episode(coded_file, 0, save=tmp_path / "out.rrd")
    assert caught.value.exit_status == 2


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no environment variable for a screen")
def test_without_a_screen_the_error_suggests_saving(coded_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UsageError, match=r"needs a screen, and there is none .*--save episode.rrd"):
        view_episode(coded_file, 0)


@pytest.mark.parametrize("fails", ["spawn", "flush"])
def test_a_window_that_does_not_open_is_reported(fails: str, coded_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise RuntimeError("connection refused")

    stream = pytest.importorskip("rerun").RecordingStream
    monkeypatch.setenv("DISPLAY", ":99")
    monkeypatch.setattr(stream, "spawn", lambda self: None)
    monkeypatch.setattr(stream, fails, fail)
    with pytest.raises(UsageError, match=r"did not open or was closed \(connection refused\)"):
        view_episode(coded_file, 0)
