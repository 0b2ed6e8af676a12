"""A converted file from the Hub: checked before it gets its name, and there whole or not at all."""

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
from lewm_data.source.hub import hub_errors

if TYPE_CHECKING:
    from huggingface_hub.hf_api import DatasetInfo, RepoSibling


_OFFLINE = ". Connect to the network, then run the same command again."


@dataclass(frozen=True, kw_only=True, slots=True)
class Pulled:
    """What arrived.

    Attributes:
        path: The file.
        repo_id: Where it came from.
        revision: Commit sha.
        file: The file's name in the repo.
        file_bytes: Its size.
        checksums: Whether every frame was read and its checksum compared.
    """

    path: Path
    repo_id: str
    revision: str
    file: str
    file_bytes: int
    checksums: bool

    def to_json(self) -> dict[str, Any]:
        """All fields as a dictionary."""
        return {**asdict(self), "path": str(self.path)}


def pull(
    repo_id: str,
    output: Path,
    *,
    revision: str | None = None,
    file: str | None = None,
    checksums: bool = False,
    overwrite: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
    waiting: Callable[[], None] = lambda: None,
) -> Pulled:
    """Downloads a converted file and checks it before it gets its name.

    The structure (columns, dtypes, episodes, one stored chunk for each frame) is always checked. A connection that
    is lost on the way is taken up again; a process that ends on the way starts anew, as huggingface_hub does.

    Args:
        repo_id: Dataset repo ``owner/name`` that holds the file.
        output: The file to make.
        revision: Branch, tag or commit; None means the main branch.
        file: Which file of the repo; None where there is only one.
        checksums: Read every frame and compare its checksum, too.
        overwrite: Whether ``output`` may exist.
        progress: Called while checksums are compared.
        waiting: Called once if another process makes the same output.

    Returns:
        What arrived.

    Raises:
        SourceError: No such repo, revision or file, no access, or the Hub cannot be reached.
        OutputError: The output exists, or cannot be written.
        ResourceError: The disk is full.
        FormatError: What arrived is no file of this format, or of a newer version.
        VerificationError: It is damaged.
        InterruptedConversionError: Ctrl-C.
    """
    from huggingface_hub import HfApi

    output = Path(output)
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
    return Pulled(
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
            raise SourceError(f"{info.id}: there is no file {file!r}. It holds: {listed or 'no .h5 file'}.")
        return siblings[file]
    if not candidates and "meta/info.json" in siblings:
        raise SourceError(
            f"{info.id}: is a LeRobot dataset, not a converted file. Convert it: lewm-data convert {info.id} OUTPUT.h5"
        )
    if not candidates:
        raise SourceError(f"{info.id}: holds no .h5 file, so nothing was pushed there by lewm-data. Check the repo id.")
    if len(candidates) > 1:
        raise SourceError(f"{info.id}: holds {len(candidates)} files: {listed}. Say which one with --file NAME.")
    return siblings[candidates[0]]


@contextmanager
def _work_folder(output: Path) -> Iterator[Path]:
    """A folder on the output's disk, removed however it ends; what a killed run left there is removed first.

    Raises:
        OutputError: Something else has its name.
        InterruptedConversionError: Ctrl-C.
    """
    work = output.with_name(output.name + ".download")
    if work.exists() and not (work / ".cache" / "huggingface").is_dir():
        raise OutputError(f"{work}: is in the way, and no earlier download left it there. Move it elsewhere.")
    shutil.rmtree(work, ignore_errors=True)
    try:
        yield work
    except KeyboardInterrupt as error:
        raise InterruptedConversionError(
            f"{output}: interrupted, and nothing is left behind. Run the same command again; it starts anew."
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _check_disk(output: Path, size: int) -> None:
    free = free_disk_bytes(output)
    if size > free:
        raise ResourceError(
            f"{output}: {size / MEGABYTE:,.0f} MB are to be downloaded, but {free / MEGABYTE:,.0f} MB are free. "
            "Free some space, or choose another disk."
        )


def _check_arrived(arrived: Path, repo_id: str, *, checksums: bool, progress: Callable[[int, int], None]) -> None:
    """Refuses what is not a whole file of this format."""
    try:
        problems = verify_file(arrived, content=checksums, alone=True, progress=progress)
    except FormatError as error:
        reason = str(error).removeprefix(f"{arrived}: ")
        raise FormatError(f"{repo_id}: {arrived.name}: {reason}") from error
    if problems:
        raise VerificationError(
            f"{repo_id}: what arrived is damaged: {len(problems)} problems, the first: {problems[0]}. Run the same "
            "command again; if it stays so, the file on the Hub is damaged.",
            problems,
        )
