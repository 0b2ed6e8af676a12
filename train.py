"""Trains from a LeRobot dataset: ``python train.py [--config FILE.yaml] [--data.repo_id ... --trainer.max_steps ...]``.

Every setting of Lightning's Trainer, the model and ``LeWMDataModule`` is a YAML key and a flag; ``--help`` lists them.
"""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path

import torch
from lightning.pytorch.cli import LightningCLI
from rich.console import Console
from rich.markup import escape

from lewm_data.datamodule import LeWMDataModule
from lewm_data.errors import LewmDataError
from lewm_data.training.tiny import TinyJEPA

DEMO_CONFIG = Path(__file__).parent / "configs" / "demo.yaml"


def make_cli() -> LightningCLI:
    """Reads the command line and builds trainer, model and data module.

    Without ``--config``, the defaults are those of ``configs/demo.yaml``.

    Returns:
        The command line, with ``trainer``, ``model`` and ``datamodule``; nothing has run yet.
    """
    has_config = any(argument.split("=")[0] in ("--config", "-c") for argument in sys.argv[1:])
    return LightningCLI(
        TinyJEPA,
        LeWMDataModule,
        run=False,
        seed_everything_default=3072,
        save_config_kwargs={"overwrite": True},
        parser_kwargs={"default_config_files": [] if has_config else [str(DEMO_CONFIG)]},
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
        cli.trainer.fit(cli.model, cli.datamodule)
    except LewmDataError as error:
        Console(stderr=True).print(f"[red]error:[/] {escape(str(error))}", soft_wrap=True, highlight=False)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
