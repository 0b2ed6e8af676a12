"""Ranges of an S3 object by a URL that is signed once: s3fs signs each request anew, at 1.5 ms of processor time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from lewm_data.config import RemoteConfig
from lewm_data.loading.remote.range_client import shared_client

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_VALID_SECONDS = 3600
_NEW_AFTER_SECONDS = 1800


class SignedUrl:
    """Reads one object past s3fs, once it is shown that its server answers so; else leaves it to s3fs for good."""

    def __init__(self, fs: AbstractFileSystem, path: str, config: RemoteConfig) -> None:
        """Prepares; nothing is asked before the first reading.

        Args:
            fs: An s3fs filesystem.
            path: The object's path in it.
            config: How to reach it.
        """
        self._fs, self._path = fs, path
        self._client = shared_client(timeout_seconds=config.timeout_seconds, most_idle=config.num_connections)
        self._url, self._signed_at = "", float("-inf")
        self._works: bool | None = None
        # What these add to a request, a URL does not carry; and only s3fs goes through a proxy.
        has_more = getattr(fs, "req_kw", None) or getattr(fs, "s3_additional_kwargs", None)
        if has_more or (getattr(fs, "config_kwargs", None) or {}).get("proxies"):
            self._works = False

    def read(self, start: int, stop: int) -> memoryview | None:
        """One request for the bytes [start, stop).

        Returns:
            The bytes; or None where s3fs shall ask: it knows of redirections, proxies, other certificates and
            credentials that have run out, and has the words for what is refused.

        Raises:
            OSError: The connection failed, where others have worked.
            EOFError: Fewer bytes came.
        """
        if self._works is False:
            return None
        try:
            if time.monotonic() - self._signed_at > _NEW_AFTER_SECONDS:
                self._url, self._signed_at = self._fs.sign(self._path, expiration=_VALID_SECONDS), time.monotonic()
                if _goes_through_a_proxy(self._url):
                    self._works = False
                    return None
            data = self._client.read(self._url, start, stop)
        except OSError:
            if self._works:
                raise
            self._works = False
            return None
        if data is None:
            self._works = self._works or False
            self._signed_at = float("-inf")
        else:
            self._works = True
        return data


def _goes_through_a_proxy(url: str) -> bool:
    """Whether the environment says so."""
    parts = urlsplit(url)
    return parts.scheme in getproxies() and not proxy_bypass(parts.hostname or "")
