"""The work folder next to an output: finished shards survive an interruption, and the next run continues from them."""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import itertools
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import lewm_data
from lewm_data.conversion.output import lock_path, work_folder
from lewm_data.errors import FormatError, MachineError, OutputError
from lewm_data.format.hdf5 import open_file
from lewm_data.format.header import FileHeader
from lewm_data.format.schema import PIXELS
from lewm_data.format.virtual import shard_rows
from lewm_data.format.writer import replace_durably, sync
from lewm_data.locks import exclusive_if_free, lock_exists

_STATE = "state.json"
_TRANSIENT = frozenset({"state.tmp", "heartbeat.json", "heartbeat.tmp"})
"""Files that a work folder may contain before its state is written."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkState:
    """The content of a work folder's state file.

    Attributes:
        fingerprint: Hash of the source and the content settings that the shards are for.
        lewm_data_version: The version that makes the shards.
        shards: episode_index of each shard's episodes.
        folder: Name of the folder of shards that stay; empty if the shards are joined.
        replaces: Names of the shard folders of the output that is being replaced.
    """

    fingerprint: str
    lewm_data_version: str
    shards: list[list[int]]
    folder: str = ""
    replaces: list[str]

    @classmethod
    def read(cls, output: Path) -> WorkState | None:
        """Reads the state of an output's unfinished run.

        Returns:
            The state; None if there is none that this version understands.
        """
        try:
            record = json.loads((work_folder(output) / _STATE).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):  # ValueError: not JSON, or not UTF-8
            return None
        return cls._parse(output, record)

    @classmethod
    def _parse(cls, output: Path, record: object) -> WorkState | None:
        if not isinstance(record, dict):
            return None
        fingerprint, version = record.get("fingerprint"), record.get("lewm_data_version")
        shards, folder, replaces = record.get("shards"), record.get("folder"), record.get("replaces")
        if not (isinstance(fingerprint, str) and isinstance(version, str) and isinstance(folder, str)):
            return None
        if not (isinstance(replaces, list) and all(isinstance(name, str) for name in replaces)):
            return None
        if not isinstance(shards, list) or not all(_is_integers(shard) for shard in shards):
            return None
        if not all(_is_shards_folder(output, name) for name in [*replaces, *([folder] if folder else [])]):
            return None  # it belongs to an output of another name
        return cls(fingerprint=fingerprint, lewm_data_version=version, shards=shards, folder=folder, replaces=replaces)

    def write(self, output: Path) -> None:
        """Writes the state so that a power loss leaves either the old state or the new one."""
        path = work_folder(output) / _STATE
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(asdict(self)), encoding="utf-8")
        replace_durably(temporary, path)

    def continues(self, other: WorkState) -> bool:
        """Whether shards made under this state are usable under another: same content, version and kind."""
        mine = self.fingerprint, self.lewm_data_version, bool(self.folder), list(itertools.chain(*self.shards))
        return mine == (
            other.fingerprint,
            other.lewm_data_version,
            bool(other.folder),
            list(itertools.chain(*other.shards)),
        )


def _is_integers(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, int) for item in value)


class WorkFolder:
    """Finished shards of this run or an interrupted one. A shard gets its name only when it is complete.

    Shards that stay get a folder of their own, ``<output>.shards``, with a number appended while the output that is
    about to be replaced still has its shards there. The state file names both folders, so that the older one is removed
    when its output is replaced. Other folders with such a name belong to a renamed file.

    Args:
        output: The file that the shards are for.
        fingerprint: Hash of source and content settings. Work for another one is removed.
        keeps_shards: Whether the shards stay, with a virtual dataset over them.
    """

    def __init__(self, output: Path, fingerprint: str, *, keeps_shards: bool = False) -> None:
        self.path = work_folder(output)
        self._output = output
        self._fingerprint = fingerprint
        self._keeps_shards = keeps_shards
        self._shards = self.path
        self._replaced: list[Path] = []

    def open(self, shards: Sequence[Sequence[int]]) -> list[list[int]]:
        """Takes over an earlier run's work, or starts over.

        Args:
            shards: episode_index of each shard's episodes, as they would be cut now.

        Returns:
            The shards to make: as cut now, or, to resume, as an earlier run cut them.
        """
        used = [folder for folder in _shards_folders(self._output) if _is_in_use(self._output, folder)]
        state = WorkState(
            fingerprint=self._fingerprint,
            lewm_data_version=lewm_data.__version__,
            shards=[list(shard) for shard in shards],
            folder=f"{self._output.name}.shards" if self._keeps_shards else "",
            replaces=[folder.name for folder in used],
        )
        known = WorkState.read(self._output)
        if known is not None and known.continues(state):
            self._replaced = [*used, *map(self._output.with_name, known.replaces)]
            self._use_folder(known)
            return known.shards
        self.remove()
        self._replaced = used
        self.path.mkdir()
        sync(self.path.parent)
        if self._keeps_shards:  # only now, because a removed folder may have had the name
            state = dataclasses.replace(state, folder=_free_name(self._output))
        self._use_folder(state)
        state.write(self._output)
        return state.shards

    def _use_folder(self, state: WorkState) -> None:
        self._shards = self.path
        if state.folder:
            self._shards = self._output.with_name(state.folder)
            self._shards.mkdir(exist_ok=True)

    def shard_path(self, number: int) -> Path:
        """The file of a shard."""
        return self._shards / f"shard-{number:05d}.h5"

    def finished_shard(self, number: int) -> FileHeader | None:
        """Root attributes of a finished shard; None if it has to be made."""
        path = self.shard_path(number)
        if not path.exists():
            return None
        with contextlib.suppress(FormatError), open_file(path) as file:
            header = FileHeader.from_attributes(file.attrs, path=str(path))
            if header.fingerprint == self._fingerprint:
                return header
        path.unlink()
        return None

    def finish(self) -> None:
        """Removes what the finished output does not need: the folder, and the shards of the output that it replaced."""
        for folder in set(self._replaced) - {self._shards}:
            shutil.rmtree(folder, ignore_errors=True)
        self._clear()

    def remove(self) -> None:
        """Removes the folder with everything in it, and unfinished shards next to it.

        Raises:
            OutputError: The folder is not one of ours.
        """
        if not self.path.exists():
            return
        if not (self.path / _STATE).exists() and not _is_new(self.path):
            raise OutputError(
                f"{self.path}: is in the way and was not made by lewm_data (it has no {_STATE}). Move it elsewhere."
            )
        state = WorkState.read(self._output)
        if state is not None and state.folder and not _is_in_use(self._output, self._output.with_name(state.folder)):
            shutil.rmtree(self._output.with_name(state.folder), ignore_errors=True)
        self._clear()

    def _clear(self) -> None:
        """Removes the folder, its state last, so that the next run recognizes it after a kill in the middle."""
        for entry in sorted(self.path.iterdir(), key=lambda entry: entry.name == _STATE):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        self.path.rmdir()


def remove_leftovers(output: Path) -> None:
    """Removes what a process that was killed just after naming its output left behind.

    Shards for other content (of an interrupted ``--overwrite``) and everything in use stay.
    """
    folder = work_folder(output)
    if not output.is_file() or not (folder.exists() or lock_exists(lock_path(output))):
        return
    with contextlib.suppress(OSError, MachineError), exclusive_if_free(lock_path(output)) as held:
        if not held or not folder.is_dir():
            return
        state = WorkState.read(output)
        if _is_new(folder) or (state is not None and state.fingerprint == _header_fingerprint(output)):
            for replaced in map(output.with_name, state.replaces if state is not None else []):
                if not _is_in_use(output, replaced):
                    shutil.rmtree(replaced, ignore_errors=True)
            WorkFolder(output, "").remove()


def kept_bytes(output: Path) -> int:
    """Disk space that an earlier run's shards of an output already take."""
    state = WorkState.read(output)
    folders = [work_folder(output), *([output.with_name(state.folder)] if state is not None and state.folder else [])]
    return sum(map(shard_bytes, folders))


