"""Puts the numbers of the last results into the READMEs and the documentation, and draws their charts.

A README holds pairs of markers, and everything between them is written here from ``benchmarks/results/*.json``:

    <!-- results: throughput.table -->
    <!-- end of results -->

No number is copied by hand, and a test holds that. What has not been measured says so.

    python benchmarks/report.py            write all pages and all charts anew
    python benchmarks/report.py --check    only tell whether the pages are as they would be written
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

if not __package__:  # run as a script, whose folder would hide other packages' datasets and codecs
    sys.path[0] = str(Path(__file__).parents[1])

from benchmarks import codecs_report, conversion_report, scaling_report, throughput_report, training_report
from benchmarks.results import RESULTS, load
from benchmarks.words import PLACE

ROOT = Path(__file__).parents[1]
READMES = (ROOT / "README.md", ROOT / "benchmarks" / "README.md")
PAGES = (*READMES, ROOT / "docs" / "codecs_and_cache.md")
"""Everything that holds markers; the READMEs hold no number outside of them, either."""

REPORTS: Mapping[str, ModuleType] = {
    report.NAME: report
    for report in (throughput_report, conversion_report, codecs_report, scaling_report, training_report)
}
"""Name of a result to the module that knows what it says: it has ``BLOCKS``, ``blocks`` and ``draw``."""

END = "<!-- end of results -->"
MARKED = re.compile(r"(<!-- results: (?P<name>[\w.]+) -->\n)(?P<text>.*?)(\n?<!-- end of results -->)", re.DOTALL)
NOT_MEASURED = "*Not measured yet: `make bench` writes this.*"


def all_blocks(folder: Path = RESULTS) -> dict[str, str]:
    """Every block that the results in a folder have something to say for, by its name: ``throughput.table``."""
    found = {}
    for name, report in REPORTS.items():
        result = load(name, folder)
        if result is not None:
            found.update({f"{name}.{block}": text for block, text in report.blocks(result).items()})
    return found


def fill(text: str, blocks: Mapping[str, str], *, results: str) -> str:
    """Writes blocks between their markers.

    Args:
        text: A README.
        blocks: Name to Markdown.
        results: The folder of results as the README sees it, such as ``benchmarks/results``.

    Returns:
        The README with all that is between markers replaced.
    """

    def block(match: re.Match[str]) -> str:
        found = blocks.get(match["name"], NOT_MEASURED)
        return match[1] + found.replace(f"]({PLACE}", f"]({results}/") + "\n" + END

    return MARKED.sub(block, text)


def filled(readme: Path, blocks: Mapping[str, str]) -> str:
    """A README of this repository as it should be."""
    return fill(readme.read_text(), blocks, results=RESULTS.relative_to(readme.parent, walk_up=True).as_posix())


def draw_all(folder: Path = RESULTS) -> None:
    """Draws the charts of all results in a folder, beside them."""
    for name, report in REPORTS.items():
        result = load(name, folder)
        if result is not None:
            report.draw(result, folder)


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the pages and charts; returns 1 if ``--check`` finds a page that is not up to date."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args(arguments)
    blocks = all_blocks()
    stale = [path for path in PAGES if filled(path, blocks) != path.read_text()]
    for path in stale:
        if options.check:
            print(f"{path.relative_to(ROOT)} does not say what the results say: run python benchmarks/report.py")
        else:
            path.write_text(filled(path, blocks))
    if not options.check:
        draw_all()
    return int(options.check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
