"""Every error number of the machine's trouble, on every kind of open, read, listing and lock; run as a process.

``LD_PRELOAD=shim.so python -m tests.faults.machine_trouble SITE`` prints one JSON object for each trial. SITE is a
folder that ``prepare_site`` made. Nothing here needs root: the shim lets calls of the C library fail.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import logging
import os
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from lewm_data.machine_errors import ENOTSUPP

CODES = (
    errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOMEM, errno.EMFILE, errno.ENFILE,
    errno.ENAMETOOLONG, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, ENOTSUPP, errno.EBUSY,
)  # fmt: skip

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, ENOTSUPP)

_WITHOUT_LOCKS = tuple(code for code in CODES if code not in NO_LOCKS)


class Kind(NamedTuple):
    """One kind of call that fails.

    Attributes:
        name: What fails, in words.
        operation: ``open``, ``read``, ``stat``, ``list`` or ``lock``.
        ending: The end of the path.
        action: What is being done; see ``_ACTIONS``.
        codes: Error numbers to try.
        may_succeed: Whether the action may do without.
    """

    name: str
    operation: str
    ending: str
    action: str
    codes: tuple[int, ...] = CODES
    may_succeed: bool = False


VIDEO = "observation.images.front/chunk-000/file-000.mp4"
DATA = "data/chunk-000/file-000.parquet"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"

KINDS = (
    Kind("info.json: stat", "stat", "v3/meta/info.json", "inspect v3"),
    Kind("info.json: open", "open", "v3/meta/info.json", "inspect v3"),
    Kind("info.json: read", "read", "v3/meta/info.json", "inspect v3"),
    Kind("episode table: list the folder", "list", "v3/meta/episodes", "inspect v3"),
    Kind("episode table: open", "open", f"v3/{EPISODES}", "inspect v3"),
    Kind("episode table: read", "read", f"v3/{EPISODES}", "inspect v3"),
    Kind("episodes.jsonl: open", "open", "v21/meta/episodes.jsonl", "inspect v21"),
    Kind("tasks.parquet: open", "open", "v3/meta/tasks.parquet", "inspect v3"),
    Kind("rows: stat", "stat", f"v3/{DATA}", "inspect v3"),
    Kind("rows: open", "open", f"v3/{DATA}", "inspect v3"),
    Kind("rows: read", "read", f"v3/{DATA}", "inspect v3"),
    Kind("video: stat", "stat", f"v3/videos/{VIDEO}", "inspect v3"),
    Kind("video: open", "open", f"v3/videos/{VIDEO}", "inspect v3"),
    Kind("video: read", "read", f"v3/videos/{VIDEO}", "inspect v3"),
    Kind("rows, under skip: open", "open", f"v3/{DATA}", "convert v3"),
    Kind("video, under skip: open", "open", f"v3/videos/{VIDEO}", "convert v3"),
    Kind("video, under skip: read", "read", f"v3/videos/{VIDEO}", "convert v3"),
    Kind("video of one episode, under skip: open", "open", "front/episode_000001.mp4", "convert v21"),
    Kind("picture file, under skip: open", "open", "pictures/3.png", "convert pictures"),
    Kind("the output's lock: open", "open", "out.h5.lock", "convert v3", _WITHOUT_LOCKS),
    Kind("the output's lock: lock", "lock", "out.h5.lock", "convert v3", NO_LOCKS, may_succeed=True),
    Kind("the output's lock: lock fails", "lock", "out.h5.lock", "convert v3", (errno.EIO, errno.ESTALE)),
    Kind("the output: create", "open", ".h5.tmp", "convert v3"),
    Kind("the work folder's state: create", "open", "state.tmp", "convert v3"),
    Kind("data_dir's lock: lock", "lock", ".lock", "prepare v3", NO_LOCKS, may_succeed=True),
    Kind("converted file: stat", "stat", "whole.h5", "verify"),
    Kind("converted file: open", "open", "whole.h5", "verify"),
    Kind("converted file: read", "read", "whole.h5", "verify"),
    Kind("converted file: lock", "lock", "whole.h5", "verify", may_succeed=True),
    Kind("converted file, loading: open", "open", "whole.h5", "load"),
    Kind("converted file, loading: read", "read", "whole.h5", "load"),
    Kind("converted file, loading: lock", "lock", "whole.h5", "load", may_succeed=True),
    Kind("converted file, merging: open", "open", "whole.h5", "merge"),
    Kind("converted file, merging: read", "read", "whole.h5", "merge"),
    Kind("converted file, preview: open", "open", "whole.h5", "preview"),
    Kind("shard: open, to verify", "open", "shard-00001.h5", "verify sharded"),
    Kind("shard: open, to load", "open", "shard-00001.h5", "load sharded"),
    Kind("shard: read, to load", "read", "shard-00001.h5", "load sharded"),
)


def prepare_site(site: Path, *, v3: Path, v21: Path, images: Path) -> None:
    """Fills a folder with what the actions need, from clean recordings."""
    from lewm_data.config import ConvertConfig
    from lewm_data.conversion.pipeline import convert
    from tests.recording import store_pictures_beside

    for name, root in (("v3", v3), ("v21", v21), ("pictures", images)):
        shutil.copytree(root, site / name)
    store_pictures_beside(site / "pictures")
    config = ConvertConfig(camera="front", image_size=16)
    convert(str(v3), site / "whole.h5", config)
    convert(str(v3), site / "sharded.h5", ConvertConfig(camera="front", image_size=16, layout="sharded", shard_bytes=1))


def _convert(site: Path, name: str) -> None:
    from lewm_data.config import ConvertConfig
    from lewm_data.conversion.pipeline import convert

    work = site / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    result = convert(
        str(site / name), work / "out.h5", ConvertConfig(camera="front", image_size=16, dirty_episode_policy="skip")
    )
    if result.header.dropped_episodes or result.num_episodes != 5:
        raise AssertionError(f"episodes were dropped: {result.header.dropped_episodes}")


def _prepare(site: Path, name: str) -> None:
    from lewm_data.config import ConvertConfig
    from lewm_data.conversion.prepare import prepare_file

    shutil.rmtree(site / "work", ignore_errors=True)
    prepare_file(str(site / name), site / "work", ConvertConfig(camera="front", image_size=16))


def _inspect(site: Path, name: str) -> None:
    import lewm_data

    inspection = lewm_data.inspect(site / name, camera="front", dirty_episode_policy="skip").inspection
    errors = [found.code for found in inspection.decision.findings if found.severity == "error"]
    if errors or inspection.decision.dropped:
        raise AssertionError(f"findings: {errors}")


def _verify(site: Path, name: str = "whole") -> None:
    import lewm_data

    problems = lewm_data.verify(site / f"{name}.h5").problems
    if problems:
        raise AssertionError(f"problems: {problems}")


def _load(site: Path, name: str = "whole") -> None:
    from lewm_data import WindowDataset

    WindowDataset(site / f"{name}.h5", num_steps=2, frameskip=2).__getitems__(list(range(8)))


def _merge(site: Path) -> None:
    import lewm_data

    lewm_data.merge([site / "whole.h5"], site / "merged.h5", overwrite=True)


def _preview(site: Path) -> None:
    import lewm_data

    lewm_data.preview(site / "whole.h5", site / "page.html", overwrite=True)


_ACTIONS: dict[str, Callable[..., None]] = {
    "inspect": _inspect,
    "convert": _convert,
    "prepare": _prepare,
    "verify": _verify,
    "load": _load,
    "merge": _merge,
    "preview": _preview,
}


def attempt(shim: Any, site: Path, kind: Kind, code: int) -> dict[str, Any]:
    """One trial: how the action ended while the fault was in force."""
    name, *arguments = kind.action.split()
    shim.set_fault(kind.operation.encode(), kind.ending.encode(), code)
    ended: dict[str, Any] = {"kind": kind.name, "errno": code, "error": None, "status": 0, "message": ""}
    try:
        _ACTIONS[name](site, *arguments)
    except Exception as error:  # whatever it is: the test judges it
        kinds = [cls.__name__ for cls in type(error).__mro__]
        ended.update(error=kinds, status=getattr(error, "exit_status", 1), message=str(error))
    finally:
        ended["hits"] = shim.num_hits()
        shim.set_fault(b"", b"", 0)
    return ended


def main() -> None:
    """Runs all trials."""
    site = Path(sys.argv[1])
    shim = ctypes.CDLL(os.environ["LD_PRELOAD"])
    del os.environ["LD_PRELOAD"]  # not in child processes
    logging.disable()
    warnings.simplefilter("ignore")
    with contextlib.redirect_stderr(None):
        for kind in KINDS:
            for code in kind.codes:
                print(json.dumps(attempt(shim, site, kind, code)), flush=True)


if __name__ == "__main__":
    main()
