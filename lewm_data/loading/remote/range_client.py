"""Byte ranges over HTTP connections that stay open, received directly into the memory that is returned.

Reading and decoding one frame of 105 KB from loopback, on two cores, takes 0.85 ms of processor time with urllib3,
0.59 ms with ``http.client``, and 0.46 ms here: this client reads only five fields of a response's head.
"""

from __future__ import annotations

import functools
import os
import socket
import ssl
from typing import NamedTuple
from urllib.parse import urlsplit

from lewm_data.loading.remote.connection_pool import MAX_IDLE_SECONDS, ConnectionPool, Origin

MAX_HEAD_BYTES = 8 << 10
"""A response's head may take so many bytes."""
_ALL = {socket.socket: socket.MSG_WAITALL}
_DEFAULT_PORTS = {"http": 80, "https": 443}


class RangeResponse(NamedTuple):
    """The bytes of a range.

    Attributes:
        data: (stop - start,) bytes.
        etag: The version of the object that they come from, quotes included; empty where the server names none.
    """

    data: memoryview
    etag: str


class _Head(NamedTuple):
    """The head of a response.

    Attributes:
        status: HTTP status.
        num_bytes: Bytes of the body; None where the head does not give a plain length.
        content_range: The range and the object's size, such as ``bytes 0-9/100``.
        etag: Version of the object, or empty.
        keeps_alive: Whether the connection takes another request afterwards.
    """

    status: int
    num_bytes: int | None
    content_range: bytes
    etag: bytes
    keeps_alive: bool

    @classmethod
    def parse(cls, head: bytes) -> _Head:
        """Parses a head.

        Raises:
            ConnectionError: It is not HTTP/1.
        """
        first, *lines = head.split(b"\r\n")
        version, _, rest = first.partition(b" ")
        if version not in (b"HTTP/1.1", b"HTTP/1.0") or not rest[:3].isdigit():
            raise ConnectionError(f"not an HTTP/1 response: {first[:80]!r}")
        fields = {}
        for line in lines:
            name, _, value = line.partition(b":")
            fields[name.lower()] = value.strip()
        length = fields.get(b"content-length", b"")
        is_plain = length.isdigit() and b"transfer-encoding" not in fields and b"content-encoding" not in fields
        return cls(
            int(rest[:3]),
            int(length) if is_plain else None,
            fields.get(b"content-range", b""),
            fields.get(b"etag", b""),
            version == b"HTTP/1.1" and fields.get(b"connection", b"").lower() != b"close",
        )

    def answers(self, start: int, num_bytes: int) -> bool:
        """Whether the body is part of the range that was requested, from its first byte on, as plain bytes."""
        is_range = self.status == 206 and self.content_range.startswith(b"bytes %d-" % start)
        return is_range and self.num_bytes is not None and self.num_bytes <= num_bytes


