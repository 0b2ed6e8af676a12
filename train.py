"""Trains LeWM from a LeRobot dataset: ``python train.py [--config FILE.yaml] [--data.repo_id ...] [--trainer. ...]``.

Every setting of Lightning's Trainer, ``LeWMModule`` and ``LeWMDataModule`` is a YAML key and a flag. ``--help`` lists
them; ``--print_config`` shows what would run. ``--ckpt_path last`` continues an earlier run. ``--export FOLDER`` writes
the trained model for stable-worldmodel's planners.
"""

from __future__ import annotations

import logging
import re
import sys
import traceback
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from jsonargparse import Namespace
from lightning import LightningModule, Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback
from rich.console import Console

from lewm_data.datamodule import LeWMDataModule
from lewm_data.errors import InterruptedConversionError, LewmDataError, UsageError, redact
from lewm_data.loading.remote.config import public_storage_options
from lewm_data.notation import NATIVE, parse_image_size
from lewm_data.training.diagnostics import Diagnostics
from lewm_data.training.export import export
from lewm_data.training.lewm import LeWMModule

DEFAULT_CONFIG = Path(__file__).parent / "configs" / "lewm.yaml"
SOURCES = ("repo_id", "root", "h5_path")
_CREDENTIALS = re.compile("storage_options|token|secret|passw|(?<![a-z])key", re.IGNORECASE)


