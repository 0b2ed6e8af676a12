"""HTTP connections that stay open between requests, shared by all threads of a process."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
import time
import weakref
from collections import defaultdict, deque
from http.client import HTTPConnection, HTTPSConnection
from typing import NamedTuple
from urllib.parse import SplitResult

MAX_IDLE_SECONDS = 10.0
"""Stores close connections that are idle for longer, and firewalls drop them silently."""


class Origin(NamedTuple):
    """Where a connection leads.

    Attributes:
        scheme: ``http`` or ``https``.
        host: Name or address.
        port: None is the scheme's default.
    """

    scheme: str
    host: str
    port: int | None

    @classmethod
    def of(cls, url: SplitResult) -> Origin:
        """The origin of a URL."""
        return cls(url.scheme, url.hostname or "", url.port)


class _Idle(NamedTuple):
    since: float
    connection: socket.socket


class ConnectionPool:
    """Idle connections by origin. A caller owns the connection that it takes until it gives it back or closes it."""

    def __init__(self, *, timeout_seconds: float, max_idle: int, max_idle_seconds: float = MAX_IDLE_SECONDS) -> None:
        """Creates an empty pool.

        Args:
            timeout_seconds: How long to wait for a new connection, and for each piece of a response.
            max_idle: Largest number of idle connections, over all origins.
            max_idle_seconds: Connections that were idle for longer are closed.
        """
        self._timeout_seconds = timeout_seconds
        self._max_idle = max_idle
        self._max_idle_seconds = max_idle_seconds
        self._tls: ssl.SSLContext | None = None
        self._lock = threading.Lock()
        self._idle: dict[Origin, deque[_Idle]] = defaultdict(deque)  # of each origin, the longest idle first
        self._num_idle = 0
        weakref.finalize(self, _close_all, self._idle).atexit = False

    def connect(self, origin: Origin) -> socket.socket:
        """A new connection.

        Raises:
            OSError: It cannot be established.
        """
        scheme, host, port = origin
        if scheme == "https":
            self._tls = self._tls or ssl.create_default_context()
            made = HTTPSConnection(host, port, timeout=self._timeout_seconds, context=self._tls)
        else:
            made = HTTPConnection(host, port, timeout=self._timeout_seconds)  # type: ignore[assignment]
        made.connect()
        if scheme != "https":
            _block_in_the_kernel(made.sock, self._timeout_seconds)
        return made.sock

    def take(self, origin: Origin) -> socket.socket | None:
        """The origin's most recently used idle connection, or None where all were idle for too long."""
        oldest = time.monotonic() - self._max_idle_seconds
        with self._lock:
            idle = self._idle[origin]
            found = idle.pop() if idle and idle[-1].since > oldest else None
            self._num_idle -= found is not None
            dropped = self._drop_old(oldest) if found is None else []
        _close(dropped)
        return None if found is None else found.connection

    def give_back(self, origin: Origin, connection: socket.socket) -> None:
        """Keeps a connection for the next request. Closes those that were idle for longest where there are too many."""
        now = time.monotonic()
        with self._lock:
            self._idle[origin].append(_Idle(now, connection))
            self._num_idle += 1
            dropped = self._drop_old(now - self._max_idle_seconds) if self._num_idle > self._max_idle else []
            while self._num_idle > self._max_idle:
                longest = min(filter(None, self._idle.values()), key=lambda idle: idle[0].since)
                dropped.append(longest.popleft())
                self._num_idle -= 1
        _close(dropped)

    def drop(self, origin: Origin) -> None:
        """Closes the origin's idle connections."""
        with self._lock:
            dropped = list(self._idle.pop(origin, ()))
            self._num_idle -= len(dropped)
        _close(dropped)

    def _drop_old(self, oldest: float) -> list[_Idle]:
        dropped = []
        for idle in self._idle.values():
            while idle and idle[0].since <= oldest:
                dropped.append(idle.popleft())
        self._num_idle -= len(dropped)
        return dropped


def _block_in_the_kernel(connection: socket.socket, timeout_seconds: float) -> None:
    """Lets the kernel keep the timeout. Python's own makes a socket non-blocking: two system calls for each piece."""
    connection.settimeout(None)
    timeout = struct.pack("ll", int(timeout_seconds), int(timeout_seconds % 1 * 1e6))
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        connection.setsockopt(socket.SOL_SOCKET, option, timeout)


def _close(connections: list[_Idle]) -> None:
    for idle in connections:
        idle.connection.close()


def _close_all(pool: dict[Origin, deque[_Idle]]) -> None:
    for idle in pool.values():
        _close(list(idle))
