"""How true are resized colors, and what do they cost? Every codec and pixel format that cameras record.

The reference is PyAV's RGB of the whole frame, in which each output pixel is the exact average of its area. Errors are
differences to it (of 255), over colored blocks and stripes six pixels wide. Speed is that of decoding and scaling
together, over that of decoding alone, with the threads of the conversion: the decoder works ahead of the scaler.

    python -m benchmarks.chroma                  under a minute
    python -m benchmarks.chroma --quick          shows that it works; its numbers mean nothing
    python -m benchmarks.chroma --video FILE     measures the speed on the frames of a 640x480 video of yours
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import torch
from torchvision.transforms.v2.functional import resize  # type: ignore[import-untyped]

from benchmarks.harness import interleaved, log, ratios
from benchmarks.runner import Benchmark, Option
from lewm_data.background import Prefetcher
from lewm_data.conversion.plan import READ_AHEAD_BYTES
from lewm_data.source.decode import num_decode_threads
from lewm_data.source.scale import SCALER_VERSIONS, Scaler

OPTIONS = {
    "video": Option("frames for the speed, 640x480 (drawn by default)", None, type=Path),
    "frames": Option("frames of a round", 8, 200, 200),
    "rounds": Option("rounds of each contender", 1, 5, 5),
}
HEIGHT, WIDTH, SIDE = 480, 640, 224
FORMATS = (
    ("libsvtav1", "yuv420p"), ("libsvtav1", "yuv420p10le"), ("libx264", "yuv420p"), ("libx264", "yuvj420p"),
    ("libx264", "yuv422p"), ("libx264", "yuv444p"), ("libx265", "yuv420p"), ("libx265", "yuv420p10le"),
    ("libx265", "gray"), ("libvpx-vp9", "yuv420p"), ("mjpeg", "yuvj422p"), ("libx264rgb", "rgb24"),
)  # fmt: skip
SPEED = {
    "libsvtav1": {"g": "2", "crf": "30", "preset": "12"},  # LeRobot's settings
    "libx264": {"g": "2", "crf": "23", "preset": "veryfast", "bf": "0"},
}

type Picture = np.ndarray
"""uint8 RGB, (H, W, 3)."""


class Rate(NamedTuple):
    """Frames per second, and processor seconds per frame."""

    fps: float
    cpu_seconds: float


def colored_blocks() -> Picture:
    """Blocks of random colors, and stripes of red and blue across the upper third."""
    random = np.random.default_rng(0)
    picture = np.full((HEIGHT, WIDTH, 3), 235, np.uint8)
    for _ in range(60):
        left, top, side = random.integers(0, 600), random.integers(0, 440), random.integers(10, 60)
        picture[top : top + side, left : left + side] = random.integers(0, 256, 3)
    is_red = np.arange(WIDTH) // 6 % 2 == 0
    picture[: HEIGHT // 3, is_red], picture[: HEIGHT // 3, ~is_red] = (200, 60, 60), (60, 60, 200)
    return picture


def moving_blocks(num_frames: int) -> Iterator[Picture]:
    """The same, moving, with the noise of a sensor."""
    random = np.random.default_rng(1)
    noise = random.normal(0, 4, (8, HEIGHT, WIDTH, 3)).astype(np.int16)
    scene = colored_blocks()
    for number in range(num_frames):
        yield (np.roll(scene, 2 * number, axis=1) + noise[number % len(noise)]).clip(0, 255).astype(np.uint8)


def area_average(picture: Picture) -> np.ndarray:
    """The exact average of each output pixel's area, float64, shape (SIDE, SIDE, 3)."""
    rows, columns = _overlaps(HEIGHT), _overlaps(WIDTH)
    return np.einsum("yh,hwc,xw->yxc", rows, picture.astype(np.float64), columns, optimize=True)


def _overlaps(size: int) -> np.ndarray:
    edges = np.arange(SIDE + 1) * size / SIDE
    pixels = np.arange(size)
    return (np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)).clip(0) * SIDE / size


def encode(path: Path, pictures: Iterator[Picture], codec: str, pixel_format: str, options: dict[str, str]) -> None:
    """Encodes pictures at 30 fps."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30, options=options)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, pixel_format
        if pixel_format in ("gray", "yuvj422p"):
            stream.codec_context.color_range = 2
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def decode(path: Path, threads: int) -> Iterator[av.VideoFrame]:
    """Decodes a video."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = threads
        yield from container.decode(stream)


def video_pictures(path: Path) -> Iterator[Picture]:
    """The frames of a video in RGB."""
    for frame in decode(path, num_decode_threads()):
        yield frame.to_ndarray(format="rgb24")


