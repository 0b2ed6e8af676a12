"""The functions for notebooks and scripts: what they return, how it prints, and that the commands print the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

import lewm_data
from lewm_data.cli import commands as cli
from lewm_data.errors import DirtyDataError, UsageError, VerificationError
from tests.quality import dirt


@pytest.fixture
def small(recorded: Path, tmp_path: Path) -> Path:
    lewm_data.convert(recorded, tmp_path / "small.h5", camera="front", image_size=32)
    return tmp_path / "small.h5"


def printed(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict:
    """The object that a command prints."""
    with pytest.raises(SystemExit):
        cli.main([*map(str, arguments), "--json"])
    return json.loads(capsys.readouterr().out)


def test_inspect_returns_the_verdict_and_prints_the_facts(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = lewm_data.inspect(recorded, camera="front", image_size=32)
    assert result.verdict.sentence == "Ready to convert; 4 warnings will be recorded in the file."
    assert {found.code for found in result.findings} == {"episode_short"}
    assert f"lewm-data convert {recorded} recorded.h5 --image_size 32 --camera front" in result.next_commands
    lines = repr(result).splitlines()
    assert lines[1] == "content    5 episodes, 54 steps, 0.0 min at 30 fps"
    assert "warning    episode_short in episodes 0-2, 4" in lines
    assert lines[-1] == result.verdict.sentence
    answer = printed(capsys, "inspect", recorded, "--camera", "front", "--image_size", 32)
    expected = json.loads(json.dumps(result.to_dict()))
    for plan in (answer["plan"], expected["plan"]):
        del plan["seconds"]  # measured
    assert answer == expected


def test_inspect_judges_a_dirty_dataset_without_raising(recorded: Path, copy_of) -> None:
    root = copy_of(recorded)
    dirt.values("action", lambda values: np.full_like(values, np.nan))(root)
    result = lewm_data.inspect(root, camera="front")
    assert result.verdict.level == "bad"
    with pytest.raises(DirtyDataError):
        lewm_data.convert(root, root.parent / "out.h5", camera="front")


def test_convert_takes_settings_by_name_and_reports_progress(recorded: Path, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    result = lewm_data.convert(
        str(recorded),
        tmp_path / "out.h5",
        camera="front",
        image_size="48x64",
        extra_columns=["task_index"],
        progress=lambda *call: seen.append(call),
    )
    assert (result.path, result.num_episodes, result.num_steps) == (tmp_path / "out.h5", 5, 54)
    assert seen[-1] == ("convert", 54, 54)
    assert str(result).startswith(f"{tmp_path / 'out.h5'}: 5 episodes, 54 steps, ")
    with h5py.File(result.path) as file:
        assert file["pixels"].shape == (54, 48, 64, 3)
        assert "task_index" in file


def test_convert_takes_a_config_as_before(recorded: Path, tmp_path: Path) -> None:
    config = lewm_data.ConvertConfig(camera="front", image_size=16)
    lewm_data.convert(str(recorded), tmp_path / "out.h5", config, image_size=24)
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["pixels"].shape == (54, 24, 24, 3)


def test_an_unknown_setting_is_named_with_the_nearest_one(recorded: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no setting 'camra'. Did you mean 'camera'?"):
        lewm_data.inspect(recorded, camra="front")
    with pytest.raises(UsageError, match="image_size is 'huge'"):
        lewm_data.convert(recorded, tmp_path / "out.h5", image_size="huge")
    with pytest.raises(UsageError, match="there is no setting 'max_episode'. Did you mean 'max_episodes'?"):
        lewm_data.preview(recorded, tmp_path / "page.html", max_episode=3)


def test_verify_compares_with_the_source(small: Path, recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert str(lewm_data.verify(small)) == f"{small} is whole."
    result = lewm_data.verify(small, recorded)
    assert result.is_whole
    assert str(result) == f"{small} is whole and equals {recorded} in all 54 frames."
    assert printed(capsys, "verify", small, "--against", recorded) == result.to_dict()


def test_verify_returns_problems_and_raises_them_on_request(small: Path) -> None:
    with h5py.File(small) as file:
        offset = file["pixels"].id.get_chunk_info(20).byte_offset
    data = bytearray(small.read_bytes())
    data[offset + 5] ^= 1
    small.write_bytes(data)
    result = lewm_data.verify(small)
    assert not result.is_whole
    assert str(result).startswith(f"{small} has 1 problem:\n- episode 2 step 1: 'pixels' is damaged")
    with pytest.raises(VerificationError, match="1 problem, the first: episode 2 step 1"):
        result.raise_for_problems()


def test_merge_joins_files(recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [tmp_path / name for name in ("a.h5", "b.h5")]
    for path, episodes in zip(paths, ("0:2", "2:5"), strict=True):
        lewm_data.convert(recorded, path, camera="front", image_size=16, episodes=episodes)
    result = lewm_data.merge(paths, tmp_path / "ab.h5")
    assert str(result) == f"{tmp_path / 'ab.h5'}: 5 episodes from 2 files"
    again = printed(capsys, "merge", *paths, tmp_path / "again.h5")
    assert again == {**result.to_dict(), "path": str(tmp_path / "again.h5")}
    with pytest.raises(UsageError, match="at least one input"):
        lewm_data.merge([], tmp_path / "none.h5")


def test_preview_makes_a_page(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    result = lewm_data.preview(small, page, num_steps=2, frameskip=3)
    size = page.stat().st_size
    assert str(result) == f"{page}: 5 of 5 episodes with pictures, 4 findings, {size / 1e6:,.1f} MB"
    assert result.verdict.level == "fair"
    answer = printed(capsys, "preview", small, page, "--num_steps=2", "--frameskip=3", "--overwrite")
    assert answer == result.to_dict()


def test_a_tilde_is_the_home_folder(
    small: Path, recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "recording").symlink_to(recorded)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert lewm_data.verify("~/small.h5").path == small
    assert lewm_data.inspect("~/recording", camera="front").verdict.level == "good"
    assert lewm_data.verify("~/small.h5", "~/recording").is_whole
    assert lewm_data.merge(["~/small.h5"], "~/merged.h5").path == tmp_path / "merged.h5"
    assert lewm_data.preview("~/small.h5", "~/page.html").path == tmp_path / "page.html"


@pytest.mark.parametrize("name", [name for name in lewm_data.__all__ if name != "__version__"])
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(lewm_data, name).__name__ == name


def test_functions_keep_their_names_after_their_modules_are_loaded(small: Path, tmp_path: Path) -> None:
    lewm_data.preview(small, tmp_path / "page.html")
    assert callable(lewm_data.preview)


def test_using_the_functions_loads_neither_torch_nor_lerobot() -> None:
    code = (
        "import sys, lewm_data, lewm_data.loading.data_files, lewm_data.viewing.converted\n"
        "lewm_data.inspect, lewm_data.convert, lewm_data.verify, lewm_data.merge, lewm_data.ConvertConfig\n"
        "sys.exit(', '.join({'torch', 'lerobot', 'lightning'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("start", "status"), [("import lewm_data", 1), ("sys.argv[0] = '/bin/lewm-data'; import lewm_data", 1)]
)
def test_windows_gets_one_sentence(start: str, status: int) -> None:
    code = f"import sys; sys.platform = 'win32'; {start}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == status
    last = done.stderr.splitlines()[-1]
    assert "lewm_data runs on Linux and macOS. On Windows, use the Windows Subsystem for Linux (WSL)." in last
    assert ("Traceback" in done.stderr) == ("argv" not in start)