def used_shard_bytes(output: Path) -> int:
    """Size of the shards that a finished output reads from; 0 if it has none."""
    return sum(shard_bytes(folder) for folder in _shards_folders(output) if _is_in_use(output, folder))


def shard_bytes(folder: Path) -> int:
    """Size of the shards in a folder."""
    size = 0
    for path in folder.glob("shard-*.h5"):
        with contextlib.suppress(FileNotFoundError):  # another process has just finished
            size += path.stat().st_size
    return size


def _is_new(folder: Path) -> bool:
    """Whether a work folder holds nothing of value: no state and no shards."""
    return all(entry.name in _TRANSIENT for entry in folder.iterdir())


def _header_fingerprint(path: Path) -> str:
    with contextlib.suppress(FormatError), open_file(path) as file:
        return FileHeader.from_attributes(file.attrs, path=str(path)).fingerprint
    return ""


def _shards_folders(output: Path) -> list[Path]:
    """All folders next to an output whose names could be its shard folder's."""
    found = output.parent.glob(f"{glob.escape(output.name)}.shards*")
    return [folder for folder in found if _is_shards_folder(output, folder.name)]


def _is_shards_folder(output: Path, name: str) -> bool:
    return re.fullmatch(re.escape(output.name) + r"\.shards(-\d+)?", name) is not None


def _free_name(output: Path) -> str:
    """An unused name for a shard folder."""
    numbers: Iterator[str] = itertools.chain([""], (f"-{number}" for number in itertools.count(2)))
    names = (f"{output.name}.shards{number}" for number in numbers)
    return next(name for name in names if not output.with_name(name).exists())


def _is_in_use(output: Path, folder: Path) -> bool:
    """Whether a finished output reads from a folder of shards."""
    with contextlib.suppress(FormatError, KeyError), open_file(output) as file:
        pixels = file[PIXELS]
        return pixels.is_virtual and any(rows.path(output).parent == folder for rows in shard_rows(pixels))
    return False
