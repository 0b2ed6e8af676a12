"""Writes ``docs/troubleshooting.md`` from the catalog of findings and the errors, so that the page stays current.

python docs/make_troubleshooting.py            write the page
python docs/make_troubleshooting.py --check    only check that it is current
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from lewm_data.catalog import CATALOG
from lewm_data.errors import LewmDataError

PAGE = Path(__file__).with_name("troubleshooting.md")

_INTRODUCTION = """\
# Troubleshooting

<!-- Made by docs/make_troubleshooting.py from lewm_data/catalog.py and lewm_data/errors.py. -->

Every message names the thing, the value, the rule and the remedy, so you will rarely need this page. `lewm-data inspect
SOURCE` shows all findings of a dataset at once, and `--json` prints each of them in full. A converted file keeps its
findings, and what was done about each, in the root attribute `findings`. [Real recordings](recordings.md) lists the
habits of other recorders and converters.
"""

_STATUSES = """\
## Exit statuses

The commands and `train.py` end with these; an interrupted training run saves a checkpoint first. With `--json`,
`error.status` and `error.type` on stdout say the same. In Python, the exception has the status as `exit_status`.

"""

_ERRORS = """
## Findings that are errors

The episode, or the whole dataset, cannot be converted truthfully. `--dirty_episode_policy fail` (the default) refuses
the dataset with status 3. `skip` drops the episodes with errors. `keep` converts those whose frames and rows can still
be aligned (last column) and marks them; it drops the others. Training draws from kept episodes as from all others,
including any NaN, and warns about them when it starts. An error of the whole dataset cannot be skipped, with one
exception: if a recording session was not finished, `skip` and `keep` convert the episodes that are whole, and so does
`--episodes`.

"""

_WARNINGS = """
## Findings that are warnings

Suspicious, but converted, and recorded in the file. Look at these episodes before you train.

"""


def page() -> str:
    """The whole page as Markdown."""
    return "".join(
        (
            _INTRODUCTION + "\n",
            _STATUSES + _table(("status", "errors", "meaning"), _statuses()),
            _ERRORS + _table(("code", "what it means, and what to do", "`keep`"), _findings("error")),
            _WARNINGS + _table(("code", "what it means, and what to do"), (row[:2] for row in _findings("warning"))),
        )
    )


def _statuses() -> Iterator[tuple[str, str, str]]:
    classes = sorted(_all_errors(LewmDataError), key=lambda cls: cls.exit_status)  # stable: parents come first
    yield "0", "", "Done."
    yield "1", "", "Unexpected. Please report it with the lines above the message."
    for cls in classes:
        if cls is not LewmDataError:
            assert cls.__doc__ is not None
            yield str(cls.exit_status), f"`{cls.__name__}`", " ".join(cls.__doc__.split("\n\n")[0].split())


def _all_errors(cls: type[LewmDataError]) -> Iterator[type[LewmDataError]]:
    yield cls
    for child in sorted(cls.__subclasses__(), key=lambda child: child.__name__):
        if child.__module__ == cls.__module__:  # only those of errors.py
            yield from _all_errors(child)


def _findings(severity: str) -> Iterator[tuple[str, str, str]]:
    for code, rule in CATALOG.items():
        if rule.severity == severity:
            yield f"`{code}`", rule.remedy, "converts" if rule.keepable else ""


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the page; returns 1 if ``--check`` finds one that is not up to date."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    is_stale = not PAGE.is_file() or PAGE.read_text() != page()
    if parser.parse_args(arguments).check:
        if is_stale:
            print(f"docs/{PAGE.name} is not what the catalog says: run python docs/make_troubleshooting.py")
        return int(is_stale)
    PAGE.write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
