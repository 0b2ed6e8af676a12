"""Memory that all processes of a node can map: one copy, found by name, freed with its last user.

It is an anonymous memory file (Linux ``memfd``). So the size of /dev/shm, 64 MB in a container, does not matter, and
even a killed process leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lewm_data.errors import ResourceError
from lewm_data.locks import exclusive


class NodeMemory:
    """A mapped run of bytes. Pickling sends its address, and the receiving process maps the same bytes.

    Attributes:
        array: (n,) uint8, the bytes.
    """

    def __init__(self, descriptor: int, num_bytes: int) -> None:
        """Maps an open memory file and takes over its descriptor."""
        self._descriptor = descriptor
        self._num_bytes = num_bytes
        mapped = mmap.mmap(descriptor, num_bytes)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            with contextlib.suppress(OSError):  # if the kernel has none for shared memory
                mapped.madvise(mmap.MADV_HUGEPAGE)
        self.array: NDArray[np.uint8] = np.frombuffer(mapped, np.uint8)
        weakref.finalize(self, os.close, descriptor).atexit = False

    @classmethod
    def create(cls, num_bytes: int, *, purpose: str = "the RAM cache") -> NodeMemory:
        """Makes memory filled with zeros.

        Args:
            num_bytes: Its size, 1 or more.
            purpose: What it is for, in the words of the error.

        Raises:
            ResourceError: The system lacks memory.
        """
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("lewm_data", os.MFD_CLOEXEC)
        else:  # macOS: a nameless file in the temporary folder serves this process and its forks
            with tempfile.TemporaryFile() as file:
                descriptor = os.dup(file.fileno())
        try:
            os.ftruncate(descriptor, num_bytes)
            return cls(descriptor, num_bytes)
        except (OSError, ValueError, OverflowError) as error:
            os.close(descriptor)
            raise ResourceError(_refusal(num_bytes, error, purpose)) from error

    @classmethod
    def attach(cls, address: dict[str, int]) -> NodeMemory:
        """Maps memory that this or another process made.

        Args:
            address: The ``address`` of that process's object.

        Raises:
            OSError: That process has ended, or belongs to another user.
        """
        descriptor = os.open(f"/proc/{address['pid']}/fd/{address['descriptor']}", os.O_RDWR | os.O_CLOEXEC)
        status = os.fstat(descriptor)
        if (status.st_ino, status.st_size) != (address["inode"], address["num_bytes"]):
            os.close(descriptor)
            raise OSError(f"process {address['pid']} no longer holds the memory")
        return cls(descriptor, address["num_bytes"])

    @property
    def address(self) -> dict[str, int]:
        """Where other processes of this node find the memory, as long as this process lives."""
        inode = os.fstat(self._descriptor).st_ino
        return {
            "pid": os.getpid(),
            "descriptor": self._descriptor,
            "inode": inode,
            "num_bytes": self._num_bytes,
        }

    def __reduce__(self) -> tuple[Any, ...]:
        return NodeMemory.attach, (self.address,)


def private_memory(num_bytes: int) -> NDArray[np.uint8]:
    """Memory of this process and its forks only, in huge pages if the kernel has them.

    Gathering frames from huge pages takes 0.7 of the time that it takes from small pages, and under most kernels'
    settings shared memory gets small pages only.

    Args:
        num_bytes: Its size.

    Returns:
        (num_bytes,) uint8.

    Raises:
        ResourceError: The system lacks memory.
    """
    try:
        return np.empty(num_bytes, np.uint8)
    except MemoryError as error:
        raise ResourceError(_refusal(num_bytes, error, "the RAM cache")) from error


def _refusal(num_bytes: int, error: Exception, purpose: str) -> str:
    remedy = "Use cache='none'" if purpose == "the RAM cache" else "Lower batch_size or num_workers"
    return f"{purpose} needs {num_bytes / 1e9:.1f} GB of memory, but the system refuses ({error}). {remedy}."


def find_or_create(
    name: str, num_bytes: int, fill: Callable[[NDArray[np.uint8]], None], *, may_create: Callable[[], bool]
) -> NodeMemory | None:
    """Finds memory by name among this user's processes on this node, or makes and fills it.

    Processes that ask for the same name at the same time wait until the first one has filled it.

    Args:
        name: Letters and digits that identify the content: equal names mean equal content.
        num_bytes: Its size.
        fill: Fills new memory, (num_bytes,) uint8.
        may_create: Decides whether to make the memory if no process has it.

    Returns:
        The filled memory, or None if no process has it and ``may_create`` says no.

    Raises:
        ResourceError: The system lacks memory.
    """
    folder = _folder()
    note = folder / f"{name}.json"
    with exclusive(folder / f"{name}.lock"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # no note, or its process has ended
            address = json.loads(note.read_text())
            if address["num_bytes"] == num_bytes:
                return NodeMemory.attach(address)
        if not may_create():
            return None
        memory = NodeMemory.create(num_bytes)
        fill(memory.array)
        note.write_text(json.dumps(memory.address))
        weakref.finalize(memory, _forget, note, os.getpid())
        return memory


def _forget(note: Path, pid: int) -> None:
    if os.getpid() == pid:  # not in a forked child
        with contextlib.suppress(OSError):
            note.unlink()


def _folder() -> Path:
    """This user's folder for notes about memory. Other users cannot write to it."""
    folder = Path(tempfile.gettempdir()) / f"lewm_data-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077 or folder.is_symlink():
        return Path(tempfile.mkdtemp(prefix="lewm_data-"))
    return folder
