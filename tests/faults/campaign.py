"""What every fault of the campaign needs: a dataset, an undisturbed conversion of it, and what must hold afterwards."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401  registers the codecs
import numpy as np

from lewm_data.config import ConvertConfig
from lewm_data.conversion.pipeline import convert
from lewm_data.conversion.verify import verify_file
from lewm_data.errors import LewmDataError, OutputError

EPISODE_LENGTHS = (14, 20, 9, 25, 17, 12, 22, 16, 11, 24)
CONFIG = ConvertConfig(camera="front", cameras="all", image_size=48, shard_bytes=150_000, micro_batch=8)
SETTINGS = tuple(
    f"--{name}={getattr(CONFIG, name)}" for name in ("camera", "cameras", "image_size", "shard_bytes", "micro_batch")
)
"""Ten episodes in ten shards."""

_PATIENCE_SECONDS = 240


class Lost(AssertionError):
    """After a fault, something was lost, half there, or in the way."""


class TooLate(Exception):
    """The process was done before the fault came; the trial counts for nothing."""


def contents(path: Path) -> dict[str, Any]:
    """All that a file holds: every dataset and every root attribute, read by h5py."""
    with h5py.File(path) as file:
        attributes = {f"attribute {name}": file.attrs[name] for name in file.attrs}
        return {name: file[name][:] for name in file} | attributes


def difference(found: dict[str, Any], expected: dict[str, Any]) -> str | None:
    """The first thing in which two files' contents differ, in words."""
    for name in sorted(found.keys() | expected.keys()):
        if name not in found or name not in expected:
            return f"{name} is {'missing' if name in expected else 'too much'}"
        if not np.array_equal(found[name], expected[name]):
            return f"{name} differs"
    return None


