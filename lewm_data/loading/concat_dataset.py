"""The windows of several files in one dataset."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lewm_data.format.segments import group_by_segment
from lewm_data.loading.batches import Batch, BatchDataset, Layout
from lewm_data.loading.dataset import WindowDataset


class ConcatDataset(BatchDataset):
    """The windows of several datasets, numbered dataset after dataset.

    Attributes:
        datasets: The datasets.
    """

    def __init__(self, datasets: Sequence[WindowDataset]) -> None:
        """Concatenates datasets whose windows fit into one batch (see ``check_alike``).

        Args:
            datasets: One or more datasets.
        """
        self.datasets = tuple(datasets)
        self._stops = np.cumsum([len(dataset) for dataset in datasets])

    def __repr__(self) -> str:
        """One line for each dataset."""
        parts = "".join(f"\n  {dataset!r}" for dataset in self.datasets)
        return f"ConcatDataset({len(self):,} windows of {len(self.datasets)} datasets:{parts})"

    def __len__(self) -> int:
        return int(self._stops[-1])

    def layout(self) -> Layout:
        """See ``BatchDataset``."""
        return self.datasets[0].layout()

    @property
    def uses_draws(self) -> bool:
        """See ``BatchDataset``."""
        return any(dataset.uses_draws for dataset in self.datasets)

    def fill(
        self,
        windows: NDArray[np.int64],
        out: dict[str, NDArray[Any]],
        out_indices: NDArray[np.int64] | None = None,
        draws: NDArray[np.uint64] | None = None,
    ) -> None:
        """See ``BatchDataset``."""
        for number, chosen, own_windows in self._by_dataset(windows):
            indices = chosen if out_indices is None else out_indices[chosen]
            self.datasets[number].fill(own_windows, out, indices, None if draws is None else draws[chosen])

    def part_of(self, window: int) -> tuple[WindowDataset, int]:
        """See ``BatchDataset``."""
        [(number, _, own_windows)] = self._by_dataset(np.array([window]))
        return self.datasets[number], int(own_windows[0])

    def arrange(self, batch: Batch) -> Batch:
        """See ``BatchDataset``."""
        return self.datasets[0].arrange(batch)

    def describe(self, window: int) -> str:
        """See ``BatchDataset``."""
        dataset, number = self.part_of(window)
        return dataset.describe(number)

    def _by_dataset(self, windows: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.intp], NDArray[np.int64]]]:
        if windows.size and (windows.min() < 0 or windows.max() >= len(self)):
            raise IndexError(f"window {windows.min()} or {windows.max()} lies outside [0, {len(self)})")
        return group_by_segment(windows, self._stops)


def concat_datasets(datasets: Sequence[WindowDataset]) -> BatchDataset:
    """One dataset of all windows: the only dataset itself, or a ``ConcatDataset``."""
    return datasets[0] if len(datasets) == 1 else ConcatDataset(datasets)
