"""Sharded outputs: a virtual file over shards that every reader reads, and that appears only when complete."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from lewm_data.config import ConvertConfig
from lewm_data.conversion import join, pipeline
from lewm_data.conversion.merge import merge
from lewm_data.conversion.pipeline import convert
from lewm_data.conversion.verify import verify_against, verify_file
from lewm_data.errors import FormatError, UsageError
from lewm_data.loading.store import FrameStore
from tests.conversion.test_pipeline import assert_equal_contents, header_of
from tests.loading.test_store import read_all

SETTINGS = {"camera": "front", "cameras": "all", "image_size": 32}
SMALL = {"layout": "sharded", "shard_bytes": 20_000}


@pytest.fixture(scope="module")
def single(recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("single") / "out.h5"
    convert(str(recorded), path, ConvertConfig(**SETTINGS))
    return path


@pytest.fixture
def sharded(recorded: Path, tmp_path: Path) -> Path:
    convert(str(recorded), tmp_path / "out.h5", ConvertConfig(**SETTINGS, **SMALL))
    return tmp_path / "out.h5"


def shards(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.name}.shards/*.h5"))


def test_a_virtual_file_holds_what_a_single_file_would(recorded, sharded, single, monkeypatch, tmp_path):
    assert len(shards(sharded)) > 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.h5", "out.h5.shards"]
    assert sharded.stat().st_size < 0.2 * sum(path.stat().st_size for path in shards(sharded))
    monkeypatch.chdir("/")
    assert_equal_contents(sharded, single)
    assert header_of(sharded) == header_of(single)
    assert verify_file(sharded) == []
    problems, compared, _ = verify_against(sharded, str(recorded))
    assert (problems, compared) == ([], 2 * FrameStore(single).num_rows)


def test_our_store_reads_the_shards_chunks_and_stable_worldmodel_the_virtual_file(sharded, single):
    ours, theirs = FrameStore(sharded, verify_checksums=True), FrameStore(single)
    order = np.random.default_rng(0).permutation(ours.num_rows)
    for column in ("pixels", "pixels_top"):
        assert ours.reader_kind(column) == "chunks"
        np.testing.assert_array_equal(read_all(ours, column, order), read_all(theirs, column, order))
    hdf5 = pytest.importorskip("stable_worldmodel.data.formats.hdf5")
    readers = [hdf5.HDF5Dataset(path=path, num_steps=2, frameskip=2) for path in (sharded, single)]
    assert len(readers[0]) == len(readers[1])
    for number in (0, len(readers[0]) // 2, len(readers[0]) - 1):
        mine, wanted = readers[0][number], readers[1][number]
        for name in wanted:
            np.testing.assert_array_equal(np.asarray(mine[name]), np.asarray(wanted[name]))


@pytest.mark.parametrize("harm", ["missing", "flipped", "other", "cut"])
def test_verify_finds_what_is_wrong_with_a_shard(recorded, sharded, harm, tmp_path):
    victim = shards(sharded)[1]
    if harm == "missing":
        victim.unlink()
        with pytest.raises(FormatError, match="its shard .* is missing"):
            FrameStore(sharded)
    elif harm == "flipped":
        with h5py.File(victim) as file:
            info = file["pixels"].id.get_chunk_info(3)
        with open(victim, "r+b") as file:
            file.seek(info.byte_offset + info.size // 2)
            byte = file.read(1)[0]
            file.seek(-1, 1)
            file.write(bytes([byte ^ 1]))
    elif harm == "other":
        convert(str(recorded), tmp_path / "b.h5", ConvertConfig(**{**SETTINGS, "resize": "pad"}, **SMALL))
        shutil.copy(shards(tmp_path / "b.h5")[1], victim)
    else:
        os.truncate(victim, victim.stat().st_size // 2)
    assert verify_file(sharded) != []


def test_an_interrupted_run_resumes_from_its_shards(recorded, single, tmp_path, monkeypatch):
    output = tmp_path / "out.h5"
    config = ConvertConfig(**SETTINGS, **SMALL)
    real, made = pipeline.write_shard, []

    def third_fails(inspection, path, *args, **kwargs):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(path.name)
        real(inspection, path, *args, **kwargs)

    monkeypatch.setattr(pipeline, "write_shard", third_fails)
    with pytest.raises(Exception, match="Interrupted"):
        convert(str(recorded), output, config)
    assert not output.exists()
    assert len(shards(output)) == 2
    made[:] = []
    monkeypatch.setattr(
        pipeline, "write_shard", lambda i, path, *a, **k: made.append(path.name) or real(i, path, *a, **k)
    )
    convert(str(recorded), output, config)
    assert "shard-00000.h5" not in made
    assert "shard-00002.h5" in made
    assert_equal_contents(output, single)


def test_the_old_output_stays_intact_until_the_new_one_is_renamed(recorded, sharded, single, tmp_path, monkeypatch):
    before = header_of(sharded)
    other = ConvertConfig(**{**SETTINGS, "resize": "crop"}, **SMALL, overwrite=True)

    def fail(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(join, "add_virtual_frames", fail)
        with pytest.raises(Exception, match="Interrupted"):
            convert(str(recorded), sharded, other)
    assert header_of(sharded) == before
    assert verify_file(sharded) == []
    assert_equal_contents(sharded, single)
    convert(str(recorded), sharded, other)
    assert verify_file(sharded) == []
    assert header_of(sharded).resize == "crop"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.h5", "out.h5.shards-2"]
    convert(str(recorded), sharded, ConvertConfig(**SETTINGS, overwrite=True))  # back to one file: no shards are left
    assert [path.name for path in tmp_path.iterdir()] == ["out.h5"]
    assert_equal_contents(sharded, single)


def test_a_run_with_other_settings_removes_unfinished_shards(recorded, tmp_path, monkeypatch):
    output = tmp_path / "out.h5"
    with monkeypatch.context() as patched:
        patched.setattr(join, "add_virtual_frames", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(Exception, match="Interrupted"):
            convert(str(recorded), output, ConvertConfig(**SETTINGS, **SMALL))
    state = json.loads((tmp_path / "out.h5.partial" / "state.json").read_text())
    assert state["folder"] == "out.h5.shards"
    convert(str(recorded), output, ConvertConfig(**{**SETTINGS, "resize": "crop"}, **SMALL))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.h5", "out.h5.shards"]
    assert verify_file(output) == []


def test_a_sharded_conversion_plans_no_second_copy(recorded):
    from lewm_data.conversion.inspect import inspect_source

    plans = [
        inspect_source(str(recorded), ConvertConfig(**SETTINGS, **extra)).plan
        for extra in ({"shard_bytes": 20_000}, SMALL)
    ]
    assert plans[0].temporary_bytes == 2 * plans[0].output_bytes
    assert plans[1].temporary_bytes == plans[1].output_bytes


def test_an_unrelated_folder_named_in_the_work_folder_is_kept(recorded, tmp_path):
    output, foreign = tmp_path / "out.h5", tmp_path / "precious"
    foreign.mkdir()
    (tmp_path / "out.h5.partial").mkdir()
    (tmp_path / "out.h5.partial" / "state.json").write_text(json.dumps({"folder": "precious"}))
    convert(str(recorded), output, ConvertConfig(**SETTINGS))
    assert foreign.is_dir()


def test_the_shards_of_a_renamed_file_are_kept(recorded, sharded, single, tmp_path):
    """A new file with the old name keeps its hands off those shards; when it is replaced, its own shards go."""
    renamed = sharded.rename(tmp_path / "renamed.h5")
    convert(str(recorded), sharded, ConvertConfig(**SETTINGS, **SMALL))
    assert verify_file(renamed) == verify_file(sharded) == []
    convert(str(recorded), sharded, ConvertConfig(**SETTINGS, overwrite=True))
    assert verify_file(renamed) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.h5", "out.h5.shards", "renamed.h5"]
    assert_equal_contents(sharded, single)


def test_a_virtual_file_merges_with_its_shards_into_one_file(recorded, sharded, single, tmp_path):
    joined = tmp_path / "joined.h5"
    merge([sharded], joined)
    assert_equal_contents(joined, single)
    assert header_of(joined) == header_of(single)
    assert verify_file(joined, alone=True) == []
    shards(sharded)[1].unlink()
    with pytest.raises(FormatError, match="its shard cannot be read"):
        merge([sharded], tmp_path / "again.h5")
    assert not (tmp_path / "again.h5").exists()


def test_shards_are_not_merged_without_their_virtual_file(sharded, tmp_path):
    with pytest.raises(UsageError, match=r"a shard, .*out\.h5\.shards instead: lewm-data merge VIRTUAL"):
        merge(shards(sharded), tmp_path / "joined.h5")
