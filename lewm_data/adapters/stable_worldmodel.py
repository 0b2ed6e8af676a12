"""lewm_data's reader for stable-worldmodel: ``load_dataset(path, format="lewm")`` (extra: train).

Importing this module registers the format with stable-worldmodel. Samples equal those of its own HDF5 reader, bit by
bit. This reader is faster because it decodes only the frames that a window keeps, a whole batch at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from stable_worldmodel.data.format import Format, register_format
from stable_worldmodel.data.formats.hdf5 import HDF5Dataset

from lewm_data.errors import UsageError
from lewm_data.format.schema import ACTION, is_pixels
from lewm_data.loading.store import FrameStore

_SUFFIXES = ("*.h5", "*.hdf5")


class LewmDataset(HDF5Dataset):
    """stable-worldmodel's HDF5 dataset, reading through ``lewm_data.loading.store``.

    It supports everything that its base class offers: episodes, chunks, columns, merging, caching. The constructor
    reads small columns into memory.
    """

    def __init__(self, path: str | Path, *, verify_checksums: bool = False, **options: Any) -> None:
        """Opens a file.

        Args:
            path: A converted file, or another one that ``FrameStore`` reads, such as stable-worldmodel's own.
            verify_checksums: Check each frame's checksum as it is read, like stable-worldmodel's reader. Otherwise a
                frame only has to decode.
            **options: Options of ``HDF5Dataset``: ``num_steps``, ``frameskip``, ``transform``, ``keys_to_load``,
                ``keys_to_cache``, ``keys_to_merge``.

        Raises:
            UsageError: There is no such file.
            FormatError: The file is damaged.
        """
        self._store = FrameStore(path, verify_checksums=verify_checksums)
        super().__init__(path=path, **options)
        for name in self._keys:
            if name not in self._cache and not is_pixels(name):
                self._cache[name] = self._store.read_column(name)

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Returns samples by number and reads their frames together; torch's DataLoader calls this."""
        clips = [self.clip_indices[index] for index in indices]
        first_rows = np.array([self.offsets[episode] + start for episode, start in clips], np.int64)
        samples = [self._transformed(sample) for sample in self._read(first_rows, self.span)]
        for sample in samples:
            if ACTION in sample:
                sample[ACTION] = sample[ACTION].reshape(self.num_steps, -1)
        return samples

    def _load_slice(self, ep_idx: int, start: int, end: int) -> dict[str, Any]:
        """See ``stable_worldmodel.data.dataset.Dataset``; all of its reading methods call this."""
        first_rows = np.array([self.offsets[ep_idx] + start], np.int64)
        return self._transformed(self._read(first_rows, end - start)[0])

    def _transformed(self, sample: dict[str, Any]) -> dict[str, Any]:
        return self.transform(sample) if self.transform else sample

    def _read(self, first_rows: NDArray[np.int64], span: int) -> list[dict[str, Any]]:
        """Reads ``span`` rows starting at each first row; returns one dictionary for each."""
        kept_rows = first_rows[:, None] + np.arange(0, span, self.frameskip)
        samples: list[dict[str, Any]] = [{} for _ in first_rows]
        for name in self._keys:
            if name not in self._cache:
                batch = np.empty((*kept_rows.shape, *self._store.columns[name].shape), np.uint8)
                self._store.read_frames(name, kept_rows.reshape(-1), batch.reshape(-1, *batch.shape[2:]))
            elif name == ACTION:
                batch = self._cache[name][first_rows[:, None] + np.arange(span)]
            else:
                batch = self._cache[name][kept_rows]
            for sample, values in zip(samples, batch, strict=True):
                sample[name] = _as_theirs(values)
        return samples


@register_format
class Lewm(Format):
    """The read-only format ``lewm``; pass its name, because the same file is also in the format ``hdf5``."""

    name = "lewm"

    @classmethod
    def detect(cls, path: Any) -> bool:
        """Returns whether a path is a file that lewm_data wrote."""
        if not Path(path).is_file() or not h5py.is_hdf5(path):
            return False
        with h5py.File(path, "r") as file:
            return "lewm_data_version" in file.attrs

    @classmethod
    def open_reader(cls, path: Any, **options: Any) -> LewmDataset:
        """Opens a file, or the only file in a folder, which is how stable-worldmodel stores downloads.

        Raises:
            UsageError: The folder does not hold exactly one HDF5 file.
        """
        path = Path(path)
        if path.is_dir():
            files = sorted(file for suffix in _SUFFIXES for file in path.glob(suffix))
            if len(files) != 1:
                raise UsageError(f"{path}: the folder holds {len(files)} HDF5 files, not one. Give the file itself.")
            path = files[0]
        return LewmDataset(path, **options)


def _as_theirs(values: Any) -> Any:
    """Converts a column of a sample as stable-worldmodel does: frames channel-first, text from the first row."""
    if values.dtype == np.object_ or values.dtype.kind in "SU":
        first = values[0] if len(values) else b""
        return first.decode() if isinstance(first, bytes) else first
    tensor = torch.from_numpy(values)
    return tensor.permute(0, 3, 1, 2) if values.ndim == 4 and values.shape[-1] in (1, 3) else tensor
