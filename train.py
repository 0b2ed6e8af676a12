"""Trains LeWM from a LeRobot dataset: ``python train.py [--config FILE.yaml] [--data.repo_id ...] [--trainer. ...]``.

Every setting of Lightning's Trainer, ``LeWMModule`` and ``LeWMDataModule`` is a YAML key and a flag; ``--help`` lists
them, ``--print_config`` shows what would run. ``--ckpt_path last`` goes on where an earlier run stopped.
"""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path

import torch
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from rich.console import Console

from lewm_data.datamodule import LeWMDataModule
from lewm_data.errors import LewmDataError, UsageError
from lewm_data.training.lewm import LeWMModule

DEFAULT_CONFIG = Path(__file__).parent / "configs" / "lewm.yaml"
SOURCES = ("repo_id", "root", "h5_path")


class TrainCLI(LightningCLI):
    """LightningCLI that knows where to resume, which dataset was meant, and what this machine cannot do."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds ``--ckpt_path``."""
        parser.add_argument("--ckpt_path", type=str | None, default=None, help="checkpoint to go on from; or: last")

    def before_instantiate_classes(self) -> None:
        """A dataset named on the command line replaces the configuration's, whichever way each is named."""
        named = [name for name in SOURCES if any(arg.split("=")[0] == f"--data.{name}" for arg in sys.argv[1:])]
        for name in set(SOURCES).difference(named) if named else ():
            self.config.data[name] = None
        check_device(str(self.config.trainer.accelerator), str(self.config.trainer.precision))


def check_device(accelerator: str, precision: str) -> None:
    """Refuses what this machine has no GPU for.

    Raises:
        UsageError: A GPU is asked for, or a precision that only GPUs have, and there is none.
    """
    has_gpu = torch.cuda.is_available() or (accelerator != "cuda" and torch.backends.mps.is_available())
    if not has_gpu and (accelerator in ("gpu", "cuda") or precision in ("16", "16-mixed", "16-true")):
        raise UsageError(
            f"trainer.accelerator is '{accelerator}' and trainer.precision '{precision}', but torch finds no GPU here. "
            "Train where there is one; or, slowly, with --trainer.accelerator cpu --trainer.precision 32-true; or have "
            "a look at --config configs/demo.yaml."
        )


def make_cli() -> TrainCLI:
    """Reads the command line and builds trainer, model and data module; ``configs/lewm.yaml`` is the default."""
    has_config = any(argument.split("=")[0] in ("--config", "-c") for argument in sys.argv[1:])
    return TrainCLI(
        LeWMModule,
        LeWMDataModule,
        run=False,
        seed_everything_default=3072,
        save_config_kwargs={"overwrite": True},
        parser_kwargs={"default_config_files": [] if has_config else [str(DEFAULT_CONFIG)]},
    )


def main() -> int:
    """Trains, and returns the exit status that belongs to what went wrong."""
    torch.set_float32_matmul_precision("high")
    # Lightning's advertisements, and its quarrel with torch over a name inside torch.
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: "Tip:" not in record.getMessage()
    )
    warnings.filterwarnings("ignore", "`isinstance\\(treespec, LeafSpec\\)` is deprecated", FutureWarning)
    try:
        cli = make_cli()
        cli.trainer.fit(cli.model, cli.datamodule, ckpt_path=cli.config.ckpt_path)
    except LewmDataError as error:
        Console(stderr=True).print(f"error: {error}", style="red", soft_wrap=True, highlight=False, markup=False)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
