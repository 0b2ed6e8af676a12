"""A recording that grew is converted at the cost of what is new, to the same file as from scratch."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401
import imagecodecs
import numpy as np
import pyarrow as pa
import pytest

import lewm_data
from lewm_data.config import ConvertConfig
from lewm_data.conversion import prepare, shard
from lewm_data.conversion.output import ConversionResult
from lewm_data.conversion.pipeline import convert
from lewm_data.conversion.verify import verify_against, verify_file
from lewm_data.errors import FormatError, UsageError
from lewm_data.source.decode import DecodeJob, Decoder
from tests.recording import EPISODE_LENGTHS, camera_key, edit_parquet, record_v3, set_column

Record = Callable[[str, Callable[[Path], Path]], Path]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    """Episode and camera of each job that a conversion decodes."""
    jobs: list[tuple[int, str]] = []

    class Counting(Decoder):
        def run(self, job: DecodeJob) -> Iterator[Any]:
            jobs.append((job.episode, job.column))
            return super().run(job)

    monkeypatch.setattr(shard, "Decoder", Counting)
    return jobs


def run(root: Path, output: Path, **settings: Any) -> ConversionResult:
    settings = {"camera": "front", "image_size": 32, "min_episode_steps": 1, "micro_batch": 8, **settings}
    return convert(str(root), output, ConvertConfig(**settings))


def stored(path: Path) -> dict[str, Any]:
    """Everything in a file: frames as their stored bytes, the rest as values, and the attributes."""
    with h5py.File(path) as file:
        found: dict[str, Any] = {
            name: [dataset.id.read_direct_chunk((row, 0, 0, 0)) for row in range(len(dataset))]
            if name.startswith("pixels")
            else dataset[:].tolist()
            for name, dataset in file.items()
        }
        return found | {f"attribute {name}": value for name, value in file.attrs.items()}


GROWN = {
    "recorded": {"cameras": ("front", "top")},
    "recorded_hevc": {"vcodec": "hevc", "bframes": 3},
    "recorded_images": {"use_videos": False},
}


@pytest.mark.parametrize(
    "name",
    [
        "recorded_images",
        pytest.param("recorded", marks=pytest.mark.slow),
        pytest.param("recorded_hevc", marks=pytest.mark.slow),
    ],
)
def test_new_episodes_cost_only_themselves(
    name: str,
    request: pytest.FixtureRequest,
    record_once: Record,
    tmp_path: Path,
    decoded: list[tuple[int, str]],
) -> None:
    lengths = EPISODE_LENGTHS[:3]
    begun = record_once(f"{name}_begun", lambda root: record_v3(root, episode_lengths=lengths, **GROWN[name]))
    grown: Path = request.getfixturevalue(name)
    root = tmp_path / "arm"
    options = {"cameras": "all", "compression": "zstd"}
    shutil.copytree(begun, root)
    assert run(root, tmp_path / "arm.h5", **options).num_reused == 0
    shutil.rmtree(root)
    shutil.copytree(grown, root)
    decoded.clear()
    result = run(root, tmp_path / "arm.h5", **options, overwrite=True)
    assert {episode for episode, _ in decoded} == {3, 4}
    assert result.num_reused == 3
    assert "reuse: frames of 3 episodes" in repr(result)
    assert stored(result.path) == stored(run(root, tmp_path / "scratch.h5", **options).path)
    assert verify_file(result.path) == []
    assert verify_against(result.path, str(root))[:2] == ([], result.num_steps * len(result.header.cameras))


@pytest.mark.parametrize("layout", [pytest.param("single", marks=pytest.mark.slow), "sharded"])
def test_shards_take_their_episodes_from_a_sharded_file(
    layout: str, recorded: Path, tmp_path: Path, decoded: list[tuple[int, str]]
) -> None:
    small = {"shard_bytes": 10_000, "layout": layout}
    run(recorded, tmp_path / "out.h5", layout="sharded", shard_bytes=10_000, episodes="1:4")
    decoded.clear()
    result = run(recorded, tmp_path / "out.h5", overwrite=True, **small)
    assert (result.num_reused, {episode for episode, _ in decoded}) == (3, {0, 4})
    scratch = run(recorded, tmp_path / "scratch.h5", layout="single").path
    with h5py.File(result.path) as mine, h5py.File(scratch) as theirs:
        for name in theirs:
            np.testing.assert_array_equal(mine[name][:], theirs[name][:])
    assert verify_file(result.path) == []


def repaint(root: Path, row: int) -> None:
    def change(table: pa.Table) -> pa.Table:
        cells = table[camera_key("front")].to_pylist()
        image = 255 - imagecodecs.png_decode(cells[row]["bytes"])
        cells[row] = {**cells[row], "bytes": imagecodecs.png_encode(image)}
        return set_column(table, camera_key("front"), cells)

    edit_parquet(next((root / "data").rglob("*.parquet")), change)


def redate(root: Path, row: int) -> None:
    def change(table: pa.Table) -> pa.Table:
        times = np.array(table["timestamp"].to_pylist())
        times[row] += 1e-3
        return set_column(table, "timestamp", times)

    edit_parquet(next((root / "data").rglob("*.parquet")), change)


@pytest.mark.parametrize("change", [repaint, redate])
def test_an_episode_whose_picture_or_time_changed_is_decoded_again(
    change: Callable[[Path, int], None],
    recorded_images: Path,
    copy_of: Callable[[Path], Path],
    tmp_path: Path,
    decoded: list[tuple[int, str]],
) -> None:
    root = copy_of(recorded_images)
    run(root, tmp_path / "old.h5")
    change(root, EPISODE_LENGTHS[0] + 2)
    decoded.clear()
    result = run(root, tmp_path / "new.h5", reuse=str(tmp_path / "old.h5"))
    assert {episode for episode, _ in decoded} == {1}
    assert result.num_reused == 4
    assert stored(result.path) == stored(run(root, tmp_path / "scratch.h5").path)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"image_size": 40}, "image_size"),
        ({"resize": "pad"}, "resize"),
        ({"compression": "none"}, "compression"),
        ({"cameras": "all"}, "cameras"),
        ({"shift": "front=+1"}, ""),
    ],
)
def test_frames_of_other_settings_are_not_used(
    changes: dict[str, Any], reason: str, recorded: Path, tmp_path: Path, decoded: list[tuple[int, str]]
) -> None:
    run(recorded, tmp_path / "old.h5")
    decoded.clear()
    result = run(recorded, tmp_path / "new.h5", reuse=str(tmp_path / "old.h5"), **changes)
    assert result.num_reused == 0
    assert {episode for episode, _ in decoded} == set(range(5))
    assert verify_against(result.path, str(recorded))[0] == []


def test_rows_are_always_read_again(recorded: Path, copy_of: Callable[[Path], Path], tmp_path: Path) -> None:
    root = copy_of(recorded)
    run(root, tmp_path / "old.h5")
    actions = np.random.default_rng(0).normal(size=(sum(EPISODE_LENGTHS), 6)).astype(np.float32)
    edit_parquet(next((root / "data").rglob("*.parquet")), lambda table: set_column(table, "action", actions))
    result = run(root, tmp_path / "new.h5", reuse=str(tmp_path / "old.h5"))
    assert result.num_reused == 5
    with h5py.File(result.path) as file:
        np.testing.assert_array_equal(file["action"][:], actions)


@pytest.mark.parametrize("row", [0, pytest.param(25, marks=pytest.mark.slow), 53])
def test_a_damaged_frame_is_decoded_instead(row: int, recorded: Path, tmp_path: Path) -> None:
    path = run(recorded, tmp_path / "old.h5").path
    with h5py.File(path) as file:
        offset = file["pixels"].id.get_chunk_info(row).byte_offset
    data = bytearray(path.read_bytes())
    data[offset + 5] ^= 1
    path.write_bytes(data)
    result = run(recorded, tmp_path / "new.h5", reuse=str(path))
    assert stored(result.path) == stored(run(recorded, tmp_path / "scratch.h5").path)
    assert verify_file(result.path) == []


def test_episodes_with_findings_are_decoded_again(recorded_images: Path, copy_of: Any, tmp_path: Path) -> None:
    root = copy_of(recorded_images)

    def blacken(table: pa.Table) -> pa.Table:
        cells = table[camera_key("front")].to_pylist()
        cells[3] = {**cells[3], "bytes": imagecodecs.png_encode(np.zeros((96, 128, 3), np.uint8))}
        return set_column(table, camera_key("front"), cells)

    edit_parquet(next((root / "data").rglob("*.parquet")), blacken)
    first = run(root, tmp_path / "old.h5").header
    again = run(root, tmp_path / "new.h5", reuse=str(tmp_path / "old.h5"))
    assert again.num_reused == 4
    assert [found.code for found in again.header.findings] == ["frames_black"]
    assert again.header == first


def test_a_file_to_reuse_must_be_one_of_ours(recorded: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--reuse .*none\.h5: no such file"):
        run(recorded, tmp_path / "new.h5", reuse=str(tmp_path / "none.h5"))
    with pytest.raises(UsageError, match=r"reuse is s3://bucket/a\.h5, an address, but must be a path"):
        run(recorded, tmp_path / "new.h5", reuse="s3://bucket/a.h5")
    (tmp_path / "text.h5").write_text("text")
    with pytest.raises(FormatError):
        run(recorded, tmp_path / "new.h5", reuse=str(tmp_path / "text.h5"))
    run(recorded, tmp_path / "text.h5", overwrite=True)
    assert verify_file(tmp_path / "text.h5") == []


def test_the_planned_time_leaves_out_what_is_reused(recorded_images: Path, copy_of: Any, tmp_path: Path) -> None:
    root = copy_of(recorded_images)
    settings: dict[str, Any] = {"camera": "front", "image_size": 32, "min_episode_steps": 1}
    first = run(root, tmp_path / "a.h5", episodes="0:3").path

    def plan(**more: Any) -> dict[str, Any]:
        found = lewm_data.inspect(root, **settings | more).inspection.plan
        assert found is not None
        return found.to_dict()

    known = sum(EPISODE_LENGTHS[:3])
    assert plan()["reused_frames"] == 0
    grown = plan(reuse=str(first))
    assert (grown["reused_frames"], grown["num_frames"]) == (known, sum(EPISODE_LENGTHS))
    whole = plan(reuse=str(run(root, tmp_path / "b.h5").path))
    assert (whole["reused_frames"], whole["seconds"]) == (sum(EPISODE_LENGTHS), 0)
    assert plan(reuse=str(first), image_size=64)["reused_frames"] == 0
    for row in (0, 7, 19):  # of each episode
        repaint(root, row)
    assert plan(reuse=str(first))["reused_frames"] == 0


def test_a_trainer_passes_the_earlier_file_on(
    recorded_images: Path, copy_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []

    def here(source: str, output: Path, config: ConvertConfig) -> None:
        results.append(convert(source, output, config))

    monkeypatch.setattr(prepare, "_convert_in_child", here)
    root = copy_of(recorded_images)
    config = ConvertConfig(camera="front", image_size=32, min_episode_steps=1)
    first = prepare.prepare_file(str(root), tmp_path / "data", config)
    repaint(root, 0)
    second = prepare.prepare_file(str(root), tmp_path / "data", config)
    assert first != second
    assert [result.num_reused for result in results] == [0, 4]
    assert prepare.prepared_file(str(root), tmp_path / "data", dataclasses.replace(config)) == second
