"""Anything at all in metadata, attributes and bytes: an error of ours or a result, never another exception."""

from __future__ import annotations

import copy
import json
import math
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from lewm_data.config import ConvertConfig
from lewm_data.conversion.inspect import inspect_source
from lewm_data.conversion.pipeline import convert
from lewm_data.errors import FormatError, LewmDataError
from lewm_data.format.header import FileHeader
from tests.faults.campaign import Site
from tests.faults.long import fuzz
from tests.loading import files
from tests.quality.dirt import DATA, INFO, META, retype

CONFIG = ConvertConfig(camera="front", image_size=16, dirty_episode_policy="skip")
FUZZ = settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate),  # to make a failure small would take minutes
)

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 70), 1 << 70)
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["../../x", "{0}", "v3.0", "v2.1", "video", "float32", "data/{episode_index}", "\ud800", "a\0b"])
)
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner))


def places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """Where in a JSON value something can be put in its place."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def put(value: Any, path: tuple, new: Any) -> Any:
    """The value with something else in one place."""
    if not path:
        return new
    changed = copy.copy(value)
    changed[path[0]] = put(value[path[0]], path[1:], new)
    return changed


def inspect(root: Path) -> None:
    """Inspects; errors of ours are fine, and so are findings."""
    with warnings.catch_warnings(action="error"):
        try:
            inspection = inspect_source(str(root), CONFIG)
        except LewmDataError:
            return
    for found in inspection.report.findings:
        assert found.sentence()


@pytest.fixture(scope="module", params=["recorded", "recorded_v21"])
def root(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    dataset = request.getfixturevalue(request.param)
    return Path(shutil.copytree(dataset, tmp_path_factory.mktemp("fuzz") / "data"))


def test_info_may_hold_anything(root: Path) -> None:
    original = (root / INFO).read_text()
    info = json.loads(original)

    @FUZZ
    @given(st.lists(st.tuples(st.sampled_from(sorted(places(info), key=str)), JSON), min_size=1, max_size=3))
    def check(changes: list[tuple[tuple, Any]]) -> None:
        spoilt = info
        for path, new in changes:
            try:
                spoilt = put(spoilt, path, new)
            except (KeyError, IndexError, TypeError):  # an earlier change took the place away
                continue
        (root / INFO).write_text(json.dumps(spoilt))
        inspect(root)

    try:
        check()
    finally:
        (root / INFO).write_text(original)


def test_episode_lines_may_hold_anything(root: Path) -> None:
    path = root / "meta/episodes.jsonl"
    if not path.exists():
        pytest.skip("a v3.0 dataset has none")
    original = path.read_text()
    lines = [json.loads(line) for line in original.splitlines()]

    @FUZZ
    @given(st.sampled_from(sorted(places(lines), key=str)), JSON)
    def check(place: tuple, new: Any) -> None:
        spoilt = put(lines, place, new)
        path.write_text("\n".join(json.dumps(line) for line in (spoilt if isinstance(spoilt, list) else [spoilt])))
        inspect(root)

    try:
        check()
    finally:
        path.write_text(original)


CELLS = st.one_of(
    st.lists(st.integers(-(1 << 63), (1 << 63) - 1) | st.none(), min_size=1, max_size=5).map(
        lambda v: pa.array(v, pa.int64())
    ),
    st.lists(st.floats() | st.none(), min_size=1, max_size=5).map(lambda v: pa.array(v, pa.float64())),
    st.lists(st.text(max_size=3) | st.none(), min_size=1, max_size=5).map(lambda v: pa.array(v, pa.string())),
    st.lists(st.booleans(), min_size=1, max_size=5).map(pa.array),
    st.lists(st.lists(st.floats(width=32), max_size=3) | st.none(), min_size=1, max_size=5).map(
        lambda v: pa.array(v, pa.list_(pa.float32()))
    ),
    st.just(pa.array([None])),
)  # fmt: skip


@pytest.mark.parametrize("name", [META, DATA])
def test_tables_may_hold_anything(recorded: Path, tmp_path: Path, name: str) -> None:
    root = Path(shutil.copytree(recorded, tmp_path / "data"))
    table = pq.read_table(root / name)

    @FUZZ
    @given(st.sampled_from(table.column_names), CELLS)
    def check(column: str, values: pa.Array) -> None:
        repeated = pa.concat_arrays([values] * math.ceil(table.num_rows / len(values))).slice(0, table.num_rows)
        spoilt = table.set_column(table.column_names.index(column), column, repeated)
        pq.write_table(spoilt, root / name)
        inspect(root)

    check()


def test_root_attributes_may_hold_anything() -> None:
    attributes = files.header("lzf", 4, 24, 20)

    @settings(FUZZ, max_examples=400)
    @given(st.sampled_from(sorted(attributes)), SCALARS | JSON.map(json.dumps) | st.binary(max_size=9).map(np.bytes_))
    def check(name: str, value: Any) -> None:
        spoilt = {**attributes, name: value}
        try:
            FileHeader.from_attributes(spoilt, path="x.h5")
        except FormatError:
            return
        FileHeader.is_as_written(spoilt)

    check()


@pytest.mark.parametrize("kind", ["source", "file", "file without checksums"])
def test_random_bytes_crash_nothing(recorded_files: Path, tmp_path: Path, kind: str) -> None:
    site = object.__new__(Site)  # no undisturbed conversion is needed
    site.folder, site._number = tmp_path / "work", 0
    target = recorded_files
    if kind == "file":
        target = tmp_path / "out.h5"
        convert(str(recorded_files), target, CONFIG)
    elif kind != "source":  # the metadata of HDF5's older file format carries none
        target = files.write(tmp_path / "out.h5", [6, 5], height=8, width=8, libver=("earliest", "v108")).path
    answer = fuzz(site, kind.split()[0], target, seed=1, tries=25)
    assert answer["lost"] == []
    assert sum(answer["counts"].values()) == 25


@pytest.mark.parametrize(
    ("column", "make"),
    [
        ("next.done", lambda cells: pa.array([[] for _ in cells], pa.list_(pa.float32()))),
        ("episode_index", lambda cells: pa.array([*map(float, cells[:-1]), math.inf])),
    ],
)
def test_what_fuzzing_found(copy_of: Callable, recorded: Path, column: str, make: Callable) -> None:
    root = copy_of(recorded)
    retype(column, make)(root)
    inspect(root)
