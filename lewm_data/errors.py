"""Every exception that a user can meet, in one hierarchy.

The exit status belongs to the class, so the command line and a calling process agree on what happened:
0 done, 1 unexpected, 2 usage, 3 dirty data refused, 4 not enough memory or disk, 5 stalled,
6 verification failed, 130 interrupted.

Trouble of the machine (permissions, locks, a mount that does not answer, no memory) is never the data's fault.
``machine_errors`` recognizes it in whatever a library raises and gives it its own name.
"""

from __future__ import annotations

import errno
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple

_UNSHOWN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})  # Unicode's control, format, surrogate, line and paragraph


def printable(text: str) -> str:
    """Escapes control and format characters and lone surrogates, so that a terminal shows them and obeys none.

    Args:
        text: Any text. Line breaks stay.

    Returns:
        The same text if it holds none of these characters.
    """
    return "".join(
        c if c == "\n" or unicodedata.category(c) not in _UNSHOWN else c.encode("unicode_escape").decode() for c in text
    )


_SECRETS = (
    re.compile(r"(://)[^\s/?#'\"<>]{1,1000}(?=@)"),  # user:password@
    re.compile(r"([?&][\w.~%+-]{1,100}=)[^\s&'\"<>]*[^\s&'\"<>).,;:\]}]"),  # the values of a query string
    re.compile(
        r"((?:secret|passw(?:or)?d|token|signature|api_?key|access_?key|account_?key|credential)[\w-]{0,40}"
        r"(?:['\"]\s*:\s*|=))(?:'[^']+'|\"[^\"]+\"|[^\s&,'\"})]+)",  # {'secret': '...'} and token=...
        re.IGNORECASE,
    ),
    re.compile(r"(\b(?:Bearer|Basic) )[\w.~+/=-]{8,}"),
    re.compile(r"(\bhf_)\w{8,}"),
)


def redact(text: str) -> str:
    """Replaces secrets by ``***``: passwords and query strings of addresses, signatures, tokens, keys.

    Every message, log record and saved configuration that may contain an address passes through this function.

    Args:
        text: Any text.

    Returns:
        The same text where it contains no secrets.

    Example:
        >>> redact("https://me:word@host/a.h5?X-Amz-Signature=0fe1")
        'https://***@host/a.h5?X-Amz-Signature=***'
    """
    for pattern in _SECRETS:
        text = pattern.sub(r"\g<1>***", text)
    return text


class LewmDataError(Exception):
    """Base of all errors of this package: one sentence for people, one exit status for scripts.

    Messages may contain untrusted text and addresses with credentials, so control characters are escaped
    (``printable``) and secrets replaced (``redact``).
    """

    exit_status: ClassVar[int] = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(redact(message)))


class UsageError(LewmDataError, ValueError):
    """The request cannot be carried out as given: a wrong option, path, camera or repo id."""

    exit_status = 2


class SourceError(UsageError):
    """The source is not a LeRobot dataset, or it cannot be reached."""


class OutputError(UsageError):
    """The output exists already, or cannot be written where it was asked for."""


class FormatError(UsageError):
    """A file is not of our format, has a newer format version, or breaks an invariant of the format."""


class MachineError(LewmDataError):
    """The machine kept a file from being read or written. The data itself may be whole.

    Never a finding, and never a reason to drop an episode.
    """


class AccessError(MachineError):
    """No permission, a lock held by another process, a mount without locks, or a path that is too long."""

    exit_status = 2


class UnreachableError(MachineError):
    """Storage did not answer or failed: an object store, a network mount or a disk."""


class ResourceError(MachineError):
    """Memory or disk would not suffice, or ran out."""

    exit_status = 4


class DirtyDataError(LewmDataError):
    """The dataset has errors and the dirty-episode policy refuses them.

    Attributes:
        findings: Every finding of the report as a plain dictionary (``findings.Finding.to_json``).
    """

    exit_status = 3

    def __init__(self, message: str, findings: Sequence[dict[str, Any]] = ()) -> None:
        super().__init__(message)
        self.findings = tuple(findings)


