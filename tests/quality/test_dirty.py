"""Dirt through the public door: what each policy makes of it, and what it leaves on the disk and in the file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from lewm_data.catalog import CATALOG
from lewm_data.config import ConvertConfig
from lewm_data.conversion.output import ConversionResult
from lewm_data.conversion.pipeline import convert
from lewm_data.errors import DirtyDataError, UsageError
from lewm_data.findings import Finding
from lewm_data.format.header import FileHeader
from tests.quality import dirt as spoil
from tests.quality.dirt import DECODED, VIDEO, VIDEO_V2, Dirt
from tests.recording import EPISODE_LENGTHS, edit_info, read_code, record_v3, row_values, to_v21

ERRORS = [dirt for dirt in DECODED if CATALOG[dirt.code].severity == "error"]
WARNINGS = [dirt for dirt in DECODED if CATALOG[dirt.code].severity == "warning"]


@pytest.fixture(scope="module")
def recorded_slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """5 fps, v2.1: two seconds of a frozen camera fit into an episode."""
    folder = tmp_path_factory.mktemp("slow")
    return to_v21(record_v3(folder / "v3", fps=5), folder / "recorded_slow")


@pytest.fixture
def spoiled(copy_of: Callable[[Path], Path], request: pytest.FixtureRequest) -> Callable[..., Path]:
    """``spoiled(spoil, dataset)``: a copy of a dataset with something done to it."""

    def make(what: Callable[[Path], object], dataset: str = "recorded") -> Path:
        root = copy_of(request.getfixturevalue(dataset))
        what(root)
        return root

    return make


def run(root: Path, output: Path, policy: str, **options: object) -> ConversionResult:
    settings = {"camera": "front", "image_size": 64, "micro_batch": 8, "min_episode_steps": 1, **options}
    return convert(str(root), output, ConvertConfig(dirty_episode_policy=policy, **settings))


def episodes_in(path: Path) -> dict[int, int]:
    """What is in a file: each episode's number, read from its frames, and its length; every frame is looked at."""
    with h5py.File(path) as file:
        found = {}
        for offset, length in zip(file["ep_offset"][:], file["ep_len"][:], strict=True):
            codes = [read_code(frame) for frame in file["pixels"][offset : offset + length]]
            episode = codes[0][0]
            assert codes == [(episode, step) for step in range(length)]
            expected = [row_values("action", episode, step, 6) for step in range(length)]
            np.testing.assert_array_equal(file["action"][offset : offset + length], expected)
            found[episode] = int(length)
        return found


def header_of(path: Path) -> FileHeader:
    with h5py.File(path) as file:
        return FileHeader.from_attributes(file.attrs, path=str(path))


def others(*episodes: int) -> dict[int, int]:
    return {index: length for index, length in enumerate(EPISODE_LENGTHS) if index not in episodes}


def handled(findings: tuple[Finding, ...], code: str) -> list[tuple[int | None, str]]:
    return [(found.episode, found.handling) for found in findings if found.code == code]


# --- dirt that only decoding shows


@pytest.mark.parametrize("dirt", ERRORS, ids=str)
def test_fail_refuses_what_decoding_shows_and_leaves_nothing(
    dirt: Dirt, spoiled: Callable[..., Path], tmp_path: Path
) -> None:
    root = spoiled(dirt.spoil, dirt.dataset)
    folder = tmp_path / "out"
    folder.mkdir()
    with pytest.raises(DirtyDataError, match=f"episode {dirt.episode}: {dirt.code}") as caught:
        run(root, folder / "data.h5", "fail")
    assert caught.value.exit_status == 3
    assert list(folder.iterdir()) == []
    found = next(found for found in caught.value.findings if found["code"] == dirt.code)
    assert (found["episode"], found["file"], found["handling"]) == (dirt.episode, dirt.file, "refused")
    assert dirt.expected in found["expected"]
    assert dirt.found in found["found"]


@pytest.mark.parametrize("dirt", ERRORS, ids=str)
def test_skip_drops_what_decoding_shows_and_says_so(dirt: Dirt, spoiled: Callable[..., Path], tmp_path: Path) -> None:
    root = spoiled(dirt.spoil, dirt.dataset)
    output = tmp_path / "data.h5"
    converted = run(root, output, "skip")
    header = header_of(output)
    assert episodes_in(output) == others(dirt.episode)
    assert header == converted.header
    assert header.dropped_episodes == (dirt.episode,)
    assert header.sources[0].episodes == tuple(others(dirt.episode))
    assert handled(header.findings, dirt.code) == [(dirt.episode, "dropped")]


