"""A stand-in for the Hub's HTTP interface on loopback, as far as downloading a dataset needs it."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass
class StandIn:
    """A Hub with one dataset.

    Attributes:
        root: The folder that is served.
        repo_id: Its name there; ``<owner>/gated`` is gated, everything else is unknown.
        sha: The commit that ``main`` stands for.
        endpoint: Base URL.
        downloads: Files that were fetched, in order.
        requests: All requests.
    """

    root: Path
    repo_id: str = "robot/dataset"
    sha: str = "a" * 40
    endpoint: str = ""
    downloads: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def files(self) -> list[str]:
        return sorted(path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if path.is_file())


@contextmanager
def serve(stand_in: StandIn) -> Iterator[StandIn]:
    """Serves until the context ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            stand_in.requests.append(f"{self.command} {self.path}")
            path = self.path.split("?")[0]
            if "/gated" in path:
                return self.fail(403, "GatedRepo")
            if stand_in.repo_id not in path:
                return self.fail(404, "RepoNotFound")
            api = re.fullmatch(rf"/api/datasets/{stand_in.repo_id}(?:/revision/([^/]+))?", path)
            if api:
                if api[1] not in (None, "main", stand_in.sha):
                    return self.fail(404, "RevisionNotFound")
                info = {
                    "id": stand_in.repo_id,
                    "sha": stand_in.sha,
                    "private": False,
                    "siblings": [{"rfilename": name} for name in stand_in.files()],
                }
                return self.send(json.dumps(info).encode(), {"Content-Type": "application/json"}, body=body)
            tree = re.fullmatch(rf"/api/datasets/{stand_in.repo_id}/tree/([^/]+)(/.*)?", path)
            if tree:
                items = [
                    {"type": "file", "path": name, "size": (stand_in.root / name).stat().st_size, "oid": "0" * 40}
                    for name in stand_in.files()
                ]
                return self.send(json.dumps(items).encode(), {"Content-Type": "application/json"}, body=body)
            file = re.fullmatch(rf"/datasets/{stand_in.repo_id}/resolve/{stand_in.sha}/(.+)", path)
            if file and (stand_in.root / file[1]).is_file():
                data = (stand_in.root / file[1]).read_bytes()
                if body:
                    stand_in.downloads.append(file[1])
                headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": stand_in.sha}
                part = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
                if part:
                    return self.send(data[int(part[1]) : int(part[2]) + 1], headers, body=body, status=206)
                return self.send(data, headers, body=body)
            return self.fail(404, "EntryNotFound")

        def send(self, data: bytes, headers: dict[str, str], *, body: bool, status: int = 200) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(data)

        def fail(self, status: int, code: str) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    stand_in.endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        yield stand_in
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
