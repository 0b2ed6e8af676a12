"""The content of a disk after a loss of power, by the letter of POSIX: everything that was not fsynced is lost.

An entry of a folder survives if the folder was fsynced, and content if the file was. Real file systems keep more than
that, in no guaranteed order. So there are two variants: the strict one, and a torn one in which all names have reached
the disk, but only some pages of the content that was not fsynced.

Not simulated: a disk that lies about fsync, and names that reach the disk out of order.
"""

from __future__ import annotations

import os
import random
import stat
from pathlib import Path

_PAGE = 4096

Tree = dict[str, bytes | None]
"""Path relative to the folder -> content; None is a folder."""


class Recorder:
    """Follows a process's fsyncs, and writes down what the disk holds before each operation.

    Args:
        folder: Where the process writes; the folder itself is on the disk.
        images: Where the pictures go, one folder each: ``0007-strict``, ``0007-torn``.
    """

    def __init__(self, folder: Path, images: Path) -> None:
        self._folder, self._images = folder, images
        self._fsync = os.fsync
        self._names: dict[int, dict[str, int]] = {}  # a folder's inode -> entries on the disk
        self._content: dict[int, bytes] = {}  # a file's inode -> content on the disk
        self._kinds: dict[int, bool] = {}  # inode -> whether it is a folder
        self._number = 0
        self._seen: set[int] = set()
        self._random = random.Random(0)
        self._note_folder(folder)
        os.fsync = self._synced  # type: ignore[assignment]

    def before(self, operation: str, path: str) -> None:
        """Takes the two pictures."""
        self._number += 1
        self._save("strict", self._strict())
        self._save("torn", self._torn())
        if operation in ("os.remove", "os.rmdir", "os.rename") and os.path.lexists(path):
            self._retire(os.lstat(path).st_ino)

    def at_the_end(self) -> None:
        """The process is done and says so: what it made must be on the disk."""
        self._save("end", self._strict(), always=True)

    def _synced(self, descriptor: int) -> None:
        self._fsync(descriptor)
        path, status = Path(os.readlink(f"/proc/self/fd/{descriptor}")), os.fstat(descriptor)
        self._kinds[status.st_ino] = stat.S_ISDIR(status.st_mode)
        if stat.S_ISDIR(status.st_mode):
            self._note_folder(path)
        else:
            self._content[status.st_ino] = path.read_bytes()

    def _retire(self, inode: int) -> None:
        """What loses its name lives on under that name on the disk, while its inode may serve another file."""
        substitute = -1 - self._number
        for table in (self._names, self._content, self._kinds):
            if inode in table:
                table[substitute] = table.pop(inode)  # type: ignore[attr-defined]
        for entries in self._names.values():
            for name, child in entries.items():
                if child == inode:
                    entries[name] = substitute

    def _note_folder(self, path: Path) -> None:
        entries = {entry.name: entry.inode() for entry in os.scandir(path)}
        self._names[path.stat().st_ino] = entries
        for entry in os.scandir(path):
            self._kinds[entry.inode()] = entry.is_dir()

    def _strict(self) -> Tree:
        tree: Tree = {}

        def add(inode: int, place: str) -> None:
            for name, child in self._names.get(inode, {}).items():
                if self._kinds[child]:
                    tree[place + name] = None
                    add(child, f"{place}{name}/")
                else:
                    tree[place + name] = self._content.get(child, b"")

        add(self._folder.stat().st_ino, "")
        return tree

    def _torn(self) -> Tree:
        tree: Tree = {}
        for path in sorted(self._folder.rglob("*")):
            name = path.relative_to(self._folder).as_posix()
            if path.is_dir():
                tree[name] = None
                continue
            old, new = self._content.get(path.stat().st_ino, b""), path.read_bytes()
            pages = []
            for start in range(0, len(new), _PAGE):
                page = new[start : start + _PAGE]
                before = old[start : start + len(page)].ljust(len(page), b"\0")
                pages.append(self._random.choice((before, page)))
            tree[name] = b"".join(pages)[: self._random.choice((len(new), max(len(old), len(new) // 2)))]
            if old == new:
                tree[name] = new
        return tree

    def _save(self, kind: str, tree: Tree, *, always: bool = False) -> None:
        key = hash((kind, frozenset(tree.items())))
        if key in self._seen and not always:
            return
        self._seen.add(key)
        image = self._images / f"{self._number:04d}-{kind}"
        image.mkdir(parents=True)
        for name, content in tree.items():
            if content is None:
                (image / name).mkdir(parents=True, exist_ok=True)
            else:
                (image / name).parent.mkdir(parents=True, exist_ok=True)
                (image / name).write_bytes(content)