class RangeClient:
    """Requests byte ranges. Any number of threads may use it; each has a connection to itself during a request."""

    def __init__(
        self, *, timeout_seconds: float, max_idle: int = 64, max_idle_seconds: float = MAX_IDLE_SECONDS
    ) -> None:
        """Creates a client. Connects lazily, on the first read.

        Args:
            timeout_seconds: How long to wait for a connection, and for each next piece of a response.
            max_idle: Largest number of idle connections to keep.
            max_idle_seconds: Connections that were idle for longer are not used again.
        """
        self._pool = ConnectionPool(
            timeout_seconds=timeout_seconds, max_idle=max_idle, max_idle_seconds=max_idle_seconds
        )

    def read(
        self, url: str, start: int, stop: int, *, etag: str = "", memory: bytearray | None = None
    ) -> RangeResponse | None:
        """Requests the bytes [start, stop) once.

        Args:
            url: ``http://`` or ``https://``.
            start: First byte.
            stop: First byte after the range.
            etag: The version that is wanted, quotes included: the server refuses when the object has another one.
                Empty takes any version. A server may ignore this, so compare the response's ``etag``.
            memory: Receives the response, head included: ``MAX_HEAD_BYTES`` more than the range, or longer. The
                returned bytes lie in it. None takes new memory.

        Returns:
            The bytes, or None where the server sends anything but exactly those bytes: a refusal, a redirection, the
            whole object, an encoding.

        Raises:
            OSError: The connection cannot be established, fails, or takes too long.
            EOFError: The server sends fewer bytes.
        """
        origin, head = _target(url)
        fields = f"Range: bytes={start}-{stop - 1}\r\n"
        if etag and not etag.startswith("W/"):  # HTTP never matches a weak one
            fields += f"If-Match: {etag}\r\n"
        if memory is None:
            memory = bytearray(MAX_HEAD_BYTES + stop - start)
        request = head + fields.encode("latin-1") + b"\r\n"
        while (idle := self._pool.take(origin)) is not None:
            try:
                return self._exchange(origin, idle, request, start, stop - start, memory)
            except _HungUpError:
                continue  # the server closed it while it was idle
            except TimeoutError:
                self._pool.drop(origin)  # a firewall may have silently dropped every idle connection
                raise
        return self._exchange(origin, self._pool.connect(origin), request, start, stop - start, memory)

    def _exchange(
        self, origin: Origin, connection: socket.socket, request: bytes, start: int, num_bytes: int, memory: bytearray
    ) -> RangeResponse | None:
        """Sends one request and receives its response.

        Raises:
            _HungUpError: The connection ended before the first byte of a response.
        """
        is_reusable = False
        try:
            data = memoryview(memory)[: MAX_HEAD_BYTES + num_bytes]
            received = _send(connection, request, data)
            while (end := memory.find(b"\r\n\r\n", 0, received)) < 0:
                if received > MAX_HEAD_BYTES:
                    return None
                received += _receive(connection, data[received:])
            head, first = _Head.parse(bytes(data[:end])), end + 4
            if not head.answers(start, num_bytes):
                return None
            if head.num_bytes != num_bytes:
                raise EOFError(f"got {head.num_bytes} of {num_bytes} bytes")
            stop = first + num_bytes
            while received < stop:
                received += _receive(connection, data[received:stop], _ALL.get(type(connection), 0))
            is_reusable = head.keeps_alive and received == stop
            return RangeResponse(data[first:stop], head.etag.decode("latin-1"))
        finally:
            if is_reusable:
                self._pool.give_back(origin, connection)
            else:
                connection.close()


@functools.lru_cache(maxsize=256)
def _target(url: str) -> tuple[Origin, bytes]:
    """Where a URL leads, and the part of a request's head that is the same for all its ranges."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    name = f"[{host}]" if ":" in host else host
    if parts.port and parts.port != _DEFAULT_PORTS.get(parts.scheme):
        name += f":{parts.port}"
    head = (
        f"GET {parts.path or '/'}{'?' if parts.query else ''}{parts.query} HTTP/1.1\r\n"
        f"Host: {name}\r\n"
        "Accept-Encoding: identity\r\n"
        "User-Agent: lewm_data\r\n"
    )
    return Origin.of(parts), head.encode("ascii")


@functools.cache
def _client_of(process: int, timeout_seconds: float, max_idle: int) -> RangeClient:
    return RangeClient(timeout_seconds=timeout_seconds, max_idle=max_idle)


def shared_client(*, timeout_seconds: float, max_idle: int) -> RangeClient:
    """This process's client. All objects share its connections, so that many shards need no more than one object.

    Args:
        timeout_seconds: See ``RangeClient``.
        max_idle: See ``RangeClient``.
    """
    return _client_of(os.getpid(), timeout_seconds, max_idle)


os.register_at_fork(after_in_child=_client_of.cache_clear)  # the connections belong to the parent


class _HungUpError(ConnectionError):
    """The server closed the connection instead of answering."""


def _send(connection: socket.socket, request: bytes, out: memoryview) -> int:
    """Sends a request and waits for the first bytes of the response; returns their number."""
    try:
        connection.sendall(request)
        received = connection.recv_into(out)
    except BlockingIOError as error:
        raise TimeoutError("timed out") from error
    except (ConnectionError, ssl.SSLEOFError) as error:
        raise _HungUpError(str(error)) from error
    if not received:
        raise _HungUpError("the server closed the connection")
    return received


def _receive(connection: socket.socket, out: memoryview, flags: int = 0) -> int:
    try:
        received = connection.recv_into(out, 0, flags)
    except BlockingIOError as error:
        raise TimeoutError("timed out") from error
    if not received:
        raise ConnectionError("the server closed the connection in mid-response")
    return received
