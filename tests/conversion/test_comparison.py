"""A lossy file: said to be lossy everywhere, and measured against its source."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import lewm_data
from lewm_data.config import ConvertConfig
from lewm_data.conversion.merge import merge
from lewm_data.conversion.pipeline import convert
from lewm_data.conversion.verify import verify_against, verify_file
from lewm_data.errors import UsageError
from lewm_data.format.codecs import encoder
from lewm_data.format.header import FileHeader


@pytest.fixture(scope="module")
def lossy(recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lossy") / "out.h5"
    convert(str(recorded), path, ConvertConfig(camera="front", compression="jpeg", image_size=96))
    return path


@pytest.fixture
def spoiled(lossy: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(lossy, tmp_path / "out.h5"))


def put(path: Path, row: int, frame: np.ndarray, quality: int = 90) -> None:
    with h5py.File(path, "r+") as file:
        chunk = encoder("jpeg", quality)(frame)
        file["pixels"].id.write_direct_chunk((row, 0, 0, 0), chunk.data, chunk.filter_mask)


def frames_of(path: Path) -> np.ndarray:
    with h5py.File(path) as file:
        frames: np.ndarray = file["pixels"][:]
    return frames


def decibels(one: Any, other: Any) -> Any:
    return 10 * np.log10(255**2 / np.square(one.astype(float) - other).mean(axis=(1, 2, 3)))


def test_a_lossy_file_says_so(lossy: Path) -> None:
    assert verify_file(lossy) == []
    with h5py.File(lossy) as file:
        assert (file.attrs["compression"], file.attrs["lossy_quality"]) == ("jpeg", 90)
        assert FileHeader.from_attributes(file.attrs, path="").codec_words == "jpeg of quality 90, lossy"


def test_nothing_is_lossy_unasked(recorded: Path, tmp_path: Path) -> None:
    result = convert(str(recorded), tmp_path / "out.h5", ConvertConfig(camera="front", image_size=48))
    assert result.header.codec_words == "lzf, lossless"
    assert verify_against(tmp_path / "out.h5", str(recorded)).loss is None


def test_the_error_is_that_of_the_frames(lossy: Path, recorded: Path, tmp_path: Path) -> None:
    convert(str(recorded), tmp_path / "exact.h5", ConvertConfig(camera="front", image_size=96))
    exact = frames_of(tmp_path / "exact.h5")
    expected = decibels(frames_of(lossy), exact)
    problems, num_compared, loss = verify_against(lossy, str(recorded))
    assert (problems, num_compared) == ([], len(exact))
    assert loss is not None
    assert loss.worst_psnr_db == pytest.approx(expected.min(), abs=0.01)
    assert loss.psnr_db == pytest.approx(-10 * np.log10(np.mean(10 ** (-expected / 10))), abs=0.01)
    result = lewm_data.verify(lossy, against=recorded)
    assert f"PSNR), the worst {expected.min():.1f} dB" in str(result)
    assert json.loads(json.dumps(result.to_dict()))["loss"]["worst_frame"] == loss.worst_frame


def test_the_frame_of_another_step_exceeds_the_bound(spoiled: Path, recorded: Path, tmp_path: Path) -> None:
    convert(str(recorded), tmp_path / "exact.h5", ConvertConfig(camera="front", image_size=96))
    put(spoiled, 3, frames_of(tmp_path / "exact.h5")[4])
    problems, _, loss = verify_against(spoiled, str(recorded))
    assert [problem.split(" is ")[0] for problem in problems] == ["episode 0 step 3: 'pixels'"]
    assert "from the source (PSNR); encoding it again allows" in problems[0]
    assert loss is not None
    assert loss.worst_frame == "episode 0 step 3"


def test_a_frame_of_lower_quality_exceeds_the_bound(spoiled: Path, recorded: Path, tmp_path: Path) -> None:
    convert(str(recorded), tmp_path / "exact.h5", ConvertConfig(camera="front", image_size=96))
    put(spoiled, 0, frames_of(tmp_path / "exact.h5")[0], quality=80)
    assert [problem.split(" is ")[0] for problem in verify_against(spoiled, str(recorded)).problems] == [
        "episode 0 step 0: 'pixels'"
    ]


def test_files_of_another_codec_or_quality_cannot_be_merged(lossy: Path, recorded: Path, tmp_path: Path) -> None:
    for name, settings in (("lzf", {}), ("jpeg50", {"compression": "jpeg", "quality": 50})):
        other = tmp_path / f"{name}.h5"
        config = ConvertConfig(camera="front", image_size=96, episodes="0", **settings)  # type: ignore[arg-type]
        convert(str(recorded), other, config)
        with pytest.raises(UsageError, match="compression: jpeg of quality 90, lossy in .*, but .* in "):
            merge([lossy, other], tmp_path / "merged.h5", allow_duplicates=True)


def test_parts_of_a_lossy_conversion_merge(recorded: Path, lossy: Path, tmp_path: Path) -> None:
    for part in range(2):
        config = ConvertConfig(camera="front", image_size=96, compression="jpeg", shard=f"{part}/2")
        convert(str(recorded), tmp_path / f"{part}.h5", config)
    merge([tmp_path / "1.h5", tmp_path / "0.h5"], tmp_path / "all.h5")
    assert verify_file(tmp_path / "all.h5") == []
    np.testing.assert_array_equal(frames_of(tmp_path / "all.h5"), frames_of(lossy))


def test_quality_without_a_lossy_codec_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="quality is 80, but lzf is lossless"):
        convert(str(tmp_path / "missing"), tmp_path / "out.h5", ConvertConfig(quality=80))


def test_the_quality_changes_the_fingerprint_and_its_absence_does_not(lossy: Path) -> None:
    assert ConvertConfig(quality=80).content_settings()["quality"] == 80
    assert "quality" not in ConvertConfig().content_settings()
