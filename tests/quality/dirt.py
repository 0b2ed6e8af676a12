"""Dirt: functions that spoil a private copy of a recorded dataset, and the table of all of it.

``INSPECTED`` is what metadata, rows and video headers show; ``DECODED`` is what only decoding shows. The tests run
over these tables, and one of them holds that together they make every code of the catalog.
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.recording import EPISODE_LENGTHS, edit_info, edit_jsonl, edit_parquet, set_column

LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"

FRONT = "observation.images.front"
INFO = "meta/info.json"
META = "meta/episodes/chunk-000/file-000.parquet"
DATA = "data/chunk-000/file-000.parquet"
VIDEO = f"videos/{FRONT}/chunk-000/file-000.mp4"
DATA_V2 = "data/chunk-000/episode_000001.parquet"
VIDEO_V2 = f"videos/chunk-000/{FRONT}/episode_000001.mp4"

STARTS = [sum(EPISODE_LENGTHS[:i]) for i in range(len(EPISODE_LENGTHS))]
"""First frame of each episode in the one file of ``recorded``."""

Spoil = Callable[[Path], Any]


@dataclass(frozen=True, kw_only=True)
class Dirt:
    """One way to spoil a dataset, and what must be said about it.

    Attributes:
        code: The catalog's code.
        what: Tells this from other ways to the same code.
        spoil: Spoils the dataset in a folder.
        dataset: Fixture to spoil a copy of.
        episode: The only episode that it concerns; None for the dataset; ``ALL`` for each of them.
        file: The file that is named.
        expected: Part of what the finding says was expected.
        found: Part of what it says was found.
        also: Further codes that this dirt cannot but cause.
        options: Of ``validate``.
    """

    code: str
    what: str
    spoil: Spoil
    dataset: str = "recorded"
    episode: int | None | Sequence[int] = 1
    file: str | None = None
    expected: str = ""
    found: str = ""
    also: frozenset[str] = frozenset()
    options: dict[str, Any] | None = None

    def __str__(self) -> str:
        return f"{self.code}-{self.what}"

    @property
    def episodes(self) -> list[int | None]:
        """The finding's episodes, one finding each."""
        return [self.episode] if self.episode is None or isinstance(self.episode, int) else list(self.episode)


ALL = tuple(range(len(EPISODE_LENGTHS)))


# --- files


def write(name: str, content: bytes) -> Spoil:
    return lambda root: (root / name).write_bytes(content)


def move_away(name: str) -> Spoil:
    """Moves a file out of the dataset, as to another disk, and leaves a link to it."""

    def spoil(root: Path) -> None:
        away = root.parent / f"{root.name}-elsewhere.mp4"
        (root / name).rename(away)
        (root / name).symlink_to(away)

    return spoil


def remove(name: str) -> Spoil:
    def spoil(root: Path) -> None:
        path = root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return spoil


def append(name: str, content: bytes) -> Spoil:
    return lambda root: (root / name).write_bytes((root / name).read_bytes() + content)


def cut(name: str, *, keep: float) -> Spoil:
    def spoil(root: Path) -> None:
        content = (root / name).read_bytes()
        (root / name).write_bytes(content[: int(len(content) * keep)])

    return spoil


def replace_with(name: str, other: str) -> Spoil:
    return lambda root: shutil.copy(root / other, root / name)


