"""Where a conversion writes: the output's place, and the work folder that survives an interruption."""

from __future__ import annotations

import contextlib
import errno
import glob
import itertools
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import lewm_data
from lewm_data.conversion.lock import exclusive, exclusive_if_free
from lewm_data.errors import FormatError, OutputError, ResourceError
from lewm_data.format.hdf5 import open_file
from lewm_data.format.schema import PIXELS, FileHeader
from lewm_data.format.virtual import shards_of
from lewm_data.format.writer import replace_durably, sync

_STATE = "state.json"
_PASSING = frozenset({"state.tmp", "heartbeat.json", "heartbeat.tmp"})
"""What a work folder may hold before it has its state."""


def check_output(output: Path, *, overwrite: bool) -> None:
    """Refuses an output that exists or cannot be written.

    Raises:
        OutputError: It is a folder, exists, or lies where nothing may be written.
    """
    if output.is_dir():
        raise OutputError(f"{output}: is a folder, but the output is one file. Give a name such as {output}/data.h5.")
    if output.exists() and not overwrite:
        raise OutputError(f"{output}: exists already. Give another name, or --overwrite to replace it.")
    parent = _existing_parent(output)
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(f"{output}: cannot be written, since {parent} is no folder that may be written to.")


def free_disk_bytes(output: Path) -> int:
    """Space where the output will be: what is free, and what an earlier run's shards take already."""
    shards = sum(map(_shard_bytes, (work_folder(output), *_kept_folder(output))))
    return shutil.disk_usage(_existing_parent(output)).free + shards


@contextmanager
def output_place(
    output: Path, *, overwrite: bool, waiting: Callable[[], None] = lambda: None, kept: str = ""
) -> Iterator[None]:
    """Makes the output's folder, holds the output's lock, and puts failures to write into words.

    Args:
        output: The file that will be made.
        overwrite: Whether it may exist.
        waiting: Called once if another process is making the same output.
        kept: What is kept after a failure, as a sentence for its message.

    Raises:
        OutputError: It exists (perhaps made by the process that was waited for), or cannot be written.
        ResourceError: The disk is full.
    """
    made = [folder for folder in output.parents if not folder.exists()]
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        for folder in made:  # else a loss of power could take the new folder, and the finished file with it
            sync(folder.parent)
        with exclusive(_lock(output), waiting=waiting):
            check_output(output, overwrite=overwrite)
            yield
    except (OSError, RuntimeError) as error:  # the latter is h5py's, of a file that cannot be closed for want of space
        code = getattr(error, "errno", None) or _hdf5_errno(error)
        if isinstance(error, RuntimeError) and code is None:
            raise
        reason = os.strerror(code) if code else str(error).splitlines()[0]  # HDF5's own text is a dump
        if code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise ResourceError(
                f"{output}: the disk is full, or the file larger than it takes ({reason}). Free some space, then run "
                f"the same command again. {kept}".rstrip()
            ) from error
        raise OutputError(f"{output}: cannot be written ({reason}). Choose another place.") from error
    finally:
        for folder in made:  # the innermost first; those that something came of stay
            with contextlib.suppress(OSError):
                folder.rmdir()


def _hdf5_errno(error: Exception) -> int | None:
    """The system's error number in the text of one of HDF5's errors."""
    told = re.search(r"errno = (\d+)", str(error))
    return int(told[1]) if told else None


def work_folder(output: Path) -> Path:
    """The folder of unfinished work beside an output."""
    return output.with_name(output.name + ".partial")


def remove_leftovers(output: Path) -> None:
    """Removes what is left beside a finished output by a process that was killed just after it had its name.

    Shards for another content (of an ``--overwrite`` that was interrupted) stay, and so does what is in use.
    """
    folder = work_folder(output)
    if not output.is_file() or not (folder.exists() or _lock(output).exists()):
        return
    with contextlib.suppress(OSError), exclusive_if_free(_lock(output)) as held:
        if held and folder.is_dir() and (_is_new(folder) or _fingerprint(folder) == _header_fingerprint(output)):
            for replaced in _noted_folders(output, "replaces"):
                if not _is_in_use(output, replaced):
                    shutil.rmtree(replaced, ignore_errors=True)
            WorkFolder(output, "").remove()


def _lock(output: Path) -> Path:
    return output.with_name(output.name + ".lock")


def _is_new(folder: Path) -> bool:
    """Whether a work folder has no state yet, or none any more, and nothing else of value."""
    return all(entry.name in _PASSING for entry in folder.iterdir())


def _fingerprint(folder: Path) -> str | None:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return str(json.loads((folder / _STATE).read_text())["fingerprint"])
    return None


def _header_fingerprint(path: Path) -> str:
    with contextlib.suppress(OSError, FormatError), open_file(path) as file:
        return FileHeader.from_attributes(file.attrs, path=str(path)).fingerprint
    return ""