class StalledError(LewmDataError):
    """No progress for longer than the watchdog allows."""

    exit_status = 5


class VerificationError(LewmDataError):
    """A file differs from what it claims to be.

    Attributes:
        problems: Each problem as one sentence.
    """

    exit_status = 6

    def __init__(self, message: str, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


class DamagedChunkError(VerificationError):
    """A stored frame cannot be read as it was written. The message names its episode and step."""


class LoaderError(LewmDataError):
    """A worker of the loader died."""


class InterruptedConversionError(LewmDataError):
    """Ctrl-C or SIGTERM. Finished shards are kept, and the next run continues from them."""

    exit_status = 130


_BY_STATUS: dict[int, type[LewmDataError]] = {
    cls.exit_status: cls
    for cls in (
        LewmDataError,
        UsageError,
        DirtyDataError,
        ResourceError,
        StalledError,
        VerificationError,
        InterruptedConversionError,
    )
}


def error_for_status(status: int, message: str, findings: Sequence[dict[str, Any]] = ()) -> LewmDataError:
    """Turns the exit status of a child process back into an exception.

    Args:
        status: Exit status as listed in this module's docstring. An unknown one becomes the base class.
        message: The sentence that the child printed.
        findings: Findings of its report, for status 3.

    Returns:
        The exception, ready to be raised.
    """
    cls = _BY_STATUS.get(status, LewmDataError)
    return cls(message, findings) if issubclass(cls, DirtyDataError) else cls(message)


# --- trouble of the machine


class _Trouble(NamedTuple):
    """One kind of trouble: its class, its remedy, and its reason where the system's own words say too little."""

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
"""Linux's own "not supported", which NFS lets slip out to programs. Neither ``errno`` nor ``strerror`` knows it."""

NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, ENOTSUPP})
"""What locking a file raises on a mount without locks."""

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
"""Letters of a path that a message shows. A path that is too long for the system may be long indeed."""

_ERRNO_IN_TEXT = re.compile(r"\berrno = (\d+)|\[errno (\d+)\]", re.IGNORECASE)
"""How HDF5 and Arrow put an error number into their messages where the exception has none."""


def system_errno(error: BaseException) -> int | None:
    """The system's error number of an exception, also where HDF5 or Arrow has it in the message only."""
    code = getattr(error, "errno", None)
    if isinstance(code, int):
        return abs(code)  # what Python raises inside of HDF5's drivers comes out negative
    if isinstance(error, (OSError, RuntimeError, KeyError)):
        match = _ERRNO_IN_TEXT.search(str(error))
        return int(match[1] or match[2]) if match else None
    return None


def system_reason(code: int) -> str:
    """The system's words for an error number."""
    return os.strerror(errno.EOPNOTSUPP if code == ENOTSUPP else code)


def machine_errno(error: BaseException | None) -> int | None:
    """The error number of the machine's trouble that an exception is, or comes from; None if it is anything else."""
    while error is not None:
        code = system_errno(error)
        if code in _TROUBLES:
            return code
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return None


def machine_error(error: BaseException, what: object) -> MachineError | None:
    """The machine's trouble behind an exception, as an error of this package.

    Args:
        error: What a library raised.
        what: What was being opened, read or written, such as a path.

    Returns:
        The error to raise, with a remedy; None if the machine is not to blame.
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
    """Raises the machine's trouble behind an exception; returns if the machine is not to blame. For ``except`` blocks.

    Raises:
        MachineError: See ``machine_error``.
    """
    trouble = machine_error(error, what)
    if trouble is not None:
        raise trouble from error


@contextmanager
def machine_errors(what: object) -> Iterator[None]:
    """Raises trouble of the machine under its own name, before it is taken for damage.

    Put it around every call that opens or reads a file, inside of what turns other errors into findings.

    Args:
        what: What is being opened, read or written, such as a path.

    Raises:
        MachineError: The machine is to blame. Every other exception passes unchanged.

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
    """Whether an exception, or what led to it, is that this process may open no more files."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            return True
        error = error.__cause__ or error.__context__
    return False
