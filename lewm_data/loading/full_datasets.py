"""The files to draw from: opened, and compared with each other and with the settings that they should have."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from lewm_data.errors import UsageError
from lewm_data.format.compatibility import Member, check_joinable
from lewm_data.format.schema import ACTION, PIXELS, STATE, camera_name, is_pixels
from lewm_data.format.segments import Column
from lewm_data.loading.columns import default_columns, number_files
from lewm_data.loading.dataset import WindowDataset
from lewm_data.loading.remote.config import RemoteConfig
from lewm_data.loading.store import FrameStore
from lewm_data.notation import count_of, parse_image_size
from lewm_data.resources import Progress


def open_datasets(
    paths: Iterable[str | Path],
    *,
    num_steps: int,
    frameskip: int,
    goal: str | None = None,
    verify_checksums: bool = False,
    remote: RemoteConfig | None = None,
    columns: Sequence[str] = (),
    progress: Progress | None = None,
) -> list[WindowDataset]:
    """Opens files with all of their windows.

    Args:
        paths: Converted files or their addresses.
        num_steps: Frames that a window keeps.
        frameskip: Steps from one kept frame to the next.
        goal: How far ahead of a window its goal lies, as in ``WindowDataset``.
        verify_checksums: Check each frame's checksum when it is read.
        remote: How to read from object storage. None takes the defaults.
        columns: Columns of a batch, in addition to the default ones.
        progress: Called while the metadata of remote files is read. None shows a bar on stderr.

    Raises:
        UsageError: A file does not exist, holds no window, or lacks a column.
        FormatError: A file is broken.
    """
    datasets = []
    stores = [FrameStore(path, verify_checksums=verify_checksums, remote=remote, progress=progress) for path in paths]
    for store, numbering in zip(stores, number_files(stores), strict=True):
        dataset = WindowDataset(
            store,
            num_steps=num_steps,
            frameskip=frameskip,
            columns=[*default_columns(store), *columns],
            goal=goal,
            numbering=numbering,
        )
        datasets.append(dataset)
    return datasets


def check_alike(datasets: Sequence[WindowDataset]) -> None:
    """Checks that windows of several datasets fit into one batch and mean the same.

    Raises:
        UsageError: Something differs that ``format.compatibility.check_joinable`` requires to agree, or the datasets
            have windows of different lengths or other goals. Names the files.

    Warns:
        UserWarning: The files name the dimensions of a column differently.
    """
    first = datasets[0]
    for other in datasets[1:]:
        for name in ("num_steps", "frameskip", "goal"):
            own, wanted = getattr(other, name), getattr(first, name)
            if own != wanted:
                raise UsageError(
                    f"{other.store.path}: {name} is {own}, but in {first.store.path} it is {wanted}. Use the same for "
                    "all datasets."
                )
    check_joinable([_member(dataset) for dataset in datasets], into="batch")


def _member(dataset: WindowDataset) -> Member:
    """A dataset's file with the columns of its batches, in the dtypes of its batches."""
    stored = dataset.store.columns
    columns = {
        name: stored[name] if is_pixels(name) else Column(stored[name].shape, dataset.values(name).dtype)
        for name in dataset.columns
        if name in stored
    }
    return Member(name=str(dataset.store.path), columns=columns, header=dataset.store.header)


def check_matches_request(stores: Iterable[FrameStore], *, camera: str | None, image_size: int | str | None) -> None:
    """Checks that converted files hold what the settings of a conversion ask for.

    Args:
        stores: The open files.
        camera: The camera that ``pixels`` should be. None accepts any.
        image_size: Frame size, as in ``ConvertConfig``. None accepts any.

    Raises:
        UsageError: A file holds another camera or size.
    """
    for store in stores:
        if store.header is None:
            continue
        key = store.header.cameras[PIXELS]
        if camera not in (None, key, camera_name(key)):
            raise UsageError(
                f"{store.path}: its pixels are camera {camera_name(key)!r}, but camera is {camera!r}. Leave camera "
                "out, or convert that one."
            )
        size = store.header.image_height, store.header.image_width
        if image_size is not None and parse_image_size(image_size) not in (None, size):
            raise UsageError(
                f"{store.path}: its frames are {size[0]}x{size[1]}, but image_size is {image_size}. Set image_size "
                f"to {size[0]}x{size[1]}, or convert the dataset again with image_size {image_size}."
            )


def dirty_episode_warnings(datasets: Iterable[WindowDataset]) -> list[str]:
    """Says which files hold dirty episodes, which training draws from like from all others.

    In a file of this package these are the episodes that the policy ``keep`` let through. In a file of another program
    they are the ones with an action or state that is not finite: stable-worldmodel writes NaN for a missing action.

    Args:
        datasets: All windows of each file.

    Returns:
        One sentence for each file that holds any.
    """
    sentences = []
    for dataset in datasets:
        header = dataset.store.header
        if header is not None:
            kept = {episode: ", ".join(codes) for episode, codes in header.kept_episodes().items()}
            remedy = "To train without them, convert with --dirty_episode_policy skip."
        else:
            kept = _not_finite(dataset)
            remedy = "Statistics leave these numbers out, and batches contain them. Replace them in your model or in a "
            remedy += "train_transform."
        if kept:
            some = ", ".join(f"{episode} ({found})" for episode, found in list(kept.items())[:5])
            more = f" and {len(kept) - 5} more" if len(kept) > 5 else ""
            sentences.append(
                f"{dataset.store.path}: contains dirty episodes, and training draws from them like from all others: "
                f"episode {some}{more}. {remedy}"
            )
    return sentences


def _not_finite(dataset: WindowDataset) -> dict[int, str]:
    """Position of each episode with an action or state that is NaN or infinite, to how many of its steps are."""
    store = dataset.store
    found: dict[int, list[str]] = {}
    for name in (ACTION, STATE):
        if name not in dataset.columns:
            continue
        values = dataset.values(name)
        rows = np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))
        episodes, counts = np.unique(np.searchsorted(store.ep_offset, rows, side="right") - 1, return_counts=True)
        for episode, count in zip(episodes.tolist(), counts.tolist(), strict=True):
            steps = count_of(count, "step")
            found.setdefault(episode, []).append(f"{name} is not finite in {steps} of {store.ep_len[episode]}")
    return {episode: ", ".join(words) for episode, words in sorted(found.items())}
