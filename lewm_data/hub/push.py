"""Uploads a converted file to the Hub: verified first, then committed together with its card."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lewm_data
from lewm_data.conversion.verify import verify_file
from lewm_data.errors import InterruptedConversionError, LewmDataError, OutputError, UsageError, VerificationError
from lewm_data.hub.card import dataset_card, read_facts
from lewm_data.notation import count_of
from lewm_data.paths import local_path
from lewm_data.resources import Progress, silent

if TYPE_CHECKING:
    from huggingface_hub.hf_api import DatasetInfo


from collections.abc import Iterable

from lewm_data.format.header import SourceRecord

CARD_FILE = "README.md"
_MADE_BY_THE_HUB = frozenset({".gitattributes"})
_READ_BYTES = 1 << 22
_MAX_NAMES = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class PushResult:
    """A file on the Hub.

    Attributes:
        repo_id: The dataset repo.
        url: The repo's page.
        revision: Commit sha that holds the file.
        file: The file's name in the repo.
        file_bytes: The file's size.
        is_private: Whether only the owner and invited accounts can see the repo.
        was_there: Whether the repo already held the same file, so that nothing was uploaded.
    """

    repo_id: str
    url: str
    revision: str
    file: str
    file_bytes: int
    is_private: bool
    was_there: bool

    def to_dict(self) -> dict[str, Any]:
        """The object that ``lewm-data push --json`` prints."""
        return asdict(self)


def push(
    path: Path,
    repo_id: str,
    *,
    public: bool = False,
    overwrite: bool = False,
    progress: Progress = silent,
) -> PushResult:
    """Uploads a converted file as a dataset repo, with a card written from the file's own attributes.

    Both appear in one commit or not at all. A second call after an interruption resumes: with Xet storage
    (huggingface_hub's default) it skips the parts that have arrived, otherwise whole files.

    Args:
        path: A file in lewm_data's format.
        repo_id: ``owner/name``; created if it does not exist.
        public: Whether everyone may see the recording. Without it, a new repo is private, and a repo that is already
            public is refused.
        overwrite: Whether to commit a new version over other content; the old one stays in the repo's history.
        progress: Called while the file is verified.

    Raises:
        FormatError: The file is not in lewm_data's format, or it refers to other files.
        VerificationError: The file is damaged.
        OutputError: This machine is not logged in, the account may not write to the repo, the repo is public or holds
            other content, or the Hub cannot be reached.
        InterruptedConversionError: Ctrl-C.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, get_token

    path = local_path(path, "file")
    _refuse_damaged(path, progress)
    facts = read_facts(path)
    if get_token() is None:
        raise OutputError(
            f"{repo_id}: pushing needs an account, and this machine is not logged in to the Hub. Create a token with "
            "write access in your account's settings, then run: hf auth login (or set HF_TOKEN)"
        )
    api = HfApi(library_name="lewm_data", library_version=lewm_data.__version__)
    with _push_errors(repo_id):
        url = api.create_repo(repo_id, repo_type="dataset", private=not public, exist_ok=True)
        info = api.dataset_info(repo_id, files_metadata=True)
        _refuse_public(info, public=public)
        revision = str(info.sha)
        is_there = _holds(info, facts.name, path, progress)
        if not is_there:
            _refuse_other_content(info, overwrite=overwrite)
            card = dataset_card(facts, repo_id=repo_id, licenses=source_licenses(facts.header.sources))
            added = [CommitOperationAdd(facts.name, path), CommitOperationAdd(CARD_FILE, card.encode())]
            # Uploaded bytes stay invisible until a commit names them, so the repo's visibility is checked once more.
            api.preupload_lfs_files(repo_id, added, repo_type="dataset", free_memory=False)
            _refuse_public(api.dataset_info(repo_id), public=public)
            commit = api.create_commit(
                repo_id,
                added,
                repo_type="dataset",
                commit_message=f"{facts.name}, {count_of(facts.num_episodes, 'episode')}",
                commit_description=f"Made with lewm_data {facts.header.lewm_data_version}.",
                parent_commit=revision,
            )
            revision = commit.oid
            info = api.dataset_info(repo_id)
            _report_published(info, public=public)
    return PushResult(
        repo_id=repo_id,
        url=str(url),
        revision=revision,
        file=facts.name,
        file_bytes=facts.file_bytes,
        is_private=bool(info.private),
        was_there=is_there,
    )


def _refuse_damaged(path: Path, progress: Progress) -> None:
    problems = verify_file(path, alone=True, progress=progress)
    if problems:
        raise VerificationError(
            f"{path}: not pushed, because the file is damaged: {count_of(len(problems), 'problem')}, the first: "
            f"{problems[0]}. Convert the dataset again.",
            problems,
        )


def _refuse_public(info: DatasetInfo, *, public: bool) -> None:
    if not info.private and not public:
        raise OutputError(
            f"{info.id}: the repo is public, so everyone could see the recording. Add --public to publish it; "
            "otherwise choose another REPO_ID, or make this repo private in its settings."
        )


def _report_published(info: DatasetInfo, *, public: bool) -> None:
    """Reports a repo that became public in the moment of the commit."""
    if not info.private and not public:
        raise OutputError(
            f"{info.id}: the repo became public during the upload, so everyone can see the recording now. Make it "
            "private in its settings, or delete the file there."
        )


def _holds(info: DatasetInfo, name: str, path: Path, progress: Progress) -> bool:
    """Returns whether the repo holds the same file, by its sha256."""
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
            f"{info.id}: the repo exists and holds other content ({_listed(names)}). Choose another REPO_ID, or add "
            "--overwrite to commit a new version of the file and its card; the repo's history keeps the old ones."
        )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return ", ".join(names[:_MAX_NAMES]) + more


