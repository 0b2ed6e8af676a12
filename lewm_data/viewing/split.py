"""On which side of the data module's split each episode of a recording is."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from lewm_data.config import PreviewConfig, shared_settings
from lewm_data.loading.episode_split import SIDES, SplitRule
from lewm_data.loading.file_split import SourceContent, named_episodes, sides_of
from lewm_data.notation import episode_ranges
from lewm_data.viewing.recording import Recording


def split_table(recording: Recording, config: PreviewConfig) -> dict[str, Any]:
    """Splits the episodes as ``LeWMDataModule`` does with the same settings.

    Args:
        recording: The recording; before a conversion, as if all of its episodes were converted.
        config: The settings of the preview.

    Returns:
        The rule in words, the side of each episode (its position in ``SIDES``, or -1), and the source's episodes on
        each side in words.

    Raises:
        UsageError: A list names episodes that are not there, or are on another side, too.
    """
    rule = shared_settings(SplitRule, dataclasses.asdict(config))
    sources = np.array(recording.sources, object)
    members = {source: np.flatnonzero(sources == source) for source in dict.fromkeys(recording.sources)}
    contents = {
        source: SourceContent(
            names=frozenset({recording.handle, recording.name}),
            steps=dict(zip(recording.source_numbers[where].tolist(), recording.lengths[where].tolist(), strict=True)),
            dropped=frozenset(),
        )
        for source, where in members.items()
    }
    named = named_episodes(rule, contents, span=config.span) if rule.named and contents else {}
    sides = np.full(len(sources), -1, np.int64)
    for source, where in members.items():
        sides[where] = sides_of(rule, named, source, recording.source_numbers[where])
    words = [_words(recording, sides == number, list(members)) for number in range(len(SIDES))]
    return {"rule": str(rule), "sides": sides.tolist(), "names": list(SIDES), "episodes": words}


def _words(recording: Recording, is_chosen: np.ndarray, sources: Sequence[str]) -> str:
    """The source's numbers of some episodes, such as ``0, 2-5``."""
    parts = []
    for source in sources:
        numbers = recording.source_numbers[is_chosen & (np.array(recording.sources, object) == source)]
        if len(numbers):
            parts.append(episode_ranges(sorted(set(numbers.tolist()))) + (f" of {source}" if len(sources) > 1 else ""))
    return "; ".join(parts)
