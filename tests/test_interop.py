"""A converted file through other people's readers: stable-worldmodel's, plain h5py's, and ours say the same."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from lewm_data import WindowDataset
from lewm_data.config import COMPRESSIONS, ConvertConfig
from lewm_data.conversion.pipeline import convert


@pytest.mark.filterwarnings("ignore")  # what stable-worldmodel imports is not about this file
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_stable_worldmodel_reads_the_file_as_it_is(recorded: Path, compression: str, tmp_path: Path) -> None:
    hdf5 = pytest.importorskip("stable_worldmodel.data.formats.hdf5")
    config = ConvertConfig(camera="front", cameras="all", compression=compression, image_size=48)  # type: ignore[arg-type]
    convert(str(recorded), tmp_path / "out.h5", config)
    theirs = hdf5.HDF5Dataset(path=tmp_path / "out.h5", num_steps=2, frameskip=3)
    ours = WindowDataset(tmp_path / "out.h5", num_steps=2, frameskip=3)
    assert len(theirs) == len(ours) == sum(max(0, n - 6 + 1) for n in (7, 12, 5, 21, 9))
    for number in range(len(ours)):
        mine, other = ours[number], theirs[number]
        for name in ("pixels", "pixels_top", "action", "state"):
            np.testing.assert_array_equal(mine[name].numpy(), other[name].numpy(), err_msg=f"{name} of {number}")


def test_plain_h5py_reads_the_default_codec_without_plugins(recorded: Path, tmp_path: Path) -> None:
    convert(str(recorded), tmp_path / "out.h5", ConvertConfig(camera="front", image_size=48))
    ours = WindowDataset(tmp_path / "out.h5", num_steps=1, frameskip=1)
    with h5py.File(tmp_path / "out.h5") as file:
        for number in range(len(ours)):
            frame = ours[number]["pixels"][0].permute(1, 2, 0).numpy()
            np.testing.assert_array_equal(frame, file["pixels"][number])
