"""A real S3 server (moto's) on loopback, behind a proxy that drops, truncates, delays and refuses responses."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

from lewm_data.loading.remote.config import RemoteConfig

Fault = Literal["drop", "cut", "refuse", "forbid", "whole", "stall", "slow"] | None


@dataclass
class Proxy:
    """The proxy between reader and server.

    Attributes:
        port: Port of the server.
        endpoint: URL of the proxy.
        fault: Chooses the fault of each request, from its method and headers.
        ranges: The ``Range`` headers received, in order.
        requests: Methods and paths of all requests.
        max_at_once: Largest number of concurrent requests so far.
        stall_seconds: Delay of a stalled response.
    """

    port: int
    endpoint: str = ""
    fault: Callable[[str, Any], Fault] = lambda method, headers: None
    ranges: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    max_at_once: int = 0
    stall_seconds: float = 3.0
    _at_once: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def enter(self, method: str, path: str, headers: Any) -> Fault:
        with self._lock:
            self.requests.append(f"{method} {path}")
            if "Range" in headers:
                self.ranges.append(headers["Range"])
            self._at_once += 1
            self.max_at_once = max(self.max_at_once, self._at_once)
            return self.fault(method, headers)

    def leave(self) -> None:
        with self._lock:
            self._at_once -= 1

    def forget(self) -> None:
        """Resets the counters."""
        self.ranges, self.requests, self.max_at_once = [], [], 0

    def config(self, **settings: Any) -> RemoteConfig:
        """Settings for reading through the proxy."""
        options = {"endpoint_url": self.endpoint, "key": "me", "secret": "secret"}
        # Test frames are small: with the default sizes, a whole file would come in one request.
        small = {"max_gap_bytes": 100, "max_request_bytes": 6000}
        settings = {"timeout_seconds": 20.0, "retry_seconds": 60.0} | small | settings
        return RemoteConfig(storage_options=options, **settings)


def each(number: int, fault: Fault) -> Callable[[str, Any], Fault]:
    """The fault for every ``number``-th range request."""
    count = [0]

    def choose(method: str, headers: Any) -> Fault:
        if "Range" not in headers:
            return None
        count[0] += 1
        return fault if count[0] % number == 0 else None

    return choose


@contextmanager
def proxy_of(port: int) -> Iterator[Proxy]:
    proxy = Proxy(port)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: Any) -> None:
            pass

        def do_GET(self) -> None:
            self.forward()

        do_HEAD = do_GET

        def forward(self) -> None:
            fault = proxy.enter(self.command, self.path, self.headers)
            try:
                self.answer(fault)
            except OSError:  # the client closed the connection
                self.close_connection = True
            finally:
                proxy.leave()

        def answer(self, fault: Fault) -> None:
            if fault == "drop":
                self.close_connection = True
                return
            if fault in ("refuse", "forbid"):
                self.send_response(503 if fault == "refuse" else 403)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if fault in ("stall", "slow"):
                time.sleep(proxy.stall_seconds if fault == "stall" else 0.05)
            connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=30)
            headers = {name: value for name, value in self.headers.items() if fault != "whole" or name != "Range"}
            connection.request(self.command, self.path, headers=headers)
            response = connection.getresponse()
            body = response.read()
            connection.close()
            self.send_response(response.status)
            for name, value in response.getheaders():
                if name.lower() not in ("connection", "date", "server", "transfer-encoding"):
                    self.send_header(name, value)
            self.end_headers()
            if fault == "cut":
                body = body[: len(body) // 2]
                self.close_connection = True
            if self.command != "HEAD":
                self.wfile.write(body)

    class Server(ThreadingHTTPServer):
        request_queue_size = 128

        def handle_error(self, *arguments: Any) -> None:  # clients close connections
            pass

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    proxy.endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass
class Bucket:
    """A bucket on moto's server, behind the proxy.

    Attributes:
        proxy: The proxy.
        client: boto3's client, connected to the server directly.
        name: Name of the bucket.
    """

    proxy: Proxy
    client: Any
    name: str

    def put(self, path: Path, key: str | None = None, **options: Any) -> str:
        """Uploads a file; returns its address."""
        self.client.put_object(Bucket=self.name, Key=key or path.name, Body=path.read_bytes(), **options)
        return f"s3://{self.name}/{key or path.name}"


@contextmanager
def server() -> Iterator[tuple[int, Any]]:
    """moto's S3 server: its port and a client."""
    import boto3
    from moto.server import ThreadedMotoServer

    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    _, port = running.get_host_and_port()
    options = {"aws_access_key_id": "me", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
    try:
        yield port, boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", **options)
    finally:
        running.stop()
