"""Downloads a converted file from the Hub: it is checked before it gets its name, and appears whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lewm_data
from lewm_data.conversion.output import check_output, free_disk_bytes, output_place
from lewm_data.conversion.plan import MEGABYTE
from lewm_data.conversion.verify import verify_file
from lewm_data.errors import (
    FormatError,
    InterruptedConversionError,
    OutputError,
    ResourceError,
    SourceError,
    VerificationError,
)
from lewm_data.format.writer import replace_durably
from lewm_data.hub.card import HDF5_SUFFIXES
from lewm_data.notation import count_of
from lewm_data.paths import local_path
from lewm_data.resources import Progress, silent
from lewm_data.source.hub import hub_errors

if TYPE_CHECKING:
    from huggingface_hub.hf_api import DatasetInfo, RepoSibling


_OFFLINE = ". Connect to the network, then run the same command again."


@dataclass(frozen=True, kw_only=True, slots=True)
class PullResult:
    """A downloaded file.

    Attributes:
        path: The file.
        repo_id: The dataset repo.
        revision: Commit sha.
        file: The file's name in the repo.
        file_bytes: Its size.
        checksums: Whether the checksum of every frame was compared.
    """

    path: Path
    repo_id: str
    revision: str
    file: str
    file_bytes: int
    checksums: bool

    def to_dict(self) -> dict[str, Any]:
        """The object that ``lewm-data pull --json`` prints."""
        return {**asdict(self), "path": str(self.path)}


def pull(
    repo_id: str,
    output: Path,
    *,
    revision: str | None = None,
    file: str | None = None,
    checksums: bool = False,
    overwrite: bool = False,
    progress: Progress = silent,
    waiting: Callable[[], None] = lambda: None,
) -> PullResult:
    """Downloads a converted file and checks it before it gets its name.

    It always checks the structure: columns, dtypes, episodes, and one stored chunk per frame. A lost connection is
    resumed; a new run starts from the beginning, as in huggingface_hub.

    Args:
        repo_id: Dataset repo ``owner/name`` that holds the file.
        output: The file to write.
        revision: Branch, tag or commit; None means the main branch.
        file: Name of the file in the repo; None if the repo holds only one.
        checksums: Also read every frame and compare its checksum.
        overwrite: Replace an existing output.
        progress: Called while checksums are compared.
        waiting: Called once if another process is making the same output.

    Raises:
        SourceError: There is no such repo, revision or file, access is denied, or the Hub cannot be reached.
        OutputError: The output exists, or it cannot be written.
        ResourceError: The disk is full.
        FormatError: The downloaded file is not in lewm_data's format, or has a newer version of it.
        VerificationError: The downloaded file is damaged.
        InterruptedConversionError: Ctrl-C.
    """
    from huggingface_hub import HfApi

    output = local_path(output, "output")
    check_output(output, overwrite=overwrite)
    api = HfApi(library_name="lewm_data", library_version=lewm_data.__version__)
    with hub_errors(repo_id, revision=revision, offline=_OFFLINE):
        info = api.dataset_info(repo_id, revision=revision, files_metadata=True)
    sibling = _choose(info, file)
    with output_place(output, overwrite=overwrite, waiting=waiting), _work_folder(output) as work:
        _check_disk(output, sibling.size or 0)
        with hub_errors(repo_id, revision=revision, offline=_OFFLINE):
            arrived = Path(
                api.hf_hub_download(repo_id, sibling.rfilename, repo_type="dataset", revision=info.sha, local_dir=work)
            )
        _check_arrived(arrived, repo_id, checksums=checksums, progress=progress)
        file_bytes = arrived.stat().st_size
        replace_durably(arrived, output)
    return PullResult(
        path=output,
        repo_id=repo_id,
        revision=str(info.sha),
        file=sibling.rfilename,
        file_bytes=file_bytes,
        checksums=checksums,
    )


def _choose(info: DatasetInfo, file: str | None) -> RepoSibling:
    siblings = {sibling.rfilename: sibling for sibling in info.siblings or ()}
    candidates = [name for name in siblings if name.endswith(HDF5_SUFFIXES)]
    listed = ", ".join(sorted(candidates))
    if file is not None:
        if file not in siblings:
            raise SourceError(f"{info.id}: there is no file {file!r}. The repo holds: {listed or 'no .h5 file'}.")
        return siblings[file]
    if not candidates and "meta/info.json" in siblings:
        raise SourceError(
            f"{info.id}: this is a LeRobot dataset, not a converted file. "
            f"Convert it: lewm-data convert {info.id} OUTPUT.h5"
        )
    if not candidates:
        raise SourceError(
            f"{info.id}: the repo holds no .h5 file, so lewm-data has pushed nothing there. Check the repo id."
        )
    if len(candidates) > 1:
        raise SourceError(f"{info.id}: the repo holds {len(candidates)} files: {listed}. Choose one with --file NAME.")
    return siblings[candidates[0]]


@contextmanager
def _work_folder(output: Path) -> Iterator[Path]:
    """Yields a folder on the output's disk. It removes a killed run's leftovers first, and the folder at the end.

    Raises:
        OutputError: Another file or folder has its name.
        InterruptedConversionError: Ctrl-C.
    """
    work = output.with_name(output.name + ".download")
    if work.exists() and not (work / ".cache" / "huggingface").is_dir():
        raise OutputError(f"{work}: the download needs this name, but something else has it. Move it elsewhere.")
    shutil.rmtree(work, ignore_errors=True)
    try:
        yield work
    except KeyboardInterrupt as error:
        raise InterruptedConversionError(
            f"{output}: interrupted; nothing is left behind. Run the same command again to start over."
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _check_disk(output: Path, size: int) -> None:
    free = free_disk_bytes(output)
    if size > free:
        raise ResourceError(
            f"{output}: the download takes {size / MEGABYTE:,.0f} MB, but only {free / MEGABYTE:,.0f} MB are free. "
            "Free some space, or choose another disk."
        )


def _check_arrived(arrived: Path, repo_id: str, *, checksums: bool, progress: Progress) -> None:
    """Refuses a file that is damaged or not in lewm_data's format."""
    try:
        problems = verify_file(arrived, content=checksums, alone=True, progress=progress)
    except FormatError as error:
        reason = str(error).removeprefix(f"{arrived}: ")
        raise FormatError(f"{repo_id}: {arrived.name}: {reason}") from error
    if problems:
        raise VerificationError(
            f"{repo_id}: the downloaded file is damaged: {count_of(len(problems), 'problem')}, the first: "
            f"{problems[0]}. Run the same command again; if this repeats, the file on the Hub is damaged.",
            problems,
        )
