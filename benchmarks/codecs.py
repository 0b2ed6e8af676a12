"""How small, and how fast? Every codec of the file, on camera-like frames and on drawn ones.

One thread; the frames are in memory, and so is what is stored: no disk, no HDF5. Encoding is what the conversion does
with a frame, its checksum included; decoding is what the loader does. What is decoded is compared with the frame. JPEG,
which stable-worldmodel's Lance stores, stands beside them with what it loses.

    python benchmarks/codecs.py            the camera-like video is recorded at the first run
    python benchmarks/codecs.py --full     more frames, more rounds
    python benchmarks/codecs.py --quick    small and short: to see that it works, not to believe its numbers
    python benchmarks/codecs.py --source DATASET --camera NAME     frames of your own: from these you choose best
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

if not __package__:  # run as a script, whose folder would hide other packages' datasets and codecs
    sys.path[0] = str(Path(__file__).parents[1])

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from benchmarks import codecs_report as report
from benchmarks.comparison import psnr_db
from benchmarks.datasets import SYNTHETIC, decoded_frames, log, recorded
from benchmarks.harness import Clock, interleave
from benchmarks.results import Run, Sizes, make_parser, parse
from benchmarks.scenes import cartoon
from benchmarks.synthetic import STANDARD, Recording
from benchmarks.words import show
from lewm_data.config import COMPRESSIONS
from lewm_data.format.codecs import ChunkCodec, encoder

JPEG = "jpeg"
_JPEG_QUALITY = 95

SIZES: Sizes = {
    "quick": {"frames": 4, "rounds": 1, "seconds": 0.0, "side": 64,
              "recording": Recording(num_episodes=1, num_steps=24, height=96, width=128, codec="h264")},
    "bench": {"frames": 64, "rounds": 5, "seconds": 0.2, "side": 224, "recording": STANDARD},
    "full": {"frames": 256, "rounds": 11, "seconds": 1.0, "side": 224, "recording": Recording(num_episodes=1,
                                                                                               num_steps=1200)},
}  # fmt: skip

type Frames = NDArray[np.uint8]
"""(n, H, W, 3)."""


class Stored(NamedTuple):
    """A frame as a codec stores it: the bytes, and HDF5's filter mask (see ``lewm_data.format.codecs``)."""

    data: bytes
    filter_mask: int


class Codec(NamedTuple):
    """A codec under test.

    Attributes:
        encode: One frame to what is stored.
        decode: What is stored into a frame's memory, (H, W, 3) uint8.
    """

    encode: Callable[[Frames], Stored]
    decode: Callable[[Stored, Frames], None]


def make_codec(name: str) -> Codec:
    """A codec of the file as conversion and loader use it, or ``jpeg``."""
    if name == JPEG:

        def decode_jpeg(stored: Stored, out: Frames) -> None:
            imagecodecs.jpeg8_decode(stored.data, out=out)

        return Codec(lambda frame: Stored(bytes(imagecodecs.jpeg8_encode(frame, level=_JPEG_QUALITY)), 0), decode_jpeg)
    encode = encoder(name)  # type: ignore[arg-type]
    stored_as = ChunkCodec(name, has_checksum=True)

    def decode(stored: Stored, out: Frames) -> None:
        stored_as.decode(memoryview(stored.data), stored.filter_mask, out.reshape(-1))

    return Codec(lambda frame: Stored(*encode(frame)), decode)


def rate(work: Callable[[int], Any], count: int, seconds: float, clock: Clock = time.perf_counter) -> float:
    """How often per second something can be done.

    Args:
        work: Does it to one of ``count`` things.
        count: All of them are gone through, again and again.
        seconds: Go on for at least so long.
        clock: Seconds of wall time.

    Returns:
        Things per second.
    """
    began, done = clock(), 0
    while True:
        for number in range(count):
            work(number)
        done += count
        if (elapsed := clock() - began) >= seconds and elapsed > 0:
            return done / elapsed


