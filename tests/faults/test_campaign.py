"""The campaign's quick form: each fault a few times, and every promise checked after each."""

from __future__ import annotations

import pytest

from tests.faults import conversion, loading
from tests.faults.campaign import EPISODE_LENGTHS, Fault, Site, run
from tests.recording import record_v3

QUICK = [fault for fault in (*conversion.FAULTS, *loading.FAULTS) if fault.quick]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    folder = tmp_path_factory.mktemp("faults")
    source = record_v3(
        folder / "source", cameras=("front", "top"), episode_lengths=EPISODE_LENGTHS, episodes_per_video_file=2
    )
    return Site(source, folder / "site")


@pytest.mark.parametrize("fault", QUICK, ids=lambda fault: fault.name.replace(" ", "-"))
def test_nothing_is_lost(fault: Fault, site: Site) -> None:
    result = run(fault, site, fault.quick, seed=1)
    if result.skipped is not None:
        pytest.skip(result.skipped)
    assert result.lost == []
    assert result.tried + result.too_late == fault.quick


def test_every_flipped_bit_and_every_cut_is_found_or_means_nothing(site: Site) -> None:
    answer = loading.flip(site, seed=1, flips=80, cuts=10)
    assert answer["lost"] == []
    for who in ("verify", "loader"):
        assert answer["counts"][f"{who}: found"] > 60
