"""Tab completion: the script runs in the shells that it is for."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from lewm_data.cli.parser import completion_script

PROBE = """
eval "$SCRIPT"
COMP_WORDS=(%s) COMP_CWORD=%d
_lewm_data
printf '%%s\\n' "${COMPREPLY[@]}"
"""


def completed(shell: str, *words: str) -> list[str]:
    """What a shell offers for the last of some words."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    quoted = " ".join(f"'{word}'" for word in words)
    code = PROBE % (quoted, len(words) - 1)
    if shell == "zsh":
        code = f"autoload -Uz compinit; compinit -u -D; setopt ksharrays\n{code}"
    done = subprocess.run(
        [shell, "-c", code], capture_output=True, text=True, env={"SCRIPT": completion_script(shell)}, timeout=30
    )
    assert done.returncode == 0, done.stderr
    return [word for word in done.stdout.split() if word.startswith(words[-1])]  # zsh filters after the script


@pytest.mark.parametrize("shell", ["bash", "zsh"])
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("lewm-data", "con"), ["convert"]),
        (("lewm-data", "pu"), ["push", "pull"]),
        (("lewm-data", "convert", "recording", "--com"), ["--compression"]),
        (("lewm-data", "convert", "--compression", "lz"), ["lzf", "lz4"]),
        (("lewm-data", "verify", "--a"), ["--against"]),
        (("lewm-data", "verify", "--compression", "lz"), []),
        (("lewm-data", "convert", "reco"), []),  # left to the shell's completion of file names
        (("lewm-data", "completion", ""), ["bash", "zsh"]),
    ],
)
def test_a_shell_completes_commands_flags_and_choices(shell: str, words: tuple[str, ...], offered: list[str]) -> None:
    assert completed(shell, *words) == offered


def test_a_file_name_completes_where_no_word_is_known() -> None:
    assert "complete -o default" in completion_script("bash")
