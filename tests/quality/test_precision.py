"""Values that float32 would merge are found, kept on request, and compared as precisely as the source has them."""

from __future__ import annotations

import doctest
import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lewm_data import WindowDataset
from lewm_data.config import ConvertConfig
from lewm_data.conversion.pipeline import convert
from lewm_data.conversion.verify import verify_against, verify_file
from lewm_data.errors import DirtyDataError
from lewm_data.loading.normalizer import Normalizer, Sample, normalize_batch
from lewm_data.quality import checks
from lewm_data.quality.checks import lost_precision

STATE = "observation.state"
FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
CONFIG = {"camera": "front", "image_size": 16}


def steps(count: int, start: float, change: float) -> np.ndarray:
    return start + change * np.arange(count, dtype=np.float64)[:, None]


@pytest.mark.parametrize(
    ("values", "left"),
    [
        (steps(466, 1.7e9, 0.033), 1),  # a clock, in seconds since 1970
        (steps(466, 48.137154, 1e-7), 13),  # a latitude, a centimeter per step
        (steps(40, 2.0**24, 1.0).astype(np.int64), 21),  # encoder ticks
    ],
)
def test_values_that_merge_are_counted(values: np.ndarray, left: int) -> None:
    [lost] = lost_precision(values, FLOAT32)
    assert (lost.dimension, lost.num_distinct, lost.num_left) == (0, len(values), left)
    assert lost.num_left == len(np.unique(values.astype(np.float32)))
    before, after = lost.example
    assert before != after
    assert np.float32(before) == np.float32(after)
    assert values[lost.step, 0] == after


@pytest.mark.parametrize(
    "values",
    [
        steps(466, 0.5, 1e-3),  # radians
        steps(40, 0, 1).astype(np.int64),
        np.full((40, 1), 0.1),
        0.04 + 1e-17 * np.random.default_rng(0).normal(size=(400, 1)),  # a gripper at rest, with rounding
        np.full((40, 1), np.nan),
        np.concatenate([np.linspace(0, 1.74, 50), 1.74 + 6e-8 * np.arange(400)])[:, None],  # settles after a move
        steps(1, 1.7e9, 0.033),
        np.zeros((0, 3)),
    ],
)
def test_values_that_float32_keeps_apart_are_no_finding(values: np.ndarray) -> None:
    assert lost_precision(values, FLOAT32) == []


def test_a_joint_that_moves_and_then_rests_with_noise_is_fine() -> None:
    rng = np.random.default_rng(0)
    moving = steps(300, 0.5, 1e-3)
    resting = moving[-1] + 1e-9 * rng.normal(size=(90, 1))
    assert lost_precision(np.concatenate([moving, resting]), FLOAT32) == []


@given(arrays.arrays(np.float64, (20, 2), elements=st.floats(-1e300, 1e300)))
def test_float64_loses_nothing(values: np.ndarray) -> None:
    assert lost_precision(values, FLOAT64) == []


@given(arrays.arrays(np.int64, (20, 2), elements=st.integers(-(2**40), 2**40)))
def test_a_dimension_of_whole_numbers_is_found_exactly_if_a_change_is_lost(values: np.ndarray) -> None:
    stored = values.astype(np.float32)
    expected = {
        dimension
        for dimension in range(2)
        for step in range(1, 20)
        if values[step, dimension] != values[step - 1, dimension]
        and stored[step, dimension] == stored[step - 1, dimension]
    }
    assert {lost.dimension for lost in lost_precision(values, FLOAT32)} == expected


def test_the_example_in_the_docstring_runs() -> None:
    assert doctest.run_docstring_examples(lost_precision, {**vars(checks), "np": np}) is None


@pytest.fixture
def clocked(copy_of: Callable[[Path], Path], recorded: Path) -> Path:
    """A dataset whose first state dimension is a clock in seconds since 1970."""
    root = copy_of(recorded)
    info = json.loads((root / "meta/info.json").read_text())
    info["features"][STATE]["dtype"] = "float64"
    (root / "meta/info.json").write_text(json.dumps(info))
    for path in (root / "data").rglob("*.parquet"):
        table = pq.read_table(path)
        state = np.array(table.column(STATE).to_pylist(), np.float64)
        state[:, 0] = 1.7e9 + np.arange(len(state)) / 30
        column = pa.array(state.tolist(), pa.list_(pa.float64(), state.shape[1]))
        pq.write_table(table.set_column(table.schema.get_field_index(STATE), STATE, column), path)
    return root


def test_a_conversion_refuses_and_names_column_dimension_and_values(clocked: Path, tmp_path: Path) -> None:
    with pytest.raises(DirtyDataError) as refused:
        convert(str(clocked), tmp_path / "out.h5", ConvertConfig(**CONFIG))
    found = [finding for finding in refused.value.findings if finding["code"] == "precision_lost"]
    assert [finding["episode"] for finding in found] == [0, 1, 2, 3, 4]
    assert found[0]["expected"] == "'observation.state' (joint_0) to keep its 7 distinct values"
    assert found[0]["found"].startswith("1 of them left as float32, because neighbors such as 1700000000.0 and")
    assert "--state_dtype float64" in found[0]["remedy"]


def test_float64_keeps_every_value_into_normalized_batches(clocked: Path, tmp_path: Path) -> None:
    result = convert(str(clocked), tmp_path / "out.h5", ConvertConfig(**CONFIG, state_dtype="float64"))
    assert verify_file(tmp_path / "out.h5") == []
    assert verify_against(tmp_path / "out.h5", str(clocked))[:2] == ([], result.num_steps)
    with h5py.File(tmp_path / "out.h5") as file:
        clock = file["state"][:, 0]
        assert file["state"].dtype == file["action"].dtype == np.float64
    np.testing.assert_array_equal(clock, 1.7e9 + np.arange(len(clock)) / 30)
    dataset = WindowDataset(tmp_path / "out.h5", num_steps=4, frameskip=1)
    state = dataset.values("state")
    normalizers = {"state": Normalizer.fit(Sample(state, np.ones(len(state), bool)))}
    normal = normalize_batch({"state": dataset[0]["state"]}, normalizers)["state"]
    assert normal.dtype == torch.float32
    exact = (state - state.mean(0)) / state.std(0)
    np.testing.assert_allclose(normal[:, 0], exact[:4, 0], rtol=1e-5)
    assert len(torch.unique(normal[:, 0])) == 4


def test_verify_compares_as_precisely_as_the_source_is(clocked: Path, tmp_path: Path) -> None:
    """An older file holds the merged values, and nothing recorded it."""
    convert(str(clocked), tmp_path / "out.h5", ConvertConfig(**CONFIG, dirty_episode_policy="keep"))
    problems, *_ = verify_against(tmp_path / "out.h5", str(clocked))
    assert problems == []  # the file records that it was kept on request
    with h5py.File(tmp_path / "out.h5", "r+") as file:
        file.attrs["findings"] = "[]"
    problems, *_ = verify_against(tmp_path / "out.h5", str(clocked))
    words = "'state' dimension 0 has 7 distinct values in the source, but 1 in the file (float32)"
    assert problems[0] == f"episode 0: {words}"
    assert len(problems) == 5