def overwrite(path: Path, start: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(start)
        file.write(content)


# --- metadata


def info(**values: Any) -> Spoil:
    return lambda root: edit_info(root, lambda content: content.update(values))


def no_info(*keys: str) -> Spoil:
    return lambda root: edit_info(root, lambda content: [content.pop(key) for key in keys] and None)


def feature(key: str, **values: Any) -> Spoil:
    return lambda root: edit_info(root, lambda content: content["features"][key].update(values))


def no_features(*keys: str) -> Spoil:
    return lambda root: edit_info(root, lambda content: [content["features"].pop(key) for key in keys] and None)


def meta(column: str, episode: int, value: Any) -> Spoil:
    """Changes one episode's value in ``meta/episodes``."""

    def edit(table: pa.Table) -> pa.Table:
        values = table[column].to_pylist()
        values[table["episode_index"].to_pylist().index(episode)] = value
        return set_column(table, column, values)

    return lambda root: edit_parquet(root / META, edit)


def span(episode: int, start: float, stop: float) -> Spoil:
    """Moves one episode's span of the front camera, in frames."""

    def spoil(root: Path) -> None:
        meta(f"videos/{FRONT}/from_timestamp", episode, start / 30)(root)
        meta(f"videos/{FRONT}/to_timestamp", episode, stop / 30)(root)

    return spoil


def unlist(*episodes: int) -> Spoil:
    """Takes episodes out of the metadata, totals included; rows and frames stay."""

    def spoil(root: Path) -> None:
        edit_parquet(
            root / META,
            lambda table: table.filter(
                pa.array([index not in episodes for index in table["episode_index"].to_pylist()])
            ),
        )
        lost = sum(EPISODE_LENGTHS[index] for index in episodes)
        info(total_episodes=len(EPISODE_LENGTHS) - len(episodes), total_frames=sum(EPISODE_LENGTHS) - lost)(root)

    return spoil


def jsonl(name: str, fn: Callable[[list[dict[str, Any]]], Any]) -> Spoil:
    return lambda root: edit_jsonl(root / name, fn)


# --- rows


def rows(fn: Callable[[pa.Table], pa.Table], *, file: str = DATA) -> Spoil:
    return lambda root: edit_parquet(root / file, fn)


def value(column: str, step: int, new: Any, *, episode: int = 1) -> Spoil:
    """Changes one row's value."""

    def edit(table: pa.Table) -> pa.Table:
        values = table[column].to_pylist()
        values[STARTS[episode] + step] = new
        return set_column(table, column, values)

    return rows(edit)


def values(column: str, fn: Callable[[np.ndarray], Any], *, episode: int = 1) -> Spoil:
    """Changes one column of one episode: ``fn`` takes its values, and changes them or returns others."""

    def edit(table: pa.Table) -> pa.Table:
        column_values = np.array(table[column].to_pylist())
        mine = column_values[STARTS[episode] : STARTS[episode] + EPISODE_LENGTHS[episode]]
        result = fn(mine)
        if result is not None:
            mine[:] = result
        return set_column(table, column, column_values)

    return rows(edit)


def together(*spoils: Spoil) -> Spoil:
    """Spoils in several ways, one after the other."""

    def spoil(root: Path) -> None:
        for one in spoils:
            one(root)

    return spoil


def retype(column: str, fn: Callable[[list[Any]], pa.Array]) -> Spoil:
    """Replaces a column by one of another type."""

    def edit(table: pa.Table) -> pa.Table:
        position = table.schema.get_field_index(column)
        table = table.replace_schema_metadata(None)
        return table.set_column(position, column, fn(table[column].to_pylist()))

    return lambda root: pq.write_table(edit(pq.read_table(root / DATA)), root / DATA)


def keep_rows(wanted: Callable[[int], bool]) -> Spoil:
    return rows(lambda table: table.take([row for row in range(table.num_rows) if wanted(row)]))


def reorder(order: Callable[[int], list[int]]) -> Spoil:
    return rows(lambda table: table.take(order(table.num_rows)))


def move_rows(source: str, target: str) -> Spoil:
    """Moves the rows of one data file behind those of another."""

    def spoil(root: Path) -> None:
        moved = pq.read_table(root / source)
        edit_parquet(root / target, lambda table: pa.concat_tables([table, moved]))
        edit_parquet(root / source, lambda table: table.slice(0, 0))

    return spoil


def both(*spoils: Spoil) -> Spoil:
    return lambda root: [spoil(root) for spoil in spoils]


# --- videos


def remux(
    path: Path,
    *,
    time: Callable[[int, int], int | None] = lambda number, pts: pts,
    rate: int = 30,
) -> None:
    """Copies a video's packets: ``time`` gives each its new time (None drops it), from its number and old time."""
    import av

    scratch = path.with_suffix(".remuxed.mp4")
    with av.open(str(path)) as source, av.open(str(scratch), "w") as output:
        stream = source.streams.video[0]
        copy = output.add_stream_from_template(stream, opaque=True)
        copy.time_base = stream.time_base
        packets = [packet for packet in source.demux(stream) if packet.dts is not None]
        for number, packet in enumerate(packets):
            pts = time(number, packet.pts)
            if pts is None:
                continue
            packet.dts, packet.pts, packet.stream = packet.dts + pts - packet.pts, pts, copy
            packet.duration = stream.time_base.denominator // rate
            output.mux(packet)
    scratch.replace(path)


def retime(name: str, time: Callable[[int, int], int | None], *, rate: int = 30) -> Spoil:
    return lambda root: remux(root / name, time=time, rate=rate)


def repaint(
    name: str,
    paint: Callable[[int, np.ndarray], np.ndarray] = lambda number, picture: picture,
    *,
    fps: int = 30,
    gop: int = 2,
    x264: str = "",
) -> Spoil:
    """Encodes a video again. ``paint`` makes each frame from its number and picture, and may change the size."""

    def spoil(root: Path) -> None:
        import av

        path = root / name
        with av.open(str(path)) as source:
            frames = [paint(i, frame.to_ndarray(format="rgb24")) for i, frame in enumerate(source.decode(video=0))]
        with av.open(str(path), "w") as output:
            stream = None
            encoder, size = None, None
            for number, picture in enumerate([*frames, None]):
                if encoder is not None and (picture is None or picture.shape != size):
                    _mux(output, stream, encoder.encode(None))
                    encoder = None
                if picture is None:
                    break
                if encoder is None:
                    # Parameters in the stream itself, not in the container alone, so that they may change.
                    encoder = av.CodecContext.create("libx264", "w")
                    encoder.height, encoder.width, encoder.pix_fmt = *picture.shape[:2], "yuv420p"
                    encoder.time_base, encoder.framerate = Fraction(1, fps), fps
                    encoder.options = {
                        "bf": "0",
                        "g": str(gop),
                        "qp": "8",
                        "x264-params": f"log=-1:repeat-headers=1{x264}",
                    }
                    size = picture.shape
                if stream is None:
                    stream = output.add_stream("libx264", rate=fps)
                    stream.height, stream.width, stream.pix_fmt = *picture.shape[:2], "yuv420p"
                    stream.options = {"x264-params": f"log=-1{x264}"}
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
                frame.pts, frame.time_base = number, encoder.time_base
                _mux(output, stream, encoder.encode(frame))

    return spoil


def _mux(output: Any, stream: Any, packets: Any) -> None:
    for packet in packets:
        packet.stream = stream
        output.mux(packet)


def packets_of(path: Path) -> list[tuple[int, int]]:
    """Byte offset and size of each packet of a video."""
    import av

    with av.open(str(path)) as source:
        return [(packet.pos, packet.size) for packet in source.demux(video=0) if packet.size]


def blank_packet(name: str, number: int) -> Spoil:
    """Writes zeros over one packet."""

    def spoil(root: Path) -> None:
        start, size = packets_of(root / name)[number]
        overwrite(root / name, start, bytes(size))

    return spoil


def flip_bytes(name: str, number: int) -> Spoil:
    """Flips eight bytes in the middle of one packet."""

    def spoil(root: Path) -> None:
        start, size = packets_of(root / name)[number]
        middle = start + size // 2
        content = (root / name).read_bytes()[middle : middle + 8]
        overwrite(root / name, middle, bytes(byte ^ 0xFF for byte in content))

    return spoil


def encoded(picture: np.ndarray) -> bytes:
    """A picture as PNG."""
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).save(file, "png")
    return file.getvalue()


