"""Normalizers of the training episodes, pooled or for each dataset, and which dimensions they leave unscaled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lewm_data.errors import UsageError
from lewm_data.format.motion import moving_dimensions
from lewm_data.format.schema import ACTION, STATE
from lewm_data.loading.dataset import WindowDataset
from lewm_data.loading.normalizer import Normalizer, Sample

Normalization = bool | Literal["per_dataset"]
"""By pooled statistics, by those of each dataset, or not at all."""

PER_DATASET = "per_dataset"

_STILL_SHARE = 0.05
"""A dimension that varies more than this share of the column's most varying one is always scaled. Actions drawn at
random at each step look like noise, and this keeps them apart from the flicker of a joint at rest."""

_MAX_ROWS = 100_000
_DEFAULT_FPS = 30.0


@dataclass(frozen=True, slots=True)
class Statistics:
    """Normalizers, and what they leave unscaled.

    Attributes:
        normalizers: ``action`` and ``state`` to their normalizers.
        unscaled: A sentence for each file and column with dimensions that never move.
    """

    normalizers: dict[str, Normalizer]
    unscaled: tuple[str, ...]

    @classmethod
    def of(
        cls, parts: Sequence[WindowDataset], visits: Sequence[float], *, normalize: Normalization = True
    ) -> Statistics:
        """Fits normalizers to training episodes.

        Args:
            parts: The training windows of each file.
            visits: How often an epoch visits a window of each file. A row counts as often in pooled statistics.
            normalize: ``per_dataset`` fits each file by itself.

        Raises:
            UsageError: ``per_dataset``, and a file has no training episode.
        """
        names = [name for name in (ACTION, STATE) if name in parts[0].columns]
        if normalize != PER_DATASET or len(parts) == 1:
            fitted = {name: _fit(name, parts, visits) for name in names}
            return cls(fitted, tuple(_sentences(fitted, parts, "")))
        for part in parts:
            if not len(part):
                raise UsageError(
                    f"{part.store.path}: normalize is 'per_dataset', but no episode of this file trains, so it has no "
                    "statistics. Change the split, leave the file out, or set normalize=True."
                )
        by_file = [{name: _fit(name, [part], [1.0]) for name in names} for part in parts]
        sentences = [
            sentence
            for part, fitted in zip(parts, by_file, strict=True)
            for sentence in _sentences(fitted, [part], f"{part.store.path}: ")
        ]
        return cls(
            {name: Normalizer.per_dataset([fitted[name] for fitted in by_file]) for name in names}, (*sentences,)
        )


def _fit(name: str, parts: Sequence[WindowDataset], visits: Sequence[float]) -> Normalizer:
    return Normalizer.fit(
        *(Sample(part.values(name), _rows_of(part), weight) for part, weight in zip(parts, visits, strict=True)),
        is_still=lambda std: still_dimensions(name, parts, std),
    )


def still_dimensions(name: str, parts: Sequence[WindowDataset], std: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which dimensions only show noise, so that scaling them would show the model noise as large as motion.

    A dimension is scaled if it varies by 1 or more, because that makes it smaller.

    Args:
        name: ``action`` or ``state``.
        parts: The training windows of each file.
        std: (D,) standard deviation of each dimension.

    Returns:
        (D,) bool. Decided on whole episodes with 100,000 rows or a few more, spread over the training episodes.
    """
    is_still = np.zeros(len(std), np.bool_)
    [candidates] = np.nonzero((std > 0) & (std < 1) & (std <= _STILL_SHARE * std.max(initial=0)))
    if not len(candidates):
        return is_still
    values, episode = _sampled(name, parts, candidates)
    header = parts[0].store.header
    is_still[candidates] = ~moving_dimensions(values, episode, header.fps if header is not None else _DEFAULT_FPS)
    return is_still


def _sampled(
    name: str, parts: Sequence[WindowDataset], dimensions: NDArray[np.intp]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Finite rows of some whole training episodes, and the number of each row's episode."""
    episodes = [(part, int(episode)) for part in parts for episode in part.windows.episodes]
    num_rows = sum(int(part.store.ep_len[episode]) for part, episode in episodes)
    pieces: list[NDArray[np.float64]] = []
    for part, episode in episodes[:: max(1, num_rows // _MAX_ROWS)]:
        start = part.store.ep_offset[episode]
        rows = part.values(name)[start : start + part.store.ep_len[episode]]
        piece: NDArray[np.float64] = rows.reshape(len(rows), -1)[:, dimensions].astype(np.float64)
        pieces.append(piece[np.isfinite(piece).all(axis=1)])
    return np.concatenate(pieces), np.repeat(np.arange(len(pieces)), [len(piece) for piece in pieces])


def _sentences(fitted: Mapping[str, Normalizer], parts: Sequence[WindowDataset], where: str) -> list[str]:
    sentences = []
    header = parts[0].store.header
    for name, normalizer in fitted.items():
        names = header.feature_names.get(name, ()) if header is not None else ()
        still = np.flatnonzero(~normalizer.is_scaled).tolist()
        words = [f"{number} ({names[number]})" if number < len(names) else str(number) for number in still]
        if words:
            noun, verb = ("dimension", "moves") if len(words) == 1 else ("dimensions", "move")
            sentences.append(
                f"{where}{name} {noun} {', '.join(words)} never {verb} in the training episodes: centered, not scaled."
            )
    return sentences


def _rows_of(part: WindowDataset) -> NDArray[np.bool_]:
    """Which of a file's rows belong to the episodes of its windows, (N,) bool."""
    store, episodes = part.store, part.windows.episodes
    edges = np.zeros(store.num_rows + 1, np.int32)
    np.add.at(edges, store.ep_offset[episodes], 1)
    np.add.at(edges, store.ep_offset[episodes] + store.ep_len[episodes], -1)
    rows: NDArray[Any] = np.cumsum(edges[:-1]) > 0
    return rows
