"""Every exception that a user can meet, in one hierarchy.

The exit status belongs to the class, so the command line and a calling process agree on what happened:
0 done, 1 unexpected, 2 usage, 3 dirty data refused, 4 not enough memory or disk, 5 stalled,
6 verification failed, 130 interrupted.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any, ClassVar

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
