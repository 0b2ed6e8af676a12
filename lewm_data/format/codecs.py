"""One frame to stored chunk bytes and back: every codec's encoder, decoder and HDF5 filter, side by side.

Nothing here goes through the HDF5 library, and imagecodecs and blosc2 release the interpreter's lock, so threads encode
and decode in parallel. The decoders check their own bounds. This module checks what a decoder cannot know: that a chunk
fills its frame exactly.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from lewm_data.config import Compression

FLETCHER32_FILTER_ID = 3
FLETCHER32_BYTES = 4
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
        make_encoder: Loads the codec and returns its encoder.
        decode: Its decoder.
        is_lossless: Whether decoding returns the frame bit for bit.
    """

    filter_id: int | None
    make_encoder: Callable[[], Encoder]
    decode: Decoder
    is_lossless: bool = True


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


def _blosc2_encoder() -> Encoder:
    """Shuffle and byte delta over RGB triples, then zstd level 1. Each chunk is one contiguous blosc2 frame."""
    import blosc2

    blosc2.set_releasegil(True)
    parameters: dict[str, Any] = {
        "codec": blosc2.Codec.ZSTD,
        "clevel": 1,
        "typesize": 3,
        "filters": [blosc2.Filter.SHUFFLE, blosc2.Filter.BYTEDELTA],
        "filters_meta": [0, 0],
        "nthreads": 1,
    }

    def encode(frame: NDArray[np.uint8]) -> bytes:
        return bytes(blosc2.SChunk(chunksize=frame.nbytes, data=frame.data, cparams=parameters).to_cframe())

    return encode


# c-blosc2's README_CFRAME_FORMAT: msgpack with fixed positions, big-endian. These fields: magic, header size, frame
# size, uncompressed size, compressed size, chunk size.
_CFRAME = struct.Struct(">2x8sxixQ5xxqxq5x5xxi")
# c-blosc2's README_CHUNK_FORMAT; little-endian: uncompressed and compressed size.
_CHUNK_SIZES = struct.Struct("<4xi4xi")


def _decode_blosc2(stored: memoryview, out: Bytes) -> int:
    """Decodes a cframe of one chunk in place; python-blosc2 decodes every other kind of cframe."""
    magic, header_size, frame_size, num_bytes, num_stored, chunk_size = _CFRAME.unpack_from(stored)
    if magic != b"b2frame\0" or frame_size != len(stored):
        raise ChunkError("it is not a blosc2 frame of its length")
    is_plain = num_bytes == chunk_size == out.size and num_stored > 0
    if not is_plain or b"b2nd" in bytes(stored[:header_size]):
        return _decode_any_blosc2(stored, out)
    chunk = stored[header_size : header_size + num_stored]
    if _CHUNK_SIZES.unpack_from(chunk) != (num_bytes, num_stored):
        return _decode_any_blosc2(stored, out)
    return len(imagecodecs.blosc2_decode(chunk, numthreads=1, out=out.data))


def _decode_any_blosc2(stored: memoryview, out: Bytes) -> int:
    import blosc2  # takes a second; only frames of a single color and hdf5plugin's own frames need it

    # Not blosc2.from_cframe: it follows the references in a frame, even over the network.
    frame = blosc2.schunk_from_cframe(bytes(stored), copy=True)
    if frame.nbytes > 2 * out.size:  # an array of blocks may be padded
        raise ChunkError(f"it claims {frame.nbytes} bytes where a frame has {out.size}")
    if "b2nd" in frame.meta:
        values = np.ascontiguousarray(blosc2.ndarray_from_cframe(bytes(stored), copy=True)[...])
    else:
        values = np.frombuffer(b"".join(frame.decompress_chunk(i) for i in range(frame.nchunks)), np.uint8)
    return _copy(memoryview(values.reshape(-1).view(np.uint8)), out)


CODECS: dict[str, Codec] = {
    "none": Codec(filter_id=None, make_encoder=lambda: np.ndarray.tobytes, decode=_copy),
    "lzf": Codec(filter_id=32000, make_encoder=lambda: _encode_lzf, decode=_decode_lzf),
    "lz4": Codec(filter_id=32004, make_encoder=lambda: _encode_lz4, decode=_decode_lz4),
    "zstd": Codec(filter_id=32015, make_encoder=lambda: _encode_zstd, decode=_decode_zstd),
    "blosc2": Codec(filter_id=32026, make_encoder=_blosc2_encoder, decode=_decode_blosc2),
}
"""Every codec of format version 1, by the name that ``ConvertConfig.compression`` uses."""

_CODEC_OF_FILTER = {codec.filter_id: name for name, codec in CODECS.items() if codec.filter_id is not None}


def encoder(compression: Compression) -> Callable[[NDArray[np.uint8]], StoredChunk]:
    """Returns the function that turns a frame into the chunk that HDF5's own filters would write.

    Args:
        compression: The codec.

    Returns:
        A function of one frame (uint8, C-contiguous). Several threads may call it at once.
    """
    codec = CODECS[compression]
    encode = codec.make_encoder()

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
