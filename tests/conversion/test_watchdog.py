"""Ctrl-C and SIGTERM interrupt once each. A conversion that hangs ends with status 5, whatever it hangs in."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lewm_data.conversion.watchdog import Heartbeat, catch_signals, raise_if_interrupted

_HANGS = {
    "sleeping": "time.sleep(60)",
    "holding the interpreter's lock": "ctypes.PyDLL(None).sleep(60)",
}


@pytest.mark.skipif(sys.platform != "linux", reason="POSIX timers of glibc")
@pytest.mark.parametrize("hang", _HANGS.values(), ids=_HANGS.keys())
def test_a_hang_dumps_stacks_and_exits_with_status_5(hang: str, tmp_path: Path) -> None:
    code = f"""
import ctypes, pathlib, time
from lewm_data.conversion.watchdog import Heartbeat
with Heartbeat(pathlib.Path({str(tmp_path)!r}) / "heartbeat.json", watchdog_seconds=0.5) as heartbeat:
    heartbeat.beat({{"episode": 3}})
    {hang}
"""
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert done.returncode == 5
    assert time.monotonic() - started < 20
    assert "Timeout" in done.stderr
    assert "most recent call first" in done.stderr
    assert json.loads((tmp_path / "heartbeat.json").read_text())["episode"] == 3


def test_beats_keep_the_process_alive(tmp_path: Path) -> None:
    code = f"""
import pathlib, time
from lewm_data.conversion.watchdog import Heartbeat
with Heartbeat(pathlib.Path({str(tmp_path)!r}) / "heartbeat.json", watchdog_seconds=1.5) as heartbeat:
    for _ in range(8):
        heartbeat.beat({{}}, force=True)
        time.sleep(0.5)
time.sleep(3)
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=30).returncode == 0


def test_the_heartbeat_file_holds_the_progress(tmp_path: Path) -> None:
    path = tmp_path / "heartbeat.json"
    with Heartbeat(path, watchdog_seconds=0) as heartbeat:
        heartbeat.beat({"frames": 64})
        heartbeat.beat({"frames": 128})  # within the same second: ignored
        assert json.loads(path.read_text())["frames"] == 64
        heartbeat.beat({"frames": 192}, force=True)
        facts = json.loads(path.read_text())
    assert facts["frames"] == 192
    assert facts["resident_memory_bytes"] > 1 << 20
    assert abs(facts["unix_time"] - time.time()) < 60


def test_a_hanging_decoder_ends_the_command_and_the_next_run_resumes(recorded: Path, tmp_path: Path) -> None:
    code = """
import sys, time
from lewm_data.source import decode
run = decode.Decoder.run
calls = []
def hanging(self, job):
    calls.append(job)
    if job.episode == 2 and len(job.timestamps) == 5 and sys.argv[1] == "hang" and len(calls) > 4:
        time.sleep(60)
    yield from run(self, job)
decode.Decoder.run = hanging
from lewm_data.cli.commands import main
main(["convert", sys.argv[2], sys.argv[3], "--camera=front", "--shard_bytes=1", "--watchdog_seconds=1"])
"""
    output = tmp_path / "out.h5"

    def run(mode: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, mode, str(recorded), str(output)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    stalled = run("hang")
    assert stalled.returncode == 5, stalled.stderr
    assert "hanging" in stalled.stderr  # the stack names the culprit
    assert not output.exists()
    assert len(list((tmp_path / "out.h5.partial").glob("shard-*.h5"))) == 2
    again = run("go on")
    assert again.returncode == 0, again.stderr
    assert "resuming an earlier run" in again.stderr
    assert output.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_raises_at_once_and_again_at_the_next_check(number: signal.Signals) -> None:
    with catch_signals():
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
        with pytest.raises(KeyboardInterrupt):  # Python may have dropped the first, in a weak reference's callback
            raise_if_interrupted()
        raise_if_interrupted()


def test_the_programs_own_handlers_come_back_and_no_signal_is_left_over() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt), catch_signals():
        os.kill(os.getpid(), signal.SIGINT)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    raise_if_interrupted()
