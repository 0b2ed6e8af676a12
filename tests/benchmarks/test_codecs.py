"""The codec benchmark."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import codecs
from benchmarks import codecs_report as report
from benchmarks.scenes import cartoon
from lewm_data.config import COMPRESSIONS
from tests.benchmarks.test_harness import FakeClock


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_every_codec_returns_the_frame(name: str) -> None:
    codec = codecs.make_codec(name)
    for frame in (cartoon(0, 64, 64), np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)):
        out = np.zeros_like(frame)
        codec.decode(codec.encode(frame), out)
        np.testing.assert_array_equal(out, frame)


def test_a_rate_is_counted_over_whole_rounds() -> None:
    """A quarter of a second each, four things: the second that was asked for is over after four of them."""
    clock = FakeClock()

    def work(number: int) -> None:
        clock.now += 0.25

    assert codecs.rate(work, 4, 0.9, clock) == 4


def test_a_codec_that_changes_a_frame_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    lossy = codecs.make_codec(codecs.JPEG)
    monkeypatch.setattr(codecs, "make_codec", lambda name: lossy)
    frames = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    with pytest.raises(SystemExit, match="noise lzf does not return the frames"):
        codecs.measure({"noise": frames}, ["lzf"], 1, 0)


def test_it_runs_over_a_recording_of_ours(recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    output = tmp_path / "results" / "codecs.json"
    data = tmp_path / "data"
    codecs.main(["--quick", "--source", str(recorded), "--data", str(data), "--output", str(output)])
    result = json.loads(output.read_text())
    assert set(report.blocks(result)) == set(report.BLOCKS)
    rows = result["rows"]
    assert [(row["content"], row["codec"]) for row in rows] == [
        (content, codec) for content in (report.CAMERA, report.DRAWN) for codec in (*COMPRESSIONS, codecs.JPEG)
    ]
    for row in rows:
        assert (row["psnr_db"] is None) == (row["codec"] != codecs.JPEG)
        assert len(row["encode_fps"]) == len(row["decode_fps"]) == 1
    assert (output.parent / report.CHART).read_bytes().startswith(b"\x89PNG")
    assert "| drawn | blosc2 |" in capsys.readouterr().out
