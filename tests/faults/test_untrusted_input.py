"""Untrusted datasets and files: hostile claims are refused or neutralized, in little memory."""

from __future__ import annotations

import ast
import dataclasses
import json
import os
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import av
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import lewm_data
from lewm_data.cli.commands import main
from lewm_data.config import ConvertConfig
from lewm_data.conversion.inspect import inspect_source
from lewm_data.conversion.pipeline import convert
from lewm_data.conversion.verify import verify_against, verify_file
from lewm_data.errors import DirtyDataError, FormatError, UsageError, printable
from lewm_data.format.codecs import ChunkCodec, ChunkError
from lewm_data.loading.store import FrameStore
from tests.loading import files
from tests.quality.dirt import DATA, FRONT, INFO, META, VIDEO, feature, info, meta, retouch, rows
from tests.recording import edit_info, edit_parquet, record_v3

MEBIBYTE = 1 << 20


def codes(root: Path, **options: object) -> set[str]:
    inspection = inspect_source(str(root), ConvertConfig(camera="front", **options))  # type: ignore[arg-type]
    return {found.code for found in inspection.report.findings if found.severity == "error"}


def in_a_child(code: str, *arguments: object) -> tuple[str, int]:
    """Runs code in a process of its own.

    Returns:
        What it printed, and by how many bytes its memory rose at the peak while it did, after its imports.
    """
    frame = f"""
import sys, re
from pathlib import Path
import h5py, hdf5plugin, pyarrow.parquet, av, imagecodecs
from lewm_data.config import ConvertConfig
from lewm_data.conversion.inspect import inspect_source
from lewm_data.conversion.pipeline import convert
from lewm_data.conversion.verify import verify_file
from lewm_data.errors import LewmDataError
from lewm_data.loading.store import FrameStore
from lewm_data.resources import peak_memory_bytes
before = peak_memory_bytes()
try:
    {code}
except LewmDataError as error:
    print(type(error).__name__, str(error)[:500])
print(peak_memory_bytes() - before)
"""
    command = [sys.executable, "-c", frame, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    *said, peak = done.stdout.strip().splitlines()
    return "\n".join(said), int(peak)


INSPECT = (
    "print(sorted({f.code for f in inspect_source(sys.argv[1], ConvertConfig(camera='front')).report.findings "
    "if f.severity == 'error'}))"
)


# --- links and names


@pytest.mark.parametrize("name", [INFO, META, DATA, VIDEO, "meta/tasks.parquet"])
def test_a_link_out_of_the_folder_is_refused(copy_of: Callable, recorded: Path, tmp_path: Path, name: str) -> None:
    root = copy_of(recorded)
    shutil.move(root / name, tmp_path / "elsewhere")
    (root / name).symlink_to(tmp_path / "elsewhere")
    assert codes(root) == {"link_leads_out" if name in (DATA, VIDEO) else "path_unsafe"}


def test_a_linked_folder_is_refused_until_its_owner_asks_for_it(
    copy_of: Callable, recorded: Path, tmp_path: Path
) -> None:
    root = copy_of(recorded)
    shutil.move(root / "videos", tmp_path / "elsewhere")
    (root / "videos").symlink_to(tmp_path / "elsewhere")
    config = ConvertConfig(camera="front", image_size=16)
    with pytest.raises(DirtyDataError, match=r"found a link to .*/elsewhere/.*\.mp4, which you own .*--follow_links"):
        convert(str(root), tmp_path / "out.h5", config)
    followed = convert(str(root), tmp_path / "out.h5", dataclasses.replace(config, follow_links=True))
    assert followed.num_episodes == 5
    assert verify_against(tmp_path / "out.h5", str(root))[:2] == ([], 54)


def test_metadata_is_never_read_through_a_link_out(copy_of: Callable, recorded: Path, tmp_path: Path) -> None:
    root = copy_of(recorded)
    shutil.move(root / INFO, tmp_path / "elsewhere")
    (root / INFO).symlink_to(tmp_path / "elsewhere")
    inspection = inspect_source(str(root), ConvertConfig(camera="front", follow_links=True))
    assert [found.code for found in inspection.report.findings] == ["path_unsafe"]


def test_links_within_the_folder_and_those_of_the_hubs_cache_are_followed(recorded: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "datasets--a--b" / "snapshots" / "f00"
    blobs = tmp_path / "datasets--a--b" / "blobs"
    shutil.copytree(recorded, snapshot)
    blobs.mkdir()
    for number, path in enumerate(sorted(p for p in snapshot.rglob("*") if p.is_file())):
        shutil.move(path, blobs / str(number))
        path.symlink_to(os.path.relpath(blobs / str(number), path.parent))
    assert codes(snapshot) == set()


def test_a_picture_outside_of_the_folder_is_not_read(copy_of: Callable, recorded_images: Path, tmp_path: Path) -> None:
    root = copy_of(recorded_images)
    (tmp_path / "secret.png").write_bytes(b"\x89PNG secret")

    def point_out(table: pa.Table) -> pa.Table:
        cells = table[FRONT].to_pylist()
        cells[9] = {"bytes": None, "path": "../../secret.png"}
        return table.set_column(table.column_names.index(FRONT), FRONT, pa.array(cells, table.schema.field(FRONT).type))

    edit_parquet(root / DATA, point_out)
    with pytest.raises(DirtyDataError, match="decode_error: expected an encoded picture"):
        convert(str(root), tmp_path / "out.h5", ConvertConfig(image_size=32))


@pytest.mark.parametrize("name", ["a\x1b[31m", "a\nb", "a\0b", "a\ud800", "a\u202e", "a/b", "..", "a\\b"])
def test_camera_names_that_mean_harm_are_refused(copy_of: Callable, recorded: Path, name: str) -> None:
    root = copy_of(recorded)
    key = f"observation.images.{name}"
    edit_info(root, lambda content: content["features"].update({key: content["features"][FRONT]}))
    inspection = inspect_source(str(root), ConvertConfig(camera="front"))
    assert [found.code for found in inspection.report.findings] == ["path_unsafe"]


@pytest.mark.parametrize("template", ["data/\x1b[2J/{file_index}", "data/\ud800{file_index}", "data/" + "x" * 300])
def test_path_templates_that_no_file_can_have_are_refused(copy_of: Callable, recorded: Path, template: str) -> None:
    root = copy_of(recorded)
    info(data_path=template)(root)
    assert codes(root) in ({"path_unsafe"}, {"file_missing"})


def test_cameras_that_would_share_a_column_are_refused(tmp_path: Path) -> None:
    root = record_v3(tmp_path / "data", cameras=("side.left", "side_left", "up"), episode_lengths=(4,))
    with pytest.raises(UsageError, match="would both be 'pixels_side_left'"):
        convert(str(root), tmp_path / "out.h5", ConvertConfig(camera="up", cameras="all"))


EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\r\b"


@pytest.mark.parametrize(
    "spoil",
    [
        info(codebase_version=f"v3.0{EVIL}"),
        info(data_path=f"{EVIL}/{{file_index}}"),
        feature("action", dtype=f"float{EVIL}"),
        lambda root: edit_info(root, lambda i: i["features"].update({f"{FRONT}{EVIL}": i["features"][FRONT]})),
        lambda root: edit_info(root, lambda i: i["features"]["action"].update({"names": [EVIL] * 6})),
        rows(lambda table: table.rename_columns([EVIL if name == "action" else name for name in table.column_names])),
        lambda root: (root / META).write_bytes(EVIL.encode()),
    ],
    ids=["version", "template", "dtype", "camera", "names", "column", "bytes"],
)
@pytest.mark.parametrize("command", ["inspect", "convert"])
def test_nothing_that_a_terminal_obeys_reaches_it(
    copy_of: Callable, recorded: Path, tmp_path: Path, command: str, spoil: Callable, capfd: pytest.CaptureFixture
) -> None:
    """Whatever name or value is printed: nothing but text and line breaks leaves the process."""
    root = copy_of(recorded)
    root = root.rename(root.parent / f"data{EVIL}")
    spoil(root)
    more = [str(tmp_path / "out.h5"), "--camera=front", "--image_size=16"] if command == "convert" else []
    with pytest.raises(SystemExit) as ended:
        main([command, str(root), *more])
    text = "".join(capfd.readouterr())
    assert printable(text) == text
    assert ended.value.code in (0, 2, 3), text


def test_printable_text_stays_as_it_is() -> None:
    assert printable("Zürich 机器人 — 50 %\n") == "Zürich 机器人 — 50 %\n"
    assert printable("a\x1b[2J\r\ud800\u202e") == "a\\x1b[2J\\r\\ud800\\u202e"


# --- absurd sizes and bombs


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (feature("action", shape=[1_000_000_000]), "column_width"),
        (feature("action", shape=[1 << 30, 1 << 30, 1 << 30]), "episode_too_long"),
        (meta("length", 1, 1 << 40), "episode_too_long"),
        (info(total_episodes=1 << 60), "total_mismatch"),
        (info(fps=1e-300), "video_fps"),
    ],
)
def test_absurd_numbers_are_refused(copy_of: Callable, recorded: Path, spoil: Callable, code: str) -> None:
    root = copy_of(recorded)
    spoil(root)
    said, peak = in_a_child(INSPECT, root)
    assert code in said
    assert peak < 200 * MEBIBYTE


