"""The catalogue of dirt, kind by kind: what metadata, rows and video headers tell before any frame is decoded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lewm_data.conversion.catalogue import CATALOGUE
from lewm_data.conversion.source import open_source
from lewm_data.conversion.validate import validate
from lewm_data.schema import Finding
from tests.conversion.dirt import DECODED, FRONT, INSPECTED, Dirt

CLEAN = [
    "recorded",
    "recorded_files",
    "recorded_hevc",
    "recorded_av1",
    "recorded_reencoded",
    "recorded_images",
    "recorded_v21",
    "recorded_v20",
]


def inspect(root: Path, **options: object) -> list[Finding]:
    """Every finding of a dataset before decoding, its front camera chosen."""
    opened = open_source(str(root))
    if opened.dataset is None:
        return opened.findings
    return [*opened.findings, *validate(opened.dataset, **{"cameras": (FRONT,), **options}).findings]


@pytest.mark.parametrize("dataset", CLEAN)
def test_a_clean_dataset_has_no_findings(dataset: str, request: pytest.FixtureRequest) -> None:
    assert inspect(request.getfixturevalue(dataset)) == []


@pytest.mark.shared
def test_the_shared_dataset_has_no_findings(so101: Path) -> None:
    opened = open_source(str(so101))
    assert validate(opened.dataset, cameras=opened.dataset.cameras).findings == ()


@pytest.mark.parametrize("dirt", INSPECTED, ids=str)
def test_dirt_is_found_and_named(dirt: Dirt, copy_of: Callable[[Path], Path], request: pytest.FixtureRequest) -> None:
    root = copy_of(request.getfixturevalue(dirt.dataset))
    dirt.spoil(root)
    findings = inspect(root, **(dirt.options or {}))

    mine = sorted((found for found in findings if found.code == dirt.code), key=lambda found: found.episode or 0)
    assert {found.code for found in findings} == {dirt.code} | dirt.also
    assert [found.episode for found in mine] == dirt.episodes
    for found in mine:
        assert found.severity == CATALOGUE[dirt.code].severity
        assert found.file == dirt.file
    assert any(dirt.expected in found.expected and dirt.found in found.found for found in mine)


def test_every_code_of_the_catalogue_is_made_by_some_dirt() -> None:
    assert {dirt.code for dirt in (*INSPECTED, *DECODED)} == set(CATALOGUE)
