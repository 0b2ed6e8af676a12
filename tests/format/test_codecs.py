"""The lossy codec: its settings, and streams that are not what the file says. ``test_store`` tests every codec."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from lewm_data.config import COMPRESSIONS
from lewm_data.errors import UsageError
from lewm_data.format.codecs import CODECS, ChunkCodec, ChunkError, encoder, has_valid_checksum, settle_quality
from tests.loading.files import jpeg

HEIGHT, WIDTH = 48, 64


def picture(seed: int = 0) -> np.ndarray:
    """Smooth colors with some noise, (48, 64, 3)."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    smooth = np.stack([4 * rows, 3 * columns, 255 - 2 * (rows + columns)], axis=-1)
    return (smooth + np.random.default_rng(seed).normal(0, 4, smooth.shape)).clip(0, 255).astype(np.uint8)


def decode(stored: bytes) -> np.ndarray:
    out = np.empty(HEIGHT * WIDTH * 3, np.uint8)
    ChunkCodec("jpeg", has_checksum=False).decode(memoryview(stored), 0, out)
    return out.reshape(HEIGHT, WIDTH, 3)


def error_of(quality: int) -> float:
    chunk = encoder("jpeg", quality)(picture())
    return float(np.square(decode(chunk.data[:-4]).astype(int) - picture()).mean())


def test_only_jpeg_is_lossy_and_the_default_is_not() -> None:
    assert [name for name in COMPRESSIONS if not CODECS[name].is_lossless] == ["jpeg"]
    assert COMPRESSIONS[0] == "lzf"


def test_pillow_reads_our_jpeg_as_we_do_and_colors_have_full_resolution() -> None:
    chunk = encoder("jpeg")(picture())
    assert has_valid_checksum(chunk)
    with Image.open(io.BytesIO(chunk.data[:-4])) as opened:
        assert [component[1:3] for component in opened.layer] == [(1, 1)] * 3
        np.testing.assert_array_equal(np.asarray(opened), decode(chunk.data[:-4]))


def test_a_higher_quality_is_larger_and_closer() -> None:
    sizes = [len(encoder("jpeg", quality)(picture()).data) for quality in (50, 90, 98)]
    errors = [error_of(quality) for quality in (50, 90, 98)]
    assert sizes == sorted(sizes)
    assert errors == sorted(errors, reverse=True)
    assert error_of(100) < 1.5


def test_the_default_quality_is_the_codecs_own() -> None:
    assert settle_quality("jpeg", None) == 90
    assert settle_quality("lzf", None) == 0
    assert encoder("jpeg")(picture()) == encoder("jpeg", 90)(picture())


def test_a_lossless_codec_has_no_quality() -> None:
    with pytest.raises(UsageError, match="quality is 90, but lzf is lossless and has none.*--compression jpeg"):
        settle_quality("lzf", 90)


@pytest.mark.parametrize("quality", [0, 101, -1])
def test_a_quality_out_of_range_is_refused(quality: int) -> None:
    with pytest.raises(UsageError, match=rf"quality is {quality}, but must lie in \[1, 100\]"):
        settle_quality("jpeg", quality)


def gray(frame: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(frame[..., 0]).save(stream, "JPEG")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("stored", "words"),
    [
        (jpeg(picture())[:-2], "not a whole JPEG stream"),
        (jpeg(picture())[:300], "not a whole JPEG stream"),
        (jpeg(picture())[:300] + b"\xff\xd9", "jpeg cannot decode it"),
        (b"\xff\xd8\xff\xd9", "jpeg cannot decode it"),
        (b"", "not a whole JPEG stream"),
        (jpeg(picture()[:40]), "it holds 7680 bytes where a frame has 9216"),
        (gray(picture()), "jpeg cannot decode it"),
    ],
)
def test_what_is_not_a_frame_of_this_size_is_an_error(stored: bytes, words: str) -> None:
    with pytest.raises(ChunkError, match=words):
        decode(stored)
