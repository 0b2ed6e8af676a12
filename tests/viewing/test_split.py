"""The split that a page shows is the one that the data module makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lewm_data import LeWMDataModule
from lewm_data.config import PreviewConfig
from lewm_data.errors import UsageError
from lewm_data.loading.episode_split import SIDES
from lewm_data.viewing.preview import make_preview
from tests.loading import files
from tests.viewing.pages import Page

LENGTHS = (30, 31, 6, 33, 29, 30, 31, 32, 30, 31, 30, 29)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"val_fraction": 0.3, "seed": 5},
        {"fold": "1/3"},
        {"val_episodes": "0:2", "test_episodes": "11"},
        {"train_episodes": "3:6", "val_episodes": "7"},
    ],
)
def test_the_page_shows_the_split_of_the_data_module(settings: dict[str, Any], tmp_path: Path) -> None:
    written = files.write(tmp_path / "file.h5", LENGTHS, height=8, width=8)
    module = LeWMDataModule(h5_path=str(written.path), batch_size=1, num_workers=1, **settings)
    module.setup()
    made = make_preview(str(written.path), tmp_path / "page.html", PreviewConfig(assess=False, **settings))
    data = Page(made.path).data
    sides, lengths = np.array(data["split"]["sides"]), np.array(data["episodes"]["length"])
    expected = (module.train_positions, module.val_positions, module.test_positions)
    for number, positions in enumerate(expected):
        usable = np.flatnonzero((sides == number) & (lengths >= 20))  # 2 is too short for a window
        assert usable.tolist() == positions.tolist(), SIDES[number]
    assert data["split"]["rule"] == str(module.split_rule)


def test_an_episode_that_is_not_there_is_refused_before_any_picture_is_made(tmp_path: Path) -> None:
    written = files.write(tmp_path / "file.h5", LENGTHS, height=8, width=8)
    with pytest.raises(UsageError, match="val_episodes: episode 40 of .* does not exist"):
        make_preview(str(written.path), tmp_path / "page.html", PreviewConfig(val_episodes="40"))
    assert not (tmp_path / "page.html").exists()
