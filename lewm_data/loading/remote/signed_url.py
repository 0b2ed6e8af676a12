"""Ranges of an S3 object through a presigned URL.

s3fs signs every request, which takes 1.5 ms of processor time; a presigned URL serves for half an hour.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from lewm_data.loading.remote.config import RemoteConfig
from lewm_data.loading.remote.range_client import RangeClient, RangeResponse, shared_client

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_VALID_SECONDS = 3600
_RENEW_AFTER_SECONDS = 1800


class SignedUrl:
    """Reads one object without s3fs. Falls back to s3fs for good unless the very first request succeeds."""

    def __init__(self, fs: AbstractFileSystem, path: str, config: RemoteConfig) -> None:
        """Prepares the reader. Connects lazily, on the first read.

        Args:
            fs: An s3fs filesystem.
            path: The object's path in it.
            config: How to read it.
        """
        self._fs, self._path = fs, path
        self._client: RangeClient | None = None
        if not _needs_s3fs(fs):
            self._client = shared_client(timeout_seconds=config.timeout_seconds, max_idle=config.num_connections)
        self._url, self._signed_at = "", float("-inf")
        self._has_worked = False

    def read(self, start: int, stop: int, *, etag: str, memory: bytearray | None = None) -> RangeResponse | None:
        """Requests the bytes [start, stop) once.

        Args:
            start: First byte.
            stop: First byte after the range.
            etag: The version that is wanted; empty takes any.
            memory: See ``RangeClient.read``.

        Returns:
            The bytes, or None where s3fs must make the request: it handles redirections, proxies, other certificates
            and expired credentials, and knows the reasons for a refusal.

        Raises:
            OSError: The connection failed, although an earlier one worked.
            EOFError: Fewer bytes arrived.
        """
        client = self._client
        if client is None:
            return None
        try:
            url = self._current_url()
            response = None if url is None else client.read(url, start, stop, etag=etag, memory=memory)
        except OSError:
            if self._has_worked:
                raise
            response = None
        if response is not None:
            self._has_worked = True
        elif self._has_worked:
            self._signed_at = float("-inf")  # the credentials may have expired: sign again
        else:
            self._client = None
        return response

    def _current_url(self) -> str | None:
        """The presigned URL, renewed in time; None where it leads through a proxy, which only s3fs supports."""
        if time.monotonic() - self._signed_at > _RENEW_AFTER_SECONDS:
            self._url, self._signed_at = self._fs.sign(self._path, expiration=_VALID_SECONDS), time.monotonic()
            if _uses_proxy(self._url):
                self._client = None
                return None
        return self._url


def _needs_s3fs(fs: AbstractFileSystem) -> bool:
    """Whether the filesystem adds settings to its requests that a URL cannot carry, or goes through a proxy."""
    has_settings = getattr(fs, "req_kw", None) or getattr(fs, "s3_additional_kwargs", None)
    return bool(has_settings or (getattr(fs, "config_kwargs", None) or {}).get("proxies"))


def _uses_proxy(url: str) -> bool:
    """Whether the environment names a proxy for this URL."""
    parts = urlsplit(url)
    return parts.scheme in getproxies() and not proxy_bypass(parts.hostname or "")