class TrainCLI(LightningCLI):
    """LightningCLI with our flags, the dataset of the command line, and a check of the device."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds ``--ckpt_path`` and ``--export``."""
        parser.add_argument("--ckpt_path", type=str | None, default=None, help="checkpoint to continue from, or: last")
        parser.add_argument(
            "--export", type=str | None, default=None, help="folder for the trained model, for stable-worldmodel"
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parses, and remembers in ``given`` what a configuration file or a flag sets, without the defaults."""
        super().parse_arguments(parser, args)
        self.given = parser.parse_args(args, defaults=False)  # type: ignore[arg-type]

    def before_instantiate_classes(self) -> None:
        """Replaces the configuration's dataset by one that the command line names."""
        named = [name for name in SOURCES if any(arg.split("=")[0] == f"--data.{name}" for arg in sys.argv[1:])]
        for name in set(SOURCES).difference(named) if named else ():
            self.config.data[name] = None
        is_camera_given = any(arg.split("=")[0] == "--data.camera" for arg in sys.argv[1:])
        if named == ["h5_path"] and not is_camera_given:
            self.config.data.camera = None  # the configuration names a camera of its own dataset
        if self.config.data.h5_path is not None:
            self.config.data.image_size = size_of_file(self.given.get("data.image_size"))
        keep_together(self.config.trainer)
        check_device(str(self.config.trainer.accelerator), str(self.config.trainer.precision))


class SaveRedactedConfig(SaveConfigCallback):
    """Saves the configuration of a run without credentials, in a file that only this user can read."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Saves ``config.yaml`` in the run's folder."""
        is_first = not self.already_saved
        self.config = without_secrets(self.config)
        super().setup(trainer, pl_module, stage)
        folder = trainer.log_dir  # the processes agree on it, so that each must ask
        if is_first and trainer.is_global_zero and folder:
            path = Path(folder, self.config_filename)
            if path.exists():  # the run's folder may be an address
                path.chmod(0o600)


def without_secrets(config: Namespace) -> Namespace:
    """A configuration for a file that others may read: no storage credentials, and no secrets in addresses."""
    public = config.clone()
    for key, value in config.items():
        if key.endswith("storage_options") and isinstance(value, Mapping):
            public[key] = public_storage_options(value)
        else:
            public[key] = _redact_texts(value)
    return public


def _redact_texts(value: Any) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {_redact_texts(key): _redact_texts(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_redact_texts(item) for item in value]
    return value


def size_of_file(given: int | str | None) -> int | str:
    """The size that a converted file must have.

    Args:
        given: ``data.image_size`` of the configuration file or flag; None if neither sets it.

    Returns:
        ``HEIGHTxWIDTH``, which ``LeWMDataModule`` insists on even where it is the default; ``native``, which takes any
        file, if nothing is given.
    """
    if given is None:
        return NATIVE
    size = parse_image_size(given)
    return NATIVE if size is None else f"{size[0]}x{size[1]}"


def keep_together(trainer: Namespace) -> None:
    """Puts logs and checkpoints into ``default_root_dir`` too, unless the configuration names other folders.

    Args:
        trainer: The trainer's settings, before it is built.
    """
    root = str(trainer.default_root_dir or ".")
    if trainer.logger is None:
        log = Namespace(save_dir=root, name="logs")
        trainer.logger = Namespace(class_path="lightning.pytorch.loggers.CSVLogger", init_args=log)
    for callback in trainer.callbacks or ():
        if callback.class_path.endswith("ModelCheckpoint") and callback.init_args.get("dirpath") is None:
            callback.init_args.dirpath = str(Path(root) / "checkpoints")


def check_device(accelerator: str, precision: str) -> None:
    """Refuses settings that need a GPU if there is none.

    Raises:
        UsageError: The accelerator is a GPU, or only GPUs have the precision, and torch finds no GPU.
    """
    has_gpu = torch.cuda.is_available() or (accelerator != "cuda" and torch.backends.mps.is_available())
    if not has_gpu and (accelerator in ("gpu", "cuda") or precision in ("16", "16-mixed", "16-true")):
        raise UsageError(
            f"trainer.accelerator is '{accelerator}' and trainer.precision '{precision}', but torch finds no GPU here. "
            "Train on a machine with one. On this one, try --config configs/laptop.yaml, or, slowly, "
            "--trainer.accelerator cpu --trainer.precision 32-true."
        )


def make_cli() -> TrainCLI:
    """Reads the command line and builds trainer, model and data module; ``configs/lewm.yaml`` is the default."""
    has_config = any(argument.split("=")[0] in ("--config", "-c") for argument in sys.argv[1:])
    return TrainCLI(
        LeWMModule,
        LeWMDataModule,
        run=False,
        seed_everything_default=3072,
        save_config_callback=SaveRedactedConfig,
        save_config_kwargs={"overwrite": True},
        parser_kwargs={"default_config_files": [] if has_config else [str(DEFAULT_CONFIG)]},
    )


def checkpoint_to_continue(cli: TrainCLI) -> str | None:
    """``--ckpt_path``. Without an earlier run, ``last`` is None, so the same command starts a run and continues it."""
    given = [getattr(callback, "dirpath", None) for callback in cli.trainer.checkpoint_callbacks]
    folders = {str(folder) for folder in given if folder}
    if cli.config.ckpt_path != "last" or any(any(Path(folder).glob("last*.ckpt")) for folder in folders):
        return cli.config.ckpt_path
    say(f"No run to continue in {', '.join(sorted(folders)) or 'any folder'}: a new one starts.")
    return None


def command_line(words: list[str]) -> tuple[str, ...]:
    """The command to show to the user, who may paste it; nothing if it holds credentials.

    Args:
        words: The script's path and its arguments.
    """
    is_secret = any(_CREDENTIALS.search(word) or redact(word) != word for word in words)
    return () if is_secret else ("python", *words)


def say(words: str, *, style: str = "") -> None:
    """Prints a sentence to the user."""
    Console(stderr=True).print(words, style=style, soft_wrap=True, highlight=False, markup=False)


def print_redacted(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Prints an unexpected error with its traceback, without storage credentials that settings in it may contain."""
    print(redact("".join(traceback.format_exception(kind, error, trace))), end="", file=sys.stderr)


def main() -> int:
    """Trains, and returns an exit status."""
    torch.set_float32_matmul_precision("high")
    # Lightning's advertisements, sentences that we print in our own words, and a warning about a name inside torch.
    hidden = "Tip:", "Detected KeyboardInterrupt", "was raised with message"
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: not any(words in record.getMessage() for words in hidden)
    )
    warnings.filterwarnings("ignore", "`isinstance\\(treespec, LeafSpec\\)` is deprecated", FutureWarning)
    try:
        cli = make_cli()
        callbacks: list[Any] = cli.trainer.callbacks  # type: ignore[attr-defined]
        diagnostics = [callback for callback in callbacks if isinstance(callback, Diagnostics)]
        for callback in diagnostics:
            callback.command = command_line(sys.argv)
        ckpt_path = checkpoint_to_continue(cli)
        try:
            cli.trainer.fit(cli.model, cli.datamodule, ckpt_path=ckpt_path)
        except (KeyboardInterrupt, SystemExit):
            # Lightning raises these after Ctrl-C and SIGTERM, when callbacks are done
            if not cli.trainer.interrupted:
                raise
            for callback in diagnostics:
                callback.print_verdict(cli.trainer)
            saved = getattr(cli.trainer.checkpoint_callback, "last_model_path", "")
            rest = f" and saved in {saved}. To continue, add --ckpt_path last to the command." if saved else "."
            if cli.trainer.is_global_zero:
                say(f"Interrupted after {cli.trainer.global_step:,} steps{rest}")
            return InterruptedConversionError.exit_status
        if cli.config.export is not None and cli.trainer.is_global_zero:
            say(f"Exported to {export(cli.model, cli.datamodule, cli.config.export)}")
    except LewmDataError as error:
        say(f"error: {error}", style="red")
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.excepthook = print_redacted
    sys.exit(main())