@pytest.mark.parametrize("dirt", WARNINGS, ids=str)
def test_suspicious_pictures_are_converted_and_recorded(
    dirt: Dirt, spoiled: Callable[..., Path], tmp_path: Path
) -> None:
    output = tmp_path / "data.h5"
    run(spoiled(dirt.spoil, dirt.dataset), output, "fail")
    header = header_of(output)
    assert header.dropped_episodes == ()
    assert header.sources[0].episodes == tuple(range(len(EPISODE_LENGTHS)))
    (found,) = header.findings
    assert (found.code, found.episode, found.file, found.handling) == (dirt.code, dirt.episode, dirt.file, "recorded")
    assert dirt.found in found.found


@pytest.mark.parametrize("dataset", ["recorded", "recorded_v20", "recorded_images", "recorded_av1"])
def test_clean_pictures_have_no_findings(dataset: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    converted = run(request.getfixturevalue(dataset), tmp_path / "data.h5", "fail")
    assert converted.header.findings == ()
    assert episodes_in(tmp_path / "data.h5") == others()


def test_keep_keeps_the_frames_before_the_first_that_does_not_decode(
    spoiled: Callable[..., Path], tmp_path: Path
) -> None:
    dirt = next(dirt for dirt in DECODED if dirt.code == "video_frames_short")
    output = tmp_path / "data.h5"
    run(spoiled(dirt.spoil, dirt.dataset), output, "keep")
    assert episodes_in(output) == {**others(), 4: 8}
    assert handled(header_of(output).findings, "video_frames_short") == [(4, "kept")]


def test_an_episode_of_which_nothing_is_left_to_keep_is_dropped(spoiled: Callable[..., Path], tmp_path: Path) -> None:
    def blank_all(root: Path) -> None:
        for packet in range(EPISODE_LENGTHS[4]):
            spoil.blank_packet(VIDEO.replace("000.mp4", "002.mp4"), packet)(root)

    output = tmp_path / "data.h5"
    run(spoiled(blank_all, "recorded_av1"), output, "keep")
    header = header_of(output)
    assert episodes_in(output) == others(4)
    assert handled(header.findings, "video_frames_short") == [(4, "dropped")]
    assert header.dropped_episodes == (4,)


def test_keep_drops_what_cannot_be_aligned(spoiled: Callable[..., Path], tmp_path: Path) -> None:
    output = tmp_path / "data.h5"
    run(spoiled(spoil.blank_packet(VIDEO, 12)), output, "keep")
    assert episodes_in(output) == others(1)
    assert handled(header_of(output).findings, "decode_error") == [(1, "dropped")]


def test_one_damaged_camera_drops_the_episode_from_all(spoiled: Callable[..., Path], tmp_path: Path) -> None:
    output = tmp_path / "data.h5"
    run(spoiled(spoil.blank_packet(VIDEO.replace("front", "top"), 12)), output, "skip", cameras="all")
    assert episodes_in(output) == others(1)
    with h5py.File(output) as file:
        assert len(file["pixels_top"]) == len(file["pixels"])


def test_dirt_in_the_camera_that_is_not_converted_does_not_matter(spoiled: Callable[..., Path], tmp_path: Path) -> None:
    converted = run(spoiled(spoil.remove(VIDEO.replace("front", "top"))), tmp_path / "data.h5", "fail")
    assert [found.code for found in converted.header.findings] == ["camera_absent"]
    assert episodes_in(tmp_path / "data.h5") == others()


def test_nothing_is_left_when_decoding_drops_every_episode(spoiled: Callable[..., Path], tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    root = spoiled(spoil.blank_packet(VIDEO_V2, 3), "recorded_v21")
    with pytest.raises(DirtyDataError, match="decode_error"):
        run(root, folder / "data.h5", "skip", episodes="1")
    assert list(folder.iterdir()) == []


# --- dirt that is known before


def test_fail_refuses_with_every_finding_before_anything_is_written(
    spoiled: Callable[..., Path], tmp_path: Path
) -> None:
    root = spoiled(
        spoil.both(spoil.value("action", 3, [float("nan")] * 6), spoil.value("next.done", 3, True, episode=3))
    )
    folder = tmp_path / "out"
    with pytest.raises(DirtyDataError, match=r"episode 1: values_not_finite: .* \(1 more in the report\)") as caught:
        run(root, folder / "data.h5", "fail")
    assert [(found["episode"], found["code"]) for found in caught.value.findings] == [
        (1, "values_not_finite"),
        (3, "done_mid_episode"),
    ]
    assert not folder.exists()


def test_the_refusal_names_the_remedy(spoiled: Callable[..., Path], tmp_path: Path) -> None:
    root = spoiled(spoil.value("action", 3, [float("nan")] * 6))
    with pytest.raises(DirtyDataError, match="with --episodes, or drop it with --dirty_episode_policy skip"):
        run(root, tmp_path / "data.h5", "fail")


def test_both_remedies_work(spoiled: Callable[..., Path], tmp_path: Path) -> None:
    root = spoiled(spoil.value("action", 3, [float("nan")] * 6))
    run(root, tmp_path / "excluded.h5", "fail", episodes="0,2:5")
    run(root, tmp_path / "skipped.h5", "skip")
    assert episodes_in(tmp_path / "excluded.h5") == episodes_in(tmp_path / "skipped.h5") == others(1)
    assert header_of(tmp_path / "excluded.h5").findings == ()


def test_a_repeated_episode_can_be_excluded(spoiled: Callable[..., Path], tmp_path: Path) -> None:
    root = spoiled(
        spoil.both(
            spoil.jsonl("meta/episodes.jsonl", lambda lines: [*lines, lines[1]]),
            spoil.info(total_episodes=6, total_frames=66),
        ),
        "recorded_v21",
    )
    run(root, tmp_path / "data.h5", "fail", episodes="0,2:5")
    assert episodes_in(tmp_path / "data.h5") == others(1)


@pytest.mark.parametrize("policy", ["fail", "skip"])
def test_what_is_wrong_with_the_dataset_cannot_be_skipped(
    policy: str, spoiled: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(DirtyDataError, match="dataset: total_mismatch"):
        run(spoiled(spoil.info(total_episodes=4)), tmp_path / "data.h5", policy)
    assert not (tmp_path / "data.h5").exists()


def test_keep_takes_a_dataset_whose_totals_are_stale(spoiled: Callable[..., Path], tmp_path: Path) -> None:
    output = tmp_path / "data.h5"
    run(spoiled(spoil.info(total_episodes=6)), output, "keep")
    assert episodes_in(output) == others()
    assert handled(header_of(output).findings, "total_mismatch") == [(None, "kept")]


@pytest.mark.parametrize("policy", ["skip", "keep"])
def test_totals_that_ran_ahead_of_the_listed_episodes_can_be_skipped(
    policy: str, spoiled: Callable[..., Path], tmp_path: Path
) -> None:
    output = tmp_path / "data.h5"
    root = spoiled(spoil.info(total_episodes=6, total_frames=66))
    with pytest.raises(DirtyDataError, match="session was not finished.* The 5 listed episodes \\(0-4\\)"):
        run(root, output, "fail")
    run(root, output, policy)
    assert episodes_in(output) == others()
    run(root, tmp_path / "chosen.h5", "fail", episodes="0:5")
    assert episodes_in(tmp_path / "chosen.h5") == others()


def test_no_policy_takes_a_dataset_without_its_metadata(spoiled: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(DirtyDataError, match="metadata_missing"):
        run(spoiled(spoil.remove("meta/episodes")), tmp_path / "data.h5", "keep")


@pytest.mark.parametrize(
    ("what", "code", "length"),
    [
        (
            spoil.both(spoil.value("frame_index", 3, 2), spoil.keep_rows(lambda row: row not in (17, 18))),
            "frame_index_broken",
            10,
        ),
        (spoil.values("timestamp", lambda mine: mine * 1.1), "timestamps_off_fps", 12),
        (spoil.value("next.done", 3, True), "done_mid_episode", 12),
        (spoil.keep_rows(lambda row: row not in (17, 18)), "rows_missing", 10),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_keep_keeps_what_can_be_aligned_and_marks_it(
    what: Callable[[Path], object], code: str, length: int, spoiled: Callable[..., Path], tmp_path: Path
) -> None:
    output = tmp_path / "data.h5"
    run(spoiled(what), output, "keep")
    assert episodes_in(output) == {**others(), 1: length}
    assert handled(header_of(output).findings, code) == [(1, "kept")]


def test_keep_drops_rows_whose_place_is_unknown(spoiled: Callable[..., Path], tmp_path: Path) -> None:
    output = tmp_path / "data.h5"
    run(spoiled(spoil.keep_rows(lambda row: row != 12)), output, "keep")
    assert episodes_in(output) == others(1)
    assert handled(header_of(output).findings, "rows_misplaced") == [(1, "dropped")]


def test_keep_cuts_an_episode_where_its_video_ends(spoiled: Callable[..., Path], tmp_path: Path) -> None:
    output = tmp_path / "data.h5"
    root = spoiled(spoil.retime(VIDEO, lambda number, pts: pts if number < 50 else None))
    run(root, output, "keep")
    assert episodes_in(output) == {**others(), 4: 5}
    assert (4, "kept") in handled(header_of(output).findings, "video_frames_short")


def test_skip_drops_both_of_two_episodes_that_claim_the_same_frames(
    spoiled: Callable[..., Path], tmp_path: Path
) -> None:
    output = tmp_path / "data.h5"
    run(spoiled(spoil.span(1, 6, 18)), output, "skip")
    assert episodes_in(output) == others(0, 1)
    assert header_of(output).dropped_episodes == (0, 1)


def test_skip_refuses_when_it_would_drop_all(spoiled: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(DirtyDataError, match="no episode is left, since the policy 'skip' drops all 5"):
        run(spoiled(spoil.remove(VIDEO)), tmp_path / "data.h5", "skip")


def test_findings_are_in_the_file_as_json(spoiled: Callable[..., Path], tmp_path: Path) -> None:
    output = tmp_path / "data.h5"
    run(spoiled(spoil.value("action", 3, [float("nan")] * 6)), output, "skip")
    with h5py.File(output) as file:
        (found,) = json.loads(file.attrs["findings"])
        assert json.loads(file.attrs["dropped_episodes"]) == [1]
    assert found["code"] == "values_not_finite"
    assert found["handling"] == "dropped"
    assert found["file"] == "data/chunk-000/file-000.parquet"


# --- which frames, and where an episode ends


def test_two_candidate_cameras_need_a_choice(recorded: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has 2 cameras: front, top\. Say which one is 'pixels'"):
        run(recorded, tmp_path / "data.h5", "keep", camera=None)


def last_steps() -> list[bool]:
    return [step == length - 1 for length in EPISODE_LENGTHS for step in range(length)]


def test_without_flags_the_last_step_of_each_episode_is_its_end(spoiled: Callable[..., Path], tmp_path: Path) -> None:
    output = tmp_path / "data.h5"
    run(spoiled(spoil.no_features("next.done")), output, "fail")
    header = header_of(output)
    assert header.done_source == "last_step"
    assert header.findings == ()
    with h5py.File(output) as file:
        assert file["done"][:].tolist() == last_steps()


@pytest.mark.parametrize("key", ["is_terminal", "is_last"])
def test_ends_are_flagged_under_other_names(key: str, spoiled: Callable[..., Path], tmp_path: Path) -> None:
    def rename(content: dict[str, Any]) -> None:
        content["features"][key] = content["features"].pop("next.done")

    root = spoiled(
        spoil.both(
            lambda root: edit_info(root, rename),
            spoil.rows(lambda table: table.rename_columns({"next.done": key})),
        )
    )
    output = tmp_path / "data.h5"
    run(root, output, "fail")
    assert (header_of(output).done_source, header_of(output).findings) == (key, ())
    with h5py.File(output) as file:
        assert file["done"][:].tolist() == last_steps()


def test_an_episode_that_was_cut_off_has_no_end_but_the_recorded_one(
    spoiled: Callable[..., Path], tmp_path: Path
) -> None:
    output = tmp_path / "data.h5"
    run(spoiled(spoil.values("next.done", lambda mine: mine & False)), output, "fail")
    assert handled(header_of(output).findings, "done_never") == [(1, "recorded")]
    with h5py.File(output) as file:
        assert file["done"][:].nonzero()[0].tolist() == [6, 23, 44, 53]
