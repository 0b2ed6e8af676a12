"""Locates a dataset's files: in a local folder, or on the Hub, whose cache gets only the files that are needed."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from lewm_data.errors import SourceError
from lewm_data.machine_errors import machine_errors
from lewm_data.paths import expand, is_file, is_folder

_DOWNLOADS_AT_ONCE = 8
"""huggingface_hub's default."""

_REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class Location(NamedTuple):
    """A dataset's folder on this machine.

    Attributes:
        root: The folder.
        repo_id: Hub repo id, or the folder's name.
        revision: Commit sha of a Hub snapshot; None for a local folder.
        fetch: Downloads files into the folder: those that match glob patterns, and named ones that exist. Does nothing
            for a local folder.
    """

    root: Path
    repo_id: str
    revision: str | None
    fetch: Callable[[Sequence[str], Sequence[str]], None]


def locate(source: str, *, revision: str | None = None) -> Location:
    """Finds a dataset's folder.

    A path is used as it is; missing files are not downloaded. A repo id is looked up in ``HF_LEROBOT_HOME`` (a dataset
    recorded on this machine), then on the Hub, whose files go to LeRobot's own cache (``HF_LEROBOT_HOME/hub``). Without
    a network, that cache is used alone.

    Args:
        source: Folder, or Hub repo id ``owner/name``.
        revision: Branch, tag or commit on the Hub; None means its main branch.

    Returns:
        The location. For a Hub dataset, ``meta/`` is downloaded.

    Raises:
        SourceError: The folder or repo does not exist or cannot be reached.
    """
    path = expand(source)
    if is_file(path) or is_folder(path):
        if is_file(path):
            raise SourceError(
                f"{source}: is a file, not a dataset's folder. Of a converted file, lewm-data verify, preview and view "
                "tell more."
            )
        if not is_file(path / "meta" / "info.json"):
            raise SourceError(
                f"{source}: not a LeRobot dataset, because it has no meta/info.json. "
                "Give the dataset's own folder (the one that holds meta/, data/ and videos/) or a Hub repo id."
            )
        if revision is not None:
            raise SourceError(
                f"{source}: a local folder has no revisions, but --revision {revision} was asked for. Leave it out."
            )
        return Location(path, path.resolve().name, None, lambda patterns, names: None)
    if not _REPO_ID.fullmatch(source) or ".." in source:
        raise SourceError(
            f"{source}: no such folder, and no Hub repo id either (those look like owner/name). Check the spelling."
        )
    recorded = _lerobot_home() / source
    if revision is None and is_file(recorded / "meta" / "info.json"):
        return Location(recorded, source, None, lambda patterns, names: None)
    root = _snapshot(source, revision, ["meta/*"])
    sha = root.name

    def fetch(patterns: Sequence[str], names: Sequence[str]) -> None:
        if patterns:
            _snapshot(source, sha, patterns)
        if names:
            _download(source, sha, names)

    return Location(root, source, sha, fetch)


def _lerobot_home() -> Path:
    hf_home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface"))
    return expand(os.environ.get("HF_LEROBOT_HOME", hf_home / "lerobot"))


def _snapshot(repo_id: str, revision: str | None, patterns: Sequence[str]) -> Path:
    """Downloads matching files that are not cached yet. Returns the snapshot's folder, whose name is its commit."""
    from huggingface_hub import snapshot_download

    with _into_cache(repo_id, revision) as cache:
        return Path(
            snapshot_download(
                repo_id, repo_type="dataset", revision=revision, cache_dir=cache, allow_patterns=list(patterns)
            )
        )


def _download(repo_id: str, revision: str, names: Sequence[str]) -> None:
    """Downloads the named files that exist and are not cached yet.

    ``snapshot_download`` compares each name with each file of the repo: half an hour for 5,000 episodes of 76,000.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import RemoteEntryNotFoundError
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

    class Silent(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "disable": True})

    with _into_cache(repo_id, revision) as cache:

        def download(name: str) -> None:
            with contextlib.suppress(RemoteEntryNotFoundError):  # validation reports what is missing
                hf_hub_download(
                    repo_id, name, repo_type="dataset", revision=revision, cache_dir=cache, tqdm_class=Silent
                )

        with (
            tqdm(desc=f"Fetching {len(names):,} files", total=len(names)) as bar,
            ThreadPoolExecutor(_DOWNLOADS_AT_ONCE) as threads,
        ):
            try:
                for done in as_completed([threads.submit(download, name) for name in names]):
                    done.result()
                    bar.update()
            finally:
                threads.shutdown(cancel_futures=True)


@contextmanager
def _into_cache(repo_id: str, revision: str | None) -> Iterator[Path]:
    """Yields LeRobot's own cache for a download; errors of the Hub become ``SourceError``."""
    cache = _lerobot_home() / "hub"
    offline = f", and the dataset is not in the cache ({cache}). Connect to the network, or give a local folder."
    what = f"{cache} (the Hub's cache; HF_LEROBOT_HOME names another folder)"
    try:
        with machine_errors(what), hub_errors(repo_id, revision=revision, offline=offline):
            yield cache
    except OSError as error:  # a file has the folder's name, for example
        raise SourceError(f"{what}: cannot be used ({error.strerror}). Move what is there, or name another.") from error


@contextmanager
def hub_errors(repo_id: str, *, revision: str | None, offline: str) -> Iterator[None]:
    """Turns the exceptions that huggingface_hub raises into ``SourceError``.

    Args:
        repo_id: The dataset.
        revision: What was asked for.
        offline: How the sentence "the Hub cannot be reached" goes on, with its remedy.

    Raises:
        SourceError: The repo or revision does not exist, access is denied, or the Hub cannot be reached.
    """
    import httpx
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except GatedRepoError as error:
        raise SourceError(
            f"{repo_id}: the repo is gated and this account has no access yet. Accept its terms on its Hub page, "
            "then log in with: hf auth login"
        ) from error
    except RepositoryNotFoundError as error:
        raise SourceError(
            f"{repo_id}: no such dataset on the Hub, or it is private. Check the spelling; for a private one, "
            "log in with: hf auth login"
        ) from error
    except RevisionNotFoundError as error:
        raise SourceError(
            f"{repo_id}: no revision {revision!r} on the Hub. Give a branch, tag or commit that exists, or leave "
            "--revision out."
        ) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, httpx.TransportError) as error:
        raise SourceError(f"{repo_id}: the Hub cannot be reached{offline}") from error
    except HFValidationError as error:
        raise SourceError(f"{repo_id}: not a valid Hub repo id ({error}). Those look like owner/name.") from error
    except (HfHubHTTPError, OSError, RuntimeError) as error:  # Xet storage raises RuntimeError
        if (
            isinstance(error, OSError)
            and error.errno is not None
            and not isinstance(error, (ConnectionError, TimeoutError))
        ):
            raise  # a full disk or an unwritable cache; the caller knows which folder
        raise SourceError(
            f"{repo_id}: the Hub gave an unexpected answer ({type(error).__name__}: {error}). Try again later."
        ) from error
