"""A conversion through its public door: what is in the file, what is refused, what is left behind."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401
import numpy as np
import pytest

import lewm_data
from lewm_data.config import COMPRESSIONS, ConvertConfig
from lewm_data.conversion import pipeline
from lewm_data.conversion.output import ConversionResult
from lewm_data.conversion.pipeline import Reporter, convert
from lewm_data.conversion.verify import verify_against, verify_file
from lewm_data.errors import (
    InterruptedConversionError,
    OutputError,
    ResourceError,
    SourceError,
    UsageError,
)
from lewm_data.format.codecs import CODECS
from lewm_data.format.header import FileHeader
from tests.recording import EPISODE_LENGTHS, read_code, record_v3, row_values

STEPS = sum(EPISODE_LENGTHS)
VERIFIED_LAYOUTS = ["recorded", "recorded_v21", "recorded_v20", "recorded_images"]


@pytest.fixture(scope="module")
def converted(recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("converted") / "out.h5"
    convert(str(recorded), path, ConvertConfig(camera="front", cameras="all"))
    return path


def header_of(path: Path) -> FileHeader:
    with h5py.File(path) as file:
        return FileHeader.from_attributes(file.attrs, path=str(path))


def contents(path: Path) -> dict[str, np.ndarray]:
    with h5py.File(path) as file:
        return {name: file[name][:] for name in file}


def assert_equal_contents(a: Path, b: Path) -> None:
    mine, theirs = contents(a), contents(b)
    assert mine.keys() == theirs.keys()
    for name in mine:
        np.testing.assert_array_equal(mine[name], theirs[name], err_msg=name)


def test_the_file_is_as_the_format_says(converted: Path) -> None:
    with h5py.File(converted) as file:
        assert set(file) == {
            "pixels", "pixels_top", "action", "state", "done", "episode_idx", "step_idx", "ep_len", "ep_offset",
        }  # fmt: skip
        assert (file["pixels"].shape, file["pixels"].chunks) == ((STEPS, 224, 224, 3), (1, 224, 224, 3))
        assert file["pixels"].fletcher32
        assert file["pixels"].compression == "lzf"
        np.testing.assert_array_equal(file["ep_len"], EPISODE_LENGTHS)
        np.testing.assert_array_equal(file["ep_offset"], np.cumsum(EPISODE_LENGTHS) - EPISODE_LENGTHS)
        np.testing.assert_array_equal(file["episode_idx"], np.repeat(np.arange(5), EPISODE_LENGTHS))
        np.testing.assert_array_equal(file["step_idx"], np.concatenate([np.arange(n) for n in EPISODE_LENGTHS]))
        np.testing.assert_array_equal(np.flatnonzero(file["done"]), np.cumsum(EPISODE_LENGTHS) - 1)
        dtypes = {name: file[name].dtype.name for name in file}
    assert dtypes == {
        "pixels": "uint8", "pixels_top": "uint8", "action": "float32", "state": "float32", "done": "bool",
        "episode_idx": "int32", "step_idx": "int32", "ep_len": "int32", "ep_offset": "int64",
    }  # fmt: skip


def test_rows_equal_the_recorded_ones(converted: Path) -> None:
    expected = {
        kind: np.stack([row_values(kind, e, s, 6) for e, n in enumerate(EPISODE_LENGTHS) for s in range(n)])
        for kind in ("state", "action")
    }
    with h5py.File(converted) as file:
        for kind, values in expected.items():
            np.testing.assert_array_equal(file[kind], values)


def test_root_attributes_record_the_source(recorded: Path, converted: Path) -> None:
    header = header_of(converted)
    assert header.sources[0].repo_id == recorded.name
    assert header.sources[0].codebase_version == "v3.0"
    assert header.sources[0].episodes == (0, 1, 2, 3, 4)
    assert header.cameras == {"pixels": "observation.images.front", "pixels_top": "observation.images.top"}
    assert (header.fps, header.resize, header.compression) == (30, "stretch", "lzf")
    assert header.done_source == "next.done"
    assert header.feature_names["action"] == tuple(f"goal_{i}" for i in range(6))
    assert header.tasks == {0: "push the block", 1: "lift the block"}
    values = contents(converted)["action"].astype(np.float64)
    np.testing.assert_allclose(header.statistics["action"].mean, values.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(header.statistics["action"].std, values.std(axis=0), rtol=1e-12)
    assert header.statistics["action"].min == tuple(values.min(axis=0))
    assert header.statistics["action"].max == tuple(values.max(axis=0))


@pytest.mark.parametrize(
    ("cameras", "layout", "compression"),
    [
        # How frames are stored does not depend on where they come from: one layout shows every codec.
        pytest.param(*case, marks=[] if case[2] == "lzf" or case[:2] == ("all", "recorded") else pytest.mark.slow)
        for case in itertools.product([None, "all"], VERIFIED_LAYOUTS, COMPRESSIONS)
    ],
)
def test_verify_against_the_source_for_every_codec_and_layout(
    layout: str, compression: str, cameras: str | None, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    root = str(request.getfixturevalue(layout))
    config = ConvertConfig(camera="front", cameras=cameras, compression=compression, micro_batch=8)  # type: ignore[arg-type]
    result = convert(root, tmp_path / "out.h5", config)
    assert verify_file(tmp_path / "out.h5") == []
    assert verify_against(tmp_path / "out.h5", root)[:2] == ([], STEPS * len(result.header.cameras))
    with h5py.File(tmp_path / "out.h5") as file:
        properties = file["pixels"].id.get_create_plist()
        filters = [properties.get_filter(number)[0] for number in range(properties.get_nfilters())]
    assert filters == [f for f in (CODECS[compression].filter_id, 3) if f is not None]


@pytest.mark.shared
@pytest.mark.parametrize("cameras", [pytest.param(None, marks=pytest.mark.slow), "all"])
@pytest.mark.parametrize(
    "compression", ["lzf", *(pytest.param(name, marks=pytest.mark.slow) for name in COMPRESSIONS if name != "lzf")]
)
def test_the_teams_recording_converts_and_verifies(
    so101: Path, compression: str, cameras: str | None, tmp_path: Path
) -> None:
    config = ConvertConfig(camera="top", cameras=cameras, compression=compression)  # type: ignore[arg-type]
    convert(str(so101), tmp_path / "out.h5", config)
    assert verify_file(tmp_path / "out.h5") == []
    assert verify_against(tmp_path / "out.h5", str(so101))[:2] == ([], 501 * (2 if cameras else 1))


def test_incompressible_frames_are_stored_raw_and_flagged() -> None:
    from lewm_data.format.codecs import encoder

    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    for compression in COMPRESSIONS:
        chunk = encoder(compression)(noise)
        assert chunk.data[:-4] == noise.tobytes()
        assert chunk.filter_mask == (0 if compression == "none" else 1)


def test_extra_columns_keep_their_dtype(tmp_path: Path) -> None:
    extra = {
        "observation.effort": ({"dtype": "float32", "shape": (2,), "names": ["a", "b"]},
                               lambda e, s: np.array([e, s], np.float32)),
        "phase": ({"dtype": "int64", "shape": (1,), "names": None}, lambda e, s: np.array([s % 3], np.int64)),
    }  # fmt: skip
    record_v3(tmp_path / "data", episode_lengths=(4, 3), extra_features=extra)
    names = ("observation.effort", "phase", "task_index")
    convert(str(tmp_path / "data"), tmp_path / "out.h5", ConvertConfig(extra_columns=names, image_size=32))
    values = contents(tmp_path / "out.h5")
    assert values["observation.effort"].tolist() == [[e, s] for e, n in enumerate((4, 3)) for s in range(n)]
    assert values["phase"].tolist() == [0, 1, 2, 0, 0, 1, 2]
    assert values["phase"].dtype == np.int64
    assert values["task_index"].tolist() == [0] * 4 + [1] * 3
    assert verify_against(tmp_path / "out.h5", str(tmp_path / "data"))[0] == []


def test_without_done_flags_the_last_step_is_the_end(tmp_path: Path) -> None:
    record_v3(tmp_path / "data", episode_lengths=(4, 3), done=False)
    result = convert(str(tmp_path / "data"), tmp_path / "out.h5", ConvertConfig(image_size=32))
    assert np.flatnonzero(contents(tmp_path / "out.h5")["done"]).tolist() == [3, 6]
    assert result.header.done_source == "last_step"
    assert {found.code for found in result.header.findings} == {"episode_short"}


@pytest.mark.parametrize(
    ("size", "shape"), [(64, (64, 64)), ("48x80", (48, 80)), ("native", (96, 128)), (300, (300, 300))]
)
def test_image_sizes(recorded: Path, tmp_path: Path, size: int | str, shape: tuple[int, int]) -> None:
    convert(str(recorded), tmp_path / "out.h5", ConvertConfig(camera="front", image_size=size, episodes="0"))
    assert contents(tmp_path / "out.h5")["pixels"].shape[1:3] == shape


def test_padding_is_black_and_centered(recorded: Path, tmp_path: Path) -> None:
    config = ConvertConfig(camera="front", image_size=224, resize="pad", episodes="0")
    convert(str(recorded), tmp_path / "out.h5", config)
    frame = contents(tmp_path / "out.h5")["pixels"][0]
    bar = (224 - 168) // 2  # 96x128 fits as 168x224
    assert not frame[:bar].any()
    assert not frame[-bar:].any()
    assert frame[bar:-bar].any(axis=(1, 2)).all()


def test_shards_make_the_same_file(recorded: Path, converted: Path, tmp_path: Path) -> None:
    config = ConvertConfig(camera="front", cameras="all", shard_bytes=1)
    result = convert(str(recorded), tmp_path / "sharded.h5", config)
    assert_equal_contents(converted, tmp_path / "sharded.h5")
    assert result.header == header_of(converted)
    assert os.listdir(tmp_path) == ["sharded.h5"]


class StopAfter(Reporter):
    """Presses Ctrl-C after so many frames."""

    def __init__(self, count: int) -> None:
        self.left = count

    def frames(self, episode: int, camera: str, count: int) -> None:
        self.left -= count
        if self.left <= 0:
            raise KeyboardInterrupt

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args: None


@pytest.mark.parametrize("stop_after", [1, 60, *(pytest.param(n, marks=pytest.mark.slow) for n in (30, 100))])
def test_an_interrupted_conversion_resumes(recorded: Path, converted: Path, tmp_path: Path, stop_after: int) -> None:
    config = ConvertConfig(camera="front", cameras="all", shard_bytes=3_000_000)
    output = tmp_path / "out.h5"
    with pytest.raises(InterruptedConversionError, match="Run the same command again"):
        convert(str(recorded), output, config, reporter=StopAfter(stop_after))
    assert not output.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out.h5.partial"]
    shards = len(list((tmp_path / "out.h5.partial").glob("shard-*.h5")))

    resumed_frames: list[int] = []

    class Resumed(Reporter):
        def resumed(self, num_frames: int) -> None:
            resumed_frames.append(num_frames)

    convert(str(recorded), output, config, reporter=Resumed())
    assert len(resumed_frames) == (1 if shards else 0)
    assert_equal_contents(converted, output)
    assert os.listdir(tmp_path) == ["out.h5"]


def test_other_settings_start_anew(recorded: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.h5"
    with pytest.raises(InterruptedConversionError):
        convert(str(recorded), output, ConvertConfig(camera="front", shard_bytes=1), reporter=StopAfter(30))
    convert(str(recorded), output, ConvertConfig(camera="top", image_size=32))
    assert contents(output)["pixels"].shape == (STEPS, 32, 32, 3)
    assert os.listdir(tmp_path) == ["out.h5"]


@pytest.mark.parametrize("layout", ["single", "sharded"])
def test_a_second_process_waits_and_takes_the_file_that_the_first_made(
    layout: str, recorded: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.h5"
    config = ConvertConfig(camera="front", image_size=32, layout=layout, shard_bytes=20_000)
    others: list[ConversionResult] = []

    class Second(Reporter):
        """Converts to the same output while the first one is about to take the lock."""

        def inspecting(self, what: str, done: int, total: int) -> None:
            if not others:
                others.append(convert(str(recorded), output, config))

    mine = convert(str(recorded), output, config, reporter=Second())
    [other] = others
    assert (mine.header, mine.num_episodes, mine.num_steps) == (other.header, other.num_episodes, other.num_steps)
    assert (mine.file_bytes, mine.frames_per_second) == (other.file_bytes, 0)


def test_a_second_process_of_other_settings_keeps_the_file_that_the_first_made(recorded: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.h5"

    class Second(Reporter):
        def inspecting(self, what: str, done: int, total: int) -> None:
            if not output.exists():
                convert(str(recorded), output, ConvertConfig(camera="front", image_size=32))

    with pytest.raises(OutputError, match="exists already"):
        convert(str(recorded), output, ConvertConfig(camera="front", image_size=48), reporter=Second())
    assert contents(output)["pixels"].shape == (STEPS, 32, 32, 3)


def test_an_existing_output_is_kept_without_overwrite(recorded: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.h5"
    output.write_bytes(b"precious")
    with pytest.raises(OutputError, match="exists already.*--overwrite"):
        convert(str(recorded), output, ConvertConfig(camera="front"))
    assert output.read_bytes() == b"precious"
    convert(str(recorded), output, ConvertConfig(camera="front", overwrite=True, image_size=32))
    assert verify_file(output) == []


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("folder", "is a folder, but the output is one file"),
        ("file.txt/out.h5", "is not a folder that you may write to"),
    ],
)
def test_impossible_outputs(recorded: Path, tmp_path: Path, output: str, words: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file.txt").write_text("")
    with pytest.raises(OutputError, match=words):
        convert(str(recorded), tmp_path / output, ConvertConfig(camera="front"))


def test_folders_are_made_and_removed_after_a_failure(recorded: Path, tmp_path: Path) -> None:
    output = tmp_path / "a" / "b" / "out.h5"
    convert(str(recorded), output, ConvertConfig(camera="front", image_size=32))
    assert output.exists()
    with pytest.raises(UsageError):
        convert(str(recorded), tmp_path / "c" / "out.h5", ConvertConfig())
    assert not (tmp_path / "c").exists()


def test_several_cameras_need_a_choice(recorded: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has 2 cameras: front, top\. Say which one is 'pixels'.*--camera front"):
        convert(str(recorded), tmp_path / "out.h5")
    with pytest.raises(UsageError, match="--camera side: no such camera; the dataset has: front, top"):
        convert(str(recorded), tmp_path / "out.h5", ConvertConfig(camera="side"))
    assert os.listdir(tmp_path) == []


def test_a_folder_without_a_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"not a LeRobot dataset, because it has no meta/info\.json"):
        convert(str(tmp_path), tmp_path / "out.h5")
    with pytest.raises(SourceError, match="no such folder, and no Hub repo id either"):
        convert(str(tmp_path / "nothing"), tmp_path / "out.h5")
    assert os.listdir(tmp_path) == []


def test_too_little_memory_or_disk_is_refused(recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "available_memory_bytes", lambda: 64 << 20)
        with pytest.raises(ResourceError, match="memory: .* 67 MB are available. What helps: a lower --micro_batch"):
            convert(str(recorded), tmp_path / "out.h5", ConvertConfig(camera="front"))
    monkeypatch.setattr(pipeline, "free_disk_bytes", lambda output: 1 << 20)
    with pytest.raises(ResourceError, match="disk: .* 1 MB are free. What helps: a smaller --image_size"):
        convert(str(recorded), tmp_path / "out.h5", ConvertConfig(camera="front"))
    assert os.listdir(tmp_path) == []


def test_a_second_process_waits_and_then_finds_the_output(recorded: Path, tmp_path: Path) -> None:
    first_in, go_on = threading.Event(), threading.Event()
    waited: list[bool] = []
    results: list[ConversionResult] = []

    class First(Reporter):
        def planned(self, inspection: object) -> None:
            first_in.set()
            assert go_on.wait(30)

    class Second(Reporter):
        def waiting(self) -> None:
            waited.append(True)
            go_on.set()

    config = ConvertConfig(camera="front", image_size=32)

    def run(reporter: Reporter) -> None:
        results.append(convert(str(recorded), tmp_path / "out.h5", config, reporter=reporter))

    first = threading.Thread(target=run, args=(First(),))
    first.start()
    assert first_in.wait(60)
    second = threading.Thread(target=run, args=(Second(),))
    second.start()
    first.join()
    second.join()
    assert waited == [True]
    assert len({result.header.fingerprint for result in results}) == 1
    assert sorted(result.frames_per_second > 0 for result in results) == [False, True]  # one of them converted
    assert verify_file(tmp_path / "out.h5") == []
    assert os.listdir(tmp_path) == ["out.h5"]


def test_every_thread_has_ended(recorded: Path, tmp_path: Path) -> None:
    before = set(threading.enumerate())
    convert(str(recorded), tmp_path / "out.h5", ConvertConfig(camera="front", image_size=32))
    with pytest.raises(InterruptedConversionError):
        convert(str(recorded), tmp_path / "b.h5", ConvertConfig(camera="front"), reporter=StopAfter(1))
    assert set(threading.enumerate()) <= before


def test_codes_are_legible_at_every_step_of_a_long_episode(tmp_path: Path) -> None:
    """A micro-batch that does not divide the episode leaves no frame out and none twice."""
    record_v3(tmp_path / "data", episode_lengths=(150, 65))
    convert(str(tmp_path / "data"), tmp_path / "out.h5", ConvertConfig(micro_batch=64))
    codes = [read_code(frame) for frame in contents(tmp_path / "out.h5")["pixels"]]
    assert codes == [(e, s) for e, n in enumerate((150, 65)) for s in range(n)]


def test_a_full_disk_is_reported_and_the_next_run_resumes(recorded: Path, tmp_path: Path) -> None:
    code = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
from lewm_data.cli.commands import main
main(["convert", sys.argv[2], sys.argv[3], "--camera=front"])
"""
    command = [sys.executable, "-c", code, "1000000", str(recorded), str(tmp_path / "out.h5")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 4, done.stderr
    assert "the disk is full, or does not allow files of this size" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert os.listdir(tmp_path) == ["out.h5.partial"]
    command[3] = str(1 << 40)
    assert subprocess.run(command, capture_output=True).returncode == 0
    assert os.listdir(tmp_path) == ["out.h5"]


def test_a_source_that_changes_during_the_conversion_is_refused(recorded: Path, copy_of, tmp_path: Path) -> None:
    root = copy_of(recorded)

    class Spoil(Reporter):
        def planned(self, inspection: object) -> None:
            next((root / "data").rglob("*.parquet")).write_bytes(b"something else")

    with pytest.raises(SourceError, match="was readable when it was inspected, but is not now"):
        convert(str(root), tmp_path / "out.h5", ConvertConfig(camera="front"), reporter=Spoil())
    assert not (tmp_path / "out.h5").exists()


def test_running_out_of_memory_names_the_remedy(recorded: Path, tmp_path: Path) -> None:
    class Exhausted(Reporter):
        def frames(self, episode: int, camera: str, count: int) -> None:
            raise MemoryError

    with pytest.raises(ResourceError, match="out of memory. What helps: a lower --micro_batch"):
        convert(str(recorded), tmp_path / "out.h5", ConvertConfig(camera="front"), reporter=Exhausted())
    assert not (tmp_path / "out.h5").exists()


def test_a_slow_disk_does_not_trip_the_watchdog(recorded: Path, tmp_path: Path) -> None:
    """Frames are flushed on the way, so that no flush lasts as long as the watchdog waits."""
    code = """
import sys, time
from lewm_data.format import writer
writer.SYNC_BYTES = 1_000_000
fsync, synced = writer.os.fsync, []
def slow(descriptor):
    time.sleep(0.6)
    synced.append(descriptor)
    fsync(descriptor)
writer.os.fsync = slow
from lewm_data.cli.commands import main
try:
    main(["convert", sys.argv[1], sys.argv[2], "--camera=front", "--watchdog_seconds=4", "--micro_batch=8"])
finally:
    print(len(synced))
"""
    done = subprocess.run([sys.executable, "-c", code, str(recorded), str(tmp_path / "out.h5")], capture_output=True)
    assert done.returncode == 0, done.stderr
    assert 0.6 * int(done.stdout) > 4


def test_native_size_refuses_frames_of_another_size(recorded_images: Path, copy_of, tmp_path: Path) -> None:
    import imagecodecs
    import pyarrow as pa

    from lewm_data.errors import DirtyDataError
    from tests.recording import edit_parquet

    root = copy_of(recorded_images)

    def shrink(table: pa.Table) -> pa.Table:
        key = "observation.images.front"
        cells = table[key].to_pylist()
        for row in range(7, 19):  # episode 1, which no sample looks at
            cells[row]["bytes"] = imagecodecs.png_encode(np.zeros((48, 64, 3), np.uint8) + row)
        return table.set_column(table.column_names.index(key), table.schema.field(key), pa.array(cells))

    edit_parquet(next((root / "data").rglob("*.parquet")), shrink)
    config = ConvertConfig(image_size="native")
    with pytest.raises(DirtyDataError, match="video_size_changes: expected 128x96 as in the other episodes"):
        convert(str(root), tmp_path / "out.h5", config)
    skipped = convert(str(root), tmp_path / "out.h5", ConvertConfig(image_size="native", dirty_episode_policy="skip"))
    assert skipped.header.dropped_episodes == (1,)


def test_extra_columns_that_would_share_a_name_are_refused(recorded: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'a/b' and 'a_b' would both be 'a_b'"):
        convert(str(recorded), tmp_path / "out.h5", ConvertConfig(camera="front", extra_columns=("a/b", "a_b")))


def test_a_folder_of_another_program_is_left_alone(recorded: Path, tmp_path: Path) -> None:
    (tmp_path / "out.h5.partial").mkdir()
    (tmp_path / "out.h5.partial" / "thesis.tex").write_text("precious")
    with pytest.raises(OutputError, match="is in the way and was not made by lewm_data"):
        convert(str(recorded), tmp_path / "out.h5", ConvertConfig(camera="front"))
    assert (tmp_path / "out.h5.partial" / "thesis.tex").read_text() == "precious"


def test_an_output_that_is_an_address_is_refused_and_makes_no_folder(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"^output is s3://bucket/out\.h5, an address, but must be a path"):
        convert(str(recorded), "s3://bucket/out.h5", ConvertConfig(camera="front"))
    assert os.listdir(tmp_path) == []


def test_a_tilde_in_the_output_is_the_home_folder(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    result = convert(str(recorded), "~/out.h5", ConvertConfig(camera="front", image_size=16, episodes="0"))
    assert result.path == tmp_path / "out.h5"
    assert lewm_data.verify("~/out.h5").problems == ()
