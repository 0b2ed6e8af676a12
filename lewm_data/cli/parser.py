"""What may be typed: the commands and their flags, and what is said of a slip."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, Namespace

from lewm_data import __version__
from lewm_data.config import ConvertConfig, PreviewConfig
from lewm_data.errors import UsageError, printable

_LITERAL = re.compile(r"Expected a typing\.Literal\[(.*?)\]\. Got value: (.*)")
_CLASS = re.compile(r"Expected an? <class '(\w+)'>\. Got value: (.*)")
_KINDS = {"int": "a whole number", "float": "a number"}


class Parser(ArgumentParser):
    """Says what is wrong in a line, and where to read on; argparse prints twenty of usage before it."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Ends with status 2."""
        within = re.search(r"arguments are required: (\w+)\.", message)
        command = f"{self.prog} {within[1]}" if within else self.prog
        told = printable(self._in_words(message))
        self.exit(UsageError.exit_status, f"error: {told}\nSee: {command} --help\n")

    def _in_words(self, message: str) -> str:
        if missing := re.search(r"arguments are required: (.*)", message):
            names = [name.rpartition(".")[2].upper() for name in missing[1].split(", ")]
            return f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} missing."
        if slip := re.search(r"unrecognized arguments: (.*)", message):
            flag = slip[1].split()[0].split("=")[0]
            return f"there is no {slip[1].split()[0]}.{self._meant(flag, self._option_string_actions)}"
        if slip := re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message):
            choices = re.findall(r"'(.*?)'", slip[2])
            return f"there is no {slip[1]}.{self._meant(slip[1], choices)} There are: {', '.join(choices)}."
        key = re.search(r'key "(.*?)"', message)
        name = key[1].rpartition(".")[2] if key else "a value"
        if wrong := _LITERAL.search(message):
            choices = re.findall(r"'(.*?)'", wrong[1])
            return f"{name} is {wrong[2]!r}, but must be one of {', '.join(choices)}."
        if wrong := _CLASS.search(message):
            return f"{name} is {wrong[2]!r}, but must be {_KINDS.get(wrong[1], wrong[1])}."
        return message

    def _meant(self, slip: str, choices: Sequence[str] | dict[str, Any]) -> str:
        near = difflib.get_close_matches(slip, list(choices), 1)
        return f" Did you mean {near[0]}?" if near else ""


def parse(arguments: Sequence[str]) -> Namespace:
    """Reads a command line; nothing at all asks for help, and ``--image-size`` is ``--image_size``.

    Raises:
        SystemExit: It was asked for help, or cannot be understood: with status 2.
    """
    given = [re.sub(r"^--[\w-]+", lambda flag: "--" + flag[0][2:].replace("-", "_"), word) for word in arguments]
    return _make_parser().parse_args(given or ["--help"])


def _make_parser() -> Parser:
    parser = Parser(prog="lewm-data", description="LeRobot datasets in, random windows for JEPAs out.")
    parser.add_argument("--version", action="version", version=f"lewm_data {__version__}")
    commands = parser.add_subcommands(required=True)

    inspect = Parser(description="Metadata, findings and a plan; converts nothing.")
    inspect.add_argument("source", help="dataset folder or Hub repo id")
    _add_settings(inspect)
    commands.add_subcommand("inspect", inspect, help="metadata, findings and a plan")

    convert = Parser(
        description="Inspects a LeRobot dataset, then converts it; goes on by itself after an interruption."
    )
    convert.add_argument("source", help="dataset folder or Hub repo id")
    convert.add_argument("output", help="HDF5 file to make")
    _add_settings(convert)
    commands.add_subcommand("convert", convert, help="inspect, then convert to one HDF5 file")

    verify = Parser(description="Checks every checksum and invariant; or every frame against the source.")
    verify.add_argument("file", help="HDF5 file")
    verify.add_argument("--against", default=None, type=str | None, help="dataset folder or Hub repo id it came from")
    _add_json(verify)
    commands.add_subcommand("verify", verify, help="every checksum and invariant, or every frame against the source")

    merge = Parser(description="Joins files by copying their stored chunks.")
    merge.add_argument("files", nargs="+", help="HDF5 files to join, or one sharded one, then the HDF5 file to make")
    merge.add_argument("--overwrite", action="store_true", help="replace an output that exists")
    merge.add_argument(
        "--allow_duplicates", action="store_true", help="accept files that hold the same episode of the same source"
    )
    _add_json(merge)
    commands.add_subcommand("merge", merge, help="join files by copying stored chunks")

    push = Parser(description="Verifies a converted file, then uploads it with a card to the Hub.")
    push.add_argument("file", help="HDF5 file")
    push.add_argument("repo_id", help="dataset repo on the Hub, owner/name; made if need be, private")
    push.add_argument("--public", action="store_true", help="let everybody see a repo that is made")
    push.add_argument("--overwrite", action="store_true", help="commit a new version over other content")
    _add_json(push)
    commands.add_subcommand("push", push, help="verify a file, then upload it with a card to the Hub")

    pull = Parser(description="Downloads a converted file from the Hub and checks it before it gets its name.")
    pull.add_argument("repo_id", help="dataset repo on the Hub, owner/name")
    pull.add_argument("output", help="HDF5 file to make")
    pull.add_argument("--revision", default=None, type=str | None, help="branch, tag or commit")
    pull.add_argument("--file", default=None, type=str | None, help="which file, where the repo holds several")
    pull.add_argument("--checksums", action="store_true", help="read every frame and compare its checksum, too")
    pull.add_argument("--overwrite", action="store_true", help="replace an output that exists")
    _add_json(pull)
    commands.add_subcommand("pull", pull, help="download a converted file from the Hub and check it")

    preview = Parser(description="Shows a dataset on one self-contained page, before its conversion or after.")
    preview.add_argument("source", help="converted HDF5 file, dataset folder or Hub repo id")
    preview.add_argument("output", help="page (.html) or contact sheet (.png) to make")
    preview.add_class_arguments(PreviewConfig, as_group=True, skip={"overwrite"})
    preview.add_argument("--overwrite", action="store_true", help="replace an output that exists")
    _add_json(preview)
    commands.add_subcommand("preview", preview, help="a page, or a contact sheet, to look at a dataset")

    view = Parser(description="Shows an episode of a converted file in Rerun.")
    view.add_argument("file", help="converted HDF5 file")
    view.add_argument("--episode", type=int, default=0, help="its number in the file")
    view.add_argument(
        "--save", type=str | None, default=None, help="Rerun recording (.rrd) to make, instead of a window"
    )
    view.add_argument("--overwrite", action="store_true", help="replace an output that exists")
    _add_json(view)
    commands.add_subcommand("view", view, help="an episode in Rerun")

    demo = Parser(description="Records a small PushT dataset with LeRobot's own writer.")
    demo.add_argument("dir", help="folder to record into; left alone if it holds the recording already")
    _add_json(demo)
    commands.add_subcommand("demo", demo, help="record a small PushT dataset with LeRobot's own writer")
    for name, command in commands._name_parser_map.items():
        command.prog = f"lewm-data {name}"  # without the "[options]" before it, which are none
        for action in command._actions:
            action.help = action.help and action.help.replace("``", "")  # marks of docstrings
    return parser


def _add_settings(parser: Parser) -> None:
    parser.add_argument("--config", action="config", help="YAML or JSON file with these settings")
    parser.add_class_arguments(ConvertConfig, as_group=True, skip={"overwrite"})
    parser.add_argument("--overwrite", action="store_true", help="replace an output that exists")
    _add_json(parser)


def _add_json(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