def retouch(camera: str, step: int, fn: Callable[[bytes], bytes], *, episode: int = 1) -> Spoil:
    """Changes the encoded bytes of one picture in Parquet."""

    def edit(table: pa.Table) -> pa.Table:
        cells = table[camera].to_pylist()
        cell = cells[STARTS[episode] + step]
        cells[STARTS[episode] + step] = {**cell, "bytes": fn(cell["bytes"])}
        return set_column(table, camera, cells)

    return rows(edit)


def drop_moov(root: Path) -> None:
    content = (root / VIDEO).read_bytes()
    start = content.index(b"moov") - 4
    (root / VIDEO).write_bytes(content[:start])


def sound_only(root: Path) -> None:
    import av

    with av.open(str(root / VIDEO), "w") as output:
        stream = output.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 16000, 0
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))


def second_description(*, fourcc: bytes | None = None, size: tuple[int, int] | None = None) -> Spoil:
    """Adds a second sample description to an MP4, as if it were pieced together (ISO/IEC 14496-12, 8.5.2)."""

    def spoil(root: Path) -> None:
        content = bytearray((root / VIDEO).read_bytes())
        stsd = content.index(b"stsd") - 4
        stsd_end = stsd + struct.unpack(">I", content[stsd : stsd + 4])[0]
        entry = bytearray(content[stsd + 16 : stsd_end])
        if fourcc is not None:
            entry[4:8] = fourcc
        if size is not None:
            entry[32:36] = struct.pack(">HH", *size)
        content[stsd_end:stsd_end] = entry
        content[stsd + 12 : stsd + 16] = struct.pack(">I", 2)
        for kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd"):
            start = content.index(kind) - 4
            length = struct.unpack(">I", content[start : start + 4])[0]
            content[start : start + 4] = struct.pack(">I", length + len(entry))
        (root / VIDEO).write_bytes(content)

    return spoil


def rotate(*matrix: float) -> Spoil:
    """Writes a, b, c, d of a display matrix into an MP4's track header (ISO/IEC 14496-12, 8.3.2)."""

    def spoil(root: Path) -> None:
        a, b, c, d = (round(value * (1 << 16)) for value in matrix)
        start = (root / VIDEO).read_bytes().index(b"tkhd") + 44
        overwrite(root / VIDEO, start, struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30))

    return spoil


def unknown_codec(root: Path) -> None:
    content = (root / VIDEO).read_bytes()
    start = content.index(b"avc1", content.index(b"stsd"))
    overwrite(root / VIDEO, start, b"zzzz")


def absurd_size(root: Path) -> None:
    """A stream of 16,000 x 16,000 pixels, as large as FFmpeg takes a container at its word."""
    content = (root / VIDEO).read_bytes()
    entry = content.index(b"avc1", content.index(b"stsd"))
    overwrite(root / VIDEO, entry, b"png ")  # whose pictures say their size themselves: nothing contradicts it
    overwrite(root / VIDEO, entry + 28, struct.pack(">HH", 16000, 16000))


# --- the tables


