"""The codec benchmark."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import codecs
from benchmarks.scenes import cartoon
from lewm_data.config import COMPRESSIONS
from tests.benchmarks.test_harness import FakeClock


def test_a_rate_counts_whole_passes() -> None:
    """Four things of a quarter of a second each: 0.9 seconds are over after one pass."""
    clock = FakeClock()

    def work(number: int) -> None:
        clock.now += 0.25

    assert codecs.rate(work, 4, 0.9, clock) == 4


def test_a_codec_that_changes_a_frame_ends_the_run() -> None:
    noise = {"noise": np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)}
    lossy = codecs.make_codec(codecs.LANCE_JPEG)
    with pytest.raises(SystemExit, match="lzf changes noise frames, but must be lossless"):
        codecs.measure_codecs(noise, {"lzf": lossy}, 1, 0)


NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)


@pytest.mark.parametrize("frame", [cartoon(0, 64, 64), NOISE], ids=["drawn", "noise"])
def test_every_lossless_codec_returns_the_frame(frame: np.ndarray) -> None:
    for row in codecs.measure_codecs({"": frame[None]}, {name: codecs.make_codec(name) for name in COMPRESSIONS}, 1, 0):
        assert (row["psnr_db"] is None) == (row["codec"] != "jpeg")


def test_it_runs_over_a_recording(recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    output = tmp_path / "results" / "codecs.json"
    codecs.main(["--quick", "--source", str(recorded), "--data", str(tmp_path / "data"), "--output", str(output)])
    rows = json.loads(output.read_text())["rows"]
    assert [(row["content"], row["codec"]) for row in rows] == [
        (content, codec) for content in ("camera-like", "drawn") for codec in (*COMPRESSIONS, codecs.LANCE_JPEG)
    ]
    for row in rows:
        is_lossy = row["codec"] in ("jpeg", codecs.LANCE_JPEG)
        assert (row["psnr_db"] is None) == (not is_lossy)
        assert not is_lossy or 25 < row["worst_psnr_db"] <= row["psnr_db"]
        assert len(row["encode_fps"]) == len(row["decode_fps"]) == 1
    assert (output.parent / "codecs.png").read_bytes().startswith(b"\x89PNG")
    assert "| drawn | blosc2 |" in capsys.readouterr().out
