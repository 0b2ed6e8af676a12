from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from lewm_data.source import media
from lewm_data.source.media import MediaError
from lewm_data.source.video import read_header
from lewm_data.source.video_reader import VideoReader
from tests.source.media import add_clean_aperture, encode_video


@pytest.mark.parametrize(
    ("dataset", "codec", "num_frames"),
    [("recorded", "h264", 54), ("recorded_hevc", "hevc", 54), ("recorded_av1", "av1", 19), ("recorded_v21", "h264", 7)],
)
def test_header_of_each_codec(dataset: str, codec: str, num_frames: int, request: pytest.FixtureRequest) -> None:
    path = min((request.getfixturevalue(dataset) / "videos").rglob("*.mp4"))
    header = read_header(path)
    assert (header.codec, header.width, header.height, header.num_frames) == (codec, 128, 96, num_frames)
    assert header.fps == pytest.approx(30)
    assert header.start_seconds == 0
    assert header.duration_seconds == pytest.approx(num_frames / 30)


def copied(recording: Path, path: Path, **metadata: str) -> Path:
    """The first video of a recording in another container, without encoding it again."""
    import av

    with av.open(str(min(recording.rglob("*.mp4")))) as source, av.open(str(path), "w") as output:
        output.metadata.update(metadata)
        stream = source.streams.video[0]
        copy = output.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.dts is not None:
                packet.stream = copy
                output.mux(packet)
    return path


def test_container_other_than_mp4_is_read(recorded: Path, tmp_path: Path) -> None:
    header = read_header(copied(recorded, tmp_path / "video.mkv"))
    assert (header.codec, header.width, header.num_frames) == ("h264", 128, None)


def test_title_need_not_be_utf8(recorded_v21: Path, tmp_path: Path) -> None:
    path = copied(recorded_v21, tmp_path / "titled.mp4", title="kueche")
    path.write_bytes(path.read_bytes().replace(b"kueche", b"k\xfcche "))
    assert read_header(path).num_frames == 7