def _row_dirt() -> list[Dirt]:
    def dirt(code: str, what: str, spoil: Spoil, **options: Any) -> Dirt:
        return Dirt(**{"code": code, "what": what, "spoil": spoil, "file": DATA, **options})

    half_frame = 0.5 / 30
    return [
        dirt("file_missing", "data", remove(DATA), episode=ALL, expected="the file", found="no such file"),
        dirt("lfs_pointer", "data", write(DATA, LFS_POINTER), episode=ALL, found="Git LFS pointer"),
        dirt("parquet_unreadable", "no-footer", cut(DATA, keep=0.7), episode=ALL, found="magic bytes"),
        dirt("parquet_unreadable", "empty", write(DATA, b""), episode=ALL, found="0 bytes"),
        dirt(
            "column_missing",
            "in-rows",
            rows(lambda table: table.drop_columns(["action"])),
            episode=ALL,
            expected="action",
            found="observation.state",
        ),
        dirt(
            "column_missing",
            "of-images",
            rows(lambda table: table.drop_columns([FRONT])),
            dataset="recorded_images",
            episode=ALL,
            expected=FRONT,
        ),
        dirt(
            "column_dtype",
            "text-in-rows",
            retype("action", lambda cells: pa.array([str(cell) for cell in cells])),
            episode=ALL,
            expected="numbers in 'action'",
            found="string",
        ),
        dirt(
            "column_derived",
            "text-as-frame-index",
            retype("frame_index", lambda cells: pa.array([str(cell) for cell in cells])),
            episode=None,
            expected="'frame_index' of numbers",
            found="none in 1 of 1 files",
        ),
        dirt(
            "column_derived",
            "no-next-done",
            rows(lambda table: table.drop_columns(["next.done"])),
            episode=None,
            expected="'next.done'",
        ),
        dirt(
            "column_dtype",
            "fractions-for-whole-numbers",
            both(
                retype("task_index", lambda cells: pa.array([float(cell) for cell in cells])),
                value("task_index", 2, 0.5),
            ),
            expected="whole numbers in 'task_index' (int64)",
            found="0.5",
            options={"extra_columns": ("task_index",)},
        ),
        dirt(
            "column_width",
            "uneven-rows",
            retype("action", lambda cells: pa.array([*cells[:9], cells[9][:4], *cells[10:]])),
            expected="'action' 6 wide",
            found="4 to 6 wide",
        ),
        dirt(
            "column_width",
            "null-row",
            value("action", 3, None),
            expected="'action' 6 wide",
            found="null in 1 of 12",
        ),
        dirt(
            "column_width",
            "other-than-declared",
            feature("observation.state", shape=[5]),
            episode=ALL,
            expected="'observation.state' 5 wide",
            found="6",
        ),
        dirt(
            "rows_missing",
            "at-the-end",
            keep_rows(lambda row: row not in (17, 18)),
            expected="12 rows",
            found="10",
            also=frozenset({"done_never"}),
        ),
        dirt(
            "rows_missing",
            "in-the-middle",
            keep_rows(lambda row: row != 12),
            expected="12 rows",
            found="11",
            also=frozenset({"frame_index_broken", "timestamps_off_fps", "rows_misplaced", "index_mismatch"}),
        ),
        dirt(
            "rows_extra",
            "of-no-other-episode",
            both(meta("length", 1, 11), span(1, 7, 18), info(total_frames=53)),
            expected="11 rows",
            found="12",
            also=frozenset({"span_gap"}),
        ),
        dirt(
            "rows_unlisted",
            "of-an-unlisted-episode",
            unlist(4),
            episode=None,
            found="9 others, such as of episode 4",
            also=frozenset({"video_frames_extra"}),
        ),
        dirt(
            "rows_misplaced",
            "in-two-runs",
            reorder(lambda count: [*range(12), *range(19, count), *range(12, 19)]),
            expected="rows that follow each other",
            also=frozenset({"rows_missing", "done_never"}),
        ),
        dirt(
            "rows_misplaced",
            "nowhere",
            values("episode_index", lambda mine: mine * 0 + 77),
            found="none",
            also=frozenset({"rows_unlisted"}),
        ),
        dirt(
            "rows_misplaced",
            "in-another-file",
            replace_with(DATA_V2, "data/chunk-000/episode_000002.parquet"),
            dataset="recorded_v21",
            file=DATA_V2,
            expected="12 rows with episode_index 1",
            found="none",
        ),
        dirt(
            "rows_misplaced",
            "in-another-listed-file",
            move_rows(DATA_V2, "data/chunk-000/episode_000002.parquet"),
            dataset="recorded_v21",
            file=DATA_V2,
            found="them in data/chunk-000/episode_000002.parquet",
        ),
        dirt(
            "index_mismatch",
            "one-row",
            value("index", 3, 999),
            expected="index 10 at step 3",
            found="999",
        ),
        dirt(
            "column_derived",
            "frame-index-repeated",
            value("frame_index", 3, 2),
            expected="frame_index 0 to 11",
            found="2 at step 3",
        ),
        dirt(
            "frame_index_broken",
            "and-timestamps-too",
            both(value("frame_index", 3, 2), values("timestamp", lambda mine: mine[[0, 2, 1, *range(3, 12)]])),
            expected="frame_index 0 to 11",
            found="2 at step 3",
            also=frozenset({"rows_misplaced", "timestamps_not_increasing"}),
        ),
        dirt(
            "frame_index_broken",
            "and-rows-missing",
            both(value("frame_index", 3, 2), keep_rows(lambda row: row not in (17, 18))),
            expected="frame_index 0 to 9",
            found="2 at step 3",
            also=frozenset({"rows_missing", "done_never"}),
        ),
        dirt(
            "timestamps_not_increasing",
            "swapped",
            values("timestamp", lambda mine: mine[[0, 2, 1, *range(3, 12)]]),
            found="s after",
        ),
        dirt(
            "timestamps_off_fps",
            "drift",
            values("timestamp", lambda mine: mine * 1.1),
            expected="at step 11 (30 fps)",
        ),
        dirt(
            "timestamps_off_fps",
            "offset-and-frames-differ",
            both(
                values("timestamp", lambda mine: mine + 1 / 30),
                span(1, 7, 20),
                span(2, 20, 24),
                meta("length", 2, 4),
                keep_rows(lambda row: row != 19),
                info(total_frames=53),
            ),
            expected="begin at 0 s",
            found="begin at 1 frame (0.033333 s at step 0), and rows and frames differ",
            also=frozenset({"column_derived", "index_mismatch", "span_gap", "timestamps_offset"}),
        ),
        dirt(
            "timestamps_offset",
            "one-frame",
            values("timestamp", lambda mine: mine + 1 / 30),
            expected="begin at 0 s",
            found="begin at 1 frame (0.033333 s at step 0)",
        ),
        dirt(
            "timestamps_wall_clock",
            "images-in-rows",
            values("timestamp", lambda mine: mine * 1.1),
            dataset="recorded_images",
            expected="at step 11 (30 fps)",
        ),
        dirt("timestamps_off_fps", "null", value("timestamp", 3, None), found="null"),
        dirt("timestamps_off_fps", "nan", value("timestamp", 3, float("nan")), found="NaN"),
        dirt(
            "timestamps_jitter",
            "below-half-a-frame",
            value("timestamp", 3, 3 / 30 + 0.5 * half_frame),
            expected="0.100000 s at step 3",
        ),
        dirt(
            "values_not_finite",
            "nan",
            value("action", 3, [0, float("nan"), 0, 0, 0, 0]),
            found="nan) at step 3",
            expected="'action'",
        ),
        dirt("values_not_finite", "inf", value("observation.state", 3, [float("inf")] * 6), found="6 NaN, Inf or null"),
        dirt(
            "values_not_finite",
            "beyond-float32",
            both(
                retype("action", lambda cells: pa.array(cells, pa.list_(pa.float64(), 6))),
                value("action", 3, [1e300] * 6),
            ),
            found="1e+300",
        ),
        dirt(
            "precision_lost",
            "a-clock",
            retype(
                "observation.state",
                lambda cells: pa.array(
                    [[1.7e9 + row / 30, *cell[1:]] for row, cell in enumerate(cells)], pa.list_(pa.float64())
                ),
            ),
            episode=ALL,
            expected="'observation.state' (joint_0) to keep its 12 distinct values",
            also=frozenset({"dimension_still"}),
        ),
        dirt("values_not_finite", "null-done", value("next.done", 3, None), expected="'next.done'"),
        dirt("action_constant", "ones", values("action", lambda mine: np.ones_like(mine)), found="12 steps"),
        dirt("action_zero", "zeros", values("action", lambda mine: np.zeros_like(mine)), found="12 steps"),
        dirt("state_frozen", "first", values("observation.state", lambda mine: mine[0]), found="12 steps"),
        dirt(
            "dimension_still",
            "jitter",
            retype(
                "observation.state",
                lambda cells: pa.array(
                    [[*cell[:5], 7 + 1e-3 * (row % 2)] for row, cell in enumerate(cells)], pa.list_(pa.float32())
                ),
            ),
            episode=None,
            file=None,
            expected="dimensions that move more than their noise",
            found="1 dimension at rest: joint_5 in state",
        ),
        dirt(
            "robot_idle",
            "an-episode",
            together(*(values(key, lambda mine: mine[0], episode=3) for key in ("action", "observation.state"))),
            episode=None,
            file=None,
            found="at rest in 39% of the steps, and throughout episode 3",
            also=frozenset({"action_constant", "state_frozen"}),
        ),
        dirt(
            "done_mid_episode",
            "twice",
            value("next.done", 3, True),
            expected="one end, at step 11",
            found="one at step 3",
        ),
        dirt(
            "done_run",
            "last-two",
            value("next.done", 10, True),
            expected="one end, at step 11",
            found="next.done true on the last 2 steps",
        ),
        dirt(
            "done_not_last",
            "early",
            values("next.done", lambda mine: np.arange(12) == 3),
            expected="at step 11",
            found="at step 3",
        ),
        dirt("done_never", "false", values("next.done", lambda mine: mine & False), expected="an end at step 11"),
    ]


