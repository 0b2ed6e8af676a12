"""Stops a conversion: on Ctrl-C and SIGTERM, and by a watchdog when it hangs."""

from __future__ import annotations

import ctypes
import faulthandler
import json
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lewm_data.errors import StalledError
from lewm_data.resources import resident_memory_bytes

_interrupted = threading.Event()


@contextmanager
def catch_signals() -> Iterator[None]:
    """Lets SIGINT and SIGTERM raise KeyboardInterrupt at once, and again at the next ``raise_if_interrupted``.

    Python drops an exception that is raised during a weak reference's callback, so it is raised a second time. When the
    context ends, the program's own handlers are restored and no signal is left pending.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    _interrupted.clear()
    for number in before:
        signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        _interrupted.clear()


def raise_if_interrupted() -> None:
    """Raises KeyboardInterrupt if a signal arrived since ``catch_signals`` began or since the last call."""
    if _interrupted.is_set():
        _interrupted.clear()
        raise KeyboardInterrupt


def _interrupt(number: int, frame: object) -> None:
    _interrupted.set()
    raise KeyboardInterrupt


_DUMP_SECONDS = 1.0
"""Time between the dump of the stacks and the end of the process."""

_BEAT_SECONDS = 1.0
"""Shortest time between two beats. Faster ones are ignored, because re-arming costs a system thread."""


class Heartbeat:
    """Writes progress to a JSON file, at most once a second, and re-arms a watchdog.

    If no beat arrives for ``watchdog_seconds``, the watchdog dumps the stack of every thread to stderr and ends the
    process with status 5. Neither step needs the interpreter: ``faulthandler`` dumps from a C thread, and a POSIX
    timer calls C's ``_exit``. So a call that never releases the GIL is ended too. (On systems without POSIX timers,
    such as macOS, faulthandler itself ends the process, with status 1.)

    Args:
        path: The JSON file, in a folder that exists; None if there is no such folder yet.
        watchdog_seconds: Longest time without a beat; 0 turns the watchdog off.
    """

    def __init__(self, path: Path | None, *, watchdog_seconds: float) -> None:
        self.path = path
        self._seconds = watchdog_seconds
        self._last = float("-inf")
        self._timer = _ExitTimer(StalledError.exit_status) if watchdog_seconds and _ExitTimer.available() else None

    def __enter__(self) -> Heartbeat:
        return self  # the first beat arms it

    def __exit__(self, *exception: object) -> None:
        if self._seconds:
            faulthandler.cancel_dump_traceback_later()
        if self._timer is not None:
            self._timer.delete()

    def beat(self, progress: dict[str, Any], *, force: bool = False) -> None:
        """Reports progress.

        Args:
            progress: JSON-ready facts: episode, camera, frames, frames per second, seconds left.
            force: Write the file even if the last beat was less than a second ago.
        """
        now = time.monotonic()
        if not force and now - self._last < _BEAT_SECONDS:
            return
        self._last = now
        if self._seconds and sys.__stderr__ is not None:  # a daemon may have closed it
            faulthandler.dump_traceback_later(self._seconds, exit=self._timer is None, file=sys.__stderr__)
        if self._timer is not None:
            self._timer.arm(self._seconds + _DUMP_SECONDS)
        if self.path is None:
            return
        facts = {
            **progress,
            "resident_memory_bytes": resident_memory_bytes(),
            "unix_time": round(time.time(), 3),
        }
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps(facts) + "\n")
        temporary.replace(self.path)


class _Timespec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("it_interval", _Timespec), ("it_value", _Timespec))


class _Sigevent(ctypes.Structure):
    _fields_ = (  # glibc's struct sigevent: 64 bytes in all
        ("sigev_value", ctypes.c_void_p),
        ("sigev_signo", ctypes.c_int),
        ("sigev_notify", ctypes.c_int),
        ("sigev_notify_function", ctypes.c_void_p),
        ("sigev_notify_attributes", ctypes.c_void_p),
        ("padding", ctypes.c_byte * 32),
    )


class _ExitTimer:
    """A POSIX timer whose expiry is the C call ``_exit(status)``."""

    _SIGEV_THREAD = 2
    _CLOCK_MONOTONIC = 1

    def __init__(self, status: int) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._id = ctypes.c_void_p()
        exit_address = ctypes.cast(self._libc._exit, ctypes.c_void_p)
        event = _Sigevent(sigev_value=status, sigev_notify=self._SIGEV_THREAD, sigev_notify_function=exit_address.value)
        if self._libc.timer_create(self._CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(self._id)) != 0:
            raise OSError(ctypes.get_errno(), "timer_create")

    @staticmethod
    def available() -> bool:
        """Whether this system's C library is glibc. The structures above are glibc's."""
        return sys.platform == "linux" and hasattr(ctypes.CDLL(None), "gnu_get_libc_version")

    def arm(self, seconds: float) -> None:
        """(Re)starts the countdown."""
        whole = int(seconds)
        spec = _Itimerspec(_Timespec(0, 0), _Timespec(whole, int((seconds - whole) * 1e9)))
        self._libc.timer_settime(self._id, 0, ctypes.byref(spec), None)

    def delete(self) -> None:
        """Ends the timer."""
        self._libc.timer_delete(self._id)
