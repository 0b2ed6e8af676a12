"""The command ``assess``: on a dataset and on the file converted from it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import lewm_data
from lewm_data.cli import commands as cli

KEYS = {
    "verdict",
    "next_steps",
    "cameras",
    "idle",
    "still_dimensions",
    "response",
    "excitation",
    "frameskip",
    "episodes",
    "findings",
}
CAMERA_KEYS = {
    "lag_frames",
    "lag_low",
    "lag_high",
    "lag_r",
    "lag_agreement",
    "visibility",
    "state_r2",
    "state_change_r2",
    "action_r2",
    "null_r2",
    "repeated_frames",
}


def run(*arguments: str | Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as done:
        cli.main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return int(done.value.code or 0), out, " ".join(err.split())


def test_a_dataset_and_its_file_get_the_same_judgment(
    recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "small.h5"
    lewm_data.convert(recorded, file, camera="front", cameras="all", image_size=96)
    status, out, _ = run("assess", recorded, "--json", capsys=capsys)
    assert status == 0
    judged = json.loads(out)
    assert judged.keys() >= KEYS
    assert judged["cameras"].keys() == {"front", "top"}
    assert judged["cameras"]["front"].keys() >= CAMERA_KEYS
    assert judged["episodes"]["count"] == 5
    stored = json.loads(run("assess", file, "--json", capsys=capsys)[1])
    assert stored["idle"] == judged["idle"]
    assert stored["still_dimensions"] == judged["still_dimensions"]
    assert [found["code"] for found in stored["findings"]] == [found["code"] for found in judged["findings"]]


def test_one_camera_can_be_chosen_and_a_wrong_one_is_refused(
    recorded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judged = json.loads(run("assess", recorded, "--camera", "top", "--json", capsys=capsys)[1])
    assert list(judged["cameras"]) == ["top"]
    status, _, err = run("assess", recorded, "--camera", "side", capsys=capsys)
    assert status == 2
    assert "no such camera" in err


def test_people_get_facts_findings_a_verdict_and_a_command(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run("assess", recorded, "--camera", "front", capsys=capsys)
    assert status == 0
    assert out == ""
    assert "5 episodes, 54 steps" in err
    assert "lewm-data" in err


def test_the_judgment_can_be_a_picture(recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "judgment.png"
    arguments = ("assess", recorded, "--camera", "top", "--png", picture)
    assert run(*arguments, capsys=capsys)[0] == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    status, _, err = run(*arguments, capsys=capsys)
    assert status == 2
    assert "exists already" in err
    assert run(*arguments, "--overwrite", capsys=capsys)[0] == 0
    status, _, err = run(*arguments[:-1], tmp_path / "judgment.jpg", capsys=capsys)
    assert status == 2
    assert "Choose a name that ends in .png." in err
