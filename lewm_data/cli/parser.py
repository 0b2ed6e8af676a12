"""The commands and their flags, one sentence for each mistake on the command line, and tab completion."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import itertools
import json
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn, get_args

from jsonargparse import ArgumentParser, Namespace

from lewm_data import __version__
from lewm_data.config import AssessConfig, ConvertConfig, PreviewConfig
from lewm_data.errors import UsageError, printable

_LITERAL = re.compile(r"Expected a typing\.Literal\[(.*?)\]\. Got value: (.*)")
_CLASS = re.compile(r"Expected an? <class '(\w+)'>\. Got value: (.*)")
_KINDS = {"int": "a whole number", "float": "a number"}

_LIST_FLAGS = {f"--{field.name}" for field in dataclasses.fields(ConvertConfig) if isinstance(field.default, tuple)}
"""Flags that take several values with commas between them."""

_SWITCHES = {f"--{field.name}" for field in dataclasses.fields(ConvertConfig) if isinstance(field.default, bool)} - {
    "--overwrite"  # which never takes a value
}
"""Flags that need no value. ``--trim_idle true``, as in a YAML file, means the same as ``--trim_idle``."""


class CommandLineError(SystemExit):
    """A mistake on the command line, which has been printed to stderr.

    Attributes:
        sentence: The mistake in one sentence.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(UsageError.exit_status)
        self.sentence = sentence


class Parser(ArgumentParser):
    """Reports a mistake in one sentence, where argparse would print twenty lines of usage first."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Exits with status 2."""
        within = re.search(r"arguments are required: (\w+)\.", message)
        command = f"{self.prog} {within[1]}" if within else self.prog
        sentence = printable(self._sentence(message))
        self._print_message(f"error: {sentence}\nSee: {command} --help\n", sys.stderr)
        raise CommandLineError(sentence)

    def _sentence(self, message: str) -> str:
        if missing := re.search(r"arguments are required: (.*)", message):
            names = [name.rpartition(".")[2].upper() for name in missing[1].split(", ")]
            return f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} missing."
        if slip := re.search(r"unrecognized arguments: (.*)", message):
            flag = slip[1].split()[0].split("=")[0]
            if not flag.startswith("-"):
                return f"{flag!r} is one argument too many."
            return f"there is no {slip[1].split()[0]}.{_suggestion(flag, self._option_string_actions)}"
        if slip := re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message):
            choices = re.findall(r"'(.*?)'", slip[2])
            return f"there is no {slip[1]}.{_suggestion(slip[1], choices)} Choose from: {', '.join(choices)}."
        if absent := re.search(r"(?:File does not exist|Path is not a file): '(.*?)'", message):
            return f"config is {absent[1]!r}, but there is no such file."
        if slip := re.search(r"(?:Problems parsing config|Parser key \"config\"): (.*)", message, re.DOTALL):
            return f"config is not valid YAML or JSON: {' '.join(slip[1].split())}."
        key = re.search(r'key "(.*?)"', message)
        name = key[1].rpartition(".")[2] if key else "a value"
        if wrong := _LITERAL.search(message):
            choices = re.findall(r"'(.*?)'", wrong[1])
            return f"{name} is {wrong[2]!r}, but must be one of {', '.join(choices)}."
        if wrong := _CLASS.search(message):
            return f"{name} is {wrong[2]!r}, but must be {_KINDS.get(wrong[1], wrong[1])}."
        return message


def _suggestion(slip: str, choices: Sequence[str] | dict[str, Any]) -> str:
    near = difflib.get_close_matches(slip, list(choices), 1)
    return f" Did you mean {near[0]}?" if near else ""


def parse(arguments: Sequence[str]) -> Namespace:
    """Parses a command line. Without arguments it prints the help; ``--image-size`` means ``--image_size``.

    Raises:
        SystemExit: The help was printed, or the command line is wrong (status 2).
    """
    return make_parser().parse_args(list(_normalized(arguments or ["--help"])))