def scaled(frame: av.VideoFrame, version: int) -> Picture:
    """A frame as the conversion stores it."""
    out = np.empty((SIDE, SIDE, 3), np.uint8)
    Scaler(SIDE, SIDE, "stretch", version=version).put(frame, out)
    return out


def antialiased(picture: Picture) -> Picture:
    """Torchvision's antialiased resize."""
    return resize(torch.from_numpy(picture).permute(2, 0, 1), [SIDE, SIDE], antialias=True).permute(1, 2, 0).numpy()


def measure_errors(folder: Path) -> list[dict[str, Any]]:
    """Compares each version of the scaler, and torchvision, with the reference."""
    rows = []
    for codec, pixel_format in FORMATS:
        path = folder / f"{codec}-{pixel_format}.mkv"
        options = {"q": "2"} if codec == "mjpeg" else {"crf": "4"}
        encode(path, iter([colored_blocks()] * 2), codec, pixel_format, options)
        frame = next(decode(path, 1))
        rgb = frame.to_ndarray(format="rgb24").copy()
        reference = area_average(rgb)
        pictures = {f"version {version}": scaled(frame, version) for version in SCALER_VERSIONS}
        errors = {name: np.abs(picture - reference) for name, picture in
                  {**pictures, "torchvision": antialiased(rgb)}.items()}  # fmt: skip
        rows.append(
            {
                "codec": codec,
                "pixel_format": frame.format.name,
                "errors": {
                    name: {"mean": round(float(error.mean()), 3), "max": round(float(error.max()), 1)}
                    for name, error in errors.items()
                },
            }
        )
        log(f"{codec} {pixel_format}: {rows[-1]['errors']}")
    return rows


def measure_rate(path: Path, version: int | None) -> Rate:
    """Decodes a video, and scales it if a version of the scaler is given."""
    out = np.empty((SIDE, SIDE, 3), np.uint8)
    scaler = Scaler(SIDE, SIDE, "stretch", version=version) if version is not None else None
    began, cpu, count = time.perf_counter(), time.process_time(), 0
    frames = Prefetcher[av.VideoFrame](
        decode(path, num_decode_threads()),
        max_in_flight=READ_AHEAD_BYTES,
        size_of=lambda frame: sum(plane.buffer_size for plane in frame.planes),
    )
    with closing(frames):
        for frame in frames:
            count += 1
            if scaler is not None:
                scaler.put(frame, out)
    return Rate(count / (time.perf_counter() - began), (time.process_time() - cpu) / count)


def measure_speed(paths: dict[str, Path], num_rounds: int) -> list[dict[str, Any]]:
    """Times decoding alone, and with each version of the scaler, in interleaved rounds."""
    contenders: dict[str, int | None] = {
        "decode": None,
        **{f"version {version}": version for version in SCALER_VERSIONS},
    }
    cases = list(itertools.product(paths, contenders))
    for codec in paths:
        measure_rate(paths[codec], None)  # warm-up
    done = interleaved(
        cases,
        num_rounds,
        lambda case: measure_rate(paths[case[0]], contenders[case[1]]),
        lambda rate: f"{rate.fps:.0f} frames/s, {1000 * rate.cpu_seconds:.2f} ms of processor time per frame",
    )
    rows = []
    for codec, contender in cases:
        mine, alone = done[codec, contender], done[codec, "decode"]
        rows.append(
            {
                "codec": codec,
                "contender": contender,
                "fps": [round(rate.fps, 1) for rate in mine],
                "cpu_ms_per_frame": [round(1000 * rate.cpu_seconds, 3) for rate in mine],
                "share_of_decode_speed": round(ratios([r.fps for r in mine], [r.fps for r in alone]).median, 3),
                "share_of_decode_cpu": round(
                    ratios([r.cpu_seconds for r in alone], [r.cpu_seconds for r in mine]).median, 3
                ),
            }
        )
    return rows


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Compares colors, then times codecs."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        paths = {codec: folder / f"speed-{codec}.mp4" for codec in SPEED}
        for codec, path in paths.items():
            pictures = video_pictures(options.video) if options.video else moving_blocks(options.frames)
            encode(path, itertools.islice(pictures, options.frames), codec, "yuv420p", SPEED[codec])
        return {
            "side": SIDE,
            "video": options.video.name if options.video else "drawn",
            "frames": options.frames,
            "repeats": options.rounds,
            "threads": num_decode_threads(),
            "errors": measure_errors(folder),
            "speed": measure_speed(paths, options.rounds),
        }


BENCHMARK = Benchmark(name="chroma", doc=__doc__, options=OPTIONS, measure=measure, distributions=("av", "torchvision"))
main = BENCHMARK.main

if __name__ == "__main__":
    main()
