from __future__ import annotations

import aiohttp
import botocore.exceptions
import httpx
import pytest

from lewm_data.errors import UnreachableError
from lewm_data.loading.remote import retries
from lewm_data.loading.remote.retries import may_pass, patiently


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
        EOFError("3 of 5 bytes came"),
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
def test_what_passes_by_itself_is_tried_again(error):
    assert may_pass(error)


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
def test_what_stays_as_it_is_is_not(error):
    assert not may_pass(error)


@pytest.fixture
def pauses(monkeypatch):
    """Pauses that were made, on a clock of their own."""
    made: list[float] = []
    monkeypatch.setattr(retries, "time", type("Clock", (), {"monotonic": lambda: sum(made), "sleep": made.append}))
    return made


def test_pauses_grow_until_there_is_an_answer(pauses):
    answers = [ConnectionResetError(), ConnectionResetError(), ConnectionResetError(), 7]

    def ask():
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert patiently(ask, what="s3://a/b", retry_seconds=60) == 7
    for pause, whole in zip(pauses, (0.1, 0.2, 0.4), strict=True):
        assert whole / 2 <= pause <= whole


def test_patience_ends_with_the_last_error_in_words(pauses):
    def ask():
        raise ConnectionResetError("reset by peer")

    with pytest.raises(UnreachableError, match=r"s3://a/b: no answer after \d+ tries in 60 s \(reset by peer\)"):
        patiently(ask, what="s3://a/b", retry_seconds=60)
    assert 30 < sum(pauses) <= 60
    assert max(pauses) <= 10


def test_without_patience_there_is_one_try_and_other_errors_come_at_once(pauses):
    def fail(error: Exception):
        raise error

    with pytest.raises(UnreachableError, match="after 1 tries"):
        patiently(lambda: fail(TimeoutError()), what="x", retry_seconds=0)
    with pytest.raises(PermissionError):
        patiently(lambda: fail(PermissionError()), what="x", retry_seconds=60)
    assert pauses == []
