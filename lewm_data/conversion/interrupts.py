"""Ctrl-C and SIGTERM that do not get lost: Python drops what is raised while it runs a weak reference's callback."""

from __future__ import annotations

import signal
import threading

_asked = threading.Event()


def install() -> None:
    """Lets SIGINT and SIGTERM raise KeyboardInterrupt now, or at the next ``check``; forgets earlier ones."""
    _asked.clear()
    signal.signal(signal.SIGINT, _handle)
    signal.signal(signal.SIGTERM, _handle)


def check() -> None:
    """Raises KeyboardInterrupt if a signal came since ``install``."""
    if _asked.is_set():
        _asked.clear()
        raise KeyboardInterrupt


def _handle(number: int, frame: object) -> None:
    _asked.set()
    raise KeyboardInterrupt
