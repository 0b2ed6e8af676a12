"""How small, and how fast? Every codec of the file, on camera-like frames and on drawn ones.

One thread; frames and stored bytes are in memory, without a disk or HDF5. Encoding is what the conversion does with a
frame, its checksum included; decoding is what the loader does. Decoded frames are compared with the originals: those of
the lossy codecs, ours and the JPEG of stable-worldmodel's Lance, by PSNR.

    python -m benchmarks.codecs            the first run records the camera-like video
    python -m benchmarks.codecs --full     more frames, more rounds
    python -m benchmarks.codecs --quick    small and short: shows that it works; its numbers mean nothing
    python -m benchmarks.codecs --source DATASET --camera NAME     your frames: the best basis for a choice
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from benchmarks.blocks import CAMERA, DRAWN
from benchmarks.comparison import psnr_db
from benchmarks.datasets import SYNTHETIC, decoded_frames, source_folder
from benchmarks.harness import Clock, interleaved
from benchmarks.runner import Benchmark, Option
from benchmarks.scenes import cartoon
from benchmarks.synthetic import LONG, STANDARD, TINY
from lewm_data.config import COMPRESSIONS
from lewm_data.format.codecs import CODECS, ChunkCodec, StoredChunk, encoder

LANCE_JPEG = "Lance's jpeg"
_LANCE_QUALITY = 95

OPTIONS = {
    "source": Option("LeRobot v3.0 dataset", SYNTHETIC),
    "camera": Option("the camera", "front"),
    "frames": Option("frames of each kind", 4, 64, 256),
    "side": Option("side of a frame, in pixels", 64, 224, 224),
    "rounds": Option("rounds of each codec", 1, 5, 11),
    "seconds": Option("least seconds of encoding, and of decoding, in a round", 0.0, 0.2, 1.0),
    "recording": Option("", TINY, STANDARD, LONG),
}

type Frames = NDArray[np.uint8]
"""(n, H, W, 3)."""


class Codec(NamedTuple):
    """Encodes one frame, and decodes a stored one into memory of shape (H, W, 3) uint8."""

    encode: Callable[[Frames], StoredChunk]
    decode: Callable[[StoredChunk, Frames], Any]


def make_codec(name: str) -> Codec:
    """A codec of the file as conversion and loader use it, or Lance's JPEG."""
    if name == LANCE_JPEG:
        return Codec(
            lambda frame: StoredChunk(bytes(imagecodecs.jpeg8_encode(frame, level=_LANCE_QUALITY)), 0),
            lambda stored, out: imagecodecs.jpeg8_decode(stored.data, out=out),
        )
    chunk = ChunkCodec(name, has_checksum=True)
    return Codec(
        encoder(name),  # type: ignore[arg-type]
        lambda stored, out: chunk.decode(memoryview(stored.data), stored.filter_mask, out.reshape(-1)),
    )


def rate(work: Callable[[int], Any], count: int, seconds: float, clock: Clock = time.perf_counter) -> float:
    """Calls ``work`` with 0 to ``count`` - 1, again and again for at least ``seconds``; returns calls per second."""
    began, done = clock(), 0
    while True:
        for number in range(count):
            work(number)
        done += count
        if (elapsed := clock() - began) >= seconds and elapsed > 0:
            return done / elapsed


def measure_codecs(
    contents: Mapping[str, Frames], codecs: Mapping[str, Codec], num_rounds: int, seconds: float
) -> list[dict[str, Any]]:
    """Measures every codec on every kind of frames, interleaved; ends the run if a lossless codec changes a frame."""
    cases = [(content, name) for content in contents for name in codecs]
    kept = {case: [codecs[case[1]].encode(frame) for frame in contents[case[0]]] for case in cases}

    def measure(case: tuple[str, str]) -> tuple[float, float]:
        (content, name), stored = case, kept[case]
        frames, codec = contents[content], codecs[name]
        out = np.empty_like(frames[0])
        encode_fps = rate(lambda number: codec.encode(frames[number]), len(frames), seconds)
        return encode_fps, rate(lambda number: codec.decode(stored[number], out), len(frames), seconds)

    decibels = {case: _check(case, codecs[case[1]], kept[case], contents[case[0]]) for case in cases}
    return [
        {
            "codec": case[1],
            "content": case[0],
            "bytes_per_frame": round(sum(len(chunk.data) for chunk in kept[case]) / len(kept[case])),
            "raw_bytes": contents[case[0]][0].nbytes,
            "psnr_db": decibels[case][0],
            "worst_psnr_db": decibels[case][1],
            "encode_fps": [round(encode_fps, 1) for encode_fps, _ in done],
            "decode_fps": [round(decode_fps, 1) for _, decode_fps in done],
        }
        for case, done in interleaved(cases, num_rounds, measure).items()
    ]


def _check(
    case: tuple[str, str], codec: Codec, stored: Sequence[StoredChunk], frames: Frames
) -> tuple[float | None, float | None]:
    """PSNR of all decoded frames together, and of the worst one; None if all are equal."""
    out = np.empty_like(frames)
    for chunk, place in zip(stored, out, strict=True):
        codec.decode(chunk, place)
    if np.array_equal(out, frames):
        return None, None
    if case[1] in CODECS and CODECS[case[1]].is_lossless:
        raise SystemExit(f"{case[1]} changes {case[0]} frames, but must be lossless")
    worst = min(psnr_db(given, wanted) for given, wanted in zip(out, frames, strict=True))
    return round(psnr_db(out, frames), 2), round(worst, 2)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measures every codec on both kinds of frames."""
    source = source_folder(options)
    sizes = {"side": options.side, "num_frames": options.frames}
    contents = {
        CAMERA: decoded_frames(source, options.camera, **sizes, folder=options.data),
        DRAWN: np.stack([cartoon(step, options.side, options.side) for step in range(options.frames)]),
    }
    codecs = {name: make_codec(name) for name in (*COMPRESSIONS, LANCE_JPEG)}
    rows = measure_codecs(contents, codecs, options.rounds, options.seconds)
    return {"source": source.name, "side": options.side, "repeats": options.rounds, "rows": rows}


BENCHMARK = Benchmark(
    name="codecs", doc=__doc__, options=OPTIONS, measure=measure, distributions=("imagecodecs", "blosc2")
)
main = BENCHMARK.main

if __name__ == "__main__":
    main()
