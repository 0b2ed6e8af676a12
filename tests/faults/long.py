"""What the long form runs, in processes of its own: all trials of a fault, flipped bits, and random bytes."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from tests.faults import conversion, loading
from tests.faults.campaign import Lost, Result, Site, finish, run

FAULTS = [fault for fault in (*conversion.FAULTS, *loading.FAULTS) if fault.long]


class Ground(NamedTuple):
    """Where and how much is tried.

    Attributes:
        source: The dataset.
        folder: Where to work.
        share: Of the trials of the long form.
        seed: Makes the trials.
    """

    source: Path
    folder: Path
    share: float
    seed: int

    def trials(self, number: int) -> int:
        """The share of a number of trials, one at least."""
        return max(1, round(number * self.share))


_sites: dict[Path, Site] = {}


def _site(ground: Ground) -> Site:
    """This process's site."""
    if ground.folder not in _sites:
        logging.disable()
        _sites[ground.folder] = Site(ground.source, ground.folder / f"site-{os.getpid()}")
    return _sites[ground.folder]


def try_fault(ground: Ground, number: int) -> list[Result]:
    """All trials of one fault."""
    fault = FAULTS[number]
    return [run(fault, _site(ground), ground.trials(fault.long), seed=ground.seed)]


def flip_bits(ground: Ground) -> list[Result]:
    """Four thousand flipped bits and two hundred cuts."""
    counts: Counter[str] = Counter()
    lost: list[str] = []
    for number in range(8):
        seed = 1000 * ground.seed + number
        answer = loading.flip(_site(ground), seed=seed, flips=ground.trials(500), cuts=ground.trials(25))
        counts.update(answer["counts"])
        lost += answer["lost"]
    results = []
    for who, name in (("verify", "`verify`"), ("loader", "the loader with `verify_checksums`")):
        ended = Counter({key.split(": ")[1]: n for key, n in counts.items() if key.startswith(who)})
        mine = [text for text in lost if f"by {who}" in text or f"by the {who}" in text]
        results.append(Result(f"one flipped bit, or a cut: {name}", tried=ended.total(), ended=ended, lost=mine))
    results[0].lost += [text for text in lost if "LOST by" not in text]
    return results


def spoil_bytes(ground: Ground, kind: str) -> list[Result]:
    """Random bytes in a ``source`` or a converted ``file``: an error of ours, or a result."""
    site = _site(ground)
    target = site.source if kind == "source" else site.reference
    result = Result("random bytes in a source" if kind == "source" else "random bytes in a converted file")
    for number in range(4):
        answer = fuzz(site, kind, target, seed=1000 * ground.seed + number, tries=ground.trials(250))
        result.ended.update(answer["counts"])
        result.lost += answer["lost"]
    result.tried = result.ended.total() + len(result.lost)
    return [result]


def fuzz(site: Site, kind: str, target: Path, *, seed: int, tries: int) -> dict:
    """Random bytes in a process of its own; returns counts and what was lost."""
    work = site.new_folder()
    command = [sys.executable, "-m", "tests.faults.fuzz", kind, str(target), str(work)]
    command += [f"--seed={seed}", f"--tries={tries}"]
    try:
        done = finish(
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"),
            patience_seconds=1800,
        )
    except Lost as lost:
        return {"counts": {}, "lost": [str(lost)]}
    *_, last = done.stdout.strip().splitlines() or [""]
    if done.returncode != 0:
        return {"counts": {}, "lost": [f"{kind}: status {done.returncode} after {last}: {done.stderr[-2000:]}"]}
    return dict(json.loads(last))