def _metadata_dirt() -> list[Dirt]:
    def dirt(code: str, what: str, spoil: Spoil, **options: Any) -> Dirt:
        return Dirt(**{"code": code, "what": what, "spoil": spoil, "episode": None, "file": INFO, **options})

    v2 = {"dataset": "recorded_v21", "file": "meta/episodes.jsonl"}
    spans = {"episode": 1, "file": VIDEO}
    return [
        dirt("metadata_missing", "v3", remove("meta/episodes/chunk-000"), file="meta/episodes", found="none"),
        dirt("metadata_missing", "v2", remove("meta/episodes.jsonl"), **v2, found="no such file"),
        dirt(
            "metadata_missing",
            "no-episodes",
            unlist(*ALL),
            file="meta/episodes",
            expected="an episode",
            found="none",
        ),
        dirt("metadata_unreadable", "info", cut(INFO, keep=0.5), expected="a JSON object"),
        dirt("metadata_unreadable", "info-of-another-kind", write(INFO, b"[1]"), found="list"),
        dirt("metadata_unreadable", "info-not-text", write(INFO, b"\xff\xfe{}"), expected="UTF-8"),
        dirt("metadata_unreadable", "no-features", no_info("features"), expected="'features'", found="None"),
        dirt("metadata_unreadable", "chunks-size", info(chunks_size="many"), found="'many'"),
        dirt("metadata_unreadable", "episodes-v3", cut(META, keep=0.9), file=META, expected="a Parquet file"),
        dirt(
            "metadata_unreadable",
            "no-length",
            lambda root: edit_parquet(root / META, lambda table: table.drop_columns(["length"])),
            file=META,
            expected="a column 'length'",
        ),
        dirt(
            "metadata_unreadable",
            "null-episode-index",
            meta("episode_index", 1, None),
            file="meta/episodes",
            found="null",
        ),
        dirt("metadata_unreadable", "episodes-v2", cut("meta/episodes.jsonl", keep=0.95), **v2, expected="in line 5"),
        dirt(
            "metadata_unreadable",
            "negative-length",
            jsonl("meta/episodes.jsonl", lambda lines: lines[1].update(length=-3)),
            **v2,
            found='"length": -3',
        ),
        dirt(
            "tasks_missing",
            "task-without-text",
            jsonl("meta/tasks.jsonl", lambda lines: lines[0].pop("task") and None),
            dataset="recorded_v21",
            file="meta/tasks.jsonl",
            found="task_index, task in line 1",
        ),
        dirt("lfs_pointer", "info", write(INFO, LFS_POINTER), found="Git LFS pointer"),
        dirt("lfs_pointer", "episodes-v3", write(META, LFS_POINTER), file=META),
        dirt("lfs_pointer", "episodes-v2", write("meta/episodes.jsonl", LFS_POINTER), **v2),
        dirt("tasks_missing", "v3", remove("meta/tasks.parquet"), file="meta/tasks.parquet"),
        dirt(
            "tasks_missing",
            "v2",
            remove("meta/tasks.jsonl"),
            dataset="recorded_v21",
            file="meta/tasks.jsonl",
        ),
        dirt("version_unknown", "older", info(codebase_version="v1.6"), expected="v2.0, v2.1, v3.0", found="'v1.6'"),
        dirt("version_unknown", "absent", no_info("codebase_version"), found="None"),
        dirt("version_mismatch", "v3-called-v2", info(codebase_version="v2.1"), expected="v2.1", found="as in v3.0"),
        dirt(
            "version_mismatch",
            "v2-called-v3",
            info(codebase_version="v3.0"),
            dataset="recorded_v21",
            found="as in v2.x",
        ),
        *(dirt("fps_invalid", str(fps), info(fps=fps), found=f"fps {fps!r}") for fps in (0, -30, None, "30")),
        *(
            dirt("path_unsafe", what, info(data_path=path), expected="inside the dataset's folder")
            for what, path in {
                "upwards": "../{file_index}.parquet",
                "hidden-upwards": "data/{chunk_index}/..{file_index}",
                "absolute": "/etc/{file_index}",
                "home": "~/{file_index}",
                "drive": "c:{file_index}",
                "attribute": "{file_index.__class__}",
                "item": "{video_key[0]}",
                "conversion": "{file_index!r}",
                "wide": "{file_index:999999999d}",
                "positional": "{0}",
                "unclosed": "{file_index",
                "a-number": 7,
            }.items()
        ),
        dirt(
            "path_unsafe",
            "camera-name",
            lambda root: edit_info(
                root,
                lambda content: content["features"].update({"observation.images.../../up": content["features"][FRONT]}),
            ),
            expected="a plain camera name",
        ),
        dirt(
            "camera_none",
            "removed",
            no_features(FRONT, "observation.images.top"),
            expected="a camera",
            options={"cameras": ()},
        ),
        dirt(
            "column_missing",
            "action",
            no_features("action"),
            expected="a column 'action' or 'actions'",
            found="observation.state (6 wide)",
        ),
        dirt(
            "column_missing",
            "state-under-another-name",
            lambda root: edit_info(
                root,
                lambda content: content["features"].update(
                    {"observation.joints": content["features"].pop("observation.state")}
                ),
            ),
            expected="a column 'observation.state' or 'state'",
            found="observation.joints (6 wide)",
        ),
        dirt("state_absent", "no-candidate", no_features("observation.state"), found="none"),
        dirt(
            "files_ignored",
            "copy-of-a-browser",
            lambda root: shutil.copy(root / META, root / META.replace(".parquet", " (1).parquet")),
            file="meta/episodes/chunk-000/file-000 (1).parquet",
            found="file-000 (1).parquet",
        ),
        dirt(
            "column_missing", "extra", lambda root: None, expected="'gripper'", options={"extra_columns": ("gripper",)}
        ),
        dirt("column_dtype", "declared-text", feature("action", dtype="string"), found="'string'"),
        dirt("column_dtype", "declared-nothing", feature("action", dtype=None), found="''"),
        dirt(
            "column_dtype",
            "a-camera-as-column",
            lambda root: None,
            found="'video'",
            options={"extra_columns": (FRONT,)},
        ),
        dirt("column_width", "no-shape", feature("action", shape=None), expected="a shape of 'action'"),
        dirt("total_mismatch", "episodes", info(total_episodes=6), expected="total_episodes 6", found="5 in"),
        dirt("total_mismatch", "steps", info(total_frames=60), expected="total_frames 60", found="54 in"),
        dirt(
            "episode_index_hole",
            "v3",
            unlist(2),
            file="meta/episodes",
            expected="0 to 4",
            found="of them are missing, first 2",
            also=frozenset({"rows_unlisted", "span_gap"}),
        ),
        dirt(
            "episode_index_hole",
            "v2",
            both(
                jsonl("meta/episodes.jsonl", lambda lines: [line for line in lines if line["episode_index"] != 2]),
                info(total_episodes=4, total_frames=49),
            ),
            **v2,
            found="of them are missing, first 2",
        ),
        dirt(
            "episode_index_repeated",
            "v2",
            both(
                jsonl("meta/episodes.jsonl", lambda lines: [*lines, lines[1]]),
                info(total_episodes=6, total_frames=66),
            ),
            **{**v2, "episode": 1},
            found="2",
            also=frozenset({"span_overlap"}),
        ),
        dirt(
            "episode_index_repeated",
            "v3",
            both(
                lambda root: edit_parquet(root / META, lambda table: pa.concat_tables([table, table.slice(1, 1)])),
                info(total_episodes=6, total_frames=66),
            ),
            file="meta/episodes",
            episode=1,
            found="2",
            also=frozenset({"span_overlap"}),
        ),
        dirt(
            "location_null",
            "rows-nowhere",
            both(meta("data/file_index", 1, None), keep_rows(lambda row: not 7 <= row < 19)),
            episode=1,
            file=None,
            expected="file number of its rows",
        ),
        dirt(
            "rows_relocated",
            "null",
            meta("data/file_index", 1, None),
            episode=1,
            file=DATA,
            expected="rows in no file",
        ),
        dirt(
            "rows_relocated",
            "no-such-file",
            meta("data/file_index", 1, 7),
            episode=1,
            file=DATA,
            expected="file-007",
            found=f"them in {DATA}",
        ),
        dirt(
            "location_null",
            "video",
            meta(f"videos/{FRONT}/chunk_index", 1, None),
            episode=1,
            file=None,
            expected=FRONT,
            also=frozenset({"span_gap"}),
        ),
        dirt(
            "location_null",
            "span",
            meta(f"videos/{FRONT}/to_timestamp", 1, None),
            **spans,
            found="nan",
        ),
        dirt(
            "location_null",
            "no-column",
            lambda root: edit_parquet(root / META, lambda table: table.drop_columns([f"videos/{FRONT}/file_index"])),
            episode=ALL,
            file=None,
            expected=FRONT,
        ),
        dirt(
            "span_backwards",
            "reversed",
            span(1, 19, 7),
            **spans,
            expected="start < stop",
        ),
        dirt(
            "span_backwards",
            "negative",
            span(1, -3, 9),
            **spans,
        ),
        dirt(
            "span_overlap",
            "two-episodes",
            span(1, 6, 18),
            **{**spans, "episode": (0, 1)},
            found="while episode",
        ),
        dirt(
            "span_overlap",
            "the-later-begins-before",
            span(3, 3, 24),
            **{**spans, "episode": (0, 1, 2, 3)},
        ),
        dirt("span_stop_short", "by-one-frame", span(1, 7, 18), **spans, expected="0.6333 s", found="0.6000 s"),
        dirt("span_length", "shorter-than-rows", span(1, 7, 17), **spans, expected="12 frames", found="10.00"),
        dirt(
            "span_length",
            "shorter-by-one-and-the-file-has-no-more",
            both(span(4, 45, 53), retime(VIDEO, lambda number, pts: pts if number < 53 else None)),
            **{**spans, "episode": 4},
            expected="9 frames",
            found="8.00",
            also=frozenset({"video_frames_short"}),
        ),
        dirt("span_length", "longer-than-rows", span(1, 7, 22), **spans, expected="12 frames", found="15.00"),
        dirt(
            "span_past_file",
            "begins-after-it",
            span(4, 60, 69),
            **{**spans, "episode": 4},
            expected="frames 60 to 68",
            found="54 frames",
        ),
        dirt(
            "span_gap",
            "an-unlisted-episode",
            both(unlist(0), rows(lambda table: table.slice(7))),
            **spans,
            expected="0.0000 s",
            found="0.2333 s",
            also=frozenset({"episode_index_hole"}),
        ),
        dirt(
            "episode_empty",
            "v3",
            both(
                meta("length", 2, 0), span(2, 19, 19), info(total_frames=49), keep_rows(lambda row: not 19 <= row < 24)
            ),
            episode=2,
            file=None,
            found="0",
            also=frozenset({"span_gap"}),
        ),
        dirt(
            "episode_empty",
            "v2",
            both(
                jsonl("meta/episodes.jsonl", lambda lines: lines[2].update(length=0)),
                rows(lambda table: table.slice(0, 0), file="data/chunk-000/episode_000002.parquet"),
                info(total_frames=49),
            ),
            dataset="recorded_v21",
            episode=2,
            file=None,
            also=frozenset({"video_frames_extra"}),
        ),
        dirt(
            "episode_too_long",
            "two-to-the-forty",
            both(meta("length", 2, 1 << 40), info(total_frames=49 + (1 << 40))),
            episode=2,
            file=None,
            found="1,099,511,627,776",
            also=frozenset({"rows_missing", "span_length", "video_frames_short", "span_overlap"}),
        ),
        dirt(
            "episode_short",
            "than-a-window",
            lambda root: None,
            episode=(0, 2),
            file=None,
            expected="9 steps",
            options={"min_episode_steps": 9},
        ),
    ]