def _write_constant(path: Path, columns: dict[str, pa.Array], times: int) -> None:
    """Writes rows that are all alike, again and again: a run takes no space."""
    piece = pa.table(columns)
    with pq.ParquetWriter(path, piece.schema, compression="zstd") as writer:
        for _ in range(times):
            writer.write_table(piece)


def _many_rows(root: Path) -> None:
    """One episode of forty million rows, where the metadata lists seven."""
    num_rows = 1 << 20
    wide = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(6 * num_rows, np.float32)), 6)
    numbers = {name: pa.array(np.zeros(num_rows, np.int64)) for name in ("episode_index", "frame_index", "index")}
    done = pa.array(np.zeros(num_rows, bool))
    times = pa.array(np.zeros(num_rows, np.float32))
    columns = {**numbers, "timestamp": times, "action": wide, "observation.state": wide, "next.done": done}
    _write_constant(root / DATA, columns, 40)


def _many_values(root: Path) -> None:
    """One row with 67 million actions."""

    def edit(table: pa.Table) -> pa.Table:
        values, offsets = np.zeros(1 << 26, np.float32), np.full(table.num_rows + 1, 1 << 26, np.int32)
        offsets[0] = 0
        actions = pa.ListArray.from_arrays(offsets, pa.array(values))
        return table.set_column(table.column_names.index("action"), "action", actions)

    pq.write_table(edit(pq.read_table(root / DATA)), root / DATA, compression="zstd")


