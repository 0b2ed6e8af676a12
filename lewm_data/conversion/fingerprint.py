"""The fingerprint of a conversion: equal for equal content, different for different content.

It covers everything that the output depends on, in the form that the conversion uses: ``--camera front`` and
``--camera observation.images.front`` make the same file, and so do ``224`` and ``224x224``. For a local dataset's
data, video and picture files it covers size and modification time, because hashing terabytes would take too long. It
leaves out settings of the training window, which do not change the file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from lewm_data.config import FORMAT_VERSION, ConvertConfig
from lewm_data.notation import parse_image_size
from lewm_data.source.data_files import identity, needed_files, picture_files
from lewm_data.source.metadata import LeRobotDataset
from lewm_data.source.open import Opened, open_source
from lewm_data.source.scale import SCALER_VERSION
from lewm_data.source.selection import choose_shifts

_RESOLVED = frozenset({"image_size", "camera", "cameras", "episodes", "action", "state", "extra_columns", "shift"})
"""Settings with several spellings of one meaning. The fingerprint covers the meaning instead."""


def open_with(source: str, config: ConvertConfig) -> Opened:
    """Opens a source with the settings of a conversion; see ``open_source``."""
    return open_source(
        source,
        revision=config.revision,
        episodes=config.episodes,
        action=config.action,
        state=config.state,
        follow_links=config.follow_links,
    )


def source_fingerprint(dataset: LeRobotDataset, cameras: Mapping[str, str], config: ConvertConfig) -> str:
    """Hash of everything that the output of a conversion depends on.

    Args:
        dataset: The source as it is now.
        cameras: Frame column to LeRobot camera key.
        config: The settings.

    Returns:
        64 hexadecimal digits.
    """
    keys = tuple(cameras.values())
    files = [*needed_files(dataset, keys), *picture_files(dataset, keys)]
    settings = {name: value for name, value in config.content_settings().items() if name not in _RESOLVED}
    content = [FORMAT_VERSION, SCALER_VERSION, identity(dataset, files), settings, _resolved(dataset, cameras, config)]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _resolved(dataset: LeRobotDataset, cameras: Mapping[str, str], config: ConvertConfig) -> dict[str, Any]:
    """The meaning of these settings for this dataset."""
    is_selection = config.episodes is not None  # a check of the whole dataset reports more than one of some episodes
    shifts = choose_shifts(dataset, cameras, config)  # left out when there are none, as in files of older versions
    return {
        **({"shifts": shifts} if shifts else {}),
        "image_size": parse_image_size(config.image_size),
        "cameras": dict(cameras),
        "columns": dataset.row_columns(config.extra_columns),
        "episodes": dataset.episodes.index.tolist() if is_selection else None,
    }