class WorkFolder:
    """Finished shards of this or an interrupted run. A shard has its name only when it is whole.

    Shards that stay are made in a folder of their own, ``<output>.shards``, or with a number after it where an older
    output, which is about to be replaced, still has its shards there. The work folder knows which, and which the older
    output used: these go with it. Others of such a name belong to a file that was renamed.

    Args:
        output: The file that the shards are for.
        fingerprint: Of source and content settings; work of another one is removed.
        keeps_shards: The shards stay, with a master over them.
    """

    def __init__(self, output: Path, fingerprint: str, *, keeps_shards: bool = False) -> None:
        self.path = work_folder(output)
        self._output = output
        self._fingerprint = fingerprint
        self._keeps_shards = keeps_shards
        self._shards = self.path
        self._replaced: list[Path] = []

    def open(self, shards: Sequence[Sequence[int]]) -> list[list[int]]:
        """Takes over an earlier run's work, or begins anew.

        Args:
            shards: episode_index of each shard's episodes, as they would be cut now.

        Returns:
            The shards to make: as cut now, or, to go on, as they were cut then.
        """
        used = [folder for folder in _shards_folders(self._output) if _is_in_use(self._output, folder)]
        state = {
            "fingerprint": self._fingerprint,
            "lewm_data_version": lewm_data.__version__,
            "shards": [list(shard) for shard in shards],
            "folder": "",
            "replaces": [folder.name for folder in used],
        }
        state_file = self.path / _STATE
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            known = json.loads(state_file.read_text())
            same = all(known[key] == state[key] for key in ("fingerprint", "lewm_data_version"))
            same = same and bool(known["folder"]) == self._keeps_shards
            episodes = [index for shard in shards for index in shard]
            if same and [index for shard in known["shards"] for index in shard] == episodes:
                self._shards = self.path
                self._replaced = [*used, *_noted_folders(self._output, "replaces")]
                for folder in _kept_folder(self._output):
                    folder.mkdir(exist_ok=True)
                    self._shards = folder
                return known["shards"]
        self.remove()
        self._replaced = used
        self.path.mkdir()
        sync(self.path.parent)
        if self._keeps_shards:
            self._shards = _free_name(self._output)
            self._shards.mkdir()
            state["folder"] = self._shards.name
        temporary = state_file.with_suffix(".tmp")
        temporary.write_text(json.dumps(state))
        replace_durably(temporary, state_file)
        return [list(shard) for shard in shards]

    def shard_path(self, number: int) -> Path:
        """The file of a shard."""
        return self._shards / f"shard-{number:05d}.h5"

    def finished_shard(self, number: int) -> FileHeader | None:
        """Root attributes of a finished shard; None if it has to be made."""
        path = self.shard_path(number)
        if not path.exists():
            return None
        with contextlib.suppress(OSError, FormatError), open_file(path) as file:
            header = FileHeader.from_attributes(file.attrs, path=str(path))
            if header.fingerprint == self._fingerprint:
                return header
        path.unlink()
        return None

    def kept_bytes(self) -> int:
        """Size of the shards that stay."""
        return _shard_bytes(self._shards) if self._keeps_shards else 0

    def finish(self) -> None:
        """Removes what the finished output does not need: the folder, and the shards of an output it replaced."""
        for folder in set(self._replaced) - {self._shards}:
            shutil.rmtree(folder, ignore_errors=True)
        self._clear()

    def remove(self) -> None:
        """Removes the folder and all in it, and unfinished shards beside it.

        Raises:
            OutputError: It is not one of ours.
        """
        if not self.path.exists():
            return
        if not (self.path / _STATE).exists() and not _is_new(self.path):
            raise OutputError(
                f"{self.path}: is in the way and was not made by lewm_data (it has no {_STATE}). Move it elsewhere."
            )
        for folder in _kept_folder(self._output):
            if not _is_in_use(self._output, folder):
                shutil.rmtree(folder, ignore_errors=True)
        self._clear()

    def _clear(self) -> None:
        """Removes the folder, the state last: killed in the middle, it is still known as ours."""
        for entry in sorted(self.path.iterdir(), key=lambda entry: entry.name == _STATE):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        self.path.rmdir()


def _kept_folder(output: Path) -> list[Path]:
    """The folder of shards that stay, as an unfinished run noted it; none where there is no such run."""
    return _noted_folders(output, "folder")


def _noted_folders(output: Path, what: str) -> list[Path]:
    """The folders of shards that an unfinished run noted; none where there is no such run."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        noted = json.loads((work_folder(output) / _STATE).read_text())[what]
        names = [noted] if isinstance(noted, str) else list(noted)
        return [output.with_name(name) for name in names if _is_shards_folder(output, name)]
    return []


def _shards_folders(output: Path) -> list[Path]:
    """All folders of shards that lie beside an output and are named as its own would be."""
    found = output.parent.glob(f"{glob.escape(output.name)}.shards*")
    return [folder for folder in found if _is_shards_folder(output, folder.name)]


def _is_shards_folder(output: Path, name: str) -> bool:
    return re.fullmatch(re.escape(output.name) + r"\.shards(-\d+)?", name) is not None


def _free_name(output: Path) -> Path:
    names = itertools.chain([".shards"], (f".shards-{number}" for number in itertools.count(2)))
    return next(path for path in (output.with_name(output.name + name) for name in names) if not path.exists())


def _is_in_use(output: Path, folder: Path) -> bool:
    """Whether a finished output reads from a folder of shards."""
    with contextlib.suppress(OSError, FormatError, KeyError), open_file(output) as file:
        return file[PIXELS].is_virtual and any(shard.parent == folder for shard, *_ in shards_of(output, file, PIXELS))
    return False


def _shard_bytes(folder: Path) -> int:
    size = 0
    for path in folder.glob("shard-*.h5"):
        with contextlib.suppress(FileNotFoundError):  # another process has just finished
            size += path.stat().st_size
    return size


def _existing_parent(output: Path) -> Path:
    parent = output.absolute().parent
    while not parent.exists():
        parent = parent.parent
    return parent
