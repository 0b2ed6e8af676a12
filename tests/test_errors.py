from __future__ import annotations

import time

import pytest

from lewm_data.errors import LewmDataError, redact

SECRET = "TOPSECRET0"


@pytest.mark.parametrize(
    "text",
    [
        f"http://user:{SECRET}@127.0.0.1:9/d.h5",
        f"https://{SECRET}@host/d.h5",
        f"http://user:a@{SECRET}@host/d.h5",
        f"http://host/d.h5?X-Amz-Algorithm=AWS4&X-Amz-Signature={SECRET}",
        f"Cannot connect to URL('https://h/d.h5?sig={SECRET}%2F=='), retry",
        f"(http://h/d.h5?sv=1&sig={SECRET}). Check",
        f"Max retries exceeded with url: /d.h5?Signature={SECRET} (Caused by x)",
        f"{{'key': 'me', 'secret': '{SECRET}'}}",
        f'{{"aws_secret_access_key": "a {SECRET} b", "token": "{SECRET}"}}',
        f"--token={SECRET}",
        f"Authorization: Bearer {SECRET}",
        f"hf_{SECRET}",
        f"https://acct.blob.core.windows.net;account_key={SECRET};x",
    ],
)
def test_secrets_are_replaced_in_text_and_errors(text):
    assert SECRET not in redact(text)
    assert SECRET not in str(LewmDataError(text))
    assert "***" in redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/key@2x/data.h5",
        "hf://datasets/owner/name@main/data.h5",
        "git@github.com:owner/name",
        "episode 41: 311 rows but camera 'top' has 309 frames (videos/.../file-003.mp4, 12.40-22.77 s)",
        "Unable to locate credentials",
        "num_steps=4, seed=3072",
        "C:\\data?x",
    ],
)
def test_other_text_stays_as_it_is(text):
    assert redact(text) == text


@pytest.mark.parametrize("piece", ["a", "://", "?a=", "?a=.", "token", "a=' ", "token='", "://a@"])
def test_redaction_takes_linear_time(piece):
    began = time.perf_counter()
    redact(piece * (100_000 // len(piece)))
    assert time.perf_counter() - began < 5
