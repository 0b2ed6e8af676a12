"""Faults of a running loader. Whatever happens: an error in words, no wrong picture, and the rest comes right."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from lewm_data.errors import DamagedChunkError, LoaderError
from lewm_data.loading.dataset import WindowDataset
from lewm_data.loading.loader import WindowLoader
from lewm_data.loading.sampler import WindowOrder, WindowSampler
from tests.faults.campaign import Fault, Lost, Site, finish
from tests.loading import files

_BATCH = 8


class Spoilt(WindowDataset):
    """A dataset whose reading fails once, in the thread that happens to do it."""

    fail_at = -1
    calls = 0

    def fill(self, *arguments: Any, **options: Any) -> None:
        self.calls += 1
        if self.calls == self.fail_at:
            raise OSError("a worker thread failed")
        super().fill(*arguments, **options)


def _loader(path: Path, *, kind: type[WindowDataset] = WindowDataset, **options: Any) -> WindowLoader:
    dataset = kind(path, num_steps=2, frameskip=2)
    order = WindowOrder(num_windows=len(dataset), batch_size=_BATCH, seed=1, shuffle=True, drop_last=True)
    return WindowLoader(dataset, WindowSampler(order), **options)


def _batches(loader: WindowLoader) -> list[dict[str, np.ndarray]]:
    return [{name: tensor.numpy().copy() for name, tensor in batch.items()} for batch in loader]


def _check_equal(found: list[dict[str, np.ndarray]], expected: list[dict[str, np.ndarray]]) -> None:
    if len(found) != len(expected):
        raise Lost(f"{len(found)} batches instead of {len(expected)}")
    for number, (mine, theirs) in enumerate(zip(found, expected, strict=True)):
        for name in theirs:
            if not np.array_equal(mine[name], theirs[name]):
                raise Lost(f"batch {number}: {name} differs")


def _check_goes_on(
    loader: WindowLoader, taken: list[dict[str, np.ndarray]], expected: list[dict[str, np.ndarray]]
) -> None:
    """After an error: nothing wrong was handed out, and the rest comes, from this loader and from a resumed one."""
    _check_equal(taken, expected[: len(taken)])
    state = loader.state_dict()
    fresh = WindowLoader(loader.dataset, WindowSampler(loader.batch_sampler.order), num_workers=0)
    for resumed in (fresh, loader):
        resumed.load_state_dict(state)
        _check_equal(_batches(resumed), expected[len(taken) :])


def _thread(site: Site, rng: random.Random, _: int) -> str:
    expected = _batches(_loader(site.reference, num_workers=0))
    loader = _loader(site.reference, kind=Spoilt, num_workers=2)
    dataset = loader.dataset
    assert isinstance(dataset, Spoilt)
    dataset.fail_at = rng.randrange(1, len(expected) + 1)
    before, taken = set(threading.enumerate()), []
    try:
        taken.extend({name: tensor.numpy().copy() for name, tensor in batch.items()} for batch in loader)
    except OSError as error:
        if "While reading a batch" not in "".join(error.__notes__):
            raise Lost("the error does not say which batch") from error
    else:
        raise Lost("the error was swallowed")
    if threads := set(threading.enumerate()) - before:
        raise Lost(f"threads live on: {threads}")
    _check_goes_on(loader, taken, expected)
    return "the error reached the trainer"


_PROCESS_FAULT = """
import json, random, sys
from pathlib import Path
from tests.faults.loading import kill_a_worker
if __name__ == "__main__":
    print(json.dumps(kill_a_worker(Path(sys.argv[1]), random.Random(sys.argv[2]))))
"""


def kill_a_worker(path: Path, rng: random.Random) -> str:
    """Kills a worker process of the loader; runs in a process of its own."""
    expected = _batches(_loader(path, num_workers=0))
    loader = _loader(path, num_workers=2, worker_type="process", prefetch=2, multiprocessing_context="fork")
    taken: list[dict[str, np.ndarray]] = []
    at = rng.randrange(0, len(expected) - 8)
    try:
        for batch in loader:
            taken.append({name: tensor.numpy().copy() for name, tensor in batch.items()})
            if len(taken) == at + 1:
                rng.choice(psutil.Process().children()).kill()
            if len(taken) > at:
                time.sleep(0.05)  # a trainer's step
    except LoaderError:
        ended = "LoaderError"
    else:
        return "LOST: the death of a worker went unnoticed"
    _check_goes_on(loader, taken, expected)
    loader.close()
    if children := psutil.Process().children():
        return f"LOST: processes live on: {children}"
    return ended


def _process(site: Site, rng: random.Random, _: int) -> str:
    command = [sys.executable, "-c", _PROCESS_FAULT, str(site.reference), str(rng.random())]
    done = finish(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    if done.returncode != 0:
        raise Lost(f"status {done.returncode}: {done.stderr[-2000:]}")
    answer = json.loads(done.stdout)
    if answer.startswith("LOST"):
        raise Lost(answer)
    return str(answer)


_CUT_FAULT = """
import sys
from pathlib import Path
from tests.faults.loading import cut_while_reading
if __name__ == "__main__":
    print(cut_while_reading(Path(sys.argv[1]), float(sys.argv[2])))
"""


def cut_while_reading(path: Path, where: float) -> str:
    """Cuts a file off under a running loader, in a process of its own, since a mapped file could kill it."""
    loader = _loader(path, num_workers=2)
    try:
        for number, _ in enumerate(loader):
            if number == 1:
                os.truncate(path, int(path.stat().st_size * where))
    except DamagedChunkError:
        return "DamagedChunkError"
    return "LOST: not noticed"


def _cut(site: Site, rng: random.Random, number: int) -> str:
    codec = files.CODECS[number % len(files.CODECS)]
    path = files.write(site.new_folder() / "a.h5", [200, 150, 100], codec=codec).path
    command = [sys.executable, "-c", _CUT_FAULT, str(path), str(rng.uniform(0.05, 0.6))]
    done = finish(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    if codec == "none" and done.returncode == -signal.SIGBUS:  # in mid-copy, as the documentation says
        return "SIGBUS, without compression"
    if done.returncode != 0 or "LOST" in done.stdout:
        raise Lost(f"{codec}: status {done.returncode}: {done.stdout}{done.stderr[-2000:]}")
    return done.stdout.strip()


def flip(site: Site, *, seed: int, flips: int, cuts: int) -> dict[str, Any]:
    """Flips and cuts in a process of its own; returns counts and what was lost."""
    work = site.new_folder()
    command = [sys.executable, "-m", "tests.faults.flips", str(site.reference), str(work)]
    command += [f"--seed={seed}", f"--flips={flips}", f"--cuts={cuts}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    done = finish(process, patience_seconds=1800)
    shutil.rmtree(work)
    *tries, last = done.stdout.strip().splitlines() or [""]
    if done.returncode != 0:
        return {"counts": {}, "lost": [f"status {done.returncode} after {last}: {done.stderr[-2000:]}"]}
    return dict(json.loads(last))


FAULTS = (
    Fault(name="a worker thread raises", quick=2, long=30, trial=_thread),
    Fault(name="a worker process is killed", quick=1, long=15, trial=_process),
    Fault(name="the file is cut under the loader", quick=1, long=20, trial=_cut),
)
