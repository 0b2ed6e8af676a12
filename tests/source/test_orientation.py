"""Display matrices and EXIF. FFmpeg's own filters and Pillow are the oracles."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageOps

from lewm_data.source.media import MediaError
from lewm_data.source.orientation import (
    UPRIGHT,
    frame_orientation,
    orientation_from_exif,
    orientation_from_matrix,
)
from lewm_data.source.scale import Scaler
from lewm_data.source.video import read_header
from tests.source.media import encode_video, filter_stream, first_frame, set_matrix

CORNERS = np.zeros((48, 96, 3), np.uint8)
CORNERS[:24, :48], CORNERS[:24, 48:], CORNERS[24:, :48] = (230, 40, 40), (40, 230, 40), (40, 40, 230)

# a, b, c, d of the display matrix -> the filters that `ffmpeg -autorotate` inserts for it (fftools/ffmpeg_filter.c)
MATRICES = {
    (1, 0, 0, 1): (),
    (0, 1, -1, 0): ("transpose=clock",),
    (-1, 0, 0, -1): ("hflip", "vflip"),
    (0, -1, 1, 0): ("transpose=cclock",),
    (-1, 0, 0, 1): ("hflip",),
    (1, 0, 0, -1): ("vflip",),
    (0, 1, 1, 0): ("transpose=cclock_flip",),
    (0, -1, -1, 0): ("transpose=clock_flip",),
}


def filtered(frame: av.VideoFrame, filters: tuple[str, ...]) -> np.ndarray:
    """The frame in RGB after FFmpeg's filters."""
    graph = av.filter.Graph()
    nodes = [graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base)]
    nodes += [graph.add(*name.split("=")) for name in filters]
    graph.link_nodes(*nodes, graph.add("buffersink")).configure()
    graph.push(frame)
    return graph.pull().to_ndarray(format="rgb24")


def put(frame: av.VideoFrame, height: int, width: int, resize: str = "stretch") -> np.ndarray:
    out = np.empty((height, width, 3), np.uint8)
    Scaler(height, width, resize).put(frame, out)  # type: ignore[arg-type]
    return out


@pytest.mark.parametrize(("matrix", "filters"), MATRICES.items())
def test_rotated_and_flipped_videos_look_as_in_ffmpeg(
    matrix: tuple[int, ...], filters: tuple[str, ...], tmp_path: Path
) -> None:
    path = encode_video(tmp_path / "video.mp4", [CORNERS] * 2)
    set_matrix(path, matrix)
    frame = first_frame(path)
    expected = filtered(frame, filters)
    height, width = expected.shape[:2]
    assert frame_orientation(frame).size(48, 96) == (height, width)
    assert (read_header(path).height, read_header(path).width) == (height, width)
    assert np.abs(put(frame, height, width).astype(int) - expected).max() <= 2
    small = expected.reshape(height // 4, 4, width // 4, 4, 3).mean((1, 3))
    assert np.abs(put(frame, height // 4, width // 4) - small).max() <= 2


@pytest.mark.parametrize("scale", [1.0, 2.0, 0.1])
def test_scale_of_a_matrix_does_not_matter(scale: float) -> None:
    for matrix in MATRICES:
        assert orientation_from_matrix([scale * value for value in matrix]) == orientation_from_matrix(matrix)


def test_empty_matrix_is_upright() -> None:
    assert orientation_from_matrix((0, 0, 0, 0)) == UPRIGHT


@pytest.mark.parametrize("matrix", [(0.866, 0.5, -0.5, 0.866), (1, 0.1, 0, 1), (1, 1, 0, 0)])
def test_other_turns_are_refused(matrix: tuple[float, ...], tmp_path: Path) -> None:
    assert orientation_from_matrix(matrix) is None
    path = encode_video(tmp_path / "video.mp4", [CORNERS] * 2)
    set_matrix(path, matrix)
    for read in (lambda: read_header(path), lambda: frame_orientation(first_frame(path))):
        with pytest.raises(MediaError, match="video_rotation: expected an upright video") as caught:
            read()
        assert caught.value.code == "video_rotation"


def test_movie_matrix_comes_after_the_track_matrix(tmp_path: Path) -> None:
    path = encode_video(tmp_path / "video.mp4", [CORNERS] * 2)
    set_matrix(path, (0, 1, -1, 0))
    set_matrix(path, (-1, 0, 0, 1), b"mvhd")
    frame = first_frame(path)
    assert frame_orientation(frame) == orientation_from_matrix((0, 1, 1, 0))
    assert (read_header(path).height, read_header(path).width) == (96, 48)


def test_rotation_inside_the_stream_is_applied(tmp_path: Path) -> None:
    plain = encode_video(tmp_path / "plain.h264", [CORNERS] * 2)
    frame = first_frame(
        filter_stream(plain, tmp_path / "turned.h264", "h264_metadata=display_orientation=insert:rotate=90")
    )
    expected = filtered(frame, ("transpose=cclock",))
    assert np.abs(put(frame, 96, 48).astype(int) - expected).max() <= 2


@pytest.mark.parametrize("resize", ["crop", "pad"])
def test_crop_and_pad_apply_to_the_upright_picture(resize: str, tmp_path: Path) -> None:
    path = encode_video(tmp_path / "video.mp4", [CORNERS] * 2)
    upright = put(first_frame(path), 40, 32, resize)
    set_matrix(path, (0, 1, -1, 0))
    turned = put(first_frame(path), 32, 40, resize)
    assert np.abs(turned.astype(int) - np.rot90(upright, -1)).max() <= 1


@pytest.mark.parametrize("value", [*range(1, 9), 0, 9, None, "1"])
def test_exif_orientation_is_pillows(value: object) -> None:
    picture = Image.fromarray(CORNERS[::4, ::4])
    if isinstance(value, int):
        picture.getexif()[0x0112] = value
    expected = np.asarray(ImageOps.exif_transpose(picture))
    assert np.array_equal(orientation_from_exif(value).apply(CORNERS[::4, ::4]), expected)
