"""Ranges over connections that stay open: the right bytes from any server, and a reason or None from all others."""

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

from benchmarks.object_server import serve as serve_folder
from lewm_data.loading.remote import range_client
from lewm_data.loading.remote.range_client import RangeClient

DATA = np.random.default_rng(0).bytes(5000)
type Answer = Callable[[int, int], Sequence[bytes]]


def answer(start: int, stop: int, *fields: str, status: str = "HTTP/1.1 206 Partial Content") -> bytes:
    """What a well-behaved server sends."""
    own = [f"Content-Length: {stop - start}", f"Content-Range: bytes {start}-{stop - 1}/{len(DATA)}"]
    return "\r\n".join([status, *fields, *own, "", ""]).encode() + DATA[start:stop]


class Scripted:
    """A server that sends what it is told, piece by piece.

    Attributes:
        url: Where it listens.
        requests: The heads of all requests.
        num_connections: How many were made.
    """

    def __init__(self, say: Answer, *, requests_per_connection: int = 1000, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[str] = []
        self.num_connections = 0
        self._say, self._most, self._tls = say, requests_per_connection, tls
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
        except OSError:  # the reader has hung up
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
            for piece in self._say(int(wanted[0]), int(wanted[1]) + 1):
                connection.sendall(piece)
                time.sleep(0.0005)

    def close(self) -> None:
        self._listener.close()


@contextmanager
def scripted(say: Answer, **options: object) -> Iterator[Scripted]:
    server = Scripted(say, **options)  # type: ignore[arg-type]
    try:
        yield server
    finally:
        server.close()


def well(start: int, stop: int) -> list[bytes]:
    return [answer(start, stop)]


def test_many_threads_read_what_urllib_reads(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(np.random.default_rng(1).bytes(3_000_000))
    rng = np.random.default_rng(2)
    ranges = [sorted(rng.choice(3_000_000, 2, replace=False).tolist()) for _ in range(100)]
    client = RangeClient(timeout_seconds=20)
    with serve_folder(tmp_path) as endpoint:
        url = f"{endpoint}/bucket/data"

        def agree(place: list[int]) -> bool:
            start, stop = place
            with urlopen(Request(url, headers={"Range": f"bytes={start}-{stop - 1}"})) as theirs:
                return bool(client.read(url, start, stop) == theirs.read())

        with ThreadPoolExecutor(16) as threads:
            assert all(threads.map(agree, ranges))


@pytest.mark.parametrize("size", [1, 7, 100])
def test_an_answer_in_small_pieces_is_put_together(size: int) -> None:
    def say(start: int, stop: int) -> list[bytes]:
        whole = answer(start, stop)
        return [whole[i : i + size] for i in range(0, len(whole), size)]

    client = RangeClient(timeout_seconds=20)
    with scripted(say) as server:
        assert client.read(server.url, 3, 300) == DATA[3:300]
        assert client.read(server.url, 4999, 5000) == DATA[4999:]


def test_a_request_says_what_a_signature_needs_and_a_connection_is_kept() -> None:
    client = RangeClient(timeout_seconds=20)
    with scripted(well) as server:
        for start in range(10):
            assert client.read(server.url, start, start + 50) == DATA[start : start + 50]
        assert server.num_connections == 1
        first = server.requests[0].split("\r\n")
        assert first[0] == "GET /data?signed=1 HTTP/1.1"
        assert f"Host: {server.url.split('/')[2]}" in first
        assert "Range: bytes=0-49" in first


def test_a_server_that_closes_idle_connections_is_connected_to_anew() -> None:
    client = RangeClient(timeout_seconds=20)
    with scripted(well, requests_per_connection=2) as server:
        for start in range(10):
            assert client.read(server.url, start, start + 50) == DATA[start : start + 50]
            time.sleep(0.01)  # for the other side to have hung up
        assert server.num_connections == 5


@pytest.mark.parametrize(("fields", "status"), [
    (("Connection: close",), "HTTP/1.1 206 Partial Content"),
    ((), "HTTP/1.0 206 Partial Content"),
])  # fmt: skip
def test_a_connection_that_does_not_stay_open_is_not_kept(fields: tuple[str, ...], status: str) -> None:
    client = RangeClient(timeout_seconds=20)
    with scripted(lambda start, stop: [answer(start, stop, *fields, status=status)]) as server:
        for start in range(3):
            assert client.read(server.url, start, start + 50) == DATA[start : start + 50]
        assert server.num_connections == 3


@pytest.mark.parametrize("told", [
    lambda start, stop: answer(start, stop, status="HTTP/1.1 200 OK"),
    lambda start, stop: answer(0, len(DATA)),  # more than was asked for
    lambda start, stop: answer(start + 1, stop + 1),  # others than were asked for
    lambda start, stop: answer(start, stop, "Transfer-Encoding: chunked"),
    lambda start, stop: answer(start, stop, "Content-Encoding: gzip"),
    lambda start, stop: answer(start, stop, *[f"X-{i}: {'x' * 1000}" for i in range(12)]),
    lambda start, stop: b"HTTP/1.1 206 Partial Content\r\nContent-Length: 50\r\n\r\n" + DATA[start:stop],
    lambda start, stop: b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
    lambda start, stop: b"HTTP/1.1 307 Temporary Redirect\r\nLocation: http://elsewhere/\r\n\r\n",
])  # fmt: skip
def test_any_other_answer_is_left_to_somebody_who_understands_it(told: Callable[[int, int], bytes]) -> None:
    client = RangeClient(timeout_seconds=20)
    with scripted(lambda start, stop: [told(start, stop)]) as server:
        for _ in range(2):
            assert client.read(server.url, 5, 55) is None
        assert server.num_connections == 2  # what is left of an answer is nobody's next one


@pytest.mark.parametrize(("say", "error", "words"), [
    (lambda start, stop: [answer(start, stop - 20)], EOFError, "30 of 50 bytes came"),
    (lambda start, stop: [answer(start, stop)[:-20]], ConnectionError, "in mid-answer"),
    (lambda start, stop: [b"HTTP/1.1 206 Part"], ConnectionError, "in mid-answer"),
    (lambda start, stop: [], ConnectionError, "closed the connection"),
    (lambda start, stop: [b"SSH-2.0-OpenSSH_9.6\r\n\r\n"], ConnectionError, "no answer of HTTP/1: b'SSH-2.0"),
    (lambda start, stop: [b"HTTP/1.1 many\r\n\r\n"], ConnectionError, "no answer of HTTP/1"),
])  # fmt: skip
def test_a_broken_answer_is_an_error(say: Answer, error: type[Exception], words: str) -> None:
    client = RangeClient(timeout_seconds=20)
    with (
        scripted(say, requests_per_connection=1) as server,
        pytest.raises(error, match=words),
    ):
        client.read(server.url, 5, 55)


def test_a_silent_server_is_not_waited_for_for_ever() -> None:
    client = RangeClient(timeout_seconds=0.2)

    def say(start: int, stop: int) -> Iterator[bytes]:
        yield answer(start, stop)[:-20]
        time.sleep(2)

    with scripted(say) as server, pytest.raises(TimeoutError):  # type: ignore[arg-type]
        client.read(server.url, 5, 55)


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(OSError, match="refused"):
        RangeClient(timeout_seconds=2).read(f"http://127.0.0.1:{port}/data", 0, 10)


def test_connections_that_something_between_has_forgotten_are_given_up_together() -> None:
    """As a firewall does: nobody hears of it, and no answer ever comes."""
    silent = threading.Event()

    def say(start: int, stop: int) -> Iterator[bytes]:
        if silent.is_set():
            time.sleep(2)
        yield answer(start, stop)

    client = RangeClient(timeout_seconds=0.3)
    with scripted(say) as server:  # type: ignore[arg-type]
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda start: client.read(server.url, start, start + 50), range(64)))
        before = server.num_connections
        silent.set()
        with pytest.raises(TimeoutError):
            client.read(server.url, 5, 55)
        silent.clear()
        assert client.read(server.url, 5, 55) == DATA[5:55]
        assert server.num_connections == before + 1


