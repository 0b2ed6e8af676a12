"""A video frame as one contiguous Blosc2 frame (cframe) of one chunk, and back."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray


def make_encoder() -> Callable[[NDArray[np.uint8]], bytes]:
    """Loads Blosc2. Frames pass through shuffle and byte delta over RGB triples, then zstd level 1."""
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


def decode(stored: memoryview, out: NDArray[np.uint8]) -> int:
    """Decodes a cframe of one chunk in place; python-blosc2 decodes every other kind of cframe.

    Args:
        stored: The cframe.
        out: (m,) uint8, filled if the content has m bytes.

    Returns:
        Bytes of the content.

    Raises:
        ValueError: It is not a cframe, or its content is much larger than ``out``.
        RuntimeError: Blosc2 cannot decode it.
    """
    magic, header_size, frame_size, num_bytes, num_stored, chunk_size = _CFRAME.unpack_from(stored)
    if magic != b"b2frame\0" or frame_size != len(stored):
        raise ValueError("it is not a blosc2 frame of its length")
    is_plain = num_bytes == chunk_size == out.size and num_stored > 0
    if not is_plain or b"b2nd" in bytes(stored[:header_size]):
        return _decode_any(stored, out)
    chunk = stored[header_size : header_size + num_stored]
    if _CHUNK_SIZES.unpack_from(chunk) != (num_bytes, num_stored):
        return _decode_any(stored, out)
    return len(imagecodecs.blosc2_decode(chunk, numthreads=1, out=out.data))


def _decode_any(stored: memoryview, out: NDArray[np.uint8]) -> int:
    import blosc2  # takes a second; only frames of a single color and hdf5plugin's own frames need it

    # Not blosc2.from_cframe: it follows the references in a frame, even over the network.
    frame = blosc2.schunk_from_cframe(bytes(stored), copy=True)
    if frame.nbytes > 2 * out.size:  # an array of blocks may be padded
        raise ValueError(f"it claims {frame.nbytes} bytes where a frame has {out.size}")
    if "b2nd" in frame.meta:
        values = np.ascontiguousarray(blosc2.ndarray_from_cframe(bytes(stored), copy=True)[...])
    else:
        values = np.frombuffer(b"".join(frame.decompress_chunk(i) for i in range(frame.nchunks)), np.uint8)
    content = values.reshape(-1).view(np.uint8)
    if content.size == out.size:
        out[:] = content
    return content.size
