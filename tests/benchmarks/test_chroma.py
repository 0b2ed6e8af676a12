from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from benchmarks import chroma


def test_a_quick_run_writes_every_format_and_both_codecs(tmp_path: Path) -> None:
    output = tmp_path / "chroma.json"
    chroma.main(["--quick", "--frames", "4", "--output", str(output)])
    result = json.loads(output.read_text())
    assert len(result["errors"]) == len(chroma.FORMATS)
    for row in result["errors"]:
        errors = row["errors"]
        assert errors["version 2"]["mean"] < errors["torchvision"]["mean"], row
        assert errors["version 2"]["max"] <= 1, row
    assert {(row["codec"], row["contender"]) for row in result["speed"]} == {
        (codec, contender) for codec in chroma.SPEED for contender in ("decode", "version 1", "version 2")
    }


def test_area_average_keeps_the_mean_and_a_step_at_its_place() -> None:
    picture = np.zeros((chroma.HEIGHT, chroma.WIDTH, 3), np.uint8)
    picture[:, 320:] = 200
    average = chroma.area_average(picture)
    assert abs(average.mean() - 100) < 1e-9
    assert (average[:, :112] == 0).all()
    assert np.allclose(average[:, 112:], 200)
