"""The converted files behind a data module: made once, found again, and checked when they are open."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lewm_data.config import ConvertConfig
from lewm_data.format.schema import ACTION, STATE
from lewm_data.loading.dataset import WindowDataset
from lewm_data.loading.full_datasets import check_matches_request, dirty_episode_warnings
from lewm_data.loading.settings import Sources
from lewm_data.quality.assess.idle import find_resting_rows

_log = logging.getLogger(__name__)
_DEFAULT_IMAGE_SIZE = ConvertConfig().image_size
_DEFAULT_FPS = 30.0
"""Of a file that another program wrote, which does not state it."""


def convert_sources(sources: Sources, data_dir: Path, config: ConvertConfig) -> None:
    """Downloads and converts datasets, unless that is done. Converted files need nothing.

    Args:
        sources: The datasets.
        data_dir: Folder for converted files.
        config: The settings of the conversion.

    Raises:
        LewmDataError: The conversion failed: dirty data, not enough memory or disk, or it stalled.
    """
    if sources.kind != "h5_path":
        from lewm_data.conversion.prepare import prepare_file

        for name in sources.names:
            prepare_file(name, data_dir, config)


def converted_files(sources: Sources, data_dir: Path, config: ConvertConfig) -> Sequence[str | Path]:
    """The path or address of each dataset's converted file; see ``convert_sources``."""
    if sources.kind == "h5_path":
        return sources.names
    from lewm_data.conversion.prepare import prepared_file

    return [prepared_file(name, data_dir, config) for name in sources.names]


def check_opened(datasets: Sequence[WindowDataset], sources: Sources, config: ConvertConfig, *, warn: bool) -> None:
    """Checks that converted files hold what the settings ask for, and warns of dirty episodes in them.

    Raises:
        UsageError: A file that was converted elsewhere holds another camera or size.
    """
    if sources.kind == "h5_path":
        size = None if config.image_size == _DEFAULT_IMAGE_SIZE else config.image_size
        check_matches_request([dataset.store for dataset in datasets], camera=config.camera, image_size=size)
    for sentence in dirty_episode_warnings(datasets) if warn else ():
        _log.warning(sentence)


def find_rest(dataset: WindowDataset) -> NDArray[np.bool_]:
    """Finds the rows of a dataset's episodes in which the robot rests.

    Returns:
        (N,) bool, a value for each row of the file.
    """
    store, episodes = dataset.store, dataset.windows.episodes
    columns = [name for name in (STATE, ACTION) if name in store.columns]
    return find_resting_rows(
        lambda start, stop: [store.read_column(name, start, stop) for name in columns],
        store.ep_offset[episodes],
        store.ep_len[episodes],
        num_rows=store.num_rows,
        fps=store.header.fps if store.header is not None else _DEFAULT_FPS,
    )