def _video_dirt() -> list[Dirt]:
    def dirt(code: str, what: str, spoil: Spoil, **options: Any) -> Dirt:
        return Dirt(**{"code": code, "what": what, "spoil": spoil, "episode": ALL, "file": VIDEO, **options})

    v2 = {"dataset": "recorded_v21", "episode": 1, "file": VIDEO_V2}
    return [
        dirt("file_missing", "video", remove(VIDEO), found="no such file", also=frozenset({"camera_absent"})),
        dirt(
            "camera_absent",
            "declared-only",
            remove(VIDEO.replace("front", "top")),
            episode=None,
            file=INFO,
            expected="'observation.images.top'",
            found="no file at all",
        ),
        dirt(
            "video_fps",
            "slips-by-half-a-frame",
            both(info(fps=30.9), retime(VIDEO_V2.replace("1.mp4", "3.mp4"), lambda number, pts: pts)),
            dataset="recorded_v21",
            episode=3,
            file=VIDEO_V2.replace("1.mp4", "3.mp4"),
            expected="30.9 fps",
            found="30.000: frames slip by 0.6 before the episode ends",
            also=frozenset({"timestamps_jitter", "timestamps_off_fps"}),
        ),
        dirt("file_missing", "video-v2", remove(VIDEO_V2), **v2, found="no such file"),
        dirt("link_leads_out", "video", move_away(VIDEO), found="a link to"),
        dirt("lfs_pointer", "video", write(VIDEO, LFS_POINTER), found="Git LFS pointer"),
        dirt("video_empty", "no-bytes", write(VIDEO, b""), found="0 bytes"),
        dirt("video_truncated", "in-its-index", cut(VIDEO, keep=0.99), expected="bytes"),
        dirt("video_truncated", "in-its-frames", cut(VIDEO, keep=0.5), expected="bytes"),
        dirt("video_truncated", "without-its-index", drop_moov, expected="moov"),
        dirt("video_unreadable", "text", write(VIDEO, b"no video at all" * 100), expected="a video"),
        dirt("video_unreadable", "unknown-codec", unknown_codec, found="unknown"),
        dirt("video_no_stream", "sound-only", sound_only, expected="a video stream"),
        dirt(
            "video_frames_short",
            "last-episode",
            retime(VIDEO, lambda number, pts: pts if number < 50 else None),
            episode=4,
            expected="frames 45 to 53",
            found="50 frames",
        ),
        dirt(
            "video_frames_short",
            "v2",
            replace_with(VIDEO_V2, VIDEO_V2.replace("1.mp4", "0.mp4")),
            **v2,
            expected="frames 0 to 11",
            found="7 frames",
        ),
        dirt(
            "video_frames_extra",
            "v2",
            replace_with(VIDEO_V2, VIDEO_V2.replace("1.mp4", "3.mp4")),
            **{**v2, "episode": None},
            expected="12 frames",
            found="21",
        ),
        dirt("video_fps", "half", retime(VIDEO, lambda number, pts: 2 * pts, rate=15), expected="30 fps", found="15."),
        dirt(
            "video_start_offset",
            "a-tenth",
            retime(VIDEO, lambda number, pts: pts + 1536),
            episode=None,
            expected="0 s",
            found="0.1000 s",
        ),
        dirt(
            "video_size",
            "declared-otherwise",
            feature(FRONT, shape=[480, 640, 3]),
            episode=None,
            expected="(480, 640, 3)",
            found="128x96",
        ),
        dirt(
            "video_size_changes",
            "in-the-header",
            second_description(size=(64, 48)),
            expected="one size",
            found="64x48 and 128x96",
        ),
        dirt(
            "video_too_large",
            "claims-16000",
            absurd_size,
            expected="67,108,864 pixels",
            found="16000x16000",
            also=frozenset({"video_size", "video_display"}),
        ),
        dirt(
            "video_rotation",
            "by-30-degrees",
            rotate(0.866, 0.5, -0.5, 0.866),
            expected="quarter turns",
            found="0.866, 0.5, -0.5, 0.866",
        ),
        dirt(
            "video_display",
            "pixels-that-are-not-square",
            repaint(VIDEO, x264=":sar=4/3"),
            episode=None,
            expected="as they are stored",
            found="pixels of 4:3",
        ),
        dirt(
            "video_codec_changes",
            "in-the-header",
            second_description(fourcc=b"av01"),
            expected="one codec",
            found="av01 and avc1",
        ),
    ]


