"""A converted file to the Hub: verified first, then uploaded with its card in one commit."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lewm_data
from lewm_data.conversion.verify import verify_file
from lewm_data.errors import InterruptedConversionError, LewmDataError, OutputError, UsageError, VerificationError
from lewm_data.findings import count_of
from lewm_data.hub.card import dataset_card, read_facts
from lewm_data.hub.licences import source_licences

if TYPE_CHECKING:
    from huggingface_hub.hf_api import DatasetInfo

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""

CARD_FILE = "README.md"
_MADE_BY_THE_HUB = frozenset({".gitattributes"})
_READ_BYTES = 1 << 22
_MOST_NAMES = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Pushed:
    """What is on the Hub now.

    Attributes:
        repo_id: The dataset repo.
        url: Its page.
        revision: Commit sha that holds the file.
        file: The file's name in the repo.
        file_bytes: Its size.
        is_private: Whether only its owner and those let in can see it.
        was_there: Whether the repo held the same file already, so that nothing was sent.
    """

    repo_id: str
    url: str
    revision: str
    file: str
    file_bytes: int
    is_private: bool
    was_there: bool

    def to_json(self) -> dict[str, Any]:
        """All fields as a dictionary."""
        return asdict(self)


def push(
    path: Path,
    repo_id: str,
    *,
    public: bool = False,
    overwrite: bool = False,
    progress: Progress = lambda what, done, total: None,
) -> Pushed:
    """Uploads a converted file, and a card written from its own attributes, as a dataset repo.

    Both appear in one commit or not at all. A second call after an interruption does not send again what has
    arrived: parts of the file with Xet storage (huggingface_hub's default), whole files without.

    Args:
        path: A file of this format.
        repo_id: ``owner/name``; made if need be.
        public: Whether a repo that has to be made can be seen by everybody. An existing one stays as it is.
        overwrite: Whether other content of the repo may get a new version; the old one stays in its history.
        progress: Called while the file is verified.

    Returns:
        Where it is.

    Raises:
        FormatError: Not a file of this format, or one that refers to other files.
        VerificationError: The file is damaged.
        OutputError: Not logged in, not allowed to write there, other content is there, or the Hub cannot be reached.
        InterruptedConversionError: Ctrl-C.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, get_token

    path = Path(path)
    _refuse_damaged(path, lambda done, total: progress("verify", done, total))
    facts = read_facts(path)
    if get_token() is None:
        raise OutputError(
            f"{repo_id}: pushing takes an account, and this machine is not logged in to the Hub. Make a token with "
            "write access in your account's settings, then run: hf auth login (or set HF_TOKEN)"
        )
    api = HfApi(library_name="lewm_data", library_version=lewm_data.__version__)
    with _push_errors(repo_id):
        url = api.create_repo(repo_id, repo_type="dataset", private=not public, exist_ok=True)
        info = api.dataset_info(repo_id, files_metadata=True)
        revision = str(info.sha)
        is_there = _holds(info, facts.name, path, progress)
        if not is_there:
            _refuse_other_content(info, overwrite=overwrite)
            card = dataset_card(facts, repo_id=repo_id, licences=source_licences(facts.header.sources))
            commit = api.create_commit(
                repo_id,
                [CommitOperationAdd(facts.name, path), CommitOperationAdd(CARD_FILE, card.encode())],
                repo_type="dataset",
                commit_message=f"{facts.name}, {count_of(facts.num_episodes, 'episode')}",
                commit_description=f"Made with lewm_data {facts.header.lewm_data_version}.",
                parent_commit=revision,
            )
            revision = commit.oid
    return Pushed(
        repo_id=repo_id,
        url=str(url),
        revision=revision,
        file=facts.name,
        file_bytes=facts.file_bytes,
        is_private=bool(info.private),
        was_there=is_there,
    )


def _refuse_damaged(path: Path, progress: Callable[[int, int], None]) -> None:
    problems = verify_file(path, alone=True, progress=progress)
    if problems:
        raise VerificationError(
            f"{path}: not pushed, since it is damaged: {len(problems)} problems, the first: {problems[0]}. "
            "Convert the dataset again.",
            problems,
        )


def _holds(info: DatasetInfo, name: str, path: Path, progress: Progress) -> bool:
    """Whether the repo holds the very same file, by its sha256."""
    for sibling in info.siblings or ():
        if sibling.rfilename == name and sibling.lfs is not None and sibling.lfs.size == path.stat().st_size:
            return sibling.lfs.sha256 == _sha256(path, progress)
    return False


def _sha256(path: Path, progress: Progress) -> str:
    digest, done, total = hashlib.sha256(), 0, path.stat().st_size
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
            done += len(block)
            progress("compare with the Hub", done, total)
    return digest.hexdigest()


def _refuse_other_content(info: DatasetInfo, *, overwrite: bool) -> None:
    names = sorted(sibling.rfilename for sibling in info.siblings or () if sibling.rfilename not in _MADE_BY_THE_HUB)
    if names and not overwrite:
        raise OutputError(
            f"{info.id}: the repo exists and holds other content ({_listed(names)}). Choose another REPO_ID, or "
            "--overwrite to commit a new version of the file and its card; the old ones stay in the repo's history."
        )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more


@contextmanager
def _push_errors(repo_id: str) -> Iterator[None]:
    """Puts what huggingface_hub raises while writing into words."""
    import httpx
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    again = "Run the same command again: what has arrived is not sent again."
    try:
        yield
    except LewmDataError:
        raise
    except KeyboardInterrupt as error:
        raise InterruptedConversionError(f"{repo_id}: interrupted; the repo is as it was before. {again}") from error
    except HFValidationError as error:
        raise UsageError(f"{repo_id}: not a valid Hub repo id ({error}). Those look like owner/name.") from error
    except OfflineModeIsEnabled as error:
        raise OutputError(f"{repo_id}: the Hub is switched off by HF_HUB_OFFLINE. Unset it, and run again.") from error
    except HfHubHTTPError as error:
        raise OutputError(f"{repo_id}: {_refusal(repo_id, error.response.status_code, _reason(error))}") from error
    except httpx.TransportError as error:
        raise OutputError(f"{repo_id}: the Hub cannot be reached ({error}). Connect to the network. {again}") from error
    except (RuntimeError, ValueError, OSError) as error:  # what an upload makes of a lost connection, with its cause
        cause = error.__cause__ or error
        if isinstance(cause, HfHubHTTPError):
            reason = _refusal(repo_id, cause.response.status_code, _reason(cause))
            raise OutputError(f"{repo_id}: {reason}") from error
        reason = next(iter(str(cause).splitlines()), type(cause).__name__)
        raise OutputError(f"{repo_id}: the upload broke off ({reason}). {again}") from error


def _reason(error: Any) -> str:
    """The Hub's own words, or the status."""
    return error.server_message or f"status {error.response.status_code}"


def _refusal(repo_id: str, status: int, reason: str) -> str:
    owner = repo_id.split("/")[0]
    if status == 401:
        return f"the Hub does not accept the token of this machine ({reason}). Log in again with: hf auth login"
    if status in (402, 403):
        return (
            f"this account may not write there ({reason}). Give a REPO_ID under your own name instead of {owner!r}, "
            "or log in with a token that has write access: hf auth login"
        )
    if status in (409, 412):
        return f"somebody else changed the repo meanwhile ({reason}). Look at it, then run the same command again."
    if status == 413:
        return f"the file is larger than the Hub takes ({reason}). Convert fewer --episodes at a time."
    return f"the Hub did not answer as it should ({reason}). Run the same command again later."
