"""Shifted cameras and cut idle steps. Each frame carries its episode and step, and rows are read with pyarrow."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import imagecodecs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lewm_data
from lewm_data.config import ConvertConfig
from lewm_data.conversion import corrections
from lewm_data.conversion.corrections import judged_shift
from lewm_data.conversion.merge import merge
from lewm_data.conversion.output import ConversionResult
from lewm_data.conversion.pipeline import convert
from lewm_data.conversion.verify import verify_against, verify_file
from lewm_data.errors import DirtyDataError, UsageError
from lewm_data.format.compatibility import source_episodes
from lewm_data.format.header import FileHeader
from lewm_data.quality.assess.lag import Lag
from lewm_data.quality.assess.reading import read_dataset
from tests.conversion.test_pipeline import assert_equal_contents, header_of
from tests.recording import EPISODE_LENGTHS, camera_key, edit_parquet, picture, read_camera, read_code, record_v3

SIZE = "48x64"


def recorded_rows(root: Path, column: str) -> dict[int, np.ndarray]:
    """The rows of each episode as pyarrow reads them, by its number."""
    found: dict[int, list[Any]] = {}
    for path in sorted((root / "data").rglob("*.parquet")):
        table = pq.read_table(path, columns=["episode_index", column])
        for episode, value in zip(table["episode_index"].to_pylist(), table[column].to_pylist(), strict=True):
            found.setdefault(episode, []).append(value)
    return {episode: np.array(values, np.float32) for episode, values in sorted(found.items())}


def assert_paired(path: Path, root: Path, shifts: dict[str, int], kept: dict[int, range]) -> None:
    """Checks that every row of a file has the frame that its shift says, in the steps that are kept."""
    rows = {name: recorded_rows(root, key) for name, key in (("action", "action"), ("state", "observation.state"))}
    with h5py.File(path) as file:
        assert file["ep_len"][:].tolist() == [len(steps) for steps in kept.values()]
        for offset, (episode, steps) in zip(file["ep_offset"][:].tolist(), kept.items(), strict=True):
            part = slice(offset, offset + len(steps))
            for name, recorded in rows.items():
                np.testing.assert_array_equal(file[name][part], recorded[episode][steps.start : steps.stop])
            assert file["step_idx"][part].tolist() == list(range(len(steps)))
            assert file["done"][part].tolist() == [False] * (len(steps) - 1) + [True]
            for column, shift in shifts.items():
                codes = [read_code(frame) for frame in file[column][part]]
                assert codes == [(episode, step + shift) for step in steps], (column, episode)


def kept_by_hand(lengths: tuple[int, ...], shifts: tuple[int, ...]) -> dict[int, range]:
    """The steps of each episode for which every camera has a frame, found by trying each."""
    kept = {}
    for episode, length in enumerate(lengths):
        steps = [t for t in range(length) if all(0 <= t + shift < length for shift in shifts)]
        if steps:
            kept[episode] = range(steps[0], steps[-1] + 1)
    return kept


def run(root: Path, output: Path, **settings: Any) -> ConversionResult:
    settings = {"camera": "front", "image_size": SIZE, "min_episode_steps": 1, "micro_batch": 5, **settings}
    return convert(str(root), output, ConvertConfig(**settings))


LAYOUTS = [
    "recorded",
    "recorded_images",
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("recorded_files", "recorded_hevc", "recorded_av1", "recorded_reencoded", "recorded_v21")
    ),
]


@pytest.mark.parametrize("shift", [-2, 1])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_shift_pairs_each_row_with_a_later_or_earlier_frame(
    layout: str, shift: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    root: Path = request.getfixturevalue(layout)
    result = run(root, tmp_path / "out.h5", shift=f"front={shift:+d}")
    kept = kept_by_hand(EPISODE_LENGTHS, (shift,))
    episodes = sorted(root.glob("data/*/*.parquet"))
    assert episodes
    if layout != "recorded_v21":  # whose rows are in one file for each episode, under the same names
        assert_paired(tmp_path / "out.h5", root, {"pixels": shift}, kept)
    assert result.header.sources[0].shifts == {"pixels": shift}
    assert result.header.sources[0].kept_steps == tuple((steps.start, steps.stop) for steps in kept.values())
    assert result.header.dropped_episodes == ()
    assert verify_file(tmp_path / "out.h5") == []
    assert verify_against(tmp_path / "out.h5", str(root))[:2] == ([], result.num_steps)


@settings(max_examples=4)
@given(front=st.integers(-3, 3), top=st.integers(-3, 3))
def test_several_cameras_keep_the_rows_that_all_of_them_have(
    front: int, top: int, recorded: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    output = tmp_path_factory.mktemp("shifted") / "out.h5"
    result = run(recorded, output, cameras="all", shift=f"top={top:+d}, front={front}")
    kept = kept_by_hand(EPISODE_LENGTHS, (front, top))
    assert_paired(output, recorded, {"pixels": front, "pixels_top": top}, kept)
    with h5py.File(output) as file:
        assert {read_camera(frame) for frame in file["pixels_top"]} == {1}
    assert verify_against(output, str(recorded))[:2] == ([], 2 * result.num_steps)


def test_an_episode_without_a_step_left_is_dropped_and_recorded(recorded: Path, tmp_path: Path) -> None:
    result = run(recorded, tmp_path / "out.h5", shift="front=+8")
    assert_paired(tmp_path / "out.h5", recorded, {"pixels": 8}, kept_by_hand(EPISODE_LENGTHS, (8,)))
    assert result.header.sources[0].episodes == (1, 3, 4)
    assert result.header.dropped_episodes == (0, 2)
    found = [(found.code, found.episode, found.handling) for found in result.header.findings]
    assert found == [("episode_cut_away", 0, "dropped"), ("episode_cut_away", 2, "dropped")]
    assert verify_against(tmp_path / "out.h5", str(recorded))[:2] == ([], result.num_steps)


def test_a_shift_that_leaves_nothing_at_all_is_refused(recorded: Path, tmp_path: Path) -> None:
    with pytest.raises(DirtyDataError, match="--shift leaves nothing of all 5"):
        run(recorded, tmp_path / "out.h5", shift="front=-900")
    assert list(tmp_path.iterdir()) == []


def test_an_episode_that_a_shift_makes_shorter_than_a_window_is_reported(recorded: Path, tmp_path: Path) -> None:
    header = run(recorded, tmp_path / "out.h5", shift="front=-2", min_episode_steps=6).header
    assert header.sources[0].episodes == (0, 1, 2, 3, 4)
    assert [(found.code, found.episode, found.found) for found in header.findings] == [
        ("episode_short", 2, "5"),
        ("episode_short", 0, "5"),
    ]


@pytest.mark.parametrize(
    ("shift", "words"),
    [
        ("side=+1", "--shift side=1: no such camera. Converted are: front"),
        ("top=1", r"--shift top=1: this camera is not converted \(see --camera and --cameras\)"),
        ("front=1,observation.images.front=2", "is given twice"),
    ],
)
def test_a_shift_of_the_wrong_camera_is_refused(shift: str, words: str, recorded: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=words):
        run(recorded, tmp_path / "out.h5", shift=shift)


@pytest.mark.parametrize("layout", ["single", "sharded"])
def test_shards_and_parts_make_the_same_file(layout: str, recorded: Path, tmp_path: Path) -> None:
    shift = {"shift": "front=+2"}
    whole = run(recorded, tmp_path / "whole.h5", **shift)
    shards = run(recorded, tmp_path / "shards.h5", **shift, layout=layout, shard_bytes=20_000)
    parts = [tmp_path / f"{number}.h5" for number in range(3)]
    for number, path in enumerate(parts):
        run(recorded, path, **shift, shard=f"{number}/3")
    merge(parts, tmp_path / "merged.h5")
    for path in (shards.path, tmp_path / "merged.h5"):
        assert_equal_contents(path, whole.path)
        assert header_of(path) == whole.header
        assert verify_file(path) == []
    assert verify_against(shards.path, str(recorded))[:2] == ([], whole.num_steps)


def test_an_interrupted_conversion_resumes_with_the_same_corrections(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lewm_data.conversion import pipeline

    made: list[Path] = []
    write = pipeline.write_shard

    def interrupted(inspection: Any, path: Path, *arguments: Any, **options: Any) -> None:
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(path)
        write(inspection, path, *arguments, **options)

    changes: dict[str, Any] = {"shift": "front=-1", "shard_bytes": 20_000}
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "write_shard", interrupted)
        with pytest.raises(lewm_data.errors.InterruptedConversionError):
            run(recorded, tmp_path / "out.h5", **changes)
    result = run(recorded, tmp_path / "out.h5", **changes)
    assert result.num_steps == sum(EPISODE_LENGTHS) - 5
    assert_paired(result.path, recorded, {"pixels": -1}, kept_by_hand(EPISODE_LENGTHS, (-1,)))
    assert header_of(result.path) == run(recorded, tmp_path / "again.h5", shift="front=-1").header


def test_files_of_one_source_must_agree_on_the_shift(recorded: Path, tmp_path: Path) -> None:
    run(recorded, tmp_path / "a.h5", shift="front=+1", episodes="0:2")
    run(recorded, tmp_path / "b.h5", episodes="2:5")
    with pytest.raises(UsageError, match=r"shift of pixels in recorded: \+1 frames in .*a\.h5, but none in .*b\.h5"):
        merge([tmp_path / "a.h5", tmp_path / "b.h5"], tmp_path / "out.h5")


def test_files_of_different_sources_keep_each_its_own_shift(recorded: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(recorded, tmp_path / "other"))
    run(recorded, tmp_path / "a.h5", shift="front=+1", episodes="0:2")
    run(other, tmp_path / "b.h5", episodes="2:5")
    header = merge([tmp_path / "a.h5", tmp_path / "b.h5"], tmp_path / "out.h5")
    assert [record.shifts for record in header.sources] == [{"pixels": 1}, {}]
    assert [record.kept_steps for record in header.sources] == [((0, 6), (0, 11)), ()]
    assert verify_file(tmp_path / "out.h5") == []
    assert [label for label, _ in header.corrections()] == [
        "shift of camera front in recorded",
        "kept steps of each source episode in recorded",
    ]


def test_a_source_episode_is_the_same_recording_whatever_was_cut(recorded: Path, tmp_path: Path) -> None:
    plain, shifted = run(recorded, tmp_path / "a.h5"), run(recorded, tmp_path / "b.h5", shift="front=+2")
    assert source_episodes(plain.header) == source_episodes(shifted.header)


@pytest.mark.parametrize("change", ["shift", "steps"])
def test_verify_finds_a_header_that_states_another_correction(change: str, recorded: Path, tmp_path: Path) -> None:
    path = run(recorded, tmp_path / "out.h5", shift="front=+2").path
    with h5py.File(path, "r+") as file:
        sources = file.attrs["sources"]
        del file.attrs["attributes_sha256"]
        file.attrs["sources"] = sources.replace(
            *(('"pixels": 2', '"pixels": 1') if change == "shift" else ("[0, 5]", "[1, 6]"))
        )
        assert file.attrs["sources"] != sources
    problems, *_ = verify_against(path, str(recorded))
    assert any("episode 0" in problem and "differs from the source" in problem for problem in problems)


# --- what assess measures


HEAD, TAIL, LENGTH = 30, 25, 130
ARM_SIZE = (48, 64)


def moving_part(speed: np.ndarray) -> np.ndarray:
    """The phase of a movement with that speed, whole numbers from 0 on."""
    return np.cumsum(speed).astype(int)


def move_arm(root: Path, *, late: int = 0, still_episodes: tuple[int, ...] = ()) -> Path:
    """Five episodes of an arm that rests at both ends and moves between at changing speed, filmed ``late`` frames late.

    Each frame shows the phase of the movement at which it was taken.
    """
    random = np.random.default_rng(0)
    phases = []
    for episode in range(5):
        speed = np.repeat(random.integers(0, 6, LENGTH // 5), 5)
        speed[:HEAD] = speed[LENGTH - TAIL :] = 0
        speed[HEAD] = speed[LENGTH - TAIL - 1] = 5
        phases.append(moving_part(speed * (episode not in still_episodes)))
    noise = random.normal(0, 1e-3, (5 * LENGTH, 6))
    angles = np.concatenate(phases)[:, None] * 0.02 + np.arange(6)
    values = pa.array((np.sin(angles) + noise).astype(np.float32).tolist(), pa.list_(pa.float32(), 6))

    def change(table: pa.Table) -> pa.Table:
        shown = [phase[max(0, step - late)] for phase in phases for step in range(LENGTH)]
        cells = [
            {"bytes": imagecodecs.png_encode(picture(0, row // LENGTH, int(phase), ARM_SIZE)), "path": f"{row}.png"}
            for row, phase in enumerate(shown)
        ]
        for key, column in (
            ("action", values),
            ("observation.state", values),
            (camera_key("front"), pa.array(cells, table.schema.field(camera_key("front")).type)),
        ):
            position = table.schema.get_field_index(key)
            table = table.set_column(position, table.schema.field(position), column.cast(table.schema.types[position]))
        return table

    edit_parquet(next((root / "data").rglob("*.parquet")), change)
    return root


@pytest.fixture(scope="module")
def long_images(record_once: Callable[[str, Callable[[Path], Path]], Path]) -> Path:
    lengths = (LENGTH,) * 5
    return record_once(
        "long_images", lambda root: record_v3(root, episode_lengths=lengths, size=ARM_SIZE, use_videos=False)
    )


@pytest.fixture(scope="module")
def arm(long_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return move_arm(Path(shutil.copytree(long_images, tmp_path_factory.mktemp("arm") / "arm")))


@pytest.fixture(scope="module")
def late_arm(long_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = Path(shutil.copytree(long_images, tmp_path_factory.mktemp("late") / "late"))
    return move_arm(root, late=2, still_episodes=(3,))


def test_auto_finds_by_how_many_frames_a_camera_is_late(late_arm: Path, tmp_path: Path) -> None:
    result = run(late_arm, tmp_path / "auto.h5", shift="auto")
    assert result.header.sources[0].shifts == {"pixels": 2}
    assert "front by +2: its picture is" in result.remarks[0]
    assert result.remarks[0] in repr(result)
    assert_equal_contents(result.path, run(late_arm, tmp_path / "two.h5", shift="front=2").path)
    assert verify_against(result.path, str(late_arm))[:2] == ([], result.num_steps)


def test_auto_leaves_a_camera_in_step_alone_and_says_why(arm: Path, recorded: Path, tmp_path: Path) -> None:
    inspected = lewm_data.inspect(arm, shift="auto")
    assert inspected.inspection.corrections.shifts == {}
    assert "front by 0: its picture is" in repr(inspected)
    unknown = run(recorded, tmp_path / "out.h5", shift="front=auto")
    assert unknown.header.sources[0].shifts == {}
    assert unknown.remarks[0].startswith("front by 0: cannot tell whether it is late")
    assert unknown.num_steps == sum(EPISODE_LENGTHS)


@pytest.mark.parametrize(
    ("frames", "low", "high", "shift"),
    [
        (2.1, 1.9, 2.3, 2),
        (0.5, 0.2, 0.8, 1),
        (-0.5, -0.9, -0.1, -1),
        (-1.6, -1.9, -1.2, -2),
        (0.45, 0.3, 0.6, 0),
        (2.5, 2.0, 3.0, 3),
        (3.0, 2.2, 3.8, 0),
        (None, None, None, 0),
    ],
)
def test_a_lag_is_rounded_or_refused(frames: float | None, low: float | None, high: float | None, shift: int) -> None:
    lag = Lag(frames=frames, low=low, high=high, correlation=0.1, agreement=0.9)
    found, remark = judged_shift("front", lag)
    assert found == shift
    assert remark.startswith(f"front by {shift:+d}:" if shift else "front by 0:")


def test_idle_heads_and_tails_are_cut_with_a_margin(arm: Path, tmp_path: Path) -> None:
    result = run(arm, tmp_path / "out.h5", trim_idle=True)
    [record] = result.header.sources
    assert record.episodes == tuple(range(5))
    for start, stop in record.kept_steps:  # 0.2 s are 6 steps; rest is judged over 5 steps to either side
        assert HEAD - 12 <= start < HEAD
        assert LENGTH - TAIL < stop <= LENGTH - TAIL + 12
    rows = recorded_rows(arm, "action")
    with h5py.File(result.path) as file:
        expected = [rows[episode][slice(*steps)] for episode, steps in enumerate(record.kept_steps)]
        np.testing.assert_array_equal(file["action"][:], np.concatenate(expected))
        ends = np.cumsum([stop - start for start, stop in record.kept_steps]) - 1
        assert np.flatnonzero(file["done"]).tolist() == ends.tolist()
    assert verify_file(result.path) == []
    assert verify_against(result.path, str(arm))[:2] == ([], result.num_steps)
    assert result.num_steps < 5 * LENGTH - 5 * 30


def test_an_episode_that_is_wholly_idle_is_dropped_and_recorded(late_arm: Path, tmp_path: Path) -> None:
    result = run(late_arm, tmp_path / "out.h5", trim_idle=True, shift="auto")
    [record] = result.header.sources
    assert record.episodes == (0, 1, 2, 4)
    assert record.shifts == {"pixels": 2}
    idle, found = result.header.findings
    assert (idle.code, idle.handling) == ("robot_idle", "recorded")
    assert (found.code, found.episode, found.handling) == ("episode_cut_away", 3, "dropped")
    assert found.found == f"{LENGTH} steps without motion"
    assert verify_against(result.path, str(late_arm))[:2] == ([], result.num_steps)


def test_a_part_looks_for_idle_steps_in_its_own_episodes_and_finds_what_a_whole_conversion_finds(
    late_arm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []

    def look(dataset: Any, *arguments: Any, skip: frozenset[int], **options: Any) -> Any:
        looked.extend(index for index in dataset.episodes.index.tolist() if index not in skip)
        return read_dataset(dataset, *arguments, skip=skip, **options)

    monkeypatch.setattr(corrections, "read_dataset", look)
    monkeypatch.setattr(corrections, "MAX_FRAMES", LENGTH)  # of one episode
    chosen = {"trim_idle": True, "shift": "front=+2"}
    whole = run(late_arm, tmp_path / "whole.h5", **chosen)
    assert looked == [0, 1, 2, 3, 4]
    paths = [tmp_path / f"{number}.h5" for number in range(2)]
    for path, shard, expected in zip(paths, ("0/2", "1/2"), ([0, 1], [2, 3, 4]), strict=True):
        looked.clear()
        run(late_arm, path, **chosen, shard=shard)
        assert looked == expected
    merge(paths, tmp_path / "merged.h5")
    assert_equal_contents(tmp_path / "merged.h5", whole.path)
    assert header_of(tmp_path / "merged.h5") == whole.header
    with pytest.raises(
        DirtyDataError, match=r"no episode of part 3/5 is left, since --shift and --trim_idle .* all 1\."
    ):
        run(late_arm, tmp_path / "idle.h5", **chosen, shard="3/5")


def test_a_recording_in_which_nothing_moves_is_refused(long_images: Path, tmp_path: Path) -> None:
    root = move_arm(Path(shutil.copytree(long_images, tmp_path / "still")), still_episodes=tuple(range(5)))
    with pytest.raises(DirtyDataError, match="no episode is left, since --trim_idle leaves nothing of all 5"):
        run(root, tmp_path / "out.h5", trim_idle=True)


def test_headers_without_corrections_are_read_as_before(recorded: Path, tmp_path: Path) -> None:
    path = run(recorded, tmp_path / "out.h5").path
    with h5py.File(path, "r+") as file:
        del file.attrs["attributes_sha256"]
        file.attrs["sources"] = file.attrs["sources"].replace(', "shifts": {}, "kept_steps": []', "")
        header = FileHeader.from_attributes(file.attrs, path=str(path))
    assert (header.sources[0].shifts, header.sources[0].kept_steps) == ({}, ())
    assert verify_against(path, str(recorded))[:2] == ([], sum(EPISODE_LENGTHS))