def measure(contents: dict[str, Frames], names: Sequence[str], num_rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Measures every codec on every content, interleaved.

    Args:
        contents: What the frames show, to the frames.
        names: The codecs.
        num_rounds: Rounds; each counts encoding and decoding.
        seconds: Each for at least so long.

    Returns:
        A row for each pair: ``codec``, ``content``, ``bytes_per_frame``, ``raw_bytes``, frames per second round by
        round, and ``psnr_db`` (None: equal).

    Raises:
        SystemExit: A lossless codec returned another frame.
    """
    codecs = {name: make_codec(name) for name in names}
    cases = {f"{content} {name}": (content, name) for content in contents for name in names}
    rows: dict[str, dict[str, Any]] = {}
    kept: dict[str, list[Stored]] = {}
    for case, (content, name) in cases.items():
        frames = contents[content]
        stored = kept[case] = [codecs[name].encode(frame) for frame in frames]
        rows[case] = {
            "codec": name,
            "content": content,
            "bytes_per_frame": round(sum(len(chunk.data) for chunk in stored) / len(stored)),
            "raw_bytes": frames[0].nbytes,
            "psnr_db": _check(case, codecs[name], stored, frames),
            "encode_fps": [],
            "decode_fps": [],
        }
    for number, order in enumerate(interleave(list(cases), num_rounds)):
        for case in order:
            content, name = cases[case]
            codec, frames, stored = codecs[name], contents[content], kept[case]
            out = np.empty_like(frames[0])
            encode_fps = rate(lambda i: codec.encode(frames[i]), len(frames), seconds)  # noqa: B023
            decode_fps = rate(lambda i: codec.decode(stored[i], out), len(frames), seconds)  # noqa: B023
            rows[case]["encode_fps"].append(round(encode_fps, 1))
            rows[case]["decode_fps"].append(round(decode_fps, 1))
            log(f"round {number + 1} of {num_rounds}, {case}: {encode_fps:,.0f} and {decode_fps:,.0f} frames/s")
    return list(rows.values())


def _check(case: str, codec: Codec, stored: Sequence[Stored], frames: Frames) -> float | None:
    out = np.empty_like(frames)
    for chunk, place in zip(stored, out, strict=True):
        codec.decode(chunk, place)
    if np.array_equal(out, frames):
        return None
    if not case.endswith(JPEG):
        raise SystemExit(f"{case} does not return the frames that it was given")
    return round(psnr_db(out, frames), 2)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints the table, and writes JSON and chart."""
    parser = make_parser(__doc__)
    parser.add_argument("--source", default=SYNTHETIC, help="LeRobot v3.0 dataset (recorded for the purpose)")
    parser.add_argument("--camera", default="front", help="its camera")
    parser.add_argument("--frames", type=int, help="frames of each content (64; full 256)")
    parser.add_argument("--side", type=int, help="side of a frame, in pixels (224)")
    parser.add_argument("--rounds", type=int, help="rounds of each (5; full 11)")
    parser.add_argument("--seconds", type=float, help="seconds of encoding, and of decoding, in a round (0.2; full 1)")
    options = parse(parser, arguments, name=report.NAME, sizes=SIZES)
    this = Run(report.NAME, options.form, "imagecodecs", "blosc2")
    synthetic = options.source == SYNTHETIC
    source = recorded(options.data, [options.recording])[0] if synthetic else Path(options.source).resolve()
    keywords = {"side": options.side, "num_frames": options.frames}
    contents = {
        report.CAMERA: decoded_frames(source, options.camera, **keywords, folder=options.data),
        report.DRAWN: np.stack([cartoon(step, options.side, options.side) for step in range(options.frames)]),
    }
    rows = measure(contents, [*COMPRESSIONS, JPEG], options.rounds, options.seconds)
    measured = {"source": source.name, "side": options.side, "repeats": options.rounds, "rows": rows}
    result = this.finish(options.output, measured)
    report.draw(result, options.output.parent)
    print(show(report.blocks(result)))


if __name__ == "__main__":
    main()
