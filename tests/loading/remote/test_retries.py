"""Which failures are retried, and how long. Real error classes of the client libraries are the examples."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

import aiohttp
import botocore.exceptions
import httpx
import pytest

from lewm_data.errors import ResourceError, UnreachableError
from lewm_data.loading.remote.retries import is_transient, with_retries


class Answer(Exception):
    def __init__(self, status: int) -> None:
        self.status = status


class BotoAnswer(Exception):
    def __init__(self, status: int) -> None:
        self.response = {"ResponseMetadata": {"HTTPStatusCode": status}, "Error": {"Code": "x"}}


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(),
        TimeoutError(),
        EOFError("got 3 of 5 bytes"),
        OSError(5, "Input/output error"),
        aiohttp.ServerDisconnectedError(),
        aiohttp.ClientPayloadError(),
        botocore.exceptions.ReadTimeoutError(endpoint_url="x"),
        botocore.exceptions.EndpointConnectionError(endpoint_url="x"),
        httpx.ReadTimeout("x"),
        Answer(500),
        Answer(503),
        Answer(429),
        BotoAnswer(503),
        caused(FileNotFoundError(), aiohttp.ServerDisconnectedError()),
        caused(FileNotFoundError(), Answer(502)),
    ],
)
def test_transient_failures_are_retried(error):
    assert is_transient(error)


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(),
        PermissionError(),
        NotImplementedError(),
        TypeError(),
        Answer(403),
        Answer(404),
        BotoAnswer(400),
        caused(OSError(22, "Invalid argument"), BotoAnswer(400)),
        caused(FileNotFoundError(), Answer(404)),
        botocore.exceptions.NoCredentialsError(),
    ],
)
def test_lasting_failures_are_not_retried(error):
    assert not is_transient(error)


class Clock:
    """Time that passes only while something sleeps."""

    def __init__(self) -> None:
        self.pauses: list[float] = []

    def options(self) -> dict[str, Any]:
        return {"clock": lambda: sum(self.pauses), "sleep": self.pauses.append}


def failing(error: Exception) -> Callable[[], None]:
    def attempt() -> None:
        raise error

    return attempt


def test_pauses_double_until_an_attempt_succeeds():
    outcomes = [ConnectionResetError(), ConnectionResetError(), ConnectionResetError(), 7]
    clock = Clock()

    def attempt():
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    assert with_retries(attempt, what="s3://a/b", retry_seconds=60, **clock.options()) == 7
    for pause, longest in zip(clock.pauses, (0.1, 0.2, 0.4), strict=True):
        assert longest / 2 <= pause <= longest


def test_the_final_error_gives_the_last_reason():
    clock = Clock()
    with pytest.raises(UnreachableError, match=r"s3://a/b: no answer after \d+ attempts in 60 s \(reset by peer\)"):
        with_retries(
            failing(ConnectionResetError("reset by peer")), what="s3://a/b", retry_seconds=60, **clock.options()
        )
    assert 30 < sum(clock.pauses) <= 60
    assert max(clock.pauses) <= 10


def test_zero_retry_seconds_means_one_attempt():
    clock = Clock()
    with pytest.raises(UnreachableError, match="after 1 attempt in"):
        with_retries(failing(TimeoutError()), what="x", retry_seconds=0, **clock.options())
    assert clock.pauses == []


def test_a_lasting_failure_is_raised_at_once():
    clock = Clock()
    with pytest.raises(PermissionError):
        with_retries(failing(PermissionError()), what="x", retry_seconds=60, **clock.options())
    assert clock.pauses == []


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_a_lack_of_file_descriptors_is_not_retried(number):
    clock = Clock()
    cause = OSError(number, os.strerror(number))
    with pytest.raises(ResourceError, match="x: too many files and connections are open in this process"):
        with_retries(failing(caused(ConnectionError("no"), cause)), what="x", retry_seconds=60, **clock.options())
    assert clock.pauses == []
