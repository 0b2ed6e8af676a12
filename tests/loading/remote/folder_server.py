"""A folder over plain HTTP on loopback: HEAD, GET and byte ranges, from a process of its own."""

from __future__ import annotations

import asyncio
import email.utils
import multiprocessing
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serves a folder's files as ``/<bucket>/<name>``; every bucket shows the same files. Yields the endpoint's URL."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_run, args=(theirs, folder), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}"
    finally:
        process.terminate()
        process.join()


def _run(connection: Connection, folder: Path) -> None:
    async def main() -> None:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with_socket = writer.get_extra_info("socket")
            with_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                while request := await reader.readuntil(b"\r\n\r\n"):
                    await _answer(request.decode("latin-1"), writer, folder)
            except (asyncio.IncompleteReadError, ConnectionError):
                writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0, backlog=256)
        connection.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


async def _answer(request: str, writer: asyncio.StreamWriter, folder: Path) -> None:
    method, target, _ = request.split(" ", 2)
    path = folder / target.split("?")[0].rsplit("/", 1)[-1]
    if not path.is_file():
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        return
    status = path.stat()
    start, stop = 0, status.st_size
    wanted = re.search(r"\r\nrange: *bytes=(\d+)-(\d*)", request, re.IGNORECASE)
    if wanted:
        start, stop = int(wanted[1]), min(int(wanted[2] or stop) + 1, stop)
    headers = [
        "HTTP/1.1 206 Partial Content" if wanted else "HTTP/1.1 200 OK",
        f"Content-Length: {stop - start}",
        f"Content-Range: bytes {start}-{stop - 1}/{status.st_size}",
        f'ETag: "{status.st_mtime_ns:x}-{status.st_size:x}"',
        f"Last-Modified: {email.utils.formatdate(status.st_mtime, usegmt=True)}",
        "Accept-Ranges: bytes",
        "Content-Type: binary/octet-stream",
    ]
    writer.write(("\r\n".join(headers) + "\r\n\r\n").encode())
    if method == "GET":
        with open(path, "rb") as file:
            await asyncio.get_running_loop().sendfile(writer.transport, file, start, stop - start)
