"""What a data module that is set up says about its data."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lewm_data.errors import UsageError
from lewm_data.format.compatibility import SourceEpisode
from lewm_data.loading.batches import Batch, Layout
from lewm_data.loading.data_record import DataRecord
from lewm_data.loading.splits import Splits


class ServedData:
    """The split, the episodes, the tasks and the columns that a data module serves.

    Attributes:
        train_positions: Positions in the file of the training episodes that hold a window, once set up. With several
            datasets, the count continues from one file to the next. ``split`` has the numbers in the source.
        val_positions: The same for the validation episodes.
        test_positions: The same for the test episodes.
    """

    train_positions: NDArray[np.int64]
    val_positions: NDArray[np.int64]
    test_positions: NDArray[np.int64]
    _splits: Splits | None = None

    @property
    def splits(self) -> Splits:
        """The windows of each side, and all windows.

        Raises:
            UsageError: The data module is not set up.
        """
        if self._splits is None:
            raise UsageError("The data module is not set up. Call prepare_data() and setup() first; a Trainer does.")
        return self._splits

    @property
    def train_episodes(self) -> NDArray[np.int64]:
        """``train_positions`` under an earlier name. The setting of this name counts in the source instead."""
        return self.train_positions

    @property
    def val_episodes(self) -> NDArray[np.int64]:
        """``val_positions`` under an earlier name."""
        return self.val_positions

    @property
    def test_episodes(self) -> NDArray[np.int64]:
        """``test_positions`` under an earlier name."""
        return self.test_positions

    @property
    def split(self) -> dict[str, dict[str, str]]:
        """The split as text: side to source to its episodes, such as ``{"val": {"me/cube": "0:8,12"}, ...}``.

        A checkpoint stores it, and ``val_episodes=dm.split["val"]`` repeats it.
        """
        return DataRecord.of(self.splits, {}).split_text()

    @property
    def tasks(self) -> dict[int, str]:
        """Number of each task to its text, as ``task_idx`` in a batch counts; empty if the files name none."""
        return dict(self.splits.files[0].dataset.numbering.tasks)

    @property
    def episodes(self) -> tuple[SourceEpisode, ...]:
        """The source and the number in it of each episode of the files, as ``episode_idx`` in a batch counts."""
        return tuple(source for file in self.splits.files for source in file.sources)

    def layout(self) -> Layout:
        """Column to shape of one window and dtype: frames (T, H, W, 3), ``action`` (T, frameskip*A), and so on."""
        return self.splits.train.layout()

    def read_episode(self, episode: int, *, max_frames: int) -> Batch:
        """Reads a whole episode as a batch of one window, as it is stored.

        Args:
            episode: Its position, as in ``train_positions`` and ``val_positions``.
            max_frames: Limit on the kept frames; a longer episode is cut off.

        Returns:
            Column to tensor. T is the number of steps over ``frameskip``, rounded down. Call ``normalize_batch`` on it
            before you give it to a model.
        """
        return self.splits.read_episode(episode, max_frames=max_frames)

    def feature_names(self, column: str) -> tuple[str, ...]:
        """Names of a column's dimensions in the source; empty if it has none."""
        header = self.splits.stores[0].header
        return header.feature_names.get(column, ()) if header is not None else ()
