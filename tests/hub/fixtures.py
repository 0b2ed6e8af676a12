"""A converted file, and a Hub on loopback to which this process or another one is logged in."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.hub import WRITE_TOKEN, StandIn, serve
from tests.loading.files import write


@pytest.fixture(scope="session")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four episodes of 83 steps in all, from a local source; large enough to go up in several parts."""
    return write(tmp_path_factory.mktemp("converted") / "demo.h5", (30, 25, 7, 21), height=48, width=64).path


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[StandIn]:
    (tmp_path / "hub").mkdir()
    with serve(StandIn(tmp_path / "hub")) as stand_in:
        yield stand_in


@pytest.fixture
def online(hub: StandIn, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """The Hub, with this process logged in to it; large files go up by the LFS protocol."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setenv("HF_TOKEN", WRITE_TOKEN)
    return hub


@contextmanager
def running(hub: StandIn, *arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    """Runs a command in a process of its own, logged in to the Hub; with Xet storage if the Hub has it."""
    environment = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0", "HF_TOKEN": WRITE_TOKEN}
    environment |= {"HF_HUB_DISABLE_XET": "1" if hub.xet is None else "0", "HF_HUB_DISABLE_TELEMETRY": "1"}
    command = [sys.executable, "-m", "lewm_data", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def finish(hub: StandIn, *arguments: str | Path) -> tuple[int, str, str]:
    """Runs a command in the same way to its end; returns its status, stdout and stderr."""
    with running(hub, *arguments) as process:
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err
