from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from lewm_data.datamodule import LeWMDataModule
from lewm_data.errors import UsageError
from lewm_data.loading.concat_dataset import ConcatDataset
from lewm_data.loading.dataset import WindowDataset
from tests.loading import files

LENGTHS = [30, 25]


def colors(rows):
    """A color for each row of the file that no other row has."""
    rows = np.asarray(rows)
    return np.stack([60 + 3 * rows, 200 - 3 * rows, 20 + 4 * (rows % 40)], axis=-1).astype(np.uint8)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    frames = np.broadcast_to(colors(range(55))[:, None, None], (55, 24, 20, 3))
    return files.write(
        tmp_path_factory.mktemp("data") / "a.h5", LENGTHS, extra={"pixels": np.ascontiguousarray(frames)}
    )


def opened(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def solid_colors(image):
    """The colors of the frames, from left to right: what fills a long run of a row."""
    found = []
    for line in image:
        starts = np.flatnonzero(np.any(line[1:] != line[:-1], axis=-1)) + 1
        runs = np.split(line, starts)
        long = [tuple(run[0].tolist()) for run in runs if 90 < len(run) < 230 and run[0].max() - run[0].min() > 12]
        found = max(found, long, key=len)
    return found


def test_a_picture_holds_the_windows_frames_in_order_and_then_its_goal(written):
    dataset = WindowDataset(written.path, goal="uniform")
    for window in (0, 5, -1):
        torch.manual_seed(2)
        picture = dataset.show(window)
        torch.manual_seed(2)
        first = int(dataset.windows.rows([dataset.number(window)])[0])
        steps = int(dataset.read([dataset.number(window)])["goal_steps"][0])
        rows = [first, first + 5, first + 10, first + 15, first + 15 + steps]
        assert solid_colors(opened(picture.png)) == [tuple(color) for color in colors(rows).tolist()]


def test_a_notebook_displays_it_and_a_path_takes_it(written, tmp_path):
    dataset = WindowDataset(written.path)
    picture = dataset.show(3, path=tmp_path / "new" / "window.png")
    assert (tmp_path / "new" / "window.png").read_bytes() == picture.png == picture._repr_png_()
    assert repr(picture) == "Picture(a.h5, window 3 of 17: episode 0, steps 3 to 22 (0.3 to 2.3 s))"
    assert dataset.show(4).png != picture.png
    with pytest.raises(IndexError, match="outside"):
        dataset.show(17)
    with pytest.raises(UsageError, match=r"window\.jpg, but the picture is a PNG file\. Write .*window\.png"):
        dataset.show(3, path=tmp_path / "window.jpg")


def test_a_window_of_several_files_is_drawn_from_its_own(written):
    one = WindowDataset(written.path)
    joined = ConcatDataset([one, WindowDataset(written.path, episodes=[1])])
    assert joined.show(-1).png == joined.datasets[1].show(-1).png
    assert joined.show(2).png == one.show(2).png


@pytest.mark.parametrize(
    "options", [{"num_steps": 1, "frameskip": 1}, {"num_steps": 20, "frameskip": 1}, {"columns": ["pixels"]}]
)
def test_other_windows_fit_into_the_picture(written, options):
    image = opened(WindowDataset(written.path, **options).show().png)
    assert 640 <= image.shape[1] <= 1400
    assert len(solid_colors(image)) == min(options.get("num_steps", 4), 12)


def test_files_of_other_programs_and_missing_actions_are_drawn(tmp_path):
    action = np.full((30, 14), np.nan, np.float32)
    action[:20, 1] = 1
    written = files.write(tmp_path / "a.h5", [30], ours=False, extra={"action": action})
    assert opened(WindowDataset(written.path).show(5).png).shape[1] >= 640


def test_the_data_module_shows_training_windows_with_their_augmentation(written, tmp_path):
    options = {"h5_path": written.path, "val_fraction": 0, "cache": "none", "batch_size": 4}
    data = LeWMDataModule(**options, augment={"brightness": 0.5})
    with pytest.raises(UsageError, match="not set up"):
        data.show()
    data.setup()
    changed = solid_colors(opened(data.show(2, path=tmp_path / "window.png").png))
    plain = solid_colors(opened(WindowDataset(written.path).show(2).png))
    assert (tmp_path / "window.png").exists()
    factors = np.array(changed, float) / np.array(plain, float)
    assert np.ptp(factors) < 0.1  # one draw for all frames
    assert abs(factors.mean() - 1) > 0.001
