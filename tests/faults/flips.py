"""Flips bits of a converted file one at a time, cuts it, and asks ``verify`` and the loader; run as a process.

``python -m tests.faults.flips FILE WORK --seed 0 --flips 300 --cuts 20`` prints a line before each try, so that a crash
of the process can be laid at its door, and one JSON object at the end. What differs from the original must be found;
where nothing is found, everything must be equal to the original: bits in unused space mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import warnings
from collections import Counter
from pathlib import Path

import h5py
import numpy as np

from lewm_data.conversion.verify import verify_file
from lewm_data.errors import LewmDataError
from lewm_data.loading.store import FrameStore
from tests.faults.campaign import contents, difference


def frame_bytes(path: Path) -> list[range]:
    """Where the frames lie in the file."""
    with h5py.File(path) as file:
        found = []
        for name in file:
            if name.startswith("pixels"):
                dataset = file[name].id
                for number in range(dataset.get_num_chunks()):
                    info = dataset.get_chunk_info(number)
                    found.append(range(info.byte_offset, info.byte_offset + info.size))
    return found


def by_verify(path: Path, original: dict) -> str:
    """What ``verify`` says, and whether it is right."""
    try:
        problems = verify_file(path)
    except LewmDataError:
        return "found"
    if problems:
        return "found"
    try:
        wrong = difference(contents(path), original)
    except Exception as error:  # noqa: BLE001  whatever h5py makes of it
        wrong = f"h5py cannot read it ({error})"
    return "nothing changed" if wrong is None else f"LOST by verify: {wrong}"


def by_loader(path: Path, original: dict) -> str:
    """What the loader with checksums says, and whether it is right."""
    try:
        store = FrameStore(path, verify_checksums=True)
        values = {name: store.read_column(name) for name in store.columns if not name.startswith("pixels")}
        for name in store.frame_columns:
            values[name] = np.empty((store.num_rows, *store.columns[name].shape), np.uint8)
            store.read_frames(name, np.arange(store.num_rows), values[name])
        values |= {"ep_len": store.ep_len, "ep_offset": store.ep_offset}
    except LewmDataError:
        return "found"
    wrong = difference(values, {name: value for name, value in original.items() if not name.startswith("attribute ")})
    return "nothing changed" if wrong is None else f"LOST by the loader: {wrong}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--flips", type=int, default=300)
    parser.add_argument("--cuts", type=int, default=20)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rng = random.Random(options.seed)
    original = contents(options.file)
    size = options.file.stat().st_size
    frames = frame_bytes(options.file)
    in_frames = np.zeros(size, bool)
    for part in frames:
        in_frames[part.start : part.stop] = True
    elsewhere = np.flatnonzero(~in_frames).tolist()  # rows, indices, attributes, HDF5's own structure
    copy = options.work / "flipped.h5"
    shutil.copy(options.file, copy)
    counts: Counter[str] = Counter()
    lost: list[str] = []

    def ask(what: str) -> None:
        print(what, flush=True)
        for who, door in (("verify", by_verify), ("loader", by_loader)):
            try:
                answer = door(copy, original)
            except Exception as error:  # noqa: BLE001  an error that is not ours is a finding
                answer = f"LOST by {who}: {type(error).__name__}: {error}"
            counts[f"{who}: {answer.split(':')[0]}"] += 1
            if answer.startswith("LOST"):
                lost.append(f"{what}: {answer}")

    for number in range(options.flips):
        place = rng.randrange(size) if number % 2 else rng.choice(elsewhere)
        bit = rng.randrange(8)
        with copy.open("r+b") as file:
            byte = os.pread(file.fileno(), 1, place)[0]
            os.pwrite(file.fileno(), bytes([byte ^ 1 << bit]), place)
        ask(f"byte {place} bit {bit}")
        with copy.open("r+b") as file:
            os.pwrite(file.fileno(), bytes([byte]), place)
    for _ in range(options.cuts):
        os.truncate(copy, rng.randrange(size))
        ask(f"cut to {copy.stat().st_size}")
        shutil.copy(options.file, copy)
    print(json.dumps({"counts": counts, "lost": lost}))


if __name__ == "__main__":
    main()
