"""The index of an MP4 file, box by box (ISO/IEC 14496-12): facts that FFmpeg reports late or not at all."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

_MAX_BOXES = 100_000
"""Maximum number of boxes at one level. A file with more is treated as an attack on the reader."""

_SAME_CODEC = {b"avc3": b"avc1", b"hev1": b"hvc1"}
"""Sample entries that differ only in where parameter sets are stored."""

_Matrix = tuple[float, float, float, float]
_IDENTITY: _Matrix = (1.0, 0.0, 0.0, 1.0)


class Mp4Track(NamedTuple):
    """The first video track of an MP4.

    Attributes:
        codecs: Codec tags of its sample descriptions, such as ``avc1``.
        sizes: (width, height) of its sample descriptions, in pixels, as stored.
        matrix: a, b, c, d of its display matrix; see ``orientation_from_matrix``.
        shown_size: (width, height) of the part that players show, if the file asks for a crop (``clap``).
    """

    codecs: frozenset[str]
    sizes: frozenset[tuple[int, int]]
    matrix: _Matrix
    shown_size: tuple[float, float] | None


class Mp4Index(NamedTuple):
    """What the boxes of a file say.

    Attributes:
        claimed_bytes: Where the last box ends, by its own size.
        has_index: Whether there is a ``moov`` box.
        track: The first video track, if any.
    """

    claimed_bytes: int
    has_index: bool
    track: Mp4Track | None


class _Box(NamedTuple):
    """A box: its type, and where its content is, as bytes [start, stop) of the file; ``stop`` follows from its size."""

    kind: bytes
    start: int
    stop: int


def read_mp4(file: BinaryIO, size: int) -> Mp4Index:
    """Reads the index of an MP4.

    Args:
        file: The open file, seekable.
        size: Its size in bytes.
    """
    boxes = list(_boxes(file, 0, size))
    moov = next((box for box in boxes if box.kind == b"moov"), None)
    return Mp4Index(
        claimed_bytes=boxes[-1].stop if boxes else 0,
        has_index=moov is not None,
        track=_first_video_track(file, moov) if moov is not None else None,
    )


def _first_video_track(file: BinaryIO, moov: _Box) -> Mp4Track | None:
    for track in _boxes(file, moov.start, moov.stop):
        media = _inside(file, track, b"mdia")
        handler = _inside(file, media, b"hdlr")
        if handler is None or _read(file, handler.start + 8, 4) != b"vide":
            continue
        table = media
        for kind in (b"minf", b"stbl", b"stsd"):
            table = _inside(file, table, kind)
        # frames of one track may use several sample descriptions, each with a codec and a size
        entries = list(_boxes(file, table.start + 8, table.stop)) if table is not None else []
        return Mp4Track(
            codecs=frozenset(_SAME_CODEC.get(entry.kind, entry.kind).decode("latin-1") for entry in entries),
            sizes=frozenset(_size(file, entry) for entry in entries),
            matrix=_product(
                _matrix(file, _inside(file, track, b"tkhd"), (40, 52)),
                _matrix(file, _inside(file, moov, b"mvhd"), (36, 48)),
            ),
            shown_size=next((shown for entry in entries if (shown := _clean_aperture(file, entry))), None),
        )
    return None


def _size(file: BinaryIO, entry: _Box) -> tuple[int, int]:
    """(width, height) of a video sample entry."""
    width, height = _unpack(">HH", _read(file, entry.start + 24, 4))
    return width, height


def _matrix(file: BinaryIO, header: _Box | None, places: tuple[int, int]) -> _Matrix:
    """The matrix of a track or movie header; ``places`` are its offsets in versions 0 and 1 of the box."""
    if header is None:
        return _IDENTITY
    version = 1 if _read(file, header.start, 1) == b"\1" else 0
    a, b, _, c, d = (value / (1 << 16) for value in _unpack(">5i", _read(file, header.start + places[version], 20)))
    return a, b, c, d


def _product(first: _Matrix, second: _Matrix) -> _Matrix:
    """The matrix that applies one after the other; coordinates are row vectors."""
    if not any(second):  # some writers leave the movie's matrix empty
        return first
    a, b, c, d = first
    e, f, g, h = second
    return a * e + b * g, a * f + b * h, c * e + d * g, c * f + d * h


def _clean_aperture(file: BinaryIO, entry: _Box) -> tuple[float, float] | None:
    """Size of the clean aperture (``clap``) of a video sample entry, whose fixed part takes 78 bytes."""
    aperture = next((box for box in _boxes(file, entry.start + 78, entry.stop) if box.kind == b"clap"), None)
    if aperture is None:
        return None
    width, width_divisor, height, height_divisor = _unpack(">4I", _read(file, aperture.start, 16))
    return (width / width_divisor, height / height_divisor) if width_divisor and height_divisor else None


def _boxes(file: BinaryIO, start: int, stop: int) -> Iterator[_Box]:
    """Yields the consecutive boxes in bytes [start, stop) of a file."""
    for _ in range(_MAX_BOXES):
        header = _read(file, start, 16) if start + 8 <= stop else b""
        if len(header) < 8:
            return
        size, kind = struct.unpack(">I4s", header[:8])
        content = start + 8
        if size == 1 and len(header) == 16:
            (size,) = struct.unpack(">Q", header[8:])
            content = start + 16
        elif size == 0:  # extends to the end
            size = stop - start
        if size < content - start or not all(32 <= letter < 127 or letter == 0xA9 for letter in kind):
            return  # not a box: another program may append its own data
        yield _Box(kind, content, start + size)
        start += size


def _inside(file: BinaryIO, box: _Box | None, kind: bytes) -> _Box | None:
    """The first box of a type within another; None if there is none."""
    return next((inner for inner in _boxes(file, box.start, box.stop) if inner.kind == kind), None) if box else None


def _read(file: BinaryIO, start: int, count: int) -> bytes:
    file.seek(start)
    return file.read(count)


def _unpack(layout: str, data: bytes) -> tuple[int, ...]:
    """Unpacks numbers. Bytes that a cut-off file lacks count as 0."""
    return struct.unpack(layout, data.ljust(struct.calcsize(layout), b"\0"))