@contextmanager
def _push_errors(repo_id: str) -> Iterator[None]:
    """Translates errors of huggingface_hub while writing into sentences."""
    import httpx
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    again = "Run the same command again to resume."
    try:
        yield
    except LewmDataError:
        raise
    except KeyboardInterrupt as error:
        raise InterruptedConversionError(f"{repo_id}: interrupted; the repo has not changed. {again}") from error
    except HFValidationError as error:
        raise UsageError(f"{repo_id}: not a valid Hub repo id ({error}). Write it as owner/name.") from error
    except OfflineModeIsEnabled as error:
        raise OutputError(
            f"{repo_id}: HF_HUB_OFFLINE turns the Hub off. Unset it, then run the same command again."
        ) from error
    except HfHubHTTPError as error:
        raise OutputError(f"{repo_id}: {_refusal(repo_id, error.response.status_code, _reason(error))}") from error
    except httpx.TransportError as error:
        raise OutputError(f"{repo_id}: the Hub cannot be reached ({error}). Connect to the network. {again}") from error
    except (RuntimeError, ValueError, OSError) as error:  # a lost connection, wrapped by the upload
        cause = error.__cause__ or error
        if isinstance(cause, HfHubHTTPError):
            reason = _refusal(repo_id, cause.response.status_code, _reason(cause))
            raise OutputError(f"{repo_id}: {reason}") from error
        reason = next(iter(str(cause).splitlines()), type(cause).__name__)
        raise OutputError(f"{repo_id}: the upload failed ({reason}). {again}") from error


def _reason(error: Any) -> str:
    """The Hub's own message, or the status."""
    return error.server_message or f"status {error.response.status_code}"


def _refusal(repo_id: str, status: int, reason: str) -> str:
    owner = repo_id.split("/")[0]
    if status == 401:
        return f"the Hub rejects this machine's token ({reason}). Log in again with: hf auth login"
    if status in (402, 403):
        return (
            f"this account may not write to the repo ({reason}). Choose a REPO_ID under your own name instead of "
            f"{owner!r}, or log in with a token that has write access: hf auth login"
        )
    if status in (409, 412):
        return f"the repo changed during the upload ({reason}). Check its content, then run the same command again."
    if status == 413:
        return f"the file is too large for the Hub ({reason}). Convert fewer --episodes at a time."
    return f"the Hub failed ({reason}). Run the same command again later."


def source_licenses(sources: Iterable[SourceRecord]) -> dict[str, tuple[str, ...]]:
    """Reads the license on each source's own card on the Hub, at the converted revision.

    Args:
        sources: The sources of a file's episodes.

    Returns:
        Repo id to Hub license identifiers such as ``apache-2.0``; empty if the card names none, if the source is a
        local folder, or if the card cannot be read.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    api = HfApi()
    licenses: dict[str, tuple[str, ...]] = {}
    for record in sources:
        found: tuple[str, ...] = ()
        if record.revision is not None:
            try:
                card = api.dataset_info(record.repo_id, revision=record.revision).card_data
            except (HfHubHTTPError, HFValidationError):  # deleted, private or renamed: unknown
                card = None
            stated = card.get("license") if card is not None else None
            names = stated if isinstance(stated, list) else [stated]
            found = tuple(name for name in names if isinstance(name, str) and name not in ("", "unknown"))
        licenses[record.repo_id] = tuple(dict.fromkeys((*licenses.get(record.repo_id, ()), *found)))
    return licenses
