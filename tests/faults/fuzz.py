"""Random bytes in files, one spoilt file at a time; run as a process, so that a crash in a C library has a witness.

``python -m tests.faults.fuzz source FOLDER WORK --seed 0 --tries 100`` spoils a file of a dataset, inspects it, and
converts what passes; ``... file OUT.h5 WORK`` spoils a converted file, verifies it and reads all of it. Whatever comes
must be an error of ours or a result. A line before each try tells what was done; one JSON object comes at the end.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import random
import shutil
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lewm_data.config import ConvertConfig
from lewm_data.conversion.inspect import inspect_source
from lewm_data.conversion.pipeline import convert
from lewm_data.conversion.verify import verify_file
from lewm_data.errors import LewmDataError
from lewm_data.loading.store import FrameStore

_PATIENCE_SECONDS = 120


def mutate(content: bytes, rng: random.Random) -> bytes:
    """Spoils a few bytes: set at random, to interesting numbers, cut out, doubled, or cut off."""
    spoilt = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        if not spoilt:
            break
        # heads and tails are where the formats keep their structure
        near = rng.choice((len(spoilt), 64, 512, 4096))
        place = min(rng.randrange(near), len(spoilt) - 1)
        place = place if rng.random() < 0.5 else len(spoilt) - 1 - place
        size = min(rng.choice((1, 1, 2, 4, 8, 64)), len(spoilt) - place)
        kind = rng.randrange(6)
        if kind == 0:
            spoilt[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            spoilt[place : place + size] = rng.randbytes(size)
        elif kind == 2:
            spoilt[place : place + size] = bytes([rng.choice((0, 0x7F, 0x80, 0xFF))]) * size
        elif kind == 3:
            del spoilt[place : place + size]
        elif kind == 4:
            spoilt[place:place] = spoilt[place : place + size]
        elif rng.random() < 0.2:
            del spoilt[place:]
    return bytes(spoilt)


def try_source(root: Path, work: Path) -> str:
    """Inspects and converts a dataset that was spoilt."""
    config = ConvertConfig(camera="front", image_size=16, dirty_episode_policy="skip", shard_bytes=20_000)
    inspection = inspect_source(str(root), config)
    if inspection.decision.refused or inspection.plan is None:
        return "refused"
    output = work / "out.h5"
    try:
        convert(str(root), output, config)
        problems = verify_file(output)
    finally:
        output.unlink(missing_ok=True)
    if problems:
        raise AssertionError(f"a file that does not verify: {problems[0]}")
    return "converted"


def try_file(path: Path, work: Path) -> str:
    """Verifies and reads a converted file that was spoilt."""
    try:
        said = "refused" if verify_file(path) else "read"
    except LewmDataError:
        said = "refused"
    for verify_checksums in (True, False):
        try:
            store = FrameStore(path, verify_checksums=verify_checksums)
            for name in store.columns:
                if name not in store.frame_columns:
                    store.read_column(name)
            for name in store.frame_columns:
                out = np.empty((1, *store.columns[name].shape), np.uint8)
                for row in range(min(store.num_rows, 300)):
                    store.read_frames(name, np.array([row]), out)
        except LewmDataError:
            pass
    return said


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["source", "file"])
    parser.add_argument("target", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tries", type=int, default=100)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rng = random.Random(options.seed)
    if options.kind == "source":
        target = Path(shutil.copytree(options.target, options.work / "data"))
        files = sorted(path for path in target.rglob("*") if path.is_file())
        attempt: Callable[[Path, Path], str] = try_source
    else:
        target = Path(shutil.copy(options.target, options.work / "spoilt.h5"))
        files = [target]
        attempt = try_file
    counts: Counter[str] = Counter()
    lost: list[str] = []
    for number in range(options.tries):
        file = rng.choice(files)
        original = file.read_bytes()
        file.write_bytes(mutate(original, rng))
        print(f"try {number}: {file.name}", flush=True)
        faulthandler.dump_traceback_later(_PATIENCE_SECONDS, exit=True)
        try:
            counts[attempt(target, options.work)] += 1
        except LewmDataError as error:
            counts[type(error).__name__] += 1
        except Exception:  # noqa: BLE001  an error that is not ours is what is looked for
            lost.append(f"try {number} of {file.name}: {traceback.format_exc()[-1500:]}")
            if not (options.work / "kept").exists():
                shutil.copytree(target, options.work / "kept") if target.is_dir() else None
        faulthandler.cancel_dump_traceback_later()
        file.write_bytes(original)
    print(json.dumps({"counts": counts, "lost": lost}))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
