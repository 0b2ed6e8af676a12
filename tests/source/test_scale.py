"""Colors and sizes. Oracles: the standards' formulas, PyAV's RGB, exact area averaging, torchvision."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torchvision.transforms.v2.functional import resize as torchvision_resize

from lewm_data.config import Resize
from lewm_data.source.scale import Scaler, unknown_colors
from tests.source.media import area_average, encode_video, first_frame

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


@pytest.mark.parametrize("space", [8, 10, 14])  # YCgCo, BT.2020 of constant luminance, ICtCp: not linear in Y'CbCr
def test_unsupported_color_space_is_described(space: int) -> None:
    frame = yuv_frame((1, 2, 3), "bt601", full_range=False)
    assert unknown_colors(frame) is None
    frame.colorspace = space
    assert unknown_colors(frame) == f"color space number {space} in pixel format yuv420p"


@pytest.mark.parametrize("size", [32, 16])
def test_tags_of_one_frame_do_not_affect_the_next(size: int) -> None:
    scaler, out = Scaler(size, size, "stretch"), np.empty((size, size, 3), np.uint8)
    for standard, full_range in (
        ("bt601", False),
        ("bt709", False),
        ("bt601", False),
        ("bt709", True),
        ("bt601", True),
    ):
        scaler.put(yuv_frame((200, 30, 60), standard, full_range=full_range), out)
        assert np.abs(out.astype(int) - (200, 30, 60)).max() <= 4, standard


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


# --- sharpness


def scene(height: int = 96, width: int = 160) -> np.ndarray:
    """Colored blocks and narrow stripes: color edges that 4:2:0 can hold at this size."""
    random = np.random.default_rng(0)
    picture = np.full((height, width, 3), 235, np.uint8)
    for _ in range(30):
        top, left, side = random.integers(0, height), random.integers(0, width), random.integers(6, 30)
        picture[top : top + side, left : left + side] = random.integers(0, 256, 3)
    is_red = np.arange(width) // 6 % 2 == 0
    picture[: height // 3, is_red], picture[: height // 3, ~is_red] = (200, 60, 60), (60, 60, 200)
    return picture


def put(frame: av.VideoFrame, height: int, width: int, resize: Resize = "stretch", version: int = 2) -> np.ndarray:
    out = np.empty((height, width, 3), np.uint8)
    Scaler(height, width, resize, version=version).put(frame, out)
    return out


def cut(picture: np.ndarray, height: int, width: int, resize: str) -> np.ndarray:
    """What ``crop`` and ``pad`` make of the area average of a picture that is wider than the output."""
    if resize == "stretch":
        return area_average(picture, height, width)
    full_height, full_width = picture.shape[:2]
    if resize == "crop":
        scaled = area_average(picture, height, round(full_width * height / full_height))
        left = (scaled.shape[1] - width) // 2
        return scaled[:, left : left + width]
    out = np.zeros((height, width, 3))
    scaled = area_average(picture, round(full_height * width / full_width), width)
    top = (height - len(scaled)) // 2
    out[top : top + len(scaled)] = scaled
    return out


VIDEOS = [
    ("libx264", "yuv420p"),
    ("libx264", "yuv422p"),
    ("libx264", "yuv444p"),
    ("libx264", "yuvj420p"),
    ("libx265", "yuv420p10le"),
    ("libx265", "yuv444p10le"),
    ("libx265", "gray"),
    ("libsvtav1", "yuv420p"),
    ("libsvtav1", "yuv420p10le"),
    ("libvpx-vp9", "yuv420p"),
    ("mjpeg", "yuvj422p"),
    ("libx264rgb", "rgb24"),
    ("ffv1", "bgr0"),
]


@pytest.fixture(scope="module", params=VIDEOS, ids=lambda pair: "-".join(pair))
def decoded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> av.VideoFrame:
    codec, pixel_format = request.param
    options = {"crf": "4"} if codec != "mjpeg" else {"q": "2"}
    range_ = {"color_range": 2} if pixel_format in ("gray", "yuvj422p") else {}
    path = encode_video(
        tmp_path_factory.mktemp("video") / "video.mkv",
        [scene()] * 2,
        codec=codec,
        pixel_format=pixel_format,
        options=options,
        **range_,
    )
    return first_frame(path)


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
def test_resized_frame_is_the_area_average_of_pyavs_rgb(decoded: av.VideoFrame, resize: Resize) -> None:
    rgb = decoded.to_ndarray(format="rgb24")
    expected = cut(rgb, 40, 48, resize)
    error = np.abs(put(decoded, 40, 48, resize) - expected)
    assert error.max() <= 2.5
    assert error.mean() <= 0.5  # rounding alone takes 0.25
    if resize == "stretch":
        tensor = torch.from_numpy(rgb.copy()).permute(2, 0, 1)
        torchvision = torchvision_resize(tensor, [40, 48], antialias=True).permute(1, 2, 0).numpy()
        assert error.mean() < np.abs(torchvision - expected).mean()


def test_frame_of_the_wanted_size_is_pyavs_rgb(decoded: av.VideoFrame) -> None:
    assert np.array_equal(put(decoded, 96, 160), decoded.to_ndarray(format="rgb24"))


@pytest.mark.parametrize("pixel_format", ["nv12", "p010le", "yuv440p", "yuv410p", "yuyv422", "gbrp", "rgba", "pal8"])
def test_other_pixel_formats_are_averaged_too(pixel_format: str) -> None:
    frame = av.VideoFrame.from_ndarray(scene(), format="rgb24")
    if pixel_format == "pal8":
        palette = np.random.default_rng(0).integers(0, 256, (256, 4), np.uint8)
        frame = av.VideoFrame.from_ndarray((scene()[:, :, 0], palette), format="pal8")
    else:
        frame = frame.reformat(format=pixel_format)
    expected = area_average(frame.reformat(format="rgb24").to_ndarray(), 40, 48)
    assert np.abs(put(frame, 40, 48) - expected).max() <= 2.5


@pytest.mark.parametrize("size", [(95, 160), (96, 161), (97, 131), (2, 2), (1, 300)])
@pytest.mark.parametrize("out_size", [(40, 48), (7, 3), (120, 200)])
def test_odd_sizes_are_averaged_too(size: tuple[int, int], out_size: tuple[int, int]) -> None:
    frame = av.VideoFrame.from_ndarray(scene(*size), format="rgb24").reformat(format="yuv420p")
    rgb = frame.to_ndarray(format="rgb24")
    out = put(frame, *out_size)
    if out_size[0] <= size[0] and out_size[1] <= size[1]:
        assert np.abs(out - area_average(rgb, *out_size)).max() <= 2.5
    else:
        assert rgb.min() <= out.min() <= out.max() <= rgb.max()


def test_large_frames_become_small_ones() -> None:
    frame = av.VideoFrame.from_ndarray(np.tile(scene(), (30, 20, 1)), format="rgb24").reformat(format="yuv420p")
    expected = area_average(frame.to_ndarray(format="rgb24"), 5, 4)
    assert np.abs(put(frame, 5, 4) - expected).max() <= 2.5


def test_alpha_is_left_out() -> None:
    rgba = np.dstack([scene(), np.full((96, 160), 7, np.uint8)])
    assert np.array_equal(put(av.VideoFrame.from_ndarray(rgba, format="rgba"), 96, 160), scene())


def test_version_1_is_one_pass_of_swscale() -> None:
    frame = av.VideoFrame.from_ndarray(scene(), format="rgb24").reformat(format="yuv420p")
    expected = frame.to_ndarray(format="rgb24", width=48, height=40, interpolation="AREA")
    assert np.array_equal(put(frame, 40, 48, version=1), expected)
    assert np.abs(expected - area_average(frame.to_ndarray(format="rgb24"), 40, 48)).max() > 40


# --- monochrome


@pytest.mark.parametrize("pixel_format", ["gray", "gray10le"])
@pytest.mark.parametrize("codec", ["libx265", "libaom-av1"])
@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("size", [64, 32])
def test_monochrome_black_is_0_and_white_255(
    pixel_format: str, codec: str, full_range: bool, size: int, tmp_path: Path
) -> None:
    bits = 10 if pixel_format == "gray10le" else 8
    black, white = (0, (1 << bits) - 1) if full_range else (16 << bits - 8, 235 << bits - 8)
    luma = np.full((64, 64), black, np.uint16 if bits > 8 else np.uint8)
    luma[:, 32:] = white
    frame = av.VideoFrame(64, 64, pixel_format)
    rows = np.zeros((64, frame.planes[0].line_size // luma.itemsize), luma.dtype)
    rows[:, :64] = luma
    frame.planes[0].update(rows)
    frame.color_range = 2 if full_range else 1
    path = encode_video(
        tmp_path / "video.mp4", [frame], codec=codec, pixel_format=pixel_format, color_range=frame.color_range,
        options={"crf": "4"},
    )  # fmt: skip
    out = put(first_frame(path), size, size).astype(int)
    assert out[:, : size // 2 - 2].max() <= 2
    assert out[:, size // 2 + 2 :].min() >= 253
    assert np.array_equal(out[..., 0], out[..., 1])


def test_middle_gray_of_limited_range_keeps_its_value() -> None:
    frame = av.VideoFrame.from_ndarray(np.full((32, 32), 126, np.uint8), format="gray")
    frame.color_range = 1
    assert set(put(frame, 16, 16).ravel().tolist()) == {128}  # (126 - 16) * 255 / 219


def test_untagged_monochrome_is_full_range_as_in_ffmpeg() -> None:
    frame = av.VideoFrame.from_ndarray(np.full((32, 32), 16, np.uint8), format="gray")
    assert set(put(frame, 16, 16).ravel().tolist()) == {16}
