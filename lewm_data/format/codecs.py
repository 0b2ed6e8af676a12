"""One frame to stored chunk bytes and back: every codec's encoder, decoder and HDF5 filter, side by side.

Nothing here goes through the HDF5 library, and imagecodecs and blosc2 release the interpreter's lock, so threads encode
and decode in parallel. The decoders check their own bounds. This module checks what a decoder cannot know: that a chunk
fills its frame exactly.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from lewm_data.config import Compression
from lewm_data.errors import UsageError
from lewm_data.format import blosc2_frames

FLETCHER32_FILTER_ID = 3
FLETCHER32_BYTES = 4
JPEG_FILTER_ID = 32019
"""Registered for JPEG with the HDF Group; hdf5plugin does not have it, ``lewm_data.format.jpeg_filter`` does."""
CODEC_SKIPPED_MASK = 0b1
"""Filter mask of a chunk that is stored raw: bit 0 stands for the first filter, which is the codec."""

type Bytes = NDArray[np.uint8]
type Encoder = Callable[[NDArray[np.uint8]], bytes]
"""Encodes one frame (uint8, C-contiguous). Several threads may call it at once."""
type Decoder = Callable[[memoryview, Bytes], int]
"""Decodes stored bytes into a frame's bytes (m,) and returns the number of bytes it filled."""


class ChunkError(ValueError):
    """A chunk's bytes do not decode to a frame; the message says why."""


class StoredChunk(NamedTuple):
    """One frame as it is stored.

    Attributes:
        data: Encoded frame, followed by its checksum.
        filter_mask: HDF5's filter mask; bit 0 is set if the codec could not shrink the frame.
    """

    data: bytes
    filter_mask: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Codec:
    """How one codec stores a frame.

    Attributes:
        filter_id: HDF5's registered filter number; None for frames that are stored as they are.
        make_encoder: Loads the codec and returns its encoder for a quality, which lossless codecs ignore.
        decode: Its decoder.
        default_quality: Quality of a lossy codec, in [1, 100]; None for a codec that returns the frame bit for bit.
    """

    filter_id: int | None
    make_encoder: Callable[[int], Encoder]
    decode: Decoder
    default_quality: int | None = None

    @property
    def is_lossless(self) -> bool:
        """Whether decoding returns the frame bit for bit."""
        return self.default_quality is None


def _copy(stored: memoryview, out: Bytes) -> int:
    if len(stored) == out.size:
        out[:] = np.frombuffer(stored, np.uint8)
    return len(stored)


def _encode_lzf(frame: NDArray[np.uint8]) -> bytes:
    try:
        return bytes(imagecodecs.lzf_encode(frame))
    except imagecodecs.LzfError:  # the output would be larger than the input
        return frame.tobytes()


def _decode_lzf(stored: memoryview, out: Bytes) -> int:
    return len(imagecodecs.lzf_decode(stored, out=out.data))


def _encode_lz4(frame: NDArray[np.uint8]) -> bytes:
    return bytes(imagecodecs.lz4h5_encode(frame))


def _decode_lz4(stored: memoryview, out: Bytes) -> int:
    return len(imagecodecs.lz4h5_decode(stored, out=out.data))


def _encode_zstd(frame: NDArray[np.uint8]) -> bytes:
    return bytes(imagecodecs.zstd_encode(frame, level=1))


def _decode_zstd(stored: memoryview, out: Bytes) -> int:
    return len(imagecodecs.zstd_decode(stored, out=out.data))


def _jpeg_encoder(quality: int) -> Encoder:
    """JPEG with colors at full resolution (4:4:4): at equal bytes, 3 to 4 dB closer to the frame than 4:2:0."""

    def encode(frame: NDArray[np.uint8]) -> bytes:
        return bytes(imagecodecs.jpeg8_encode(frame, level=quality, subsampling="444"))

    return encode


def _decode_jpeg(stored: memoryview, out: Bytes) -> int:
    height, width = _jpeg_size(stored)  # before the decoder takes memory for so many pixels
    if 3 * height * width == out.size:
        imagecodecs.jpeg8_decode(stored, out=out.reshape(height, width, 3))
    return 3 * height * width


def _jpeg_size(stored: memoryview) -> tuple[int, int]:
    """Height and width from the frame header (ITU-T T.81, B.2.2) of a whole JPEG stream."""
    if stored[:2] != b"\xff\xd8" or stored[-2:] != b"\xff\xd9":  # the decoder fills what is missing with gray
        raise ChunkError("it is not a whole JPEG stream")
    position = 2
    while True:
        marker, num_bytes = struct.unpack_from(">HH", stored, position)
        if 0xFFC0 <= marker <= 0xFFC2:
            height, width = struct.unpack_from(">HH", stored, position + 5)
            return height, width
        position += 2 + num_bytes


CODECS: dict[str, Codec] = {
    "none": Codec(filter_id=None, make_encoder=lambda _: np.ndarray.tobytes, decode=_copy),
    "lzf": Codec(filter_id=32000, make_encoder=lambda _: _encode_lzf, decode=_decode_lzf),
    "lz4": Codec(filter_id=32004, make_encoder=lambda _: _encode_lz4, decode=_decode_lz4),
    "zstd": Codec(filter_id=32015, make_encoder=lambda _: _encode_zstd, decode=_decode_zstd),
    "blosc2": Codec(filter_id=32026, make_encoder=lambda _: blosc2_frames.make_encoder(), decode=blosc2_frames.decode),
    "jpeg": Codec(filter_id=JPEG_FILTER_ID, make_encoder=_jpeg_encoder, decode=_decode_jpeg, default_quality=90),
}
"""Every codec of format version 1, by the name that ``ConvertConfig.compression`` uses."""