INSPECTED = [*_metadata_dirt(), *_row_dirt(), *_video_dirt()]


def _smaller_from(step: int) -> Callable[[int, np.ndarray], np.ndarray]:
    return lambda number, picture: picture[::2, ::2] if number >= step else picture


def _flat(first: int, stop: int, color: tuple[int, int, int]) -> Callable[[int, np.ndarray], np.ndarray]:
    return lambda number, picture: picture * 0 + np.uint8(color) if first <= number < stop else picture


def _decoded_dirt() -> list[Dirt]:
    def dirt(code: str, what: str, spoil: Spoil, **options: Any) -> Dirt:
        return Dirt(**{"code": code, "what": what, "spoil": spoil, "file": VIDEO, **options})

    def still(first: int, stop: int) -> Callable[[int, np.ndarray], np.ndarray]:
        held: list[np.ndarray] = []

        def paint(number: int, picture: np.ndarray) -> np.ndarray:
            if number == first:
                held.append(picture)
            return held[-1] if first <= number < stop else picture

        return paint

    v2 = {"dataset": "recorded_v21", "file": VIDEO_V2}
    return [
        dirt("decode_error", "blank-packet", blank_packet(VIDEO, 12), expected="a picture", found="at step"),
        dirt("decode_error", "flipped-bytes", flip_bytes(VIDEO, 9), expected="a picture", found="at step 2"),
        dirt("decode_error", "flipped-bytes-av1", flip_bytes(VIDEO, 12), dataset="recorded_av1", found="at step"),
        dirt(
            "decode_error",
            "no-picture-in-a-row",
            value(FRONT, 4, {"bytes": b"not a picture", "path": None}),
            dataset="recorded_images",
            file=DATA,
            expected="a PNG",
            found="at step 4",
        ),
        dirt("decode_error", "null-picture", value(FRONT, 4, None), dataset="recorded_images", file=DATA),
        dirt(
            "decode_error",
            "picture-cut-off",
            retouch(FRONT, 4, lambda png: png[: len(png) // 2]),
            dataset="recorded_images",
            file=DATA,
        ),
        dirt(
            "video_size_changes",
            "in-the-stream",
            repaint(VIDEO_V2, _smaller_from(5)),
            **v2,
            expected="128x96 throughout",
            found="64x48",
        ),
        dirt(
            "video_size_changes",
            "at-an-episodes-border",
            repaint(VIDEO.replace("000.mp4", "001.mp4"), _smaller_from(5)),
            dataset="recorded_files",
            episode=3,
            file=VIDEO.replace("000.mp4", "001.mp4"),
            expected="128x96 throughout",
            found="64x48",
        ),
        dirt(
            "video_size_changes",
            "in-images",
            retouch(FRONT, 4, lambda png: encoded(np.zeros((8, 8, 3), np.uint8) + 99)),
            dataset="recorded_images",
            file=DATA,
            found="8x8 at step 4",
        ),
        dirt(
            "video_frames_short",
            "frames-that-do-not-decode",
            blank_packet(VIDEO.replace("000.mp4", "002.mp4"), 8),
            dataset="recorded_av1",
            episode=4,
            file=VIDEO.replace("000.mp4", "002.mp4"),
            expected="9 frames",
            found="8",
        ),
        dirt(
            "video_timestamps",
            "a-frame-lost",
            retime(VIDEO, lambda number, pts: None if number == 12 else pts),
            expected="a frame 0.1667 s after the episode's start",
            found="one at 0.2000 s at step 5",
        ),
        dirt(
            "video_timestamps",
            "a-frame-late",
            retime(VIDEO_V2, lambda number, pts: pts + (300 if number == 5 else 0)),
            **v2,
            found="at step 5",
        ),
        dirt(
            "video_timestamps_jitter",
            "below-half-a-frame",
            retime(VIDEO_V2, lambda number, pts: pts + (100 if number == 5 else 0)),
            **v2,
            found="0.006510 s off at step 5",
        ),
        dirt(
            "video_interlaced",
            "throughout",
            repaint(VIDEO_V2, x264=":tff=1"),
            **v2,
            expected="progressive",
            found="from step 0 on",
        ),
        dirt("frames_black", "two", repaint(VIDEO, _flat(8, 10, (0, 0, 0))), found="2 black frames"),
        dirt("frames_constant", "three", repaint(VIDEO, _flat(8, 11, (200, 30, 90))), found="3 frames of one color"),
        dirt(
            "camera_frozen",
            "two-seconds",
            repaint(VIDEO_V2.replace("1.mp4", "3.mp4"), still(2, 15), fps=5, gop=99),
            dataset="recorded_slow",
            episode=3,
            file=VIDEO_V2.replace("1.mp4", "3.mp4"),
            found="equal ones in a row",
        ),
    ]


DECODED = _decoded_dirt()
