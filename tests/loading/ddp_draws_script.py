"""Run by test_distributed: two gloo processes, each of which stores the batches of a whole run and of a resumed one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import lightning
import torch

SETTINGS: dict[str, Any] = {
    "goal": "geometric:0.9",
    "augment": {"shift": 0.2, "crop": 0.2, "brightness": 0.3, "hue": 0.1},
    "columns": ["episode_idx", "step_idx"],
    "val_fraction": 0.3,
    "cache": "none",
}
STOP = 3
"""Steps before the checkpoint that the second run resumes from."""


def add_noise(batch: dict[str, Any]) -> dict[str, Any]:
    """A random transform."""
    return batch | {"noise": torch.rand(len(batch["state"]))}


class Recorder(lightning.LightningModule):
    """Stores every training batch when training ends, in a file for each rank."""

    def __init__(self, folder: Path, name: str) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
        self.folder, self.name = folder, name
        self.batches: list[dict[str, torch.Tensor]] = []

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        self.batches.append({key: values.clone() for key, values in batch.items()})
        return self.layer(batch["action"][..., :2]).square().mean()

    def validation_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-3)

    def on_train_end(self) -> None:
        torch.save(self.batches, self.folder / f"{self.name}-{self.global_rank}.pt")


class Save(lightning.Callback):
    """Saves a checkpoint in mid-epoch."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        if trainer.global_step == STOP:
            trainer.save_checkpoint(self.path)


def fit(
    folder: Path, name: str, file: str, *, batch_size: int = 4, resume: bool = False, **options: Any
) -> lightning.Trainer:
    """Trains for an epoch, from the start or from the checkpoint of the run before."""
    from lewm_data import LeWMDataModule

    data = LeWMDataModule(h5_path=file, batch_size=batch_size, num_workers=1, train_transform=add_noise, **SETTINGS)
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
        callbacks=[] if resume else [Save(folder / f"{name}.ckpt")],
        **options,
    )
    path = folder / "whole.ckpt" if resume else None
    trainer.fit(Recorder(folder, name), data, ckpt_path=path, weights_only=True)
    return trainer


def main() -> None:
    folder, strategy, file = sys.argv[1:]
    fit(Path(folder), "whole", file, devices=2, strategy=strategy)
    fit(Path(folder), "rest", file, devices=2, strategy=strategy, resume=True)


if __name__ == "__main__":
    main()
