"""lewm_data's own loader."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.contenders.base import Arrays, Settings, window_order
from benchmarks.prepared import Prepared
from lewm_data.format.schema import ACTION, DONE, PIXELS, STATE


class Ours:
    """``WindowLoader`` with frames, action, state and done."""

    is_slow = False

    def __init__(self, data: Prepared, settings: Settings, *, codec: str, cache: bool, worker_type: str) -> None:
        from lewm_data.loading.dataset import WindowDataset
        from lewm_data.loading.ram_cache import cache_frames
        from lewm_data.loading.store import FrameStore

        began = time.perf_counter()
        self.path: Path | None = None if cache else data.ours(codec)
        store = FrameStore(data.ours(codec))
        if cache:  # as LeWMDataModule does
            cache_frames(store, mode="ram", is_shared=worker_type == "process", show_progress=False)
        self._dataset = WindowDataset(
            store,
            num_steps=settings.num_steps,
            frameskip=settings.frameskip,
            columns=(PIXELS, ACTION, STATE, DONE),
        )
        self.setup_seconds = time.perf_counter() - began
        self._settings = settings
        self._worker_type = worker_type
        self.bytes_per_frame = data.bytes_per_frame(data.ours(codec))

    def num_in_work(self, num_workers: int) -> int:
        """See ``Contender``."""
        return num_workers + 2

    def batches(self, batch_size: int, num_workers: int) -> Iterator[Any]:
        """See ``Contender``."""
        from lewm_data.loading.loader import WindowLoader
        from lewm_data.loading.sampler import WindowSampler

        loader = WindowLoader(
            self._dataset,
            WindowSampler(window_order(len(self._dataset), batch_size, self._settings)),
            num_workers=num_workers,
            worker_type=self._worker_type,  # type: ignore[arg-type]
        )
        try:
            while True:
                for batch in loader:
                    yield batch
                    del batch
        finally:
            loader.close()

    def count(self, batch: Any) -> int:
        """See ``Contender``."""
        batch[PIXELS][0, 0, 0, 0, 0].item()
        return len(batch[STATE])

    def arrays(self, batch: Any) -> Arrays:
        """See ``Contender``."""
        arrays = {name: tensor.numpy() for name, tensor in batch.items()}
        return arrays | {PIXELS: arrays[PIXELS].transpose(0, 1, 3, 4, 2)}
