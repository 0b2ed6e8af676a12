"""Recognizes the machine's own failures: permissions, locks, a dead mount, no memory, a full disk.

Such a failure says nothing about the data. ``machine_errors`` finds it in what a library raises and raises a
``MachineError`` with a remedy, so that it never counts as a finding and never costs an episode.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from lewm_data.errors import AccessError, LewmDataError, MachineError, ResourceError, UnreachableError


class _Trouble(NamedTuple):
    """One kind of failure: its class, its remedy, and a reason where the system's own words say too little."""

    error: type[MachineError]
    remedy: str
    reason: str = ""


_PERMISSION = _Trouble(AccessError, "Check the permissions of the file and of the folders above it.")
_LOCKED = _Trouble(AccessError, "Another process is using it. Wait until it is done, or copy the file.")
_NO_LOCKS = _Trouble(AccessError, "This file system has no file locks. Copy the file to a local disk.")
_TOO_LONG = _Trouble(AccessError, "The file system allows no path of this length. Choose a folder with a shorter path.")
_READ_ONLY = _Trouble(AccessError, "Choose a place that can be written to.")
_DISK = _Trouble(UnreachableError, "The disk or the mount failed. Check it (dmesg, mount), then run the same again.")
_MOUNT = _Trouble(UnreachableError, "The mount does not answer. Check it, then run the same again.")
_MEMORY = _Trouble(ResourceError, "Close other programs, then run the same again.")
_FILES = _Trouble(
    ResourceError, "Allow more: ulimit -n 65536", "too many files and connections are open in this process"
)
_FULL = _Trouble(ResourceError, "Free some space, then run the same again.")

NO_DESCRIPTOR = f"{_FILES.reason}. {_FILES.remedy}"

ENOTSUPP = 524
"""Linux's own "not supported", which NFS can return to a program. Python's ``errno`` and ``strerror`` lack it."""

NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, ENOTSUPP})
"""The error numbers of a lock on a mount without locks."""

_TROUBLES: dict[int, _Trouble] = {
    **dict.fromkeys((errno.EACCES, errno.EPERM), _PERMISSION),
    **dict.fromkeys((errno.EAGAIN, errno.EBUSY, errno.EDEADLK), _LOCKED),
    **dict.fromkeys(NO_LOCKS, _NO_LOCKS),
    errno.ENAMETOOLONG: _TOO_LONG,
    errno.EROFS: _READ_ONLY,
    **dict.fromkeys((errno.EIO, errno.ENXIO, errno.ENODEV), _DISK),
    **dict.fromkeys((errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN, errno.EHOSTUNREACH), _MOUNT),
    errno.ENOMEM: _MEMORY,
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), _FILES),
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), _FULL),
}

_MAX_SHOWN = 500
"""Characters of a path that a message shows. A path that the system rejects as too long can be very long."""

_ERRNO_IN_TEXT = re.compile(r"\berrno = (\d+)|\[errno (\d+)\]", re.IGNORECASE)
"""The error number in a message of HDF5 or Arrow, whose exceptions do not carry it."""


def system_errno(error: BaseException) -> int | None:
    """The system's error number of an exception, read from the message where HDF5 or Arrow puts it only there."""
    code = getattr(error, "errno", None)
    if isinstance(code, int):
        return abs(code)  # HDF5's drivers negate the number of an exception that Python raises inside them
    if isinstance(error, (OSError, RuntimeError, KeyError)):
        match = _ERRNO_IN_TEXT.search(str(error))
        return int(match[1] or match[2]) if match else None
    return None


def system_reason(code: int) -> str:
    """The system's words for an error number."""
    return os.strerror(errno.EOPNOTSUPP if code == ENOTSUPP else code)


def machine_errno(error: BaseException | None) -> int | None:
    """The error number if an exception, or one of its causes, is a failure of the machine; else None."""
    while error is not None:
        code = system_errno(error)
        if code in _TROUBLES:
            return code
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return None


def machine_error(error: BaseException, what: object) -> MachineError | None:
    """Turns an exception that a failure of the machine caused into an error of this package.

    Args:
        error: What a library raised.
        what: What was being opened, read or written, such as a path.

    Returns:
        The error to raise, with a remedy; None if the machine did not cause it.
    """
    code = machine_errno(error)
    if code is None:
        return None
    trouble = _TROUBLES[code]
    reason = trouble.reason or system_reason(code)
    return trouble.error(
        f"{str(what)[:_MAX_SHOWN]}: {reason} ({errno.errorcode.get(code, f'errno {code}')}). {trouble.remedy}"
    )


def raise_machine_error(error: BaseException, what: object) -> None:
    """Raises ``machine_error(error, what)`` if there is one. For ``except`` blocks.

    Raises:
        MachineError: A failure of the machine caused the exception.
    """
    trouble = machine_error(error, what)
    if trouble is not None:
        raise trouble from error


@contextmanager
def machine_errors(what: object) -> Iterator[None]:
    """Raises failures of the machine as ``MachineError``, so that they are not taken for damage.

    Put it around every call that opens or reads a file, inside the code that turns other errors into findings.

    Args:
        what: What is being opened, read or written, such as a path.

    Raises:
        MachineError: A failure of the machine caused the exception. Every other exception passes unchanged.

    Example:
        >>> with machine_errors("data.h5"):
        ...     raise PermissionError(errno.EACCES, "Permission denied")
        Traceback (most recent call last):
        ...
        lewm_data.errors.AccessError: data.h5: Permission denied (EACCES). Check the permissions of the file and of ...
    """
    try:
        yield
    except (LewmDataError, MemoryError):
        raise
    except Exception as error:
        raise_machine_error(error, what)
        raise


def has_no_descriptor(error: BaseException | None) -> bool:
    """Whether an exception, or one of its causes, says that this process cannot open more files."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            return True
        error = error.__cause__ or error.__context__
    return False