def _normalized(arguments: Sequence[str]) -> Iterator[str]:
    """Writes flags with underscores and lists as JSON, as jsonargparse expects them."""
    is_list = False
    for word, following in itertools.pairwise([*arguments, ""]):
        flag, equals, value = word.partition("=")
        if flag.startswith("--"):
            flag = "--" + flag[2:].replace("-", "_")
            is_list = flag in _LIST_FLAGS
            if flag in _SWITCHES and not equals and following.lower() not in ("true", "false"):
                equals, value = "=", "true"
            yield flag + equals + (_as_json(value) if is_list and equals else value)
        else:
            yield _as_json(word) if is_list else word
            is_list = False


def _as_json(text: str) -> str:
    return text if text.startswith("[") else json.dumps([part.strip() for part in text.split(",") if part.strip()])


def make_parser() -> Parser:
    """Makes the parser of all commands."""
    parser = Parser(prog="lewm-data", description="LeRobot datasets in, random windows for world models out.")
    parser.add_argument("--version", action="version", version=f"lewm_data {__version__}", help="print the version")
    commands = parser.add_subcommands(required=True)

    inspect = Parser(description="Reports what is wrong with a LeRobot dataset and what a conversion takes.")
    inspect.add_argument("source", help="dataset folder or Hub repo id")
    _add_settings(inspect)
    commands.add_subcommand("inspect", inspect, help="report findings and a plan; convert nothing")

    assess = Parser(description="Judges whether a world model can learn from a recording. Needs no GPU.")
    assess.add_argument("source", help="converted HDF5 file or its address, dataset folder or Hub repo id")
    assess.add_class_arguments(AssessConfig, as_group=True)
    assess.add_argument("--png", type=str | None, default=None, help="also draw the judgment into this file")
    _add_overwrite(assess)
    _add_json(assess)
    commands.add_subcommand("assess", assess, help="judge whether a world model can learn from it")

    convert = Parser(description="Inspects a LeRobot dataset, then converts it. Resumes after an interruption.")
    convert.add_argument("source", help="dataset folder or Hub repo id")
    convert.add_argument("output", help="HDF5 file to write")
    _add_settings(convert)
    commands.add_subcommand("convert", convert, help="inspect, then convert to one HDF5 file")

    verify = Parser(description="Checks every checksum and invariant of a file, or every frame against the source.")
    verify.add_argument("file", help="HDF5 file or its address, such as s3://bucket/so101.h5")
    verify.add_argument(
        "--against", default=None, type=str | None, help="dataset folder or Hub repo id to compare with"
    )
    _add_json(verify)
    commands.add_subcommand("verify", verify, help="check every checksum, or compare every frame with the source")

    merge = Parser(description="Joins files by copying their stored chunks.")
    merge.add_argument("files", nargs="+", help="HDF5 files or addresses, or one sharded file; then the file to write")
    _add_overwrite(merge)
    merge.add_argument(
        "--allow_duplicates", action="store_true", help="accept files that hold the same episode of the same source"
    )
    _add_json(merge)
    commands.add_subcommand("merge", merge, help="join files by copying their stored chunks")

    push = Parser(description="Verifies a converted file, then uploads it to the Hub with a dataset card.")
    push.add_argument("file", help="HDF5 file")
    push.add_argument("repo_id", help="dataset repo on the Hub, owner/name; created as private if it does not exist")
    push.add_argument("--public", action="store_true", help="let everyone see the recording")
    push.add_argument("--overwrite", action="store_true", help="commit a new version over other content")
    _add_json(push)
    commands.add_subcommand("push", push, help="verify a file, then upload it to the Hub with a card")

    pull = Parser(description="Downloads a converted file from the Hub and checks it.")
    pull.add_argument("repo_id", help="dataset repo on the Hub, owner/name")
    pull.add_argument("output", help="HDF5 file to write")
    pull.add_argument("--revision", default=None, type=str | None, help="branch, tag or commit")
    pull.add_argument("--file", default=None, type=str | None, help="name of the file, if the repo holds several")
    pull.add_argument("--checksums", action="store_true", help="also compare the checksum of every frame")
    _add_overwrite(pull)
    _add_json(pull)
    commands.add_subcommand("pull", pull, help="download a converted file from the Hub and check it")

    preview = Parser(description="Shows a dataset on one self-contained page, before its conversion or after.")
    preview.add_argument("source", help="converted HDF5 file or its address, dataset folder or Hub repo id")
    preview.add_argument("output", help="page (.html) or contact sheet (.png) to write")
    preview.add_class_arguments(PreviewConfig, as_group=True, skip={"overwrite"})
    _add_overwrite(preview)
    _add_json(preview)
    commands.add_subcommand("preview", preview, help="make a page or a contact sheet of a dataset")

    view = Parser(description="Shows an episode of a converted file in Rerun.")
    view.add_argument("file", help="converted HDF5 file or its address")
    view.add_argument("--episode", type=int, default=0, help="the episode's number in the file")
    view.add_argument("--save", type=str | None, default=None, help="write a Rerun recording (.rrd) instead")
    _add_overwrite(view)
    _add_json(view)
    commands.add_subcommand("view", view, help="show an episode in Rerun")

    demo = Parser(description="Records a small PushT dataset with LeRobot's own writer.")
    demo.add_argument("dir", help="folder to record into; kept as it is if it already holds the recording")
    _add_json(demo)
    commands.add_subcommand("demo", demo, help="record a small PushT dataset with LeRobot's own writer")

    completion = Parser(description='Prints a completion script. Try it: eval "$(lewm-data completion bash)"')
    completion.add_argument("shell", choices=("bash", "zsh"), help="bash or zsh")
    commands.add_subcommand("completion", completion, help="print a script for tab completion in bash or zsh")

    for name, command in subparsers(parser).items():
        command.prog = f"lewm-data {name}"  # by default, it says "[options]" although there are none
        for action in command._actions:
            action.help = action.help and action.help.replace("``", "")  # the markup of docstrings
    return parser


