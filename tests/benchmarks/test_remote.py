"""The benchmark of object storage, over nginx."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import compiled_server, remote
from benchmarks.blocks import blocks
from benchmarks.remote_contenders import LABELS


@pytest.mark.slow
@pytest.mark.skipif(not compiled_server.is_available(), reason=compiled_server.HINT)
@pytest.mark.filterwarnings("ignore")  # what the peers warn about
def test_all_readers_return_the_same_windows(
    recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("stable_worldmodel.data.formats.lance")
    output = tmp_path / "remote.json"
    where = ["--source", str(recorded), "--data", str(tmp_path / "data"), "--output", str(output)]
    assert remote.main(["--quick", *where]) == 0
    result = json.loads(output.read_text())
    [part] = result["parts"]
    rows = {row["name"]: row for row in part["rows"]}
    assert list(rows) == list(LABELS)
    assert {name for name, row in rows.items() if row["compared"] == "equal"} == {
        "ours_thread", "ours_process", "ours_cached", "hdf5",
    }  # fmt: skip
    assert all(row["windows_per_second"]["median"] > 0 for row in rows.values())
    assert rows["ours_jpeg_thread"]["kilobytes_per_window"] < rows["ours_thread"]["kilobytes_per_window"]
    assert rows["ours_cached"]["requests_per_window"] < rows["ours_thread"]["requests_per_window"]
    lossy = {name: row for name, row in rows.items() if row["is_lossy"]}
    assert set(lossy) == {"ours_jpeg_thread", "ours_jpeg_process", "lance"}
    assert all(row["compared"].endswith(" dB") for row in lossy.values())
    assert rows["ours_jpeg_thread"]["bytes_per_frame"] < rows["ours_thread"]["bytes_per_frame"]
    assert set(blocks("remote", result)) == {"chart", "conditions", "summary", "table"}
    assert (tmp_path / "remote.png").stat().st_size > 0
    assert "stable-worldmodel's LanceDataset (JPEG, lossy), processes" in capsys.readouterr().out
