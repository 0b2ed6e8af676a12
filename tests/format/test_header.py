from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import pytest

from lewm_data.config import FORMAT_VERSION
from lewm_data.errors import FormatError
from lewm_data.findings import Finding
from lewm_data.format.header import ATTRIBUTES_CHECKSUM, FileHeader, SourceRecord
from lewm_data.format.schema import camera_name, is_pixels, pixels_column
from lewm_data.format.statistics import ColumnStatistics

FINDING = Finding(
    code="rows_missing",
    severity="error",
    episode=4,
    file="data/x.parquet",
    expected="9 rows",
    found="8",
    remedy="Exclude it.",
    handling="dropped",
)
HEADER = FileHeader(
    lewm_data_version="0.1.0",
    sources=(
        SourceRecord(repo_id="a/b", revision=None, codebase_version="v3.0", episodes=(0, 1, 7)),
        SourceRecord(repo_id="c/d", revision="f00", codebase_version="v2.1", episodes=(3,)),
    ),
    fps=29.97,
    cameras={"pixels": "observation.images.top", "pixels_front": "observation.images.front"},
    image_height=96,
    image_width=128,
    resize="crop",
    compression="zstd",
    done_source="next.done",
    feature_names={"action": ("x", "y")},
    tasks={0: "push — schieben", 12: "lift"},
    statistics={"action": ColumnStatistics(count=9, mean=(0.1, 0.2), std=(1.0, 2.0), min=(0.0, 0.0), max=(3.0, 4.0))},
    dirty_episode_policy="skip",
    findings=(FINDING,),
    dropped_episodes=(4,),
    fingerprint="abc",
)


def test_a_header_survives_a_file(tmp_path: Path) -> None:
    path = tmp_path / "data.h5"
    with h5py.File(path, "w") as file:
        file.attrs.update(HEADER.to_attributes())
    with h5py.File(path) as file:
        assert FileHeader.from_attributes(file.attrs, path=str(path)) == HEADER


def test_attributes_are_numbers_and_text_that_anyone_can_read() -> None:
    attributes = HEADER.to_attributes()
    assert attributes["fps"] == 29.97
    assert attributes["format_version"] == FORMAT_VERSION
    assert json.loads(str(attributes["cameras"]))["pixels"] == "observation.images.top"
    assert json.loads(str(attributes["findings"]))[0]["code"] == "rows_missing"


@pytest.mark.parametrize("attributes", [{}, {"format_version": 1}, {"lewm_data_version": "0.1.0"}])
def test_a_file_that_is_not_ours_is_named(attributes: dict[str, Any]) -> None:
    with pytest.raises(FormatError, match=r"x\.h5: not a lewm_data file .* Make one with: lewm-data convert"):
        FileHeader.from_attributes(attributes, path="x.h5")


@pytest.mark.parametrize("version", [FORMAT_VERSION + 1, 0, -1])
def test_another_version_is_refused_with_what_to_do(version: int) -> None:
    with pytest.raises(FormatError, match=f"format version {version}, but this lewm_data reads .* Upgrade lewm_data"):
        FileHeader.from_attributes({**HEADER.to_attributes(), "format_version": version}, path="x.h5")


@pytest.mark.parametrize(
    "key",
    sorted(
        set(HEADER.to_attributes())
        - {
            "lewm_data_version",
            "format_version",
            ATTRIBUTES_CHECKSUM,
            "part",
            "columns",
            "scaler_version",
            "lossy_quality",
        }
    ),
)
def test_a_missing_attribute_is_named(key: str) -> None:
    attributes = HEADER.to_attributes()
    del attributes[key]
    with pytest.raises(FormatError, match=f"incomplete or malformed .*{key}"):
        FileHeader.from_attributes(attributes, path="x.h5")


@pytest.mark.parametrize(("key", "value"), [("sources", "{"), ("tasks", '{"a": "b"}'), ("fps", "fast"), ("cameras", 3)])
def test_a_malformed_attribute_is_refused(key: str, value: Any) -> None:
    with pytest.raises(FormatError, match="incomplete or malformed"):
        FileHeader.from_attributes({**HEADER.to_attributes(), key: value}, path="x.h5")


def test_a_finding_survives_json_and_keys_of_later_versions() -> None:
    assert Finding.from_json({**json.loads(json.dumps(FINDING.to_json())), "color": "red"}) == FINDING


@pytest.mark.parametrize(
    ("key", "name", "column"),
    [
        ("observation.images.top", "top", "pixels_top"),
        ("observation.image", "image", "pixels_image"),
        ("observation.images.left wrist/2", "left wrist/2", "pixels_left_wrist_2"),
        ("observation.images.küche", "küche", "pixels_k_che"),
        ("camera", "camera", "pixels_camera"),
    ],
)
def test_names_of_cameras(key: str, name: str, column: str) -> None:
    assert camera_name(key) == name
    assert pixels_column(key) == column
    assert is_pixels(column)


def test_a_column_with_a_similar_name_is_not_a_camera() -> None:
    assert not is_pixels("pixelsize")