def subparsers(parser: Parser) -> dict[str, Parser]:
    """Returns the parser of each command."""
    assert parser._subcommands_action is not None
    return parser._subcommands_action._name_parser_map


def _add_settings(parser: Parser) -> None:
    parser.add_argument("--config", action="config", help="YAML or JSON file with these settings")
    parser.add_class_arguments(ConvertConfig, as_group=True, skip={"overwrite"})
    _add_overwrite(parser)
    _add_json(parser)


def _add_overwrite(parser: Parser) -> None:
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")


def _add_json(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")


_SCRIPT = """\
{zsh}_lewm_data() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}} words= values=
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        words={commands}
    else
        case ${{COMP_WORDS[1]}} in
{cases}
        esac
        case $word in -*) ;; *) [ "$values" ] && words=$values || words= ;; esac
    fi
    [ "$words" ] && COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _lewm_data lewm-data
"""


def completion_script(shell: str) -> str:
    """Writes the script that completes commands, flags and their choices; everything else completes as a file name.

    Args:
        shell: ``bash`` or ``zsh``.
    """
    commands = subparsers(make_parser())
    cases = []
    for name, command in commands.items():
        flags = [flag for action in command._actions for flag in action.option_strings if flag.startswith("--")]
        cases.append(f"            {name}) words={shlex.quote(' '.join(flags))}")
        choices = {flag: _choices(action) for action in command._actions for flag in action.option_strings or [""]}
        cases.append("                case $previous in")
        for flag, values in choices.items():
            if values:
                cases.append(f"                    {flag or name}) values={shlex.quote(' '.join(values))} ;;")
        cases.append("                esac ;;")
    return _SCRIPT.format(
        zsh="autoload -Uz bashcompinit && bashcompinit\n" if shell == "zsh" else "",
        commands=shlex.quote(" ".join(commands)),
        cases="\n".join(cases),
    )


def _choices(action: argparse.Action) -> list[str]:
    """The values that an argument accepts, if they can be listed."""
    if action.choices:
        return [str(choice) for choice in action.choices]
    values = get_args(getattr(action, "_typehint", None))
    return [value for value in values if isinstance(value, str)]