def test_video_cut_off_at_any_byte_is_refused(recorded_v21: Path, tmp_path: Path) -> None:
    content = min(recorded_v21.rglob("*.mp4")).read_bytes()
    path = tmp_path / "cut.mp4"
    for stop in range(0, len(content), max(1, len(content) // 60)):
        path.write_bytes(content[:stop])
        with pytest.raises(MediaError) as caught:
            read_header(path)
        assert caught.value.code in ("video_empty", "video_truncated", "video_unreadable")
    path.write_bytes(content)
    read_header(path)


def test_folder_in_place_of_a_video_is_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="file_missing"):
        read_header(tmp_path)


@pytest.mark.parametrize("seed", range(8))
def test_corrupt_index_is_read_or_refused_but_never_crashes(seed: int, recorded_v21: Path, tmp_path: Path) -> None:
    content = min(recorded_v21.rglob("*.mp4")).read_bytes()
    random = np.random.default_rng(seed)
    path = tmp_path / "nonsense.mp4"
    for _ in range(25):
        spoiled = bytearray(content)
        for place in random.integers(content.index(b"moov") - 4, len(content), 4):
            spoiled[place] = random.choice([0, 1, 0x7F, 0xFF, spoiled[place] ^ 0x10])
        path.write_bytes(spoiled)
        with contextlib.suppress(MediaError):
            read_header(path)


def test_file_that_only_starts_like_an_mp4_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "nonsense.mp4"
    path.write_bytes(b"\0\0\0\4ftypisom" + bytes(100))
    with pytest.raises(MediaError, match="video_truncated"):
        read_header(path)


GRAY = np.full((48, 64, 3), 128, np.uint8)


def test_ordinary_video_needs_no_change_by_a_player(tmp_path: Path) -> None:
    assert read_header(encode_video(tmp_path / "video.mp4", [GRAY])).player_changes == ()


def test_pixels_that_are_not_square_are_reported(tmp_path: Path) -> None:
    path = encode_video(tmp_path / "video.mp4", [GRAY], sample_aspect_ratio=Fraction(4, 3))
    header = read_header(path)
    assert header.player_changes == ("pixels of 4:3, which players stretch to squares",)
    assert (header.height, header.width) == (48, 64)


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
def test_hdr_is_reported(transfer: int, name: str, tmp_path: Path) -> None:
    path = encode_video(
        tmp_path / "video.mp4", [GRAY], codec="libx265", pixel_format="yuv420p10le", color_trc=transfer, colorspace=9
    )
    assert read_header(path).player_changes == (f"HDR colors ({name}), which players tone-map",)


def test_cut_by_the_container_is_reported(tmp_path: Path) -> None:
    path = encode_video(tmp_path / "video.mp4", [GRAY])
    add_clean_aperture(path, 60, 40)
    assert read_header(path).player_changes == ("frames that players cut to 60x40",)
    add_clean_aperture(encode_video(path, [GRAY]), 64, 48)
    assert read_header(path).player_changes == ()


def test_cut_by_the_stream_is_applied(tmp_path: Path) -> None:
    path = encode_video(tmp_path / "video.mp4", [np.full((50, 66, 3), 128, np.uint8)])  # coded as 64x80
    assert (read_header(path).height, read_header(path).width) == (50, 66)


@pytest.fixture
def absurd(tmp_path: Path) -> Path:
    """A video whose table of times claims four billion entries, for which FFmpeg reports that memory ran out."""
    path = encode_video(tmp_path / "video.mp4", [GRAY] * 2)
    content = bytearray(path.read_bytes())
    start = content.index(b"stts") + 8
    content[start : start + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    return path


def test_absurd_count_is_damage_and_no_lack_of_memory(absurd: Path) -> None:
    with pytest.raises(MediaError, match="video_unreadable: .*Cannot allocate memory"):
        read_header(absurd)
    reader = VideoReader(absurd.parent, absurd.name, 1, sparse=False)
    with pytest.raises(MediaError, match="decode_error: .*sizes that no memory holds"):
        list(reader.frames(0.0, 0, 30.0))


def test_lack_of_memory_is_not_damage(absurd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "available_memory_bytes", lambda: 1 << 20)
    with pytest.raises(MemoryError):
        read_header(absurd)
    with pytest.raises(MemoryError):
        list(VideoReader(absurd.parent, absurd.name, 1, sparse=False).frames(0.0, 0, 30.0))


@pytest.mark.skipif(sys.platform != "linux", reason="macOS does not enforce the limit")
def test_a_limit_on_address_space_is_not_damage() -> None:
    code = """
import resource
from lewm_data.source.media import lacks_memory
print(lacks_memory())
_, hard = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (int(open("/proc/self/statm").read().split()[0]) * 4096 + (1 << 27), hard))
print(lacks_memory())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


@pytest.mark.parametrize("spoil", [lambda content: content.replace(b"vide", b"soun"), lambda content: b"\0" * 64])
def test_video_that_was_replaced_after_inspection_is_an_error_of_the_media(
    spoil: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    path = encode_video(tmp_path / "video.mp4", [GRAY] * 2)
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises((MediaError, av.FFmpegError)):
        list(VideoReader(tmp_path, path.name, 1, sparse=False).frames(0.0, 0, 30.0))


READ_FAILS = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Reading beyond byte FAIL_AT of a video fails with error number FAIL_WITH. */
ssize_t read(int descriptor, void *buffer, size_t count) {
    ssize_t (*original)(int, void *, size_t) = dlsym(RTLD_NEXT, "read");
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    path[length < 0 ? 0 : length] = 0;
    if (strstr(path, "failing.")) {
        off_t here = lseek(descriptor, 0, SEEK_CUR), limit = atol(getenv("FAIL_AT"));
        if (here >= limit) { errno = atoi(getenv("FAIL_WITH")); return -1; }
        if (here + (off_t)count > limit) count = limit - here;
    }
    return original(descriptor, buffer, count);
}
"""

DECODE = """
import sys
from pathlib import Path
import numpy as np
from lewm_data.source.decode import Decoder, DecodeJob
path = Path(sys.argv[1])
job = DecodeJob(
    episode=0, column="pixels", camera="front", file=path.name, is_image=False, start_seconds=0.0, first_row=0,
    timestamps=np.arange(40) / 30, fps=30,
)
try:
    with Decoder(path.parent, threads=1, batch_rows=16) as decoder:
        *_, end = decoder.run(job)
    print("damaged", end.num_frames, *(found.code for found in end.findings))
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.fixture(scope="module")
def failing_reads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("needs Linux and a C compiler")
    folder = tmp_path_factory.mktemp("shim")
    (folder / "shim.c").write_text(READ_FAILS)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / "shim.so", folder / "shim.c", "-ldl"], check=True)
    return folder / "shim.so"


@pytest.mark.parametrize("name", ["EIO", "ESTALE", "ETIMEDOUT", "ENOMEM", "EACCES"])
@pytest.mark.parametrize("kind", ["mp4", "mkv"])  # an MP4 has its index at the end, and FFmpeg only sees it missing
def test_a_failing_read_keeps_its_name_and_is_not_damage(
    kind: str, name: str, failing_reads: Path, tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    path = encode_video(tmp_path / f"failing.{kind}", list(random.integers(0, 256, (40, 48, 64, 3), np.uint8)))
    environment = {
        **os.environ,
        "LD_PRELOAD": str(failing_reads),
        "FAIL_AT": str(path.stat().st_size // 2),
        "FAIL_WITH": str(getattr(errno, name)),
    }
    done = subprocess.run(
        [sys.executable, "-c", DECODE, str(path)], env=environment, capture_output=True, text=True, check=True
    )
    assert f"({name})" in done.stdout
    assert "damaged" not in done.stdout


def test_video_that_is_really_damaged_stays_a_finding(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    path = encode_video(tmp_path / "video.mkv", list(random.integers(0, 256, (40, 48, 64, 3), np.uint8)))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    done = subprocess.run([sys.executable, "-c", DECODE, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("damaged ")
    assert "decode_error" in done.stdout or "video_frames_short" in done.stdout
