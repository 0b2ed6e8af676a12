"""Trains from a LeRobot dataset: ``python train.py [--config FILE.yaml] [--data.repo_id ... --trainer.max_steps ...]``.

Every setting of Lightning's Trainer, the model and ``LeWMDataModule`` is a YAML key and a flag; ``--help`` lists them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from lightning.pytorch.cli import LightningCLI
from rich.console import Console
from rich.markup import escape

from lewm_data.datamodule import LeWMDataModule
from lewm_data.errors import LewmDataError
from lewm_data.training.tiny import TinyJEPA

DEMO_CONFIG = Path(__file__).parent / "configs" / "demo.yaml"


def make_cli(arguments: Sequence[str] | None = None) -> LightningCLI:
    """Reads the settings and builds trainer, model and data module.

    Args:
        arguments: Command-line arguments; None takes the process's own. ``configs/demo.yaml`` gives the
            defaults where there is no ``--config`` among them.

    Returns:
        The command line, with ``trainer``, ``model`` and ``datamodule``; nothing has run yet.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    has_config = any(argument.split("=")[0] == "--config" for argument in arguments)
    return LightningCLI(
        TinyJEPA,
        LeWMDataModule,
        args=arguments,
        run=False,
        seed_everything_default=3072,
        save_config_kwargs={"overwrite": True},
        parser_kwargs={"default_config_files": [] if has_config else [str(DEMO_CONFIG)]},
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains, and returns the exit status that belongs to what went wrong."""
    torch.set_float32_matmul_precision("high")
    try:
        cli = make_cli(arguments)
        cli.trainer.fit(cli.model, cli.datamodule)
    except LewmDataError as error:
        Console(stderr=True).print(f"[red]error:[/] {escape(str(error))}", soft_wrap=True, highlight=False)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
