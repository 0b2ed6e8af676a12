"""A file that differs from what it claims to be is reported, with the place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from lewm_data.config import ConvertConfig
from lewm_data.conversion.pipeline import convert
from lewm_data.conversion.verify import verify_file


@pytest.fixture
def small(recorded: Path, tmp_path: Path) -> Path:
    config = ConvertConfig(camera="front", image_size=16, extra_columns=("task_index",))
    convert(str(recorded), tmp_path / "small.h5", config)
    return tmp_path / "small.h5"


def _wrong_dtype(file: h5py.File) -> None:
    values = file["action"][:]
    del file["action"]
    file["action"] = values.astype(np.float16)


def _shorter(file: h5py.File) -> None:
    values = file["done"][:-1]
    del file["done"]
    file["done"] = values


def _set(name: str, index: object, value: object) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        file[name][index] = value

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda file: file.__delitem__("state"), "dataset 'state' is missing"),
        (_wrong_dtype, "dataset 'action' is float16, not float32 or float64"),
        (_shorter, "dataset 'done' has 53 rows, but 'pixels' has 54"),
        (lambda file: file.create_group("more"), "'more' is a group; the format has none"),
        (_set("ep_len", 0, 8), "'ep_offset' is not the running sum"),
        (_set("ep_offset", 2, 3), "'ep_offset' is not the running sum"),
        (_set("episode_idx", 10, 3), "'episode_idx' is wrong"),
        (_set("step_idx", 10, 0), "'step_idx' is wrong"),
        (_set("action", (10, 0), 0.5), "statistics of 'action' are not those of its rows"),
        (lambda file: file["pixels"].resize(53, axis=0), "dataset 'action' has 54 rows, but 'pixels' has 53"),
        (lambda file: file.attrs.__setitem__("compression", "zstd"), "has filters"),
        (lambda file: file.attrs.__setitem__("image_height", 17), "has frames of (16, 16, 3), not (17, 16, 3)"),
    ],
)
def test_broken_invariants(small: Path, change: Callable[[h5py.File], None], words: str) -> None:
    assert verify_file(small) == []
    with h5py.File(small, "r+") as file:
        change(file)
    problems = verify_file(small)
    assert any(words in problem for problem in problems), problems


@pytest.mark.parametrize("row", [0, 7, 30, 53])
def test_one_flipped_bit_anywhere_in_a_frame_is_found(small: Path, row: int) -> None:
    with h5py.File(small) as file:
        chunk = file["pixels"].id.get_chunk_info(row)
        step = int(file["step_idx"][row])
        episode = int(file["episode_idx"][row])
    data = bytearray(small.read_bytes())
    rng = np.random.default_rng(row)
    for _ in range(4):
        spoilt = bytearray(data)
        spoilt[chunk.byte_offset + int(rng.integers(chunk.size))] ^= 1 << int(rng.integers(8))
        small.write_bytes(spoilt)
        problems = verify_file(small)
        assert len(problems) == 1
        assert problems[0].startswith(f"episode {episode} step {step}: 'pixels' is damaged")
