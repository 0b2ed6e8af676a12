"""The same frames in every contender's own format, built once and kept in ``benchmarks/data``."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import warnings
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.datasets import once, repeat_dataset
from lewm_data.config import COMPRESSIONS
from lewm_data.format.schema import ACTION, PIXELS, STATE


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """Where the files of each format are, the camera, the side of the frames in pixels, and their number."""

    folder: Path
    camera: str
    image_size: int
    num_frames: int

    @property
    def lerobot(self) -> Path:
        """The LeRobot dataset that everything was made from."""
        return self.folder / "lerobot"

    @property
    def raw(self) -> Path:
        """Decoded frames, one after another, and nothing else."""
        return self.folder / "frames.raw"

    @property
    def their_hdf5(self) -> Path:
        """stable-worldmodel's own uncompressed HDF5."""
        return self.folder / "stable_worldmodel.h5"

    @property
    def their_lance(self) -> Path:
        """stable-worldmodel's own Lance table."""
        return self.folder / "stable_worldmodel_lance" / "frames.lance"

    def ours(self, codec: str) -> Path:
        """Our file with a codec."""
        return self.folder / f"{codec}.h5"

    def bytes_per_frame(self, path: Path) -> float:
        """Bytes on disk of a file or folder for each frame, links followed."""
        files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
        return sum(file.stat().st_size for file in files) / self.num_frames


def prepare(
    source: Path, data: Path, *, camera: str, num_frames: int, image_size: int, peers: Collection[str] = ()
) -> Prepared:
    """Builds what does not exist yet.

    Args:
        source: A LeRobot v3.0 dataset whose data and videos are in one file each.
        data: Folder for prepared datasets.
        camera: Short name of the camera.
        num_frames: Minimum number of frames; the recording is repeated.
        image_size: Side of the converted frames, in pixels.
        peers: Contenders that take part; ``swm_hdf5`` and ``swm_lance`` need a file of their own.
    """
    info = json.loads((source / "meta" / "info.json").read_text())
    times = max(1, math.ceil(num_frames / info["total_frames"]))
    folder = data / f"{source.name}-{camera}-x{times}-{image_size}"
    folder.mkdir(parents=True, exist_ok=True)
    done = Prepared(folder=folder, camera=camera, image_size=image_size, num_frames=times * info["total_frames"])
    once(done.lerobot, lambda out: repeat_dataset(source.resolve(), out, times, camera=camera))
    once(done.ours("none"), lambda out: _convert(done, out))
    for codec in COMPRESSIONS:
        once(done.ours(codec), lambda out, codec=codec: recode(done.ours("none"), out, codec))  # type: ignore[misc]
    once(done.raw, lambda out: _write_raw(done, out))
    if "swm_hdf5" in peers:
        once(done.their_hdf5, lambda out: _write_their_hdf5(done, out))
    if "swm_lance" in peers:
        once(done.their_lance.parent, lambda out: _write_their_lance(done, out / done.their_lance.name))
    return done


def _convert(prepared: Prepared, out: Path) -> None:
    from lewm_data.config import ConvertConfig
    from lewm_data.conversion.pipeline import convert

    config = ConvertConfig(camera=prepared.camera, compression="none", image_size=prepared.image_size)
    convert(str(prepared.lerobot), out, config)
    shutil.rmtree(out.with_name(out.name + ".partial"), ignore_errors=True)


def recode(source: Path, out: Path, codec: str) -> None:
    """Writes a file again with another codec, as a conversion would, without decoding the video again."""
    import h5py

    from lewm_data.conversion.merge import file_shape
    from lewm_data.format.codecs import settle_quality
    from lewm_data.format.header import FileHeader
    from lewm_data.format.schema import EP_LEN, is_value
    from lewm_data.format.writer import FileWriter

    with h5py.File(source) as file:
        header = FileHeader.from_attributes(file.attrs, path=str(source))
        quality = settle_quality(codec, None)  # type: ignore[arg-type]
        header = dataclasses.replace(header, compression=codec, lossy_quality=quality)
        shape = file_shape(file, header)
        with FileWriter(out, shape, num_rows=len(file[PIXELS])) as writer:
            start = 0
            for length in file[EP_LEN][:].tolist():
                rows = slice(start, start + length)
                writer.write_rows({name: file[name][rows] for name in file if is_value(name)})
                chunks = (writer.encode(frame).result() for frame in file[PIXELS][rows])
                writer.write_chunks(PIXELS, chunks, start=0)
                writer.end_episode(length)
                start += length
            writer.finish(header)


def _write_raw(prepared: Prepared, out: Path) -> None:
    import h5py

    with h5py.File(prepared.ours("none")) as file, open(out, "wb") as raw:
        for row in range(0, prepared.num_frames, 256):
            raw.write(file[PIXELS][row : row + 256].tobytes())


def _episodes(prepared: Prepared) -> Iterator[dict[str, Any]]:
    """Episodes in the form that stable-worldmodel's writers take."""
    import h5py

    with h5py.File(prepared.ours("none")) as file:
        for start, length in zip(file["ep_offset"][:], file["ep_len"][:], strict=True):
            yield {name: list(file[name][start : start + length]) for name in (PIXELS, ACTION, STATE)}


def _write_their_hdf5(prepared: Prepared, out: Path) -> None:
    with warnings.catch_warnings(action="ignore"):
        from stable_worldmodel.data.formats.hdf5 import HDF5Writer
    with HDF5Writer(out, mode="overwrite") as writer:
        writer.write_episodes(_episodes(prepared))


def _write_their_lance(prepared: Prepared, out: Path) -> None:
    with warnings.catch_warnings(action="ignore"):
        from stable_worldmodel.data.formats.lance import LanceWriter
    with LanceWriter(out, mode="overwrite") as writer:
        writer.write_episodes(_episodes(prepared))
