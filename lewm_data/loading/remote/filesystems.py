"""The fsspec filesystem that an address belongs to, set up to answer many requests for small parts of one object."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lewm_data.config import RemoteConfig
from lewm_data.errors import UsageError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)(://|::)")
_S3 = ("s3", "s3a")
_REMEDIES = {**dict.fromkeys(_S3, "pip install 'lewm_data[s3]'"), "gs": "pip install gcsfs", "gcs": "pip install gcsfs"}


def is_address(place: str | Path) -> bool:
    """Whether a place is an fsspec address, such as ``s3://bucket/key.h5``, and no path on this machine."""
    return isinstance(place, str) and _ADDRESS.match(place) is not None


def is_s3(fs: AbstractFileSystem) -> bool:
    """Whether a filesystem is s3fs itself, not one that wraps it."""
    return "s3" in ((fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol)


def connect(address: str, config: RemoteConfig) -> tuple[AbstractFileSystem, str]:
    """The filesystem of an address, and the path in it.

    Raises:
        UsageError: Nobody knows such addresses, or the filesystem's package is missing.
    """
    from fsspec.core import url_to_fs

    protocol = _ADDRESS.match(address)[1].lower()  # type: ignore[index]
    options: dict[str, Any] = dict(config.storage_options)
    if protocol in _S3:
        # Its own limit is 10 connections, and its own tries add up to a minute before anybody hears of a failure.
        ours = {"max_pool_connections": config.num_connections, "retries": {"total_max_attempts": 1}}
        options["config_kwargs"] = ours | dict(options.get("config_kwargs", {}))
    try:
        fs, path = url_to_fs(address, **options)
    except ImportError as error:
        remedy = _REMEDIES.get(protocol, f"Install it: {error}")
        raise UsageError(f"{address}: reading {protocol}:// takes a package that is not installed. {remedy}") from error
    except (ValueError, TypeError) as error:
        raise UsageError(f"{address}: no filesystem can be made for it ({error}).") from error
    if protocol in _S3:
        fs.retries = 1
    return fs, path


def pin(address: str, config: RemoteConfig) -> tuple[str, bool]:
    """An address that means the same for ever, where its store has such.

    On the Hugging Face Hub, this is the file in the commit that the revision stands for now.

    Args:
        address: Any address.
        config: How to reach it.

    Returns:
        The address to read from, and whether what lies there can never change.

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
    """What to pass with every call: asynchronous filesystems take a time limit; the others have one of their own."""
    return {"timeout": config.timeout_seconds} if fs.async_impl else {}


def read_range(fs: AbstractFileSystem, path: str, start: int, stop: int, config: RemoteConfig) -> bytes:
    """One request for the bytes [start, stop).

    Raises:
        UsageError: The server sends the whole object instead.
        EOFError: Fewer bytes came.
    """
    options = call_options(fs, config) if fs.async_impl else {"cache_type": "none"}  # else it reads megabytes ahead
    data: bytes = fs.cat_file(path, start=start, end=stop, **options)
    if len(data) > stop - start:
        raise UsageError(
            f"{path}: its server sends the whole file when asked for a part, so it cannot be read from there. "
            "Download it."
        )
    if len(data) < stop - start:
        raise EOFError(f"{len(data)} of {stop - start} bytes came")
    return data
