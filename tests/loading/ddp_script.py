"""Run by test_datamodule: two gloo processes, each of which writes down what it saw."""

from __future__ import annotations

import sys
from pathlib import Path

import torch


def weighted(sources):
    return sources[0] if len(sources) == 1 else {path: 1 + number for number, path in enumerate(sources)}


def main() -> None:
    from lewm_data import LeWMDataModule
    from tests.test_datamodule import Probe, trainer

    folder, worker_type, *sources = sys.argv[1:]
    data = LeWMDataModule(
        h5_path=weighted(sources), batch_size=4, num_workers=1, val_fraction=0.3, cache="ram", worker_type=worker_type
    )
    model = Probe()
    run = trainer(Path(folder), devices=2, strategy="ddp", num_sanity_val_steps=0)
    run.fit(model, data)
    torch.save(
        {
            "seen": model.seen,
            "val": model.val_seen,
            "inode": data.splits.stores[0].shared_memory("pixels").address["inode"],
        },
        Path(folder) / f"rank{run.global_rank}.pt",
    )


if __name__ == "__main__":
    main()
