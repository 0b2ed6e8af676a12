"""The fsspec filesystem of an address, configured for many concurrent requests for small parts of one object."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lewm_data.errors import UsageError
from lewm_data.loading.remote.config import RemoteConfig

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_ETAG_KEYS = ("ETag", "etag", "e_tag")
_VERSION_KEYS = (
    *_ETAG_KEYS, "VersionId", "generation", "md5Hash", "content_md5", "Content-MD5", "Digest", "blob_id", "sha",
    "LastModified", "last_modified", "Last-Modified", "mtime", "updated", "created",
    "modified", "modify", "modificationTime", "last_write_time",
)  # fmt: skip
"""Keys under which filesystems report what changes with an object's content."""

_USERINFO = re.compile(r"(://)[^/?#]*@")
_SIGNING = re.compile(
    r"(X-Amz-|X-Goog-|(AWSAccessKeyId|GoogleAccessId|Signature|Expires|Policy|Key-Pair-Id|token|access_token|"
    r"sig|se|sp|spr|sr|st|sv|skoid|sktid|skt|ske|sks|skv)=)",
    re.IGNORECASE,
)
"""Query parameters of the presigned URLs of Amazon, Google, CloudFront and Azure."""

_S3 = ("s3", "s3a")
_REMEDIES = {**dict.fromkeys(_S3, "pip install 'lewm_data[s3]'"), "gs": "pip install gcsfs", "gcs": "pip install gcsfs"}


@dataclass(frozen=True, slots=True)
class ObjectIdentity:
    """Shows whether an object is still the one that was opened.

    Attributes:
        size_bytes: Its size.
        version: Its ETag, modification time and the like, as far as its filesystem reports them.
        etag: The ETag alone, quotes included; empty where there is none.
    """

    size_bytes: int
    version: str
    etag: str = ""

    @property
    def is_known(self) -> bool:
        """Whether a change of the content shows. Otherwise, nothing may be cached beyond the open object."""
        return bool(self.version)

    @classmethod
    def from_info(cls, where: str, info: Mapping[str, Any]) -> ObjectIdentity:
        """The identity in what ``fs.info`` returns.

        Args:
            where: Names the object in messages.
            info: The result of ``fs.info``.

        Raises:
            UsageError: It describes a folder, or has no size.
        """
        if info.get("type") != "file":
            raise UsageError(f"{where}: is a folder, not a file. Give the address of one converted file.")
        if info.get("size") is None:
            raise UsageError(
                f"{where}: its server does not report the object's size, so it cannot be read remotely. "
                "Download the file and read it locally."
            )
        reported = [f"{key} {info[key]}" for key in _VERSION_KEYS if info.get(key) is not None]
        etag = next((str(info[key]) for key in _ETAG_KEYS if info.get(key)), "")
        return cls(int(info["size"]), ", ".join(reported), etag)


def without_credentials(address: str) -> str:
    """An address without user, password and signature: what names the same object tomorrow, with new credentials."""
    place, mark, query = _USERINFO.sub(r"\1", address, count=1).partition("?")
    kept = [item for item in query.split("&") if not _SIGNING.match(item)]
    return place + (mark + "&".join(kept) if kept != [""] and kept else "")


def is_s3(fs: AbstractFileSystem) -> bool:
    """Whether a filesystem is s3fs itself and not one that wraps it."""
    return "s3" in ((fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol)


def connect(address: str, config: RemoteConfig) -> tuple[AbstractFileSystem, str]:
    """The filesystem of an address, and the path in it.

    Raises:
        UsageError: fsspec does not know the protocol, or the filesystem's package is not installed.
    """
    from fsspec.core import url_to_fs

    protocol = re.split("://|::", address, maxsplit=1)[0].lower()
    options: dict[str, Any] = dict(config.storage_options)
    if protocol in _S3:
        # s3fs allows 10 connections, and its own retries can take a minute before they report a failure.
        ours = {"max_pool_connections": config.num_connections, "retries": {"total_max_attempts": 1}}
        options["config_kwargs"] = ours | dict(options.get("config_kwargs", {}))
    try:
        fs, path = url_to_fs(address, **options)
    except ImportError as error:
        remedy = _REMEDIES.get(protocol, f"Install it: {error}")
        raise UsageError(f"{address}: reading {protocol}:// needs a package that is not installed. {remedy}") from error
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"{address}: fsspec cannot open this address ({error}). Check the protocol and storage_options."
        ) from None  # the filesystem's own traceback may show the options
    if protocol in _S3:
        fs.retries = 1
    return fs, path


def pin(address: str, config: RemoteConfig) -> tuple[str, bool]:
    """Resolves an address to one whose content never changes, where the store has such addresses.

    On the Hugging Face Hub, that is the file in the commit to which the revision points now.

    Args:
        address: Any address.
        config: How to read it.

    Returns:
        The address to read from, and whether its content is immutable.

    Raises:
        FileNotFoundError: There is no such repository or revision.
    """
    if not address.lower().startswith("hf://"):
        return address, False
    from huggingface_hub import HfApi

    fs, path = connect(address, config)
    found = fs.resolve_path(path)
    if not hasattr(found, "revision"):  # a bucket, which has no history
        return address, False
    api = HfApi(endpoint=fs.endpoint, token=fs.token)
    sha = api.repo_info(found.repo_id, repo_type=found.repo_type, revision=found.revision).sha
    return f"hf://{dataclasses.replace(found, revision=sha, _raw_revision=sha).unresolve()}", True


def call_options(fs: AbstractFileSystem, config: RemoteConfig) -> dict[str, Any]:
    """Keyword arguments for every call: asynchronous filesystems take a timeout, the others have their own."""
    return {"timeout": config.timeout_seconds} if fs.async_impl else {}


def read_range(fs: AbstractFileSystem, path: str, start: int, stop: int, config: RemoteConfig) -> bytes:
    """Requests the bytes [start, stop) once.

    Raises:
        UsageError: The server sends the whole object instead of the range.
        EOFError: Fewer bytes arrive.
    """
    options = call_options(fs, config) if fs.async_impl else {"cache_type": "none"}  # the default reads megabytes ahead
    data: bytes = fs.cat_file(path, start=start, end=stop, **options)
    if len(data) > stop - start:
        raise UsageError(
            f"{path}: its server does not support range requests: it sends the whole file when asked for a part. "
            "Download the file and read it locally."
        )
    if len(data) < stop - start:
        raise EOFError(f"got {len(data)} of {stop - start} bytes")
    return data
