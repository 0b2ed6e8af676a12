"""Trouble of the machine keeps its own name: it is no finding, no damage, and no reason to drop an episode."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lewm_data.errors import MachineError, SourceError
from lewm_data.machine_errors import ENOTSUPP
from lewm_data.source.hub import locate
from tests.faults.machine_trouble import CODES, KINDS, NO_LOCKS, Kind, prepare_site

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("gcc") is None, reason="the shim takes Linux and gcc"
)

MISLEADING = ("damaged", "truncated", "cut off", "download", "convert the dataset again", "corrupt", "no such file")
"""What makes people delete whole files."""


@pytest.fixture(scope="module")
def trials(
    recorded: Path, recorded_v21: Path, recorded_images: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, int], dict[str, Any]]:
    site = tmp_path_factory.mktemp("site")
    prepare_site(site, v3=recorded, v21=recorded_v21, images=recorded_images)
    shim = site / "shim.so"
    source = Path(__file__).with_name("machine_shim.c")
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-w", "-o", shim, source, "-ldl"], check=True)
    command = [sys.executable, "-m", "tests.faults.machine_trouble", site]
    done = subprocess.run(command, env={**os.environ, "LD_PRELOAD": str(shim)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {(trial["kind"], trial["errno"]): trial for trial in lines}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_trouble_of_the_machine_keeps_its_own_name(kind: Kind, trials: dict[tuple[str, int], dict[str, Any]]) -> None:
    for code in kind.codes:
        trial = trials[kind.name, code]
        case = f"{errno.errorcode.get(code, code)}: {trial['error'] and trial['error'][0]}: {trial['message']}"
        if kind.may_succeed and not trial["error"]:
            continue
        assert trial["hits"] > 0, f"{case}: nothing was injected"
        assert trial["error"] is not None, f"{case}: it went unnoticed"
        assert {"MachineError", "MemoryError", "OutputError"} & set(trial["error"]), case
        assert not [words for words in MISLEADING if words in trial["message"].lower()], case
        if "MemoryError" not in trial["error"]:
            reason = os.strerror(errno.EOPNOTSUPP if code == ENOTSUPP else code)
            assert reason in trial["message"] or "too many files" in trial["message"], case
            assert "\n" not in trial["message"], case


@pytest.mark.parametrize("name", ["converted file: lock", "converted file, loading: lock"])
def test_reading_takes_no_lock(name: str, trials: dict[tuple[str, int], dict[str, Any]]) -> None:
    found = [trial for (kind, _), trial in trials.items() if kind == name]
    assert found
    assert {trial["hits"] for trial in found} == {0}


@pytest.mark.parametrize("name", ["the output's lock: lock", "data_dir's lock: lock"])
def test_conversion_works_without_locks(name: str, trials: dict[tuple[str, int], dict[str, Any]]) -> None:
    found = [trials[name, code] for code in NO_LOCKS]
    assert [trial["error"] for trial in found] == [None] * len(NO_LOCKS)
    assert min(trial["hits"] for trial in found) > 0


@pytest.mark.parametrize("code", CODES)
def test_the_hubs_cache_keeps_the_name_of_its_trouble(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise OSError(code, os.strerror(code), str(tmp_path / "blobs"))

    monkeypatch.setenv("HF_LEROBOT_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    expected = SourceError if code == errno.ETIMEDOUT else MachineError  # a network's, as a rule
    with pytest.raises(expected) as caught:
        locate("owner/name")
    assert not [words for words in MISLEADING if words in str(caught.value).lower()]
    assert "Hub" in str(caught.value)


def test_a_file_in_the_place_of_the_hubs_cache_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hub").write_text("")
    monkeypatch.setenv("HF_LEROBOT_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download", lambda *a, cache_dir, **k: Path(cache_dir).mkdir(exist_ok=True)
    )
    with pytest.raises(SourceError, match=r"the Hub's cache; .*: cannot be used \(File exists\)\. Move what is there"):
        locate("owner/name")
