"""Frames -> stored chunk bytes: codec, then HDF5's fletcher32, as HDF5's own filters would write them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import imagecodecs
import numpy as np

from lewm_data.config import Compression
from lewm_data.format.schema import CODEC_SKIPPED_MASK, FLETCHER32_BYTES


class StoredChunk(NamedTuple):
    """One frame as it is stored.

    Attributes:
        data: Encoded frame and its checksum.
        filter_mask: HDF5's filter mask: bit 0 set where the codec could not shrink the frame.
    """

    data: bytes
    filter_mask: int


def encoder(compression: Compression) -> Callable[[np.ndarray], StoredChunk]:
    """The function that encodes one frame.

    Args:
        compression: The codec.

    Returns:
        A function of one frame (uint8, C-contiguous), safe to call from several threads at once.
    """
    encode = _CODECS[compression]()

    def chunk(frame: np.ndarray) -> StoredChunk:
        data, mask = frame.tobytes() if encode is None else encode(frame), 0
        if encode is not None and len(data) >= frame.nbytes:
            data, mask = frame.tobytes(), CODEC_SKIPPED_MASK
        checksum = int(imagecodecs.h5checksum_fletcher32(data))
        return StoredChunk(data + checksum.to_bytes(FLETCHER32_BYTES, "little"), mask)

    return chunk


def is_whole(chunk: StoredChunk) -> bool:
    """Whether a stored frame is as ``encoder`` wrote it, by its checksum."""
    data, told = chunk.data[:-FLETCHER32_BYTES], chunk.data[-FLETCHER32_BYTES:]
    return int(imagecodecs.h5checksum_fletcher32(data)) == int.from_bytes(told, "little")


Encode = Callable[[np.ndarray], bytes]


def _none() -> None:
    return None


def _lzf() -> Encode:
    def encode(frame: np.ndarray) -> bytes:
        try:
            return bytes(imagecodecs.lzf_encode(frame))
        except imagecodecs.LzfError:  # the output would be larger than the input
            return frame.tobytes()

    return encode


def _lz4() -> Encode:
    return lambda frame: bytes(imagecodecs.lz4h5_encode(frame))


def _zstd() -> Encode:
    return lambda frame: bytes(imagecodecs.zstd_encode(frame, level=1))


def _blosc2() -> Encode:
    """Shuffle and byte delta over RGB triples, then zstd 1; one contiguous frame per chunk (filter 32026)."""
    import blosc2

    blosc2.set_releasegil(True)
    parameters = {
        "codec": blosc2.Codec.ZSTD,
        "clevel": 1,
        "typesize": 3,
        "filters": [blosc2.Filter.SHUFFLE, blosc2.Filter.BYTEDELTA],
        "filters_meta": [0, 0],
        "nthreads": 1,
    }

    def encode(frame: np.ndarray) -> bytes:
        return blosc2.SChunk(chunksize=frame.nbytes, data=frame.data, cparams=parameters).to_cframe()

    return encode


_CODECS: dict[str, Callable[[], Encode | None]] = {
    "none": _none,
    "lzf": _lzf,
    "lz4": _lz4,
    "zstd": _zstd,
    "blosc2": _blosc2,
}