def test_a_connection_that_lay_idle_for_long_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    client = RangeClient(timeout_seconds=20)
    with scripted(well) as server:
        client.read(server.url, 0, 50)
        now = time.monotonic()
        monkeypatch.setattr(range_client.time, "monotonic", lambda: now + 60)
        assert client.read(server.url, 5, 55) == DATA[5:55]
        assert server.num_connections == 2


def test_no_more_connections_are_kept_than_that() -> None:
    client = RangeClient(timeout_seconds=20, most_idle=3)
    gate = threading.Barrier(6)

    def say(start: int, stop: int) -> list[bytes]:
        gate.wait(20)  # all at once: each has a connection of its own
        return [answer(start, stop)]

    with scripted(say) as one, scripted(say) as other, ThreadPoolExecutor(6) as threads:
        urls = [one.url, other.url] * 3
        for _ in range(2):
            list(threads.map(lambda url: client.read(url, 0, 50), urls))
        assert one.num_connections + other.num_connections == 6 + 3


def test_connections_to_one_place_leave_room_for_those_to_another() -> None:
    client = RangeClient(timeout_seconds=20, most_idle=2)
    with scripted(well) as one, scripted(well) as other, ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda start: client.read(one.url, start, start + 50), range(8)))
        for start in range(8):
            assert client.read(other.url, start, start + 50) == DATA[start : start + 50]
        assert other.num_connections == 1


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of 127.0.0.1, signed by itself, with its key."""
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


def test_https_is_read_where_the_certificate_is_trusted_and_only_there(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    with scripted(well, tls=tls) as server:
        with pytest.raises(ssl.SSLCertVerificationError):
            RangeClient(timeout_seconds=20).read(server.url, 5, 55)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        client = RangeClient(timeout_seconds=20)
        before = server.num_connections
        for start in range(5):
            assert client.read(server.url, start, 4000) == DATA[start:4000]
        assert server.num_connections == before + 1
