"""How to read from object storage, and which of these settings others may see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lewm_data.errors import UsageError, redact
from lewm_data.notation import check_least


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteConfig:
    """How to read converted files from object storage.

    Attributes:
        storage_options: Options of the address's fsspec filesystem, such as ``endpoint_url``, ``key``, ``secret`` and
            ``anon`` of s3fs, or ``token`` of the Hub's. Unset options use the filesystem's defaults (environment,
            configuration files).
        num_connections: Largest number of concurrent requests of each reader.
        timeout_seconds: A request that takes longer is abandoned and retried.
        retry_seconds: How long to retry, with growing pauses, if connections drop or the server fails.
        chunk_cache_bytes: Disk space for a local cache of stored chunks, for all files together; 0 turns the cache
            off. When it is full, further chunks are requested every time.
        cache_dir: Folder of the chunk cache and the metadata cache; None is ``lewm_data/remote`` in the user's cache
            folder.
        max_gap_bytes: Largest gap between two chunks that share a request. The default is smaller than a frame of 224
            pixels, so that large frames that no window needs are not requested.
        max_request_bytes: Size up to which a request grows by joining chunks.
    """

    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)  # secrets stay out of logs
    num_connections: int = 64
    timeout_seconds: float = 30.0
    retry_seconds: float = 60.0
    chunk_cache_bytes: int = 0
    cache_dir: str | None = None
    max_gap_bytes: int = 64 << 10
    max_request_bytes: int = 4 << 20

    def __post_init__(self) -> None:
        for name, number, least in (
            ("num_connections", self.num_connections, 1),
            ("max_gap_bytes", self.max_gap_bytes, 0),
            ("max_request_bytes", self.max_request_bytes, 1),
            ("retry_seconds", self.retry_seconds, 0),
            ("chunk_cache_bytes", self.chunk_cache_bytes, 0),
        ):
            check_least(name, number, least)
        if not self.timeout_seconds > 0:
            raise UsageError(f"timeout_seconds is {self.timeout_seconds}, but must be more than 0.")


_PUBLIC_OPTIONS = frozenset(
    {
        "endpoint_url", "endpoint", "region_name", "region", "account_name", "project", "protocol", "repo_type",
        "revision", "signature_version", "addressing_style", "use_ssl",
    }
)  # fmt: skip
"""Storage options whose text is not a secret."""


def public_storage_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Storage options without credentials, for files and messages that others may read.

    Args:
        options: See ``RemoteConfig.storage_options``.

    Returns:
        Flags, numbers, and the few texts that are known to be harmless, such as ``endpoint_url``. Options that are left
        out take the filesystem's defaults.
    """
    public: dict[str, Any] = {}
    for name, value in options.items():
        if isinstance(value, Mapping):
            public[name] = public_storage_options(value)
        elif value is None or isinstance(value, (bool, int, float)):
            public[name] = value
        elif name in _PUBLIC_OPTIONS:
            public[name] = redact(str(value))
    return public
