"""Runs a command of lewm_data with something going wrong at a chosen moment; started by the campaign as a process.

``python -m tests.faults.injection PLAN FOLDER -- convert SOURCE FOLDER/out.h5 ...``, PLAN being JSON:

- ``{"kill_at": 12}``: SIGKILL just before the twelfth operation on files in FOLDER.
- ``{"fail_at": 12, "errno": 28}``: that operation fails with an error number, as on a full or read-only disk.
- ``{"power": DIR}``: writes to DIR what a disk would hold if the power went before each operation.
- ``{"memory_bytes": 50000000}``: so much more address space may be taken, from here on.
- ``{"decoder": "raises", "at": 40}``: so does the decoder, at its fortieth frame; ``"refuses"`` in FFmpeg's words;
  ``"hangs"`` in a C call that never gives the interpreter's lock back.

Operations are those that Python does: open, mkdir, rename, remove, rmdir (by audit events) and fsync. What the HDF5
library writes lies between two of them.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faults.power import Recorder

_EVENTS = {"open": 0, "os.mkdir": 0, "os.rename": 1, "os.remove": 0, "os.rmdir": 0}
"""Audit event to the position of the path that counts."""

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def watch(folder: Path, before: Callable[[str, str], None]) -> None:
    """Calls ``before(operation, path)`` just before each operation that changes files in a folder."""
    inside = str(folder) + os.sep
    fsync = os.fsync
    busy = False

    def call(operation: str, path: str) -> None:
        nonlocal busy
        if not busy:
            busy = True
            try:
                before(operation, path)
            finally:
                busy = False

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in _EVENTS or (event == "open" and not int(arguments[2] or 0) & _WRITES):
            return
        path = arguments[_EVENTS[event]]
        if isinstance(path, str | os.PathLike) and os.fspath(path).startswith(inside):
            call(event, os.fspath(path))

    def watched_fsync(descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if (path + os.sep).startswith(inside):
            call("os.fsync", path)
        fsync(descriptor)

    os.fsync = watched_fsync  # type: ignore[assignment]
    sys.addaudithook(hook)


def spoil_decoder(how: str, at: int) -> None:
    """Lets the decoder fail at a frame, counted over the whole run."""
    import av

    from lewm_data.source.video_reader import VideoReader

    take, count = VideoReader._take, 0

    def failing(self: Any) -> Any:
        nonlocal count
        count += 1
        if count == at:
            if how == "refuses":
                raise av.error.InvalidDataError(1094995529, "Invalid data found when processing input")
            if how == "hangs":
                ctypes.PyDLL(None).sleep(600)  # holding the interpreter's lock, as a C call may
            raise RuntimeError("the decoder failed")
        return take(self)

    VideoReader._take = failing  # type: ignore[method-assign]


def main() -> None:
    plan, folder = json.loads(sys.argv[1]), Path(sys.argv[2])
    count = 0

    def before(operation: str, path: str) -> None:
        nonlocal count
        count += 1
        if count == plan.get("kill_at"):
            os.kill(os.getpid(), signal.SIGKILL)
        if count == plan.get("fail_at"):
            raise OSError(plan["errno"], os.strerror(plan["errno"]))

    from lewm_data.cli.commands import main as command

    if "decoder" in plan:
        spoil_decoder(plan["decoder"], plan["at"])
    if "memory_bytes" in plan:
        import lewm_data.conversion.pipeline  # noqa: F401  so that what is counted is the conversion's own

        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + plan["memory_bytes"],) * 2)
    recorder = Recorder(folder, Path(plan["power"])) if "power" in plan else None
    watch(folder, recorder.before if recorder is not None else before)
    try:
        command(sys.argv[4:])
    finally:
        if recorder is not None:
            recorder.at_the_end()
        print(f"operations: {count}", file=sys.stderr)


if __name__ == "__main__":
    main()
