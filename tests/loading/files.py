"""Files of format version 1, written with plain h5py and hdf5plugin: an oracle that shares no code with the package."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
from PIL import Image

from lewm_data.format.header import FileHeader, SourceRecord

CODECS = ("lzf", "none", "lz4", "zstd", "blosc2", "jpeg")
LIBVER = ("v110", "v110")


@dataclass
class Written:
    """A file and what was put into it."""

    path: Path
    lengths: np.ndarray
    data: dict[str, np.ndarray]

    @property
    def offsets(self) -> np.ndarray:
        return np.cumsum(self.lengths) - self.lengths

    def window(self, episode: int, start: int, num_steps: int, frameskip: int) -> dict[str, np.ndarray]:
        """One window by the definition in schema.py, frames as (T, H, W, 3)."""
        first = self.offsets[episode] + start
        rows = slice(first, first + num_steps * frameskip)
        window = {}
        for name, values in self.data.items():
            taken = values[rows]
            if name == "action":
                window[name] = taken.reshape(num_steps, -1)
            elif name == "done":
                window[name] = taken.reshape(num_steps, frameskip).any(1)
            elif name not in ("episode_idx", "step_idx"):
                window[name] = taken[::frameskip]
        return window

    def starts(self, span: int) -> list[tuple[int, int]]:
        """Every (episode, first step) in which a window fits, in order."""
        return [(e, s) for e, length in enumerate(self.lengths) for s in range(length - span + 1)]


def make_frames(num: int, height: int, width: int, seed: int) -> np.ndarray:
    """Smooth frames, with every seventh pure noise (which no codec shrinks) and every eleventh black."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 150, height)[:, None, None] + np.linspace(0, 60, width)[None, :, None]
    frames = (ramp[None] + rng.integers(0, 40, (num, 1, 1, 3))).astype(np.uint8)
    frames[::7] = rng.integers(0, 256, frames[::7].shape, dtype=np.uint8)
    frames[3::11] = 0
    return frames


