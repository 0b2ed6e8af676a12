"""Pictures stored in Parquet rows. The oracle is Pillow."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageOps

from lewm_data.source.images import read_images
from lewm_data.source.media import MediaError
from lewm_data.source.rows import RowCursor

SCENE = np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8)


def upright(root: Path, cells: list[Any]) -> list[np.ndarray]:
    """Writes cells into a Parquet file and reads them back, upright."""
    pq.write_table(pa.table({"front": cells}), root / "data.parquet")
    with RowCursor(root / "data.parquet", ["front"]) as cursor:
        return [orientation.apply(picture) for picture, orientation in read_images(cursor, root, 0, len(cells))]


def encoded(picture: Image.Image, kind: str, exif: int | None = None) -> bytes:
    buffer = io.BytesIO()
    tags = Image.Exif()
    if exif is not None:
        tags[0x0112] = exif
    picture.save(buffer, kind, **({"quality": 95} if kind == "JPEG" else {"lossless": True}), exif=tags)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("exif", [None, *range(1, 9)])
def test_pictures_are_turned_as_exif_says(kind: str, exif: int | None, tmp_path: Path) -> None:
    data = encoded(Image.fromarray(SCENE), kind, exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    [picture] = upright(tmp_path, [{"bytes": data, "path": None}])
    assert picture.shape == expected.shape
    assert np.abs(picture.astype(int) - expected).max() <= (3 if kind == "JPEG" else 0)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "I;16"])
def test_other_modes_become_rgb(mode: str, tmp_path: Path) -> None:
    gray = Image.fromarray(SCENE).convert("L")
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(gray).astype(np.uint16) * 257)
    else:
        picture = (Image.fromarray(SCENE) if mode == "RGBA" else gray).convert(mode)
    [found] = upright(tmp_path, [{"bytes": encoded(picture, "PNG"), "path": None}])
    assert np.array_equal(found, SCENE if mode == "RGBA" else np.repeat(np.asarray(gray)[:, :, None], 3, axis=2))


def test_cell_may_hold_a_path_within_the_dataset(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.fromarray(SCENE).save(tmp_path / "images" / "0.png")
    [picture] = upright(tmp_path, [{"bytes": None, "path": "images/0.png"}])
    assert np.array_equal(picture, SCENE)


@pytest.mark.parametrize("data", [b"", b"not a picture", encoded(Image.fromarray(SCENE), "PNG")[:40], b"RIFF1234"])
def test_bytes_that_are_not_a_picture_are_a_media_error(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(MediaError) as caught:
        upright(tmp_path, [{"bytes": data, "path": None}])
    assert caught.value.code == "decode_error"


def test_damaged_exif_leaves_the_picture_upright(tmp_path: Path) -> None:
    data = bytearray(encoded(Image.fromarray(SCENE), "JPEG", 6))
    start = data.index(b"Exif")
    data[start + 6 : start + 14] = bytes(8)
    [picture] = upright(tmp_path, [{"bytes": bytes(data), "path": None}])
    assert picture.shape == SCENE.shape