class Site:
    """A dataset and its undisturbed conversion; every trial works in a folder of its own.

    Args:
        source: The dataset's folder.
        folder: Where to work.

    Attributes:
        seconds: What an undisturbed conversion takes.
        writing_seconds: What it takes from the first file that it makes.
    """

    def __init__(self, source: Path, folder: Path) -> None:
        self.source, self.folder = source, folder
        self._number = 0
        undisturbed = self.new_folder()
        started = begun = time.perf_counter()
        process = self.start(undisturbed)
        while process.poll() is None:
            if not any(undisturbed.iterdir()):
                begun = time.perf_counter()
            time.sleep(0.001)
        self.seconds = time.perf_counter() - started
        self.writing_seconds = time.perf_counter() - begun
        done = finish(process)
        if done.returncode != 0:
            raise RuntimeError(done.stderr)
        self.reference = undisturbed / "out.h5"
        self.expected = contents(self.reference)

    def new_folder(self) -> Path:
        """An empty folder for a trial."""
        self._number += 1
        folder = self.folder / f"trial-{self._number:04d}"
        folder.mkdir(parents=True)
        return folder

    def copy_source(self) -> Path:
        """The dataset again, with its name and its files' times, to be spoilt."""
        return Path(shutil.copytree(self.source, self.new_folder() / self.source.name))

    def arguments(self, folder: Path, *more: str, source: Path | None = None) -> list[str]:
        """What comes after ``lewm-data``."""
        return ["convert", str(source or self.source), str(folder / "out.h5"), *SETTINGS, *more]

    def start(self, folder: Path, *more: str, source: Path | None = None) -> subprocess.Popen[str]:
        """Starts a conversion."""
        return _start([sys.executable, "-m", "lewm_data", *self.arguments(folder, *more, source=source)])

    def start_with(self, plan: dict[str, Any], folder: Path, *more: str) -> subprocess.Popen[str]:
        """Starts a conversion with something injected (see ``injection``)."""
        command = [sys.executable, "-m", "tests.faults.injection", json.dumps(plan), str(folder), "--"]
        return _start([*command, *self.arguments(folder, *more)])

    def run(self, folder: Path, *more: str, source: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Converts; waits for it."""
        return finish(self.start(folder, *more, source=source))

    def check_whole_or_absent(self, folder: Path) -> bool:
        """After a fault: whether the output is there; if it is, it is whole."""
        output = folder / "out.h5"
        if not output.exists():
            return False
        wrong = difference(contents(output), self.expected)
        if wrong is not None:
            raise Lost(f"there is an output, but {wrong}")
        return True

    def check_goes_on(self, folder: Path, *, source: Path | None = None) -> None:
        """After a fault: the next run finishes, its content is that of an undisturbed one, and nothing else is left."""
        was_there = self.check_whole_or_absent(folder)
        try:
            convert(str(source or self.source), folder / "out.h5", CONFIG)
        except OutputError as error:
            if not was_there or "exists already" not in str(error):
                raise Lost(f"the next run: {error}") from error
        except (LewmDataError, OSError, RuntimeError) as error:
            raise Lost(f"the next run: {type(error).__name__}: {error}") from error
        else:
            if was_there:
                raise Lost("the next run made a whole output anew")
        if not self.check_whole_or_absent(folder):
            raise Lost("the next run made no output")
        if problems := verify_file(folder / "out.h5"):
            raise Lost(f"verify: {problems[0]}")
        if left := sorted(path.name for path in folder.iterdir() if path.name != "out.h5"):
            raise Lost(f"left behind: {', '.join(left)}")


def _start(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace")


def finish(
    process: subprocess.Popen[str], *, patience_seconds: float = _PATIENCE_SECONDS
) -> subprocess.CompletedProcess[str]:
    """Waits for a process; one that hangs is an error."""
    try:
        out, err = process.communicate(timeout=patience_seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise Lost("it hung") from None
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def expect(done: subprocess.CompletedProcess[str], *statuses: int) -> str:
    """Checks how a disturbed run ended, and says it in words.

    Raises:
        TooLate: It was done before the fault came.
        Lost: It ended in another way, or with a traceback where it should have had words.
    """
    if done.returncode == 0:
        raise TooLate
    if done.returncode not in statuses:
        raise Lost(f"it ended with status {done.returncode}: {done.stderr[-2000:]}")
    # Python prints, and then ignores, an interrupt that comes within a weak reference's callback
    if "Traceback" in done.stderr.split("Exception ignored in")[0] and 1 not in statuses:
        raise Lost(f"it ended with a traceback: {done.stderr[-2000:]}")
    return f"killed by signal {-done.returncode}" if done.returncode < 0 else f"status {done.returncode}"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One kind of fault.

    Attributes:
        name: As the table calls it.
        quick: Trials in ``make test``.
        long: Trials in ``make faults``.
        trial: Makes one; returns how the disturbed process ended, in a word or two, and raises ``Lost``.
        obstacle: Why this machine cannot try it; None if it can.
    """

    name: str
    quick: int
    long: int
    trial: Callable[[Site, random.Random, int], str]
    obstacle: Callable[[], str | None] = lambda: None


@dataclass
class Result:
    """What came of the trials of one fault.

    Attributes:
        fault: Its name.
        tried: Trials in which the fault came in time.
        too_late: Trials in which the process was done before.
        ended: How the disturbed processes ended, and how often.
        lost: What was lost, in words; empty as it should be.
        skipped: Why it was not tried, if it was not.
    """

    fault: str
    tried: int = 0
    too_late: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    skipped: str | None = None


def run(fault: Fault, site: Site, trials: int, *, seed: int) -> Result:
    """Tries a fault."""
    result = Result(fault.name, skipped=fault.obstacle())
    if result.skipped is not None:
        return result
    for number in range(trials):
        try:
            result.ended[fault.trial(site, random.Random(f"{seed} {fault.name} {number}"), number)] += 1
            result.tried += 1
        except TooLate:
            result.too_late += 1
        except Lost as lost:
            result.tried += 1
            result.lost.append(f"trial {number}: {lost}")
        for folder in site.folder.glob("trial-*"):
            if folder != site.reference.parent:
                shutil.rmtree(folder, ignore_errors=True)
    return result


def is_root() -> bool:
    """Whether this process may mount."""
    return os.geteuid() == 0
