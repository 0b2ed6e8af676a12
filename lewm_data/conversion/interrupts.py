"""Ctrl-C and SIGTERM that do not get lost: Python drops what is raised while it runs a weak reference's callback."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_asked = threading.Event()


@contextmanager
def listening() -> Iterator[None]:
    """Lets SIGINT and SIGTERM raise KeyboardInterrupt at once, and again at the next ``check``.

    When the context ends, the program has its own handlers back, and nothing is left over for what it does next.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    _asked.clear()
    for number in before:
        signal.signal(number, _handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        _asked.clear()


def check() -> None:
    """Raises KeyboardInterrupt if a signal came since ``listening`` began or this was last called."""
    if _asked.is_set():
        _asked.clear()
        raise KeyboardInterrupt


def _handle(number: int, frame: object) -> None:
    _asked.set()
    raise KeyboardInterrupt
