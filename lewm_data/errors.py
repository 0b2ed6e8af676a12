"""Every exception a user can meet, in one hierarchy.

An exit status belongs to the class, so the command line and a calling process agree on what happened:
0 done, 1 unexpected, 2 usage, 3 dirty data refused, 4 not enough memory or disk, 5 stalled,
6 verification failed, 130 interrupted.
"""

from __future__ import annotations

import errno
import unicodedata
from collections.abc import Sequence
from typing import Any, ClassVar

_UNSHOWN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})  # Unicode's control, format, surrogate, line and paragraph


def printable(text: str) -> str:
    """Text that a terminal shows and does not obey: control and format characters and lone surrogates as escapes.

    Args:
        text: Any text; line breaks stay.

    Returns:
        The same text where it holds none of them.
    """
    return "".join(
        c if c == "\n" or unicodedata.category(c) not in _UNSHOWN else c.encode("unicode_escape").decode() for c in text
    )


class LewmDataError(Exception):
    """Base of all errors of this package: one sentence for people, one exit status for scripts.

    Names in the sentence may be a stranger's: control characters come out as escapes (``printable``).
    """

    exit_status: ClassVar[int] = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(message))


class UsageError(LewmDataError, ValueError):
    """What was asked for cannot be done as asked: a wrong option, path, camera or repo id."""

    exit_status = 2


class SourceError(UsageError):
    """The source is no LeRobot dataset, or it cannot be reached."""


class OutputError(UsageError):
    """The output exists already, or cannot be written where it was asked for."""


class FormatError(UsageError):
    """A file is not ours, is of a newer format version, or breaks the format's invariants."""


class UnreachableError(LewmDataError):
    """An object store did not answer, however often it was asked."""


class DirtyDataError(LewmDataError):
    """The dataset has errors and the dirty-episode policy refuses them.

    Attributes:
        findings: Every finding of the report as a plain dictionary (``schema.Finding.to_json``).
    """

    exit_status = 3

    def __init__(self, message: str, findings: Sequence[dict[str, Any]] = ()) -> None:
        super().__init__(message)
        self.findings = tuple(findings)


class ResourceError(LewmDataError):
    """Memory or disk would not suffice, or ran out."""

    exit_status = 4


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
    """A stored frame cannot be read as it was written; the message names its episode and step."""


class LoaderError(LewmDataError):
    """A worker of the loader died."""


class InterruptedConversionError(LewmDataError):
    """Ctrl-C or SIGTERM; finished shards are kept and the next run goes on from them."""

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
    """Turns the exit status of a child process back into the exception it stood for.

    Args:
        status: Exit status as listed in this module's docstring; an unknown one becomes the base class.
        message: The sentence that the child printed.
        findings: Findings of its report, for status 3.

    Returns:
        The exception, ready to be raised.
    """
    cls = _BY_STATUS.get(status, LewmDataError)
    return cls(message, findings) if issubclass(cls, DirtyDataError) else cls(message)


NO_DESCRIPTOR = "too many files and connections are open in this process. Allow more: ulimit -n 65536"


def has_no_descriptor(error: BaseException | None) -> bool:
    """Whether an error, or what led to it, is that this process may open no more files."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            return True
        error = error.__cause__ or error.__context__
    return False
