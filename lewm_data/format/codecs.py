"""Stored chunk bytes to a frame, without the HDF5 library and without the interpreter's lock.

The decoders are imagecodecs', which check every bound and release the lock while they work, so threads decode
side by side. What they cannot know is checked here: that a chunk fills its frame exactly.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from lewm_data.format.schema import CODEC_FILTER_IDS, FLETCHER32_BYTES, FLETCHER32_FILTER_ID

type Bytes = NDArray[np.uint8]
type Decoder = Callable[[memoryview, Bytes], int]
"""Decodes stored bytes into a frame's bytes (m,), and returns how many of these it filled."""


class ChunkError(ValueError):
    """A chunk's bytes do not decode to a frame; the message says in what way."""


def _copy(stored: memoryview, out: Bytes) -> int:
    if len(stored) == out.size:
        out[:] = np.frombuffer(stored, np.uint8)
    return len(stored)


def _decode_lzf(stored: memoryview, out: Bytes) -> int:
    return len(imagecodecs.lzf_decode(stored, out=out.data))


def _decode_lz4(stored: memoryview, out: Bytes) -> int:
    return len(imagecodecs.lz4h5_decode(stored, out=out.data))


def _decode_zstd(stored: memoryview, out: Bytes) -> int:
    return len(imagecodecs.zstd_decode(stored, out=out.data))


# c-blosc2's README_CFRAME_FORMAT: msgpack with fixed places; big-endian. Of it: magic, header size, frame
# size, uncompressed size, compressed size, chunk size.
_CFRAME = struct.Struct(">2x8sxixQ5xxqxq5x5xxi")
# c-blosc2's README_CHUNK_FORMAT; little-endian: uncompressed and compressed size.
_CHUNK_SIZES = struct.Struct("<4xi4xi")


def _decode_blosc2(stored: memoryview, out: Bytes) -> int:
    """Decodes a cframe of one chunk straight from its place; whatever else it may be, python-blosc2 reads."""
    magic, header_size, frame_size, num_bytes, num_stored, chunk_size = _CFRAME.unpack_from(stored)
    if magic != b"b2frame\0" or frame_size != len(stored):
        raise ChunkError("it is no blosc2 frame of its length")
    is_plain = num_bytes == chunk_size == out.size and num_stored > 0
    if not is_plain or b"b2nd" in bytes(stored[:header_size]):
        return _decode_any_blosc2(stored, out)
    chunk = stored[header_size : header_size + num_stored]
    if _CHUNK_SIZES.unpack_from(chunk) != (num_bytes, num_stored):
        return _decode_any_blosc2(stored, out)
    return len(imagecodecs.blosc2_decode(chunk, numthreads=1, out=out.data))


def _decode_any_blosc2(stored: memoryview, out: Bytes) -> int:
    import blosc2  # costs a second, and only frames of one colour and those of hdf5plugin's own writer come here

    # not blosc2.from_cframe: that follows what a stranger's frame refers to, over the network too
    frame = blosc2.schunk_from_cframe(bytes(stored), copy=True)
    if frame.nbytes > 2 * out.size:  # an array of blocks may be padded
        raise ChunkError(f"it claims {frame.nbytes} bytes where a frame has {out.size}")
    if "b2nd" in frame.meta:
        values = np.ascontiguousarray(blosc2.ndarray_from_cframe(bytes(stored), copy=True)[...])
    else:
        values = np.frombuffer(b"".join(frame.decompress_chunk(i) for i in range(frame.nchunks)), np.uint8)
    return _copy(memoryview(values.reshape(-1).view(np.uint8)), out)


_DECODERS: dict[str, Decoder] = {
    "none": _copy,
    "lzf": _decode_lzf,
    "lz4": _decode_lz4,
    "zstd": _decode_zstd,
    "blosc2": _decode_blosc2,
}
_CODECS_BY_FILTER = {number: codec for codec, number in CODEC_FILTER_IDS.items() if number is not None}


@dataclass(frozen=True, slots=True)
class ChunkCodec:
    """How the chunks of one dataset were stored.

    Attributes:
        codec: A codec of ``schema.CODEC_FILTER_IDS``.
        has_checksum: HDF5's fletcher32 is the last filter: four bytes, little-endian, after each chunk.
    """

    codec: str
    has_checksum: bool

    @property
    def checksum_bytes(self) -> int:
        """Bytes that the checksum adds to a chunk."""
        return FLETCHER32_BYTES if self.has_checksum else 0

    @classmethod
    def from_filters(cls, filter_ids: tuple[int, ...]) -> ChunkCodec | None:
        """Recognises an HDF5 filter pipeline.

        Args:
            filter_ids: HDF5's registered filter numbers, in the order in which a writer applies them.

        Returns:
            The codec, or None where the pipeline is none of format version 1 and takes the HDF5 library to
            undo.
        """
        has_checksum = filter_ids[-1:] == (FLETCHER32_FILTER_ID,)
        before = filter_ids[:-1] if has_checksum else filter_ids
        if not before:
            return cls("none", has_checksum)
        if len(before) == 1 and before[0] in _CODECS_BY_FILTER:
            return cls(_CODECS_BY_FILTER[before[0]], has_checksum)
        return None

    def decode(self, stored: memoryview, mask: int, out: Bytes, *, verify: bool = False) -> None:
        """Decodes one chunk.

        Args:
            stored: The chunk as it lies in the file.
            mask: Its filter mask: bit i set means that filter i was skipped.
            out: (frame bytes,) uint8 and contiguous; filled on return, undefined after an error.
            verify: Check the checksum first, where there is one.

        Raises:
            ChunkError: The chunk is damaged: a wrong checksum, undecodable, or of another size.
        """
        checksum_bit = 0 if self.codec == "none" else 1
        if self.has_checksum and not mask >> checksum_bit & 1:
            if len(stored) < FLETCHER32_BYTES:
                raise ChunkError(f"it has {len(stored)} bytes, fewer than its checksum takes")
            stored, tail = stored[:-FLETCHER32_BYTES], stored[-FLETCHER32_BYTES:]
            if verify and imagecodecs.h5checksum_fletcher32(stored) != int.from_bytes(tail, "little"):
                raise ChunkError("its fletcher32 checksum does not match")
        is_raw = self.codec != "none" and mask & 1
        decoder = _copy if is_raw else _DECODERS[self.codec]
        try:
            num_bytes = decoder(stored, out)
        except (ValueError, RuntimeError, struct.error) as error:  # each decoder has its own subclass
            raise ChunkError(f"{self.codec} cannot decode it ({error})") from error
        if num_bytes != out.size:
            raise ChunkError(f"it holds {num_bytes} bytes where a frame has {out.size}")
