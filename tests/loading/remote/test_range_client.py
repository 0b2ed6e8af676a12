"""Byte ranges over persistent connections, from servers that behave well, badly, or not at all."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np
import pytest

from lewm_data.loading.remote.range_client import MAX_HEAD_BYTES, RangeClient
from tests.loading.remote.folder_server import serve as serve_folder

DATA = np.random.default_rng(0).bytes(5000)
type Answer = Callable[[int, int], Sequence[bytes]]


def answer(start: int, stop: int, *fields: str, status: str = "HTTP/1.1 206 Partial Content") -> bytes:
    """The response of a well-behaved server."""
    own = [f"Content-Length: {stop - start}", f"Content-Range: bytes {start}-{stop - 1}/{len(DATA)}"]
    return "\r\n".join([status, *fields, *own, "", ""]).encode() + DATA[start:stop]


class Scripted:
    """A server that sends the pieces that a function returns.

    Attributes:
        url: Its address.
        requests: The heads of all requests.
        num_connections: Connections accepted so far.
    """

    def __init__(
        self, pieces: Answer, *, requests_per_connection: int = 1000, tls: ssl.SSLContext | None = None
    ) -> None:
        self.requests: list[str] = []
        self.num_connections = 0
        self._pieces, self._most, self._tls = pieces, requests_per_connection, tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self._listener.getsockname()[1]}/data?signed=1"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
                self.num_connections += 1
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with self._tls.wrap_socket(connection, server_side=True) if self._tls else connection as wrapped:
                self._talk(wrapped)
        except OSError:  # the client closed the connection
            connection.close()

    def _talk(self, connection: socket.socket) -> None:
        for _ in range(self._most):
            head = b""
            while b"\r\n\r\n" not in head:
                piece = connection.recv(1000)
                if not piece:
                    return
                head += piece
            self.requests.append(head.decode())
            wanted = head.split(b"bytes=")[1].split(b"\r\n")[0].split(b"-")
            for piece in self._pieces(int(wanted[0]), int(wanted[1]) + 1):
                connection.sendall(piece)
                time.sleep(0.0005)

    def close(self) -> None:
        self._listener.close()


@contextmanager
def scripted(pieces: Answer, **options: object) -> Iterator[Scripted]:
    server = Scripted(pieces, **options)  # type: ignore[arg-type]
    try:
        yield server
    finally:
        server.close()


def well(start: int, stop: int) -> list[bytes]:
    return [answer(start, stop)]


def bytes_of(client: RangeClient, url: str, start: int, stop: int) -> bytes:
    response = client.read(url, start, stop)
    assert response is not None
    return bytes(response.data)


def test_one_memory_receives_one_response_after_another() -> None:
    def in_pieces(start: int, stop: int) -> list[bytes]:
        whole = answer(start, stop)
        return [whole[:7], whole[7:-3], whole[-3:]]

    client, memory = RangeClient(timeout_seconds=20), bytearray(MAX_HEAD_BYTES + 50)
    with scripted(in_pieces) as server:
        for start, stop in ((0, 50), (20, 25), (3, 53), (7, 8)):
            response = client.read(server.url, start, stop, memory=memory)
            assert response is not None
            assert response.data.obj is memory
            assert bytes(response.data) == bytes_of(client, server.url, start, stop)


def test_the_wanted_version_is_sent_and_the_received_version_returned() -> None:
    client = RangeClient(timeout_seconds=20)
    with scripted(lambda start, stop: [answer(start, stop, 'ETag: "two"')]) as server:
        response = client.read(server.url, 0, 10, etag='"one"')
        assert response is not None
        assert response.etag == '"two"'  # this server ignores the condition
        assert 'If-Match: "one"' in server.requests[0].split("\r\n")
        client.read(server.url, 0, 10, etag='W/"one"')
        client.read(server.url, 0, 10)
        assert "If-Match" not in server.requests[1] + server.requests[2]


def test_a_server_that_refuses_another_version_returns_none() -> None:
    client = RangeClient(timeout_seconds=20)
    refusal = b"HTTP/1.1 412 Precondition Failed\r\nContent-Length: 0\r\n\r\n"
    with scripted(lambda start, stop: [refusal]) as server:
        assert client.read(server.url, 0, 10, etag='"one"') is None


def test_many_threads_read_the_same_bytes_as_urllib(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(np.random.default_rng(1).bytes(3_000_000))
    rng = np.random.default_rng(2)
    ranges = [sorted(rng.choice(3_000_000, 2, replace=False).tolist()) for _ in range(100)]
    client = RangeClient(timeout_seconds=20)
    with serve_folder(tmp_path) as endpoint:
        url = f"{endpoint}/bucket/data"

        def agree(place: list[int]) -> bool:
            start, stop = place
            with urlopen(Request(url, headers={"Range": f"bytes={start}-{stop - 1}"})) as theirs:
                return bool(bytes_of(client, url, start, stop) == theirs.read())

        with ThreadPoolExecutor(16) as threads:
            assert all(threads.map(agree, ranges))


@pytest.mark.parametrize("size", [1, 7, 100])
def test_a_response_in_small_pieces_is_reassembled(size: int) -> None:
    def pieces(start: int, stop: int) -> list[bytes]:
        whole = answer(start, stop)
        return [whole[i : i + size] for i in range(0, len(whole), size)]

    client = RangeClient(timeout_seconds=20)
    with scripted(pieces) as server:
        assert bytes_of(client, server.url, 3, 300) == DATA[3:300]
        assert bytes_of(client, server.url, 4999, 5000) == DATA[4999:]


def test_a_request_carries_host_and_range_and_reuses_the_connection() -> None:
    client = RangeClient(timeout_seconds=20)
    with scripted(well) as server:
        for start in range(10):
            assert bytes_of(client, server.url, start, start + 50) == DATA[start : start + 50]
        assert server.num_connections == 1
        first = server.requests[0].split("\r\n")
        assert first[0] == "GET /data?signed=1 HTTP/1.1"
        assert f"Host: {server.url.split('/')[2]}" in first
        assert "Range: bytes=0-49" in first


def test_the_client_reconnects_where_the_server_closed_an_idle_connection() -> None:
    client = RangeClient(timeout_seconds=20)
    with scripted(well, requests_per_connection=2) as server:
        for start in range(10):
            assert bytes_of(client, server.url, start, start + 50) == DATA[start : start + 50]
            time.sleep(0.01)  # gives the server time to close
        assert server.num_connections == 5


@pytest.mark.parametrize(("fields", "status"), [
    (("Connection: close",), "HTTP/1.1 206 Partial Content"),
    ((), "HTTP/1.0 206 Partial Content"),
])  # fmt: skip
def test_a_connection_that_the_server_closes_is_not_reused(fields: tuple[str, ...], status: str) -> None:
    client = RangeClient(timeout_seconds=20)
    with scripted(lambda start, stop: [answer(start, stop, *fields, status=status)]) as server:
        for start in range(3):
            assert bytes_of(client, server.url, start, start + 50) == DATA[start : start + 50]
        assert server.num_connections == 3


@pytest.mark.parametrize("respond", [
    lambda start, stop: answer(start, stop, status="HTTP/1.1 200 OK"),
    lambda start, stop: answer(0, len(DATA)),  # more than requested
    lambda start, stop: answer(start + 1, stop + 1),  # other bytes than requested
    lambda start, stop: answer(start, stop, "Transfer-Encoding: chunked"),
    lambda start, stop: answer(start, stop, "Content-Encoding: gzip"),
    lambda start, stop: answer(start, stop, *[f"X-{i}: {'x' * 1000}" for i in range(12)]),
    lambda start, stop: b"HTTP/1.1 206 Partial Content\r\nContent-Length: 50\r\n\r\n" + DATA[start:stop],
    lambda start, stop: b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
    lambda start, stop: b"HTTP/1.1 307 Temporary Redirect\r\nLocation: http://elsewhere/\r\n\r\n",
])  # fmt: skip
def test_any_other_response_returns_none_and_closes_the_connection(respond: Callable[[int, int], bytes]) -> None:
    client = RangeClient(timeout_seconds=20)
    with scripted(lambda start, stop: [respond(start, stop)]) as server:
        for _ in range(2):
            assert client.read(server.url, 5, 55) is None
        assert server.num_connections == 2  # the rest of a response must not become the next one


@pytest.mark.parametrize(("pieces", "error", "words"), [
    (lambda start, stop: [answer(start, stop - 20)], EOFError, "got 30 of 50 bytes"),
    (lambda start, stop: [answer(start, stop)[:-20]], ConnectionError, "in mid-response"),
    (lambda start, stop: [b"HTTP/1.1 206 Part"], ConnectionError, "in mid-response"),
    (lambda start, stop: [], ConnectionError, "closed the connection"),
    (lambda start, stop: [b"SSH-2.0-OpenSSH_9.6\r\n\r\n"], ConnectionError, "not an HTTP/1 response: b'SSH-2.0"),
    (lambda start, stop: [b"HTTP/1.1 many\r\n\r\n"], ConnectionError, "not an HTTP/1 response"),
])  # fmt: skip
def test_a_broken_response_is_an_error(pieces: Answer, error: type[Exception], words: str) -> None:
    client = RangeClient(timeout_seconds=20)
    with (
        scripted(pieces, requests_per_connection=1) as server,
        pytest.raises(error, match=words),
    ):
        client.read(server.url, 5, 55)


def test_a_silent_server_times_out() -> None:
    client = RangeClient(timeout_seconds=0.2)

    def pieces(start: int, stop: int) -> Iterator[bytes]:
        yield answer(start, stop)[:-20]
        time.sleep(2)

    with scripted(pieces) as server, pytest.raises(TimeoutError):  # type: ignore[arg-type]
        client.read(server.url, 5, 55)


def test_a_refused_connection_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(OSError, match="refused"):
        RangeClient(timeout_seconds=2).read(f"http://127.0.0.1:{port}/data", 0, 10)


def test_a_timeout_drops_every_idle_connection_to_that_server() -> None:
    """A firewall may have dropped them all: each would time out in turn."""
    silent = threading.Event()

    def pieces(start: int, stop: int) -> Iterator[bytes]:
        if silent.is_set():
            time.sleep(2)
        yield answer(start, stop)

    client = RangeClient(timeout_seconds=0.3)
    with scripted(pieces) as server:  # type: ignore[arg-type]
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda start: client.read(server.url, start, start + 50), range(64)))
        before = server.num_connections
        silent.set()
        with pytest.raises(TimeoutError):
            client.read(server.url, 5, 55)
        silent.clear()
        assert bytes_of(client, server.url, 5, 55) == DATA[5:55]
        assert server.num_connections == before + 1


def test_a_connection_that_was_idle_for_too_long_is_not_reused() -> None:
    client = RangeClient(timeout_seconds=20, max_idle_seconds=0.05)
    with scripted(well) as server:
        client.read(server.url, 0, 50)
        time.sleep(0.1)
        assert bytes_of(client, server.url, 5, 55) == DATA[5:55]
        assert server.num_connections == 2


def test_at_most_max_idle_connections_are_kept() -> None:
    client = RangeClient(timeout_seconds=20, max_idle=3)
    gate = threading.Barrier(6)

    def pieces(start: int, stop: int) -> list[bytes]:
        gate.wait(20)  # all six at once, so that each needs its own connection
        return [answer(start, stop)]

    with scripted(pieces) as one, scripted(pieces) as other, ThreadPoolExecutor(6) as threads:
        urls = [one.url, other.url] * 3
        for _ in range(2):
            list(threads.map(lambda url: client.read(url, 0, 50), urls))
        assert one.num_connections + other.num_connections == 6 + 3


def test_idle_connections_to_one_server_leave_room_for_another() -> None:
    client = RangeClient(timeout_seconds=20, max_idle=2)
    with scripted(well) as one, scripted(well) as other, ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda start: client.read(one.url, start, start + 50), range(8)))
        for start in range(8):
            assert bytes_of(client, other.url, start, start + 50) == DATA[start : start + 50]
        assert other.num_connections == 1


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for 127.0.0.1, with its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "lewm_data test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "certificate.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + private)
    return path


def test_https_requires_a_trusted_certificate(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    with scripted(well, tls=tls) as server:
        with pytest.raises(ssl.SSLCertVerificationError):
            RangeClient(timeout_seconds=20).read(server.url, 5, 55)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        client = RangeClient(timeout_seconds=20)
        before = server.num_connections
        for start in range(5):
            assert bytes_of(client, server.url, start, 4000) == DATA[start:4000]
        assert server.num_connections == before + 1