def _many_episodes(root: Path) -> None:
    """Forty million episodes."""
    names = ("episode_index", "length", "data/chunk_index", "data/file_index")
    _write_constant(root / META, {name: pa.array(np.zeros(1 << 20, np.int64)) for name in names}, 40)


def _long_tasks(root: Path) -> None:
    """Two thousand tasks of eight million letters each, stored once."""
    texts = pa.DictionaryArray.from_arrays(pa.array(np.zeros(2000, np.int32)), pa.array(["x" * (8 << 20)]))
    table = pa.table({"task_index": np.arange(2000), "task": texts})
    pq.write_table(table, root / "meta/tasks.parquet", compression="zstd", dictionary_pagesize_limit=64 << 20)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bomb", "code"),
    [
        (_many_rows, "rows_extra"),
        (_many_values, "parquet_unreadable"),
        (_many_episodes, "metadata_unreadable"),
        (_long_tasks, "tasks_missing"),
    ],
)
def test_a_parquet_bomb_does_not_go_off(
    copy_of: Callable, recorded: Path, bomb: Callable[[Path], None], code: str
) -> None:
    root = copy_of(recorded)
    bomb(root)
    assert sum(path.stat().st_size for path in root.rglob("*.parquet")) < 4 * MEBIBYTE
    said, peak = in_a_child(INSPECT, root)
    assert code in said
    assert peak < 300 * MEBIBYTE


def claimed_png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1 << 20))) + chunk(b"IEND", b"")


def test_a_picture_that_claims_gigabytes_is_refused(copy_of: Callable, recorded_images: Path, tmp_path: Path) -> None:
    root = copy_of(recorded_images)
    retouch(FRONT, 3, lambda data: claimed_png(100_000, 100_000))(root)
    said, peak = in_a_child(
        "convert(sys.argv[1], Path(sys.argv[2]), ConvertConfig(image_size=32))", root, tmp_path / "out.h5"
    )
    assert "decode_error" in said
    assert "a picture of more than 67,108,864 pixels" in said
    assert peak < 200 * MEBIBYTE


