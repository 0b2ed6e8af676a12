"""Decodes a handful of real frames to learn their size, how well they compress and how fast decoding is."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lewm_data.config import ConvertConfig
from lewm_data.conversion.plan import Sample
from lewm_data.errors import UsageError
from lewm_data.findings import Finding
from lewm_data.format.codecs import encoder
from lewm_data.notation import parse_image_size
from lewm_data.resources import Progress
from lewm_data.source.decode import DecodedFrame, Decoder
from lewm_data.source.episodes import EpisodeReader
from lewm_data.source.metadata import Episode, LeRobotDataset
from lewm_data.source.scale import Scaler

_FRAMES_PER_EPISODE = 16


class SampleResult(NamedTuple):
    """What a few frames show.

    Attributes:
        size: (height, width) of the stored frames; None if it is the source's own and no frame can be decoded.
        sample: The measurements that a plan needs.
        damage: What decoding found.
    """

    size: tuple[int, int] | None
    sample: Sample
    damage: list[Finding]


def sample_frames(
    dataset: LeRobotDataset,
    reader: EpisodeReader,
    episodes: Sequence[Episode],
    config: ConvertConfig,
    progress: Progress,
) -> SampleResult:
    """Decodes, scales and compresses the first frames of some episodes, from each camera of the reader.

    Args:
        dataset: The dataset.
        reader: Makes the decoding jobs.
        episodes: Which episodes to sample.
        config: The settings.
        progress: Called before each episode.

    Raises:
        UsageError: ``image_size`` is ``native``, but the frames differ in size.
    """
    encode = encoder(config.compression, config.quality)
    wanted = parse_image_size(config.image_size)
    size, source_size = wanted, (0, 0)
    frames, stored, seconds = 0, 0, 0.0
    scaler: Scaler | None = None
    damage: list[Finding] = []
    sizes: dict[tuple[int, int], str] = {}
    with Decoder(dataset.root, threads=config.decode_threads, batch_rows=_FRAMES_PER_EPISODE) as decoder:
        for number, episode in enumerate(episodes):
            progress("a few frames", number, len(episodes))
            timestamps = np.arange(min(_FRAMES_PER_EPISODE, episode.length)) / dataset.fps
            for job in reader.jobs(episode, timestamps):
                started = time.perf_counter()
                for event in decoder.run(job):
                    if not isinstance(event, DecodedFrame):
                        damage += event.findings  # the conversion reports them if it gets that far
                        continue
                    sizes.setdefault(event.size, event.job.file)
                    source_size = max(source_size, event.size)
                    if scaler is None:
                        size = size or event.size
                        scaler, out = Scaler(*size, config.resize), np.empty((*size, 3), np.uint8)
                    scaler.put(event.frame, out, orientation=event.orientation)
                    stored += len(encode(out).data)
                    frames += 1
                seconds += time.perf_counter() - started
    if wanted is None and len(sizes) > 1:
        listed = "; ".join(f"{width}x{height} in {file}" for (height, width), file in sizes.items())
        raise UsageError(f"image_size native, but frames differ in size: {listed}. Choose a size, such as 224.")
    height, width = size or (0, 0)
    return SampleResult(
        size,
        Sample(
            frames=frames,
            bytes_per_frame=stored / frames if frames else float(height * width * 3),
            frames_per_second=frames / seconds if seconds and frames else 1.0,
            source_height=source_size[0],
            source_width=source_size[1],
        ),
        damage,
    )
