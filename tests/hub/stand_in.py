"""A stand-in for the part of the Hub's HTTP interface that downloads and uploads datasets, on loopback.

huggingface_hub's own code runs against it: it creates repos, uploads files in parts through the LFS protocol, commits
them, and resumes downloads. The routes and answers are those of huggingface_hub 1.x.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

WRITE_TOKEN = "hf_write"
READ_TOKEN = "hf_read"
OWNER = "me"
"""The account of both tokens; it may write only to repos under this name."""

REGULAR_BYTES = 10_000
"""Files up to this size are part of the commit itself, like text files on the Hub."""

PART_BYTES = 50_000


@dataclass
class Repo:
    """A dataset repo that a client created.

    Attributes:
        private: Whether only its owner's token can see it.
        commits: Every commit, oldest first: sha, and path to the sha256 of its content.
        card_data: The metadata that the Hub reads from its card.
    """

    private: bool
    commits: list[tuple[str, dict[str, str]]]
    card_data: dict[str, Any] = field(default_factory=dict)

    @property
    def sha(self) -> str:
        return self.commits[-1][0]

    @property
    def files(self) -> dict[str, str]:
        return self.commits[-1][1]


@dataclass
class StandIn:
    """A Hub with one dataset, and the repos that clients push.

    Attributes:
        root: The folder to serve as ``repo_id``.
        repo_id: Its repo id; ``<owner>/gated`` is gated, and any other is unknown until a client creates it.
        sha: The commit of ``main``.
        endpoint: Base URL.
        downloads: Downloaded files, in order.
        requests: All requests.
        card_data: Metadata of the dataset's card.
        repos: Repos that clients created.
        objects: sha256 to content of every uploaded file.
        uploaded_bytes: Bytes that clients sent as parts of large files.
        stall_after_parts: Parts after which an upload hangs until the client disconnects; None: never.
        hang_download_after: Bytes after which a large download hangs until the client disconnects; None: never.
        break_download_after: Bytes after which the next large download fails, once.
        downloaded_bytes: Bytes of large files that clients received.
        refuse_commits: Status and message with which commits are refused, if not None.
        after_upload: Called when a large file has arrived, before a commit names it.
        after_commit: Called after a commit.
        xet: Folder of the Xet storage (hf_xet's own local storage); None means no Xet storage.
    """

    root: Path
    repo_id: str = "robot/dataset"
    sha: str = "a" * 40
    endpoint: str = ""
    downloads: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    card_data: dict[str, Any] = field(default_factory=dict)
    repos: dict[str, Repo] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    uploaded_bytes: int = 0
    stall_after_parts: int | None = None
    hang_download_after: int | None = None
    break_download_after: int | None = None
    downloaded_bytes: int = 0
    refuse_commits: tuple[int, str] | None = None
    after_upload: Callable[[], None] = lambda: None
    after_commit: Callable[[], None] = lambda: None
    xet: Path | None = None

    def files(self) -> list[str]:
        return sorted(path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if path.is_file())

    def put(self, repo_id: str, files: dict[str, bytes], *, private: bool = False) -> Repo:
        """Creates a repo or commits to one without HTTP."""
        repo = self.repos.setdefault(repo_id, Repo(private, [("0" * 40, {})]))
        self.commit(repo, {name: self.keep(data) for name, data in files.items()})
        return repo

    def commit(self, repo: Repo, oids: dict[str, str]) -> None:
        repo.commits.append((f"{len(repo.commits):040x}", {**repo.files, **oids}))

    def keep(self, data: bytes) -> str:
        oid = hashlib.sha256(data).hexdigest()
        self.objects[oid] = data
        return oid

    def content(self, repo_id: str, name: str) -> bytes:
        return self.objects[self.repos[repo_id].files[name]]


@contextmanager
def serve(stand_in: StandIn) -> Iterator[StandIn]:
    """Serves until the context ends."""

    parts: dict[str, dict[int, bytes]] = {}
    gone = threading.Event()

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
            path = unquote(self.path.split("?")[0])
            if "/gated" in path:
                return self.fail(403, "GatedRepo")
            pushed = re.match(r"/(?:api/)?datasets/([^/]+/[^/]+)", path)
            if pushed and pushed[1] in stand_in.repos:
                return self.answer_pushed(pushed[1], path, body=body)
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
                    "cardData": stand_in.card_data,
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
                return self.send_range(data, headers, body=body)
            return self.fail(404, "EntryNotFound")

        def answer_pushed(self, repo_id: str, path: str, *, body: bool) -> None:
            repo = stand_in.repos[repo_id]
            if repo.private and self.token() not in (WRITE_TOKEN, READ_TOKEN):
                return self.fail(401, "RepoNotFound")
            commits = {"main": repo.commits[-1], **{commit[0]: commit for commit in repo.commits}}
            if path == f"/api/datasets/{repo_id}/xet-write-token/main" and stand_in.xet is not None:
                answer = {"accessToken": "xet", "exp": 1 << 32, "casUrl": f"local://{stand_in.xet}"}
                return self.send_json(answer)
            api = re.fullmatch(rf"/api/datasets/{repo_id}(?:/revision/([^/]+))?", path)
            if api:
                if (api[1] or "main") not in commits:
                    return self.fail(404, "RevisionNotFound")
                sha, files = commits[api[1] or "main"]
                info = {
                    "id": repo_id,
                    "sha": sha,
                    "private": repo.private,
                    "cardData": repo.card_data,
                    "siblings": [self.sibling(name, oid) for name, oid in files.items()],
                }
                return self.send_json(info)
            file = re.fullmatch(rf"/datasets/{repo_id}/resolve/([^/]+)/(.+)", path)
            if file is None or file[1] not in commits or file[2] not in commits[file[1]][1]:
                return self.fail(404, "EntryNotFound")
            sha, files = commits[file[1]]
            oid = files[file[2]]
            if body:
                stand_in.downloads.append(file[2])
            return self.send_range(stand_in.objects[oid], {"ETag": f'"{oid}"', "X-Repo-Commit": sha}, body=body)

        def sibling(self, name: str, oid: str) -> dict[str, Any]:
            size = len(stand_in.objects.get(oid, b""))  # Xet storage keeps its bytes elsewhere
            answer: dict[str, Any] = {"rfilename": name, "size": size, "blobId": oid[:40]}
            if size > REGULAR_BYTES:
                answer["lfs"] = {"sha256": oid, "size": size, "pointerSize": 134}
            return answer

        def do_POST(self) -> None:
            stand_in.requests.append(f"POST {self.path}")
            data = self.rfile.read(int(self.headers["Content-Length"]))
            path = unquote(self.path.split("?")[0])
            if self.token() not in (WRITE_TOKEN, READ_TOKEN) and not path.startswith("/lfs/"):
                return self.fail(401, "", "Invalid credentials in Authorization header")
            if path == "/api/repos/create":
                return self.create(json.loads(data))
            if path == "/api/validate-yaml":
                return self.send_json({"warnings": [], "errors": []})
            if match := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)/(preupload|commit)/main", path):
                if match[1] not in stand_in.repos:
                    return self.fail(404, "RepoNotFound")
                if self.token() != WRITE_TOKEN or not match[1].startswith(f"{OWNER}/"):
                    return self.fail(403, "", "You don't have the rights to write to this repo")
                return self.preupload(match[1], data) if match[2] == "preupload" else self.commit(match[1], data)
            if match := re.fullmatch(r"/datasets/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
                return self.batch(json.loads(data))
            if match := re.fullmatch(r"/lfs/([0-9a-f]{64})/complete", path):
                return self.complete(match[1], json.loads(data))
            return self.fail(404, "EntryNotFound")

        def create(self, wanted: dict[str, Any]) -> None:
            owner = wanted.get("organization") or OWNER
            repo_id = f"{owner}/{wanted['name']}"
            if owner != OWNER or self.token() != WRITE_TOKEN:
                return self.fail(
                    403, "", f'You don\'t have the rights to create a dataset under the namespace "{owner}"'
                )
            status = 409 if repo_id in stand_in.repos else 200
            if status == 200:
                stand_in.repos[repo_id] = Repo(wanted.get("visibility") == "private", [("0" * 40, {})])
                stand_in.put(repo_id, {".gitattributes": b"*.h5 filter=lfs diff=lfs merge=lfs -text\n"})
            return self.send_json({"url": f"{stand_in.endpoint}/datasets/{repo_id}"}, status=status)

        def preupload(self, repo_id: str, data: bytes) -> None:
            answer = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["size"] > REGULAR_BYTES else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(data)["files"]
            ]
            self.send_json({"files": answer})

        def batch(self, asked: dict[str, Any]) -> None:
            answer = []
            for item in asked["objects"]:
                oid, size = item["oid"], item["size"]
                if oid in stand_in.objects:  # it has arrived before: nothing to do
                    answer.append({"oid": oid, "size": size})
                    continue
                urls = {
                    f"{number + 1:05d}": f"{stand_in.endpoint}/lfs/{oid}/{number + 1}"
                    for number in range(-(-size // PART_BYTES))
                }
                upload = {
                    "href": f"{stand_in.endpoint}/lfs/{oid}/complete",
                    "header": {"chunk_size": f"{PART_BYTES}", **urls},
                }
                answer.append({"oid": oid, "size": size, "actions": {"upload": upload}})
            self.send_json({"transfer": "multipart", "objects": answer})

        def do_PUT(self) -> None:
            stand_in.requests.append(f"PUT {self.path}")
            match = re.fullmatch(r"/lfs/([0-9a-f]{64})/(\d+)", self.path)
            if match is None:
                return self.fail(404, "EntryNotFound")
            data = self.read_body()
            stand_in.uploaded_bytes += len(data)
            arrived = parts.setdefault(match[1], {})
            arrived[int(match[2])] = data
            if stand_in.stall_after_parts is not None and len(arrived) >= stand_in.stall_after_parts:
                gone.wait(60)
            return self.send(b"", {"ETag": f'"{hashlib.md5(data).hexdigest()}"'}, body=False)

        def read_body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers["Content-Length"]))
            pieces = []
            while size := int(self.rfile.readline(), 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(pieces)

        def complete(self, oid: str, answer: dict[str, Any]) -> None:
            arrived = parts.pop(oid)
            data = b"".join(arrived[number] for number in sorted(arrived))
            if [part["partNumber"] for part in answer["parts"]] != sorted(arrived) or stand_in.keep(data) != oid:
                return self.fail(400, "", "the parts are not the object")
            stand_in.after_upload()
            return self.send_json({})

        def commit(self, repo_id: str, data: bytes) -> None:
            if stand_in.refuse_commits is not None:
                return self.fail(stand_in.refuse_commits[0], "", stand_in.refuse_commits[1])
            repo = stand_in.repos[repo_id]
            files: dict[str, str] = {}
            for line in map(json.loads, data.splitlines()):
                value = line["value"]
                if line["key"] == "header" and value.get("parentCommit") not in (None, repo.sha):
                    return self.fail(412, "", "A commit has happened since. Please refresh and try again.")
                if line["key"] == "file":
                    files[value["path"]] = stand_in.keep(base64.b64decode(value["content"]))
                if line["key"] == "lfsFile":
                    if stand_in.xet is None and value["oid"] not in stand_in.objects:
                        return self.fail(400, "", "the object was never uploaded")
                    files[value["path"]] = value["oid"]
            stand_in.commit(repo, files)
            stand_in.after_commit()
            url = f"{stand_in.endpoint}/datasets/{repo_id}/commit/{repo.sha}"
            return self.send_json({"success": True, "commitOid": repo.sha, "commitUrl": url})

        def token(self) -> str:
            return self.headers.get("Authorization", "").removeprefix("Bearer ")

        def send_json(self, value: Any, *, status: int = 200) -> None:
            self.send(json.dumps(value).encode(), {"Content-Type": "application/json"}, body=True, status=status)

        def send_range(self, data: bytes, headers: dict[str, str], *, body: bool) -> None:
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            if asked is None or not body:
                return self.send(data, headers, body=body)
            first, last = int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)
            headers = {**headers, "Content-Range": f"bytes {first}-{last}/{len(data)}"}
            return self.send(data[first : last + 1], headers, body=body, status=206)

        def send(self, data: bytes, headers: dict[str, str], *, body: bool, status: int = 200) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            if not body:
                return
            if len(data) <= REGULAR_BYTES:
                self.wfile.write(data)
                return
            part = data[: stand_in.break_download_after or stand_in.hang_download_after]
            stand_in.downloaded_bytes += len(part)
            self.wfile.write(part)
            self.wfile.flush()
            if len(part) < len(data):
                self.close_connection = True
                if stand_in.break_download_after is None:
                    gone.wait(60)
                stand_in.break_download_after = None

        def fail(self, status: int, code: str, message: str = "") -> None:
            self.send_response(status)
            if code:
                self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", message or code)
            self.send_header("Content-Length", "0")
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    stand_in.endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        yield stand_in
    finally:
        gone.set()
        server.shutdown()
        server.server_close()
        thread.join()


def wait_until(condition: Any, seconds: float = 60) -> None:
    """Waits for something that another process or thread brings about."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("it did not happen")
        time.sleep(0.02)
