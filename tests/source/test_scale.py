"""Colors and sizes: the tags in the stream are obeyed, although PyAV alone ignores them."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from lewm_data.source.scale import Scaler, unknown_colors

# R'G'B' -> Y'CbCr of ITU-R BT.601 and BT.709, by their luma coefficients (Kr, Kb)
LUMA = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}


def yuv_frame(rgb: tuple[int, int, int], standard: str, *, full_range: bool) -> av.VideoFrame:
    """A frame of one color, converted by the standard's formula and tagged with it."""
    kr, kb = LUMA[standard]
    r, g, b = (value / 255 for value in rgb)
    y = kr * r + (1 - kr - kb) * g + kb * b
    cb, cr = (b - y) / (2 * (1 - kb)), (r - y) / (2 * (1 - kr))
    values = (255 * y, 255 * cb + 128, 255 * cr + 128) if full_range else (219 * y + 16, 224 * cb + 128, 224 * cr + 128)
    frame = av.VideoFrame(32, 32, "yuv420p")
    for plane, value in zip(frame.planes, values, strict=True):
        plane.update(np.full(plane.buffer_size, round(value), np.uint8))
    frame.colorspace = {"bt601": 6, "bt709": 1}[standard]
    frame.color_range = 2 if full_range else 1
    return frame


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("standard", ["bt601", "bt709"])
@pytest.mark.parametrize("rgb", [(200, 30, 60), (20, 220, 40), (10, 40, 240), (255, 255, 255), (0, 0, 0), (90, 90, 90)])
@pytest.mark.parametrize("size", [32, 16])
def test_tagged_colors_come_back(rgb: tuple[int, int, int], standard: str, full_range: bool, size: int) -> None:
    out = np.empty((size, size, 3), np.uint8)
    Scaler(size, size, "stretch").put(yuv_frame(rgb, standard, full_range=full_range), out)
    assert np.abs(out.astype(int) - rgb).max() <= 4  # 8-bit Y'CbCr merges colors that are nearer


def test_unsupported_color_space_is_described() -> None:
    frame = yuv_frame((1, 2, 3), "bt601", full_range=False)
    assert unknown_colors(frame) is None
    frame.colorspace = 8  # YCgCo
    assert unknown_colors(frame) == "color space number 8 in pixel format yuv420p"


def test_bt709_tag_survives_a_real_encoder(tmp_path: Path) -> None:
    path = tmp_path / "tagged.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(30))
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        stream.codec_context.colorspace = 1
        stream.codec_context.options = {"qp": "0"}
        for _ in range(3):
            container.mux(stream.encode(yuv_frame((200, 30, 60), "bt709", full_range=False)))
        container.mux(stream.encode(None))
    out = np.empty((32, 32, 3), np.uint8)
    with av.open(str(path)) as container:
        Scaler(32, 32, "stretch").put(next(container.decode(video=0)), out)
    assert np.abs(out.astype(int) - (200, 30, 60)).max() <= 4


@pytest.mark.parametrize(("height", "width"), [(48, 96), (96, 48), (50, 50), (7, 300)])
def test_crop_keeps_the_center_and_pad_adds_bars(height: int, width: int) -> None:
    picture = np.zeros((height, width, 3), np.uint8)
    picture[:, :, 0] = np.linspace(0, 255, width).astype(np.uint8)
    picture[:, :, 1] = np.linspace(0, 255, height).astype(np.uint8)[:, None]
    picture[:, :, 2] = 200
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
    out = np.empty((32, 32, 3), np.uint8)
    Scaler(32, 32, "crop").put(frame, out)
    assert (out[:, :, 2] > 190).all()  # no bars
    longer = 0 if width >= height else 1
    assert abs(int(out[16, 16, longer]) - 128) < 16  # the middle stays the middle
    Scaler(32, 32, "pad").put(frame, out)
    covered = out[:, :, 2] > 100
    expected = (32, max(1, round(32 * height / width))) if width >= height else (max(1, round(32 * width / height)), 32)
    assert (covered.any(axis=0).sum(), covered.any(axis=1).sum()) == expected