@pytest.mark.slow
def test_a_video_of_enormous_frames_is_refused(copy_of: Callable, recorded: Path) -> None:
    root = copy_of(recorded)
    with av.open(str(root / VIDEO), "w") as output:
        stream = output.add_stream("libx264", rate=30, options={"preset": "ultrafast", "qp": "51", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = 8320, 8320, "yuv420p"
        frame = av.VideoFrame(8320, 8320, "yuv420p")
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        for _ in range(3):
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    assert (root / VIDEO).stat().st_size < MEBIBYTE
    said, peak = in_a_child(INSPECT, root)
    assert "video_too_large" in said
    assert peak < 600 * MEBIBYTE  # FFmpeg itself decodes a frame to learn what it is


def _claims(change: Callable[[h5py.File], None]) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            change(file)

    return spoil


def _replaced(name: str, shape: tuple[int, ...], dtype: str, chunks: tuple[int, ...]) -> Callable[[Path], None]:
    def change(file: h5py.File) -> None:
        del file[name]
        file.create_dataset(name, shape, dtype, chunks=chunks)

    return _claims(change)


@pytest.mark.parametrize(
    "spoil",
    [
        _replaced("ep_len", (1 << 40,), "int32", (1024,)),
        _replaced("ep_offset", (1 << 40,), "int64", (1024,)),
        _replaced("action", (83, 1 << 33), "float32", (1, 1024)),
        _replaced("pixels", (1 << 40, 24, 20, 3), "uint8", (1, 24, 20, 3)),
        _replaced("pixels", (83, 1 << 20, 1 << 20, 3), "uint8", (1, 1024, 1024, 3)),
        _claims(lambda file: file.attrs.modify("image_height", 1 << 40)),
        _claims(lambda file: file.attrs.modify("fps", float("nan"))),
        _claims(lambda file: file.attrs.create("format_version", float("inf"))),
        _claims(lambda file: file.attrs.modify("cameras", "[[[" * 100_000)),
    ],
    ids=["ep_len", "ep_offset", "wide", "rows", "frames", "height", "fps", "version", "nested"],
)
def test_a_file_that_claims_more_than_it_holds_is_refused(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    path = files.write(tmp_path / "a.h5").path
    spoil(path)
    verify = "try:\n        print(verify_file(path)[0])\n    except LewmDataError as error:\n        print(error)"
    said, peak = in_a_child(f"path = Path(sys.argv[1])\n    {verify}\n    FrameStore(path)", path)
    assert len(said.splitlines()) == 2, said
    assert said.splitlines()[1].startswith("FormatError"), said
    assert peak < 100 * MEBIBYTE


def test_a_blosc2_bomb_does_not_go_off() -> None:
    import blosc2

    bomb = blosc2.SChunk(chunksize=1 << 30, cparams={"typesize": 1})
    bomb.fill_special(1 << 33, blosc2.SpecialValue.ZERO)
    stored = np.frombuffer(bomb.to_cframe(), np.uint8)
    assert len(stored) < 10_000
    with pytest.raises(ChunkError, match="claims 8589934592 bytes where a frame has 1440"):
        ChunkCodec("blosc2", has_checksum=False).decode(stored.data, 0, np.empty(1440, np.uint8))


# --- files that lead elsewhere


def _external(file: h5py.File) -> None:
    del file["state"]
    file.create_dataset("state", (83, 2), "float32", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])


def _link(file: h5py.File) -> None:
    del file["state"]
    file["state"] = h5py.ExternalLink("other.h5", "state")  # which is there


def _virtual(file: h5py.File) -> None:
    del file["state"]
    layout = h5py.VirtualLayout((83, 2), "float32")
    layout[:] = h5py.VirtualSource("../other.h5", "state", (83, 2))
    file.create_virtual_dataset("state", layout)


@pytest.mark.parametrize("change", [_external, _link, _virtual])
def test_a_file_that_leads_elsewhere_is_refused(tmp_path: Path, change: Callable[[h5py.File], None]) -> None:
    path = files.write(tmp_path / "a.h5").path
    files.write(tmp_path / "other.h5")
    _claims(change)(path)
    with pytest.raises(FormatError, match="leads out of the file's folder"):
        FrameStore(path)
    if change is not _virtual:
        assert verify_file(path) != []


# --- no code in data


def test_no_door_for_code_in_data() -> None:
    """No pickle and its like, no eval; what may hold pickles is loaded without them."""
    package = Path(lewm_data.__file__).parent
    for path in [*package.rglob("*.py"), package.parent / "train.py"]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in getattr(node, "names", [])] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            bad = {"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}.intersection(
                name.split(".")[0] for name in names
            )
            assert not bad, (path.name, bad)
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert called not in ("eval", "exec", "compile", "__import__", "os.system", "yaml.load"), path.name
                assert called != "torch.load" or given.get("weights_only") == "True", path.name
                assert called != "np.load" or given.get("allow_pickle") == "False", path.name
                assert given.get("shell") in (None, "False"), path.name


def test_findings_as_json_hold_no_raw_control_characters(copy_of: Callable, recorded: Path) -> None:
    root = copy_of(recorded)
    info(codebase_version="\x1b[2J")(root)
    command = [sys.executable, "-m", "lewm_data", "inspect", str(root), "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "\x1b" not in done.stdout
    assert json.loads(done.stdout)["findings"][0]["code"] == "version_unknown"
