"""Tab completion for bash and zsh: a static script, so that a shell need not start Python at each Tab."""

from __future__ import annotations

import argparse
import shlex
from typing import get_args

from lewm_data.cli.parser import make_parser, subparsers

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
