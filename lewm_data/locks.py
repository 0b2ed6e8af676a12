"""One process at a time, across processes and machines: the only kind of lock in this package."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from lewm_data.machine_errors import NO_LOCKS

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.2
_BEAT_SECONDS = 5.0
SILENT_SECONDS = 60.0
"""A lock file whose heartbeat stops for this long belongs to a process that is gone. It is twelve beats, so that a
stalled mount does not cost a process its lock."""


@contextmanager
def exclusive(
    path: Path, *, waiting: Callable[[], None] = lambda: None, silent_seconds: float = SILENT_SECONDS
) -> Iterator[None]:
    """Holds a lock. The system releases it when the process dies, however it dies.

    Works on mounts without locks too: there a lock file shows a heartbeat, and another process takes it over once
    that stops.

    Args:
        path: The lock file. It exists only while the lock is held, or after its holder was killed.
        waiting: Called once if another process holds the lock.
        silent_seconds: How long a heartbeat may stop before its process counts as gone.

    Raises:
        OSError: The lock file cannot be made.
    """
    release = _take(path)
    if release is None:
        waiting()
        watch = _Watch(path, silent_seconds)
        while release is None:
            time.sleep(_POLL_SECONDS)
            watch.remove_if_silent()
            release = _take(path)
    try:
        yield
    finally:
        release()


@contextmanager
def exclusive_if_free(path: Path) -> Iterator[bool]:
    """Holds a lock unless another process does. Yields whether it is held."""
    release = _take(path)
    try:
        yield release is not None
    finally:
        if release is not None:
            release()


def lock_exists(path: Path) -> bool:
    """Whether a lock is held, or was left behind by a process that was killed."""
    return path.exists() or _heartbeat_path(path).exists()


def _take(path: Path) -> Callable[[], None] | None:
    """Tries once to take the lock; returns what releases it, or None if another process holds it."""
    lock = FileLock(path, fallback_to_soft=False, thread_local=False, mode=0o666)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        path.unlink(missing_ok=True)
        logger.info("%s: this mount has no file locks; a lock file with a heartbeat takes their place", path.parent)
        return _take_heartbeat(_heartbeat_path(path))

    def release() -> None:
        path.unlink(missing_ok=True)  # a process that has just opened it sees that it is gone, and makes a new one
        lock.release()

    return release


# --- mounts without locks


def _heartbeat_path(path: Path) -> Path:
    return path.with_name(path.name + ".held")


def _take_heartbeat(path: Path) -> Callable[[], None] | None:
    token = json.dumps({"host": _process_space(), "pid": os.getpid(), "token": secrets.token_hex(8)})
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except FileExistsError:
        return None
    with open(descriptor, "w") as file:
        file.write(token)
    released = threading.Event()

    def beat() -> None:
        while not released.wait(_BEAT_SECONDS):
            with contextlib.suppress(OSError):
                os.utime(path)

    thread = threading.Thread(target=beat, name="lock heartbeat", daemon=True)
    thread.start()

    def release() -> None:
        released.set()
        thread.join()
        if _read(path) == token:  # otherwise another process has taken us for dead
            path.unlink(missing_ok=True)

    return release


class _Watch:
    """Watches the heartbeat of another process's lock file, by this process's clock.

    Args:
        path: The lock, as ``exclusive`` takes it.
        silent_seconds: As ``exclusive`` takes it.
    """

    def __init__(self, path: Path, silent_seconds: float) -> None:
        self._path = _heartbeat_path(path)
        self._silent_seconds = silent_seconds
        self._seen: tuple[int, int] | None = None
        self._since = 0.0

    def remove_if_silent(self) -> None:
        """Removes the lock file of a holder that is gone."""
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return
        now, seen = time.monotonic(), (status.st_ino, status.st_mtime_ns)
        if seen != self._seen:
            self._seen, self._since = seen, now
        holder = _read(self._path)
        if now - self._since < self._silent_seconds and not _has_died_here(holder):
            return
        aside = self._path.with_name(f"{self._path.name}.{secrets.token_hex(8)}")
        with contextlib.suppress(FileNotFoundError):
            self._path.rename(aside)
            if _read(aside) == holder:
                aside.unlink()
            else:  # a third process had just taken it over
                aside.rename(self._path)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def _has_died_here(holder: str) -> bool:
    """Whether a lock file names a process of this machine that is gone."""
    try:
        facts = json.loads(holder)
        host, pid = str(facts["host"]), int(facts["pid"])
    except (ValueError, KeyError, TypeError):  # not written in full yet
        return False
    return host == _process_space() and not psutil.pid_exists(pid)


def _process_space() -> str:
    """Names the space in which process ids are unique: containers, and machines, can share a host name."""
    names = [socket.gethostname()]
    with contextlib.suppress(OSError):  # not on macOS
        names += [os.readlink("/proc/self/ns/pid"), Path("/proc/sys/kernel/random/boot_id").read_text().strip()]
    return " ".join(names)
