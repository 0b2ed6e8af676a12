"""Checks that windows of several datasets fit into one batch."""

from __future__ import annotations

from collections.abc import Sequence

from lewm_data.errors import UsageError
from lewm_data.format.compatibility import Member, check_joinable
from lewm_data.format.schema import is_pixels
from lewm_data.format.segments import Column
from lewm_data.loading.dataset import WindowDataset


def check_alike(parts: Sequence[WindowDataset]) -> None:
    """Checks that windows of several datasets fit into one batch and mean the same.

    Args:
        parts: The datasets.

    Raises:
        UsageError: Something differs that ``format.compatibility.check_joinable`` requires to agree, or the datasets
            have windows of different lengths. Names the files.

    Warns:
        UserWarning: The files name the dimensions of a column differently.
    """
    for part in parts[1:]:
        if (part.num_steps, part.frameskip) != (parts[0].num_steps, parts[0].frameskip):
            raise UsageError(
                f"{part.store.path}: num_steps and frameskip are {part.num_steps} and {part.frameskip}, but in "
                f"{parts[0].store.path} {parts[0].num_steps} and {parts[0].frameskip}. Use the same for all datasets."
            )
    check_joinable([_member(part) for part in parts], into="batch")


def _member(part: WindowDataset) -> Member:
    """A dataset's file with the columns of its batches, in the dtypes of its batches."""
    stored = part.store.columns
    columns = {
        name: stored[name] if is_pixels(name) else Column(stored[name].shape, part.values(name).dtype)
        for name in part.columns
    }
    return Member(name=str(part.store.path), columns=columns, header=part.store.header)
