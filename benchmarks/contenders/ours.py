"""lewm_data's own loader."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.contenders.base import Arrays, Contender, Settings, window_order
from benchmarks.prepared import Prepared
from lewm_data.format.schema import ACTION, DONE, PIXELS, STATE


class Ours(Contender):
    """``WindowLoader`` with frames, action, state and done."""

    def __init__(self, data: Prepared, settings: Settings, *, codec: str, cache: bool, worker_type: str) -> None:
        from lewm_data.loading.dataset import WindowDataset
        from lewm_data.loading.ram_cache import cache_frames
        from lewm_data.loading.store import FrameStore
        from lewm_data.resources import silent

        def open_dataset() -> Any:
            store = FrameStore(data.ours(codec))
            if cache:  # as LeWMDataModule does
                cache_frames(store, mode="ram", is_shared=worker_type == "process", progress=silent)
            columns = (PIXELS, ACTION, STATE, DONE)
            return WindowDataset(store, num_steps=settings.num_steps, frameskip=settings.frameskip, columns=columns)

        super().__init__(data, settings, data.ours(codec), open_dataset, reads_file=not cache)
        self._worker_type = worker_type

    def num_in_work(self, num_workers: int) -> int:
        """See ``Contender``."""
        return num_workers + 2

    def batches(self, batch_size: int, num_workers: int) -> Iterator[Any]:
        """See ``Contender``."""
        from lewm_data.loading.loader import WindowLoader
        from lewm_data.loading.sampler import WindowSampler

        sampler = WindowSampler(window_order(len(self._dataset), batch_size, self._settings))
        workers: dict[str, Any] = {"num_workers": num_workers, "worker_type": self._worker_type}
        loader = WindowLoader(self._dataset, sampler, **workers)
        try:
            while True:
                for batch in loader:
                    yield batch
                    del batch
        finally:
            loader.close()

    def arrays(self, batch: Any) -> Arrays:
        """See ``Contender``."""
        return super().arrays(batch) | {DONE: batch[DONE].numpy()}
