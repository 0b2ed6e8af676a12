"""Several files as one dataset of windows, once it is sure that their columns mean the same."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence

from lewm_data.errors import UsageError
from lewm_data.format.schema import is_pixels
from lewm_data.loading.dataset import WindowDataset


def check_alike(parts: Sequence[WindowDataset]) -> None:
    """Makes sure that windows of several datasets can stand in one batch.

    Args:
        parts: The datasets.

    Raises:
        UsageError: Columns, their shapes or dtypes, frame sizes or fps differ, or dimensions of the same names
            come in another order; says which dataset has what.

    Warns:
        UserWarning: The dimensions of a column have other names.
    """
    problems = [_words(trait, values, parts) for trait, values in _differing([_traits(part) for part in parts])]
    for column, values in _differing([_names(part) for part in parts]):
        words = _words(f"the dimensions of {column}", values, parts)
        if len({tuple(sorted(names.split(", "))) for names in values if names is not None}) == 1:
            problems.append(words)  # the same ones, in another order
        else:
            warnings.warn(f"{words}. Make sure that they mean the same.", UserWarning, stacklevel=2)
    if problems:
        raise UsageError(
            f"These datasets cannot be mixed: {'; '.join(problems)}. Leave one out, or convert all with the same "
            "settings (image_size, cameras, extra_columns)."
        )


def _differing(traits: Sequence[dict[str, str]]) -> list[tuple[str, list[str | None]]]:
    """What is not the same everywhere; what a file does not say is not compared."""
    values = {name: [of_part.get(name) for of_part in traits] for name in dict.fromkeys(itertools.chain(*traits))}
    return [(name, found) for name, found in values.items() if len(set(found) - {None}) > 1]


def _traits(part: WindowDataset) -> dict[str, str]:
    """What has to agree, in words."""
    traits = {"columns": ", ".join(sorted(part.columns)), "num_steps": str(part.num_steps)}
    traits |= {"frameskip": str(part.frameskip)}
    for name in part.columns:
        shape = part.store.columns[name].shape
        if is_pixels(name):
            traits[name] = f"{shape[0]}x{shape[1]} pixels"
        else:
            width = f"{shape[0]} wide" if len(shape) == 1 else f"of shape {shape}"
            traits[name] = f"{width} ({part.values(name).dtype})"
    if part.store.header is not None:
        traits["fps"] = f"{part.store.header.fps:g}"
    return traits


def _names(part: WindowDataset) -> dict[str, str]:
    """Names of the dimensions of columns, where the file has them."""
    names = part.store.header.feature_names if part.store.header is not None else {}
    return {column: ", ".join(names[column]) for column in part.columns if names.get(column)}


def _words(trait: str, values: Sequence[str | None], parts: Sequence[WindowDataset]) -> str:
    found = zip(values, parts, strict=True)
    return f"{trait}: " + ", but ".join(f"{value} in {part.store.path}" for value, part in found if value is not None)
