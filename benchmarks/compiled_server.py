"""nginx as an object store on loopback: it uses so little of a processor that the readers are what is measured.

It serves one folder as the S3 bucket ``benchmark``: objects, byte ranges, ETags, and the listings that Lance asks for.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen
from xml.sax.saxutils import escape

BUCKET = "benchmark"
MODULE = Path("/usr/lib/nginx/modules/ngx_http_echo_module.so")
HINT = "nginx with its echo module is needed: apt-get install nginx-light"

_CONFIG = """
load_module {module};
daemon off;
user {user};
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
    log_format traffic '$body_bytes_sent';
    access_log {folder}/traffic.log traffic buffer=64k flush=200ms;
    sendfile on;
    tcp_nopush {tcp_nopush};
    tcp_nodelay on;
    keepalive_requests 100000000;
    keepalive_timeout 600;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    default_type application/octet-stream;
    map $arg_prefix $listing {{ default /all.xml; "~_versions" /versions.xml; }}
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        root {folder}/root;
        location = /{bucket} {{ {sleep} echo_exec $listing; }}
        location = /all.xml {{ internal; types {{}} default_type application/xml; }}
        location = /versions.xml {{ internal; types {{}} default_type application/xml; }}
        location /{bucket}/ {{ {sleep} echo_exec @objects; }}
        location @objects {{ root {folder}/root; }}
    }}
}}
"""


def is_available() -> bool:
    """Whether nginx and the module that delays its answers are installed."""
    return shutil.which("nginx") is not None and MODULE.exists()


class Store:
    """A running nginx.

    Attributes:
        endpoint: Its URL.
    """

    def __init__(self, endpoint: str, log: Path) -> None:
        self.endpoint = endpoint
        self._log = log

    def traffic(self) -> tuple[int, int]:
        """Requests and bytes of bodies so far."""
        time.sleep(0.5)  # nginx writes its log five times a second
        sizes = [int(line) for line in self._log.read_text().split()]
        return len(sizes), sum(sizes)


@contextmanager
def serve(folder: Path, *, latency_seconds: float = 0.0, tcp_nopush: bool = False) -> Iterator[Store]:
    """Serves a folder as ``/benchmark/...`` from a process of its own.

    Args:
        folder: The objects.
        latency_seconds: Time before each response.
        tcp_nopush: Hold back a response's head until its body fills a packet.

    Yields:
        The running server.

    Raises:
        RuntimeError: nginx does not start.
    """
    temporary = Path(tempfile.mkdtemp(prefix="lewm_data-nginx-"))
    try:
        root = temporary / "root"
        root.mkdir()
        (root / BUCKET).symlink_to(folder.resolve())
        keys = sorted(path for path in folder.rglob("*") if path.is_file() and ".lance/" in str(path))
        _write_listing(root / "all.xml", folder, keys)
        _write_listing(root / "versions.xml", folder, [path for path in keys if path.parent.name == "_versions"])
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        config = _CONFIG.format(
            module=MODULE,
            user="root" if os.getuid() == 0 else "nobody",
            folder=temporary,
            bucket=BUCKET,
            port=port,
            tcp_nopush="on" if tcp_nopush else "off",
            sleep=f"echo_sleep {latency_seconds:g};" if latency_seconds else "",
        )
        (temporary / "nginx.conf").write_text(config)
        command = ["nginx", "-p", str(temporary), "-c", str(temporary / "nginx.conf")]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            _wait_until_ready(f"http://127.0.0.1:{port}/{BUCKET}", process, temporary / "error.log")
            yield Store(f"http://127.0.0.1:{port}", temporary / "traffic.log")
        finally:
            process.send_signal(signal.SIGQUIT)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.05)
    words = log.read_text()[-500:] if log.exists() else ""
    raise RuntimeError(f"nginx does not answer at {url}: {words}")


def _write_listing(path: Path, folder: Path, files: list[Path]) -> None:
    """What S3's ListObjectsV2 says of these objects."""
    contents = "".join(
        f"<Contents><Key>{escape(str(file.relative_to(folder)))}</Key>"
        f"<LastModified>{_iso(file.stat().st_mtime)}</LastModified>"
        f'<ETag>"{file.stat().st_mtime_ns:x}"</ETag><Size>{file.stat().st_size}</Size>'
        "<StorageClass>STANDARD</StorageClass></Contents>"
        for file in files
    )
    path.write_text(
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<Name>{BUCKET}</Name><KeyCount>{len(files)}</KeyCount><MaxKeys>1000</MaxKeys>"
        f"<IsTruncated>false</IsTruncated>{contents}</ListBucketResult>"
    )


def _iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(seconds))