def make_data(lengths: Any, height: int = 24, width: int = 20, cameras: Any = (), seed: int = 0) -> dict:
    rng = np.random.default_rng(seed)
    lengths = np.asarray(lengths)
    num = int(lengths.sum())
    ends = np.cumsum(lengths[lengths > 0]) - 1
    data: dict[str, np.ndarray] = {"pixels": make_frames(num, height, width, seed)}
    for i, camera in enumerate(cameras):
        data[f"pixels_{camera}"] = make_frames(num, height // 2, width, seed + 1 + i)
    data["action"] = rng.normal(3, 2, (num, 2)).astype(np.float32)
    data["state"] = rng.normal(-1, 5, (num, 3)).astype(np.float32)
    data["done"] = np.isin(np.arange(num), ends)
    data["episode_idx"] = np.repeat(np.arange(len(lengths)), lengths).astype(np.int32)
    data["step_idx"] = np.concatenate([np.arange(n) for n in lengths]).astype(np.int32)
    return data


def sources(repo_id: str, num_episodes: int) -> tuple[SourceRecord, ...]:
    return (SourceRecord(repo_id=repo_id, revision=None, codebase_version="v3.0", episodes=tuple(range(num_episodes))),)


def header(codec: str, num_episodes: int, height: int, width: int, **given: Any) -> dict[str, Any]:
    attributes = FileHeader(
        lewm_data_version="0.1.0",
        sources=sources("me/test", num_episodes),
        fps=10.0,
        cameras={"pixels": "observation.images.top"},
        image_height=height,
        image_width=width,
        resize="stretch",
        compression=codec,
        lossy_quality=90 if codec == "jpeg" else 0,
        done_source="last_step",
        fingerprint="abc",
    )
    return dataclasses.replace(attributes, **given).to_attributes()


def filters(codec: str) -> dict[str, Any]:
    """What h5py's create_dataset takes for a codec."""
    return {
        "lzf": {"compression": "lzf"},
        "none": {},
        "lz4": dict(hdf5plugin.LZ4()),
        "zstd": dict(hdf5plugin.Zstd(clevel=1)),
        "blosc2": dict(hdf5plugin.Blosc2()),
        "jpeg": {"compression": 32019, "allow_unknown_filter": True},
    }[codec]


def jpeg(frame: np.ndarray) -> bytes:
    """A frame as a JPEG stream, by Pillow."""
    stream = io.BytesIO()
    Image.fromarray(frame).save(stream, "JPEG", quality=90, subsampling=0)
    return stream.getvalue()


def cframe(frame: np.ndarray) -> bytes:
    """A frame as lewm_data's own writer stores it under filter 32026."""
    import blosc2

    cparams = {
        "codec": blosc2.Codec.ZSTD,
        "clevel": 1,
        "typesize": 3,
        "filters": [blosc2.Filter.SHUFFLE, blosc2.Filter.BYTEDELTA],
        "filters_meta": [0, 0],
        "nthreads": 1,
    }
    return blosc2.SChunk(chunksize=frame.nbytes, data=frame, cparams=cparams, contiguous=True).to_cframe()


def fletcher32(data: bytes) -> bytes:
    """HDF5's H5_checksum_fletcher32, written out from its C source."""
    sum1 = sum2 = 0
    for high, low in zip(data[0 : len(data) // 2 * 2 : 2], data[1::2], strict=True):
        sum1 += high << 8 | low
        sum2 += sum1
    if len(data) % 2:
        sum1 += data[-1] << 8
        sum2 += sum1

    def fold(x: int) -> int:  # the one representative of its class modulo 65535 that HDF5's folding gives
        return 0 if x == 0 else (x - 1) % 65535 + 1

    return (fold(sum2) << 16 | fold(sum1)).to_bytes(4, "little")


def write(
    path: Path,
    lengths: Any = (30, 25, 7, 21),
    *,
    codec: str = "lzf",
    checksum: bool = True,
    ours: bool = True,
    cframes: bool = True,
    frame_chunks: tuple[int, ...] | None | str = "frame",
    height: int = 24,
    width: int = 20,
    cameras: Any = (),
    extra: dict[str, np.ndarray] | None = None,
    frame_filters: dict[str, Any] | None = None,
    libver: Any = LIBVER,
    userblock_size: int = 0,
    seed: int = 0,
    **attributes: Any,
) -> Written:
    lengths = np.asarray(lengths)
    data = make_data(lengths, height, width, cameras, seed) | (extra or {})
    with h5py.File(path, "w", libver=libver, userblock_size=userblock_size) as file:
        for name, values in data.items():
            if not name.startswith("pixels"):
                file.create_dataset(name, data=values)
                continue
            chunks = (1, *values.shape[1:]) if frame_chunks == "frame" else frame_chunks
            options = filters(codec) if frame_filters is None else frame_filters
            if codec == "jpeg":
                options = {**options, "compression_opts": (90, values.shape[2], values.shape[1], 1)}
            frames = file.create_dataset(
                name, values.shape, values.dtype, chunks=chunks, fletcher32=checksum or None, **options
            )
            if (codec == "blosc2" and cframes) or codec == "jpeg":
                for row, frame in enumerate(values):
                    stored = jpeg(frame) if codec == "jpeg" else cframe(frame)
                    mask = 0
                    if len(stored) >= frame.nbytes:
                        stored, mask = frame.tobytes(), 1
                    elif codec == "jpeg":
                        values[row] = np.asarray(Image.open(io.BytesIO(stored)))
                    stored += fletcher32(stored) if checksum else b""
                    frames.id.write_direct_chunk((row, 0, 0, 0), stored, mask)
            else:
                frames[:] = values
        file["ep_len"] = lengths.astype(np.int32)
        file["ep_offset"] = (np.cumsum(lengths) - lengths).astype(np.int64)
        if ours:
            file.attrs.update(header(codec, len(lengths), height, width, **attributes))
    return Written(path, lengths, data)


def write_virtual(path: Path, shards: Sequence[Written]) -> Written:
    """Writes a virtual file next to its shards. Every column is a virtual dataset, as other programs make them."""
    lengths = np.concatenate([shard.lengths for shard in shards])
    data = {name: np.concatenate([shard.data[name] for shard in shards]) for name in shards[0].data}
    with h5py.File(path, "w") as file:
        for name, values in data.items():
            layout = h5py.VirtualLayout(values.shape, values.dtype)
            row = 0
            for shard in shards:
                part = shard.data[name]
                layout[row : row + len(part)] = h5py.VirtualSource(shard.path.name, name, part.shape)
                row += len(part)
            file.create_virtual_dataset(name, layout)
        file["ep_len"] = lengths.astype(np.int32)
        file["ep_offset"] = (np.cumsum(lengths) - lengths).astype(np.int64)
        file.attrs.update(header("lzf", len(lengths), *data["pixels"].shape[1:3]))
    return Written(path, lengths, data)


def damage(path: Path, row: int, column: str = "pixels", byte: int | None = None) -> None:
    """Flips one bit in the middle of a stored frame."""
    with h5py.File(path, "r") as file:
        info = file[column].id.get_chunk_info_by_coord((row, 0, 0, 0))
    with open(path, "r+b") as file:
        place = info.byte_offset + (info.size // 2 if byte is None else byte)
        file.seek(place)
        old = file.read(1)[0]
        file.seek(place)
        file.write(bytes([old ^ 0x10]))
