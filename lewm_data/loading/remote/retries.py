"""Retries: which failures of an object store are transient, and how long to wait before the next attempt."""

from __future__ import annotations

import random
import ssl
import time
from collections.abc import Callable

from lewm_data.errors import AccessError, LewmDataError, ResourceError, UnreachableError, redact
from lewm_data.machine_errors import NO_DESCRIPTOR, has_no_descriptor

_TRANSIENT_STATUS = frozenset({408, 425, 429})
_TRANSIENT_NAMES = frozenset(
    {
        "aiohttp.client_exceptions.ClientConnectionError",
        "aiohttp.client_exceptions.ClientPayloadError",
        "botocore.exceptions.ConnectionError",
        "botocore.exceptions.HTTPClientError",
        "botocore.exceptions.IncompleteReadError",
        "botocore.exceptions.ResponseStreamingError",
        "httpcore.NetworkError",
        "httpx.TransportError",
    }
)
"""Compared by name, so that reading from one store does not import the client libraries of the others."""

_PERMANENT = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
_FIRST_PAUSE_SECONDS = 0.1
_MAX_PAUSE_SECONDS = 10.0


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed a little later.

    Args:
        error: What the filesystem raised.

    Returns:
        True for dropped connections, timeouts, and responses that ask for a retry (HTTP 408, 425, 429 and 5xx).
        False for lasting conditions such as a missing object or refused access.
    """
    status = http_status(error)
    if status is not None:
        return status >= 500 or status in _TRANSIENT_STATUS
    if isinstance(error, FileNotFoundError) and error.__cause__ is not None:
        return is_transient(error.__cause__)  # fsspec's HTTP filesystem reports every failure as a missing file
    if isinstance(error, _PERMANENT) or _is_untrusted(error):
        return False
    names = {f"{cls.__module__}.{cls.__qualname__}" for cls in type(error).__mro__}
    return isinstance(error, (OSError, EOFError)) or bool(names & _TRANSIENT_NAMES)


def _is_untrusted(error: BaseException | None) -> bool:
    """Whether a certificate was not accepted, now or in what led to the error."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False


def http_status(error: BaseException) -> int | None:
    """The HTTP status behind an error of aiohttp, httpx or botocore, or behind its cause; None where there is none."""
    for candidate in (error, error.__cause__):
        response = getattr(candidate, "response", None)
        if isinstance(response, dict):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        else:
            status = getattr(candidate, "status", None) or getattr(response, "status_code", None)
        if isinstance(status, int):
            return status
    return None


def public_cause(error: BaseException) -> BaseException | None:
    """The error, as the cause of another one; None where its text has secrets, which a traceback would print."""
    text = f"{error} {error.__cause__} {error.__context__}"
    return error if redact(text) == text else None


def with_retries[T](
    attempt: Callable[[], T],
    *,
    what: str,
    retry_seconds: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """Repeats an attempt while it fails for transient reasons; pauses double from 0.1 s to 10 s, with jitter.

    Args:
        attempt: What to try.
        what: Names the object in messages.
        retry_seconds: How long new attempts may start, counted from the first.
        clock: Seconds that have passed, from any origin.
        sleep: Waits for so many seconds.

    Returns:
        What the first successful attempt returns.

    Raises:
        UnreachableError: Every attempt failed.
        ResourceError: This process has reached its limit on open files.
        Exception: Whatever the attempt raises for a lasting reason.
    """
    deadline = clock() + retry_seconds
    pause = _FIRST_PAUSE_SECONDS
    num_attempts = 0
    while True:
        try:
            return attempt()
        except Exception as error:
            if has_no_descriptor(error):
                raise ResourceError(f"{what}: {NO_DESCRIPTOR}") from error
            if not is_transient(error):
                raise
            num_attempts += 1
            if clock() + pause > deadline:
                reason = str(error) or type(error).__name__
                attempts = "1 attempt" if num_attempts == 1 else f"{num_attempts} attempts"
                raise UnreachableError(
                    f"{what}: no answer after {attempts} in {retry_seconds:g} s ({reason}). Check the network and the "
                    "address, or allow more time (retry_seconds)."
                ) from public_cause(error)
        sleep(pause * random.uniform(0.5, 1))
        pause = min(2 * pause, _MAX_PAUSE_SECONDS)


class StoreError(UnreachableError):
    """The store answers with an error that a retry does not change."""


def call_store[T](attempt: Callable[[], T], *, what: str, retry_seconds: float) -> T:
    """Like ``with_retries``, and raises lasting failures of the store as errors of this package.

    Raises:
        FileNotFoundError: There is no such object.
        AccessError: The store refuses access.
        StoreError: The store answers with another error.
        UnreachableError: The store does not answer.
        ResourceError: This process has reached its limit on open files.
    """
    try:
        return with_retries(attempt, what=what, retry_seconds=retry_seconds)
    except (LewmDataError, FileNotFoundError):
        raise
    except Exception as error:
        lacks_access = isinstance(error, PermissionError) or "Credentials" in type(error).__name__
        if lacks_access or http_status(error) in (401, 403):
            raise AccessError(
                f"{what}: access is refused ({error}). Set credentials in the environment or in storage_options; for a "
                "public bucket, set anon=True there."
            ) from public_cause(error)
        library = type(error).__module__.partition(".")[0]
        if isinstance(error, OSError) or library not in ("builtins", "lewm_data"):
            raise StoreError(
                f"{what}: the store cannot be used ({error}). Check the address and storage_options."
            ) from public_cause(error)
        raise
