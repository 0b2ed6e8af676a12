"""Asking again: which failures of an object store pass by themselves, and how long to wait between tries."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from lewm_data.errors import NO_DESCRIPTOR, ResourceError, UnreachableError, has_no_descriptor

_PASSING_STATUS = frozenset({408, 425, 429})
_PASSING = frozenset(
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
"""By name, so that nobody imports what their own store does not need."""


_LASTING = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 10.0


def may_pass(error: BaseException) -> bool:
    """Whether the same request may well succeed a little later.

    Args:
        error: What the filesystem raised.

    Returns:
        True for dropped connections, timeouts, and answers that say so (HTTP 408, 425, 429 and 5xx); False for what
        stays as it is, such as a missing object or refused access.
    """
    status = http_status(error)
    if status is not None:
        return status >= 500 or status in _PASSING_STATUS
    if isinstance(error, FileNotFoundError) and error.__cause__ is not None:
        return may_pass(error.__cause__)  # fsspec's HTTP filesystem calls everything a missing file
    if isinstance(error, _LASTING):
        return False
    names = {f"{cls.__module__}.{cls.__qualname__}" for cls in type(error).__mro__}
    return isinstance(error, (OSError, TimeoutError, EOFError)) or bool(names & _PASSING)


def http_status(error: BaseException) -> int | None:
    """The HTTP status that an error stands for, where it or its cause tells: aiohttp's, httpx's and botocore's way."""
    for told in (error, error.__cause__):
        response = getattr(told, "response", None)
        if isinstance(response, dict):
            response = response.get("ResponseMetadata", {})
            status = response.get("HTTPStatusCode")
        else:
            status = getattr(told, "status", None) or getattr(response, "status_code", None)
        if isinstance(status, int):
            return status
    return None


def patiently[T](ask: Callable[[], T], *, what: str, retry_seconds: float) -> T:
    """Asks until there is an answer or patience ends; pauses double from 0.1 s to 10 s, with jitter.

    Args:
        ask: What to do.
        what: What it is about, for the message.
        retry_seconds: How long to begin new tries.

    Returns:
        The answer.

    Raises:
        UnreachableError: No try succeeded.
        ResourceError: This process may open no more connections.
        Exception: Whatever does not pass by itself.
    """
    deadline = time.monotonic() + retry_seconds
    pause = _FIRST_PAUSE_SECONDS
    num_tries = 0
    while True:
        try:
            return ask()
        except Exception as error:
            if has_no_descriptor(error):
                raise ResourceError(f"{what}: {NO_DESCRIPTOR}") from error
            if not may_pass(error):
                raise
            num_tries += 1
            if time.monotonic() + pause > deadline:
                words = str(error) or type(error).__name__
                raise UnreachableError(
                    f"{what}: no answer after {num_tries} tries in {retry_seconds:g} s ({words}). Check the network "
                    "and the address, or let it try for longer (retry_seconds)."
                ) from error
        time.sleep(pause * random.uniform(0.5, 1))
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