_CODEC_OF_FILTER = {codec.filter_id: name for name, codec in CODECS.items() if codec.filter_id is not None}


def settle_quality(compression: Compression, quality: int | None) -> int:
    """The quality that a codec encodes with.

    Args:
        compression: The codec.
        quality: The quality that was asked for, or None.

    Returns:
        In [1, 100]; 0 for a lossless codec.

    Raises:
        UsageError: A lossless codec was asked for a quality, or the quality is out of range.

    Example:
        >>> settle_quality("lzf", None), settle_quality("jpeg", 80)
        (0, 80)
    """
    default = CODECS[compression].default_quality
    if quality is None:
        return default or 0
    if default is None:
        lossy = ", ".join(name for name, codec in CODECS.items() if not codec.is_lossless)
        raise UsageError(
            f"quality is {quality}, but {compression} is lossless and has none. Leave quality out, or choose the lossy "
            f"--compression {lossy}."
        )
    if not 1 <= quality <= 100:
        raise UsageError(f"quality is {quality}, but must lie in [1, 100]; the default of {compression} is {default}.")
    return quality


def encoder(compression: Compression, quality: int | None = None) -> Callable[[NDArray[np.uint8]], StoredChunk]:
    """Returns the function that turns a frame into the chunk that HDF5's own filters would write.

    Args:
        compression: The codec.
        quality: See ``settle_quality``.

    Returns:
        A function of one frame (uint8, C-contiguous). Several threads may call it at once.
    """
    codec = CODECS[compression]
    encode = codec.make_encoder(settle_quality(compression, quality))

    def chunk(frame: NDArray[np.uint8]) -> StoredChunk:
        data, mask = encode(frame), 0
        if codec.filter_id is not None and len(data) >= frame.nbytes:
            data, mask = frame.tobytes(), CODEC_SKIPPED_MASK
        return StoredChunk(data + _checksum(data), mask)

    return chunk


def has_valid_checksum(chunk: StoredChunk) -> bool:
    """Whether a chunk's bytes match the fletcher32 checksum at their end."""
    return _checksum(chunk.data[:-FLETCHER32_BYTES]) == chunk.data[-FLETCHER32_BYTES:]


def _checksum(data: bytes | memoryview) -> bytes:
    return int(imagecodecs.h5checksum_fletcher32(data)).to_bytes(FLETCHER32_BYTES, "little")


@dataclass(frozen=True, slots=True)
class ChunkCodec:
    """How the chunks of one dataset are stored.

    Attributes:
        codec: A name in ``CODECS``.
        has_checksum: Whether HDF5's fletcher32 is the last filter: four bytes, little-endian, after each chunk.
    """

    codec: str
    has_checksum: bool

    @property
    def checksum_bytes(self) -> int:
        """Bytes that the checksum adds to a chunk."""
        return FLETCHER32_BYTES if self.has_checksum else 0

    @property
    def filter_ids(self) -> list[int]:
        """HDF5's filter pipeline for these chunks, in the order in which a writer applies it."""
        filter_id = CODECS[self.codec].filter_id
        return ([] if filter_id is None else [filter_id]) + [FLETCHER32_FILTER_ID] * self.has_checksum

    @classmethod
    def from_filters(cls, filter_ids: tuple[int, ...]) -> ChunkCodec | None:
        """Recognizes an HDF5 filter pipeline.

        Args:
            filter_ids: HDF5's registered filter numbers, in the order in which a writer applies them.

        Returns:
            The codec, or None if format version 1 does not use this pipeline and only the HDF5 library can undo it.
        """
        has_checksum = filter_ids[-1:] == (FLETCHER32_FILTER_ID,)
        before = filter_ids[:-1] if has_checksum else filter_ids
        if not before:
            return cls("none", has_checksum)
        if len(before) == 1 and before[0] in _CODEC_OF_FILTER:
            return cls(_CODEC_OF_FILTER[before[0]], has_checksum)
        return None

    def decode(self, stored: memoryview, mask: int, out: Bytes, *, verify: bool = False) -> None:
        """Decodes one chunk.

        Args:
            stored: The chunk as the file holds it.
            mask: Its filter mask: bit i means that filter i was skipped.
            out: (frame bytes,) uint8, contiguous. Filled on return; undefined after an error.
            verify: Check the checksum first, if there is one.

        Raises:
            ChunkError: The chunk is damaged: a wrong checksum, undecodable, or the wrong size.
        """
        checksum_bit = 0 if self.codec == "none" else 1
        if self.has_checksum and not mask >> checksum_bit & 1:
            if len(stored) < FLETCHER32_BYTES:
                raise ChunkError(f"it has {len(stored)} bytes, fewer than its checksum takes")
            stored, tail = stored[:-FLETCHER32_BYTES], stored[-FLETCHER32_BYTES:]
            if verify and _checksum(stored) != tail:
                raise ChunkError("its fletcher32 checksum does not match")
        is_raw = self.codec != "none" and mask & CODEC_SKIPPED_MASK
        decoder = _copy if is_raw else CODECS[self.codec].decode
        try:
            num_bytes = decoder(stored, out)
        except (ValueError, RuntimeError, struct.error) as error:  # each decoder has its own subclass
            raise ChunkError(f"{self.codec} cannot decode it ({error})") from error
        if num_bytes != out.size:
            raise ChunkError(f"it holds {num_bytes} bytes where a frame has {out.size}")
