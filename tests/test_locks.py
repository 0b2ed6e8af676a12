"""One holder at a time: with file locks, and on mounts without them."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lewm_data.locks import exclusive, exclusive_if_free, lock_exists

_WITHOUT_LOCKS = """
import errno, fcntl, os, sys, time
def no_locks(*arguments):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
if sys.argv[2] == "none":
    fcntl.flock = no_locks
from pathlib import Path
from lewm_data.locks import exclusive
path = Path(sys.argv[1])
"""
_COUNT = (
    _WITHOUT_LOCKS
    + """
for _ in range(20):
    with exclusive(path):
        count = int(path.with_suffix(".count").read_text())
        time.sleep(0.001)
        path.with_suffix(".count").write_text(str(count + 1))
"""
)
_HOLD = (
    _WITHOUT_LOCKS
    + """
with exclusive(path):
    print("held", flush=True)
    time.sleep(60)
"""
)


@pytest.fixture(params=["flock", "none"])
def locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whether the mount has file locks."""
    if request.param == "none":

        def no_locks(*arguments: object) -> None:
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

        monkeypatch.setattr(fcntl, "flock", no_locks)
    return str(request.param)


def run(code: str, path: Path, locks: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code, str(path), locks], stdout=subprocess.PIPE, text=True)


def hold(path: Path, locks: str) -> subprocess.Popen[str]:
    process = run(_HOLD, path, locks)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_no_two_processes_hold_it(tmp_path: Path, locks: str) -> None:
    (tmp_path / "a.count").write_text("0")
    processes = [run(_COUNT, tmp_path / "a.lock", locks) for _ in range(3)]
    for process in processes:
        process.communicate(timeout=120)
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert (tmp_path / "a.count").read_text() == "60"
    assert os.listdir(tmp_path) == ["a.count"]


def test_a_lock_that_is_held_is_not_free_and_waiting_is_announced(tmp_path: Path, locks: str) -> None:
    path, waited, entered = tmp_path / "a.lock", [], []

    def wait() -> None:
        with exclusive(path, waiting=lambda: waited.append(True)):
            entered.append(True)

    with exclusive(path):
        assert lock_exists(path)
        with exclusive_if_free(path) as held:
            assert not held
        thread = threading.Thread(target=wait)
        thread.start()
        while not waited:
            time.sleep(0.01)
        assert not entered
    thread.join(30)
    assert (waited, entered) == ([True], [True])
    assert not lock_exists(path)
    with exclusive_if_free(path) as held:
        assert held


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path, locks: str) -> None:
    path = tmp_path / "a.lock"
    process = hold(path, locks)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    assert lock_exists(path)
    started = time.monotonic()
    with exclusive(path):
        assert time.monotonic() - started < 10
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("host", ["another-machine", f"{socket.gethostname()} pid:[7] another-container"])
@pytest.mark.parametrize("locks", ["none"], indirect=True)
def test_a_heartbeat_that_stops_elsewhere_is_taken_over_and_one_that_goes_on_is_not(
    tmp_path: Path, locks: str, host: str
) -> None:
    path = tmp_path / "a.lock"
    other = json.dumps({"host": host, "pid": 1 << 22, "token": "x"})  # no process here has this number
    (tmp_path / "a.lock.held").write_text(other)
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(0.05):
            os.utime(tmp_path / "a.lock.held")

    beating = threading.Thread(target=beat)
    beating.start()
    entered = threading.Event()

    def wait() -> None:
        with exclusive(path, silent_seconds=1.0):
            entered.set()

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert not entered.wait(1.5)
    assert (tmp_path / "a.lock.held").read_text() == other
    stop.set()
    beating.join()
    assert entered.wait(30)
    waiting.join()
    assert os.listdir(tmp_path) == []
