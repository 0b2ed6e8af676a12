"""Write the numbers of the last results into the READMEs and the documentation, and draw their charts.

Pages hold pairs of markers; everything between two markers is written from ``benchmarks/results/*.json``:

    <!-- results: throughput.table -->
    <!-- end of results -->

    python -m benchmarks.report            rewrites all pages and charts
    python -m benchmarks.report --check    only tests whether the pages are up to date
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.blocks import blocks as blocks_of
from benchmarks.drawings import draw
from benchmarks.tables import PLACE, RESULTS, load

ROOT = Path(__file__).parents[1]
READMES = (ROOT / "README.md", ROOT / "benchmarks" / "README.md")
"""Pages without a measured number outside of markers."""
BENCHMARKS = (
    "throughput",
    "conversion",
    "codecs",
    "scaling",
    "training",
    "inspection",
    "assess_faults",
    "assess_prediction",
    "assess_cost",
    "remote",
)
END = "<!-- end of results -->"
MARKED = re.compile(r"(<!-- results: (?P<name>[\w.]+) -->\n)(?P<text>.*?)(\n?<!-- end of results -->)", re.DOTALL)
NOT_MEASURED = "*Not measured yet.*"


def pages() -> list[Path]:
    """The READMEs, and every page of the documentation with markers."""
    return [*READMES, *(page for page in sorted((ROOT / "docs").glob("*.md")) if END in page.read_text())]


def all_blocks(folder: Path = RESULTS) -> dict[str, str]:
    """Every block that the results in a folder fill, by name: ``throughput.table``."""
    found: dict[str, str] = {}
    for name in BENCHMARKS:
        if (result := load(name, folder)) is not None:
            found |= {f"{name}.{block}": text for block, text in blocks_of(name, result).items()}
    return found


def fill(text: str, blocks: Mapping[str, str], *, results: str) -> str:
    """Replaces everything between markers.

    Args:
        text: A page.
        blocks: Name to Markdown.
        results: The folder of results as the page sees it, such as ``benchmarks/results``.
    """

    def block(match: re.Match[str]) -> str:
        found = blocks.get(match["name"], NOT_MEASURED)
        return match[1] + found.replace(f"]({PLACE}", f"]({results}/") + "\n" + END

    return MARKED.sub(block, text)


def filled(page: Path, blocks: Mapping[str, str]) -> str:
    """A page of this repository as it should be."""
    return fill(page.read_text(), blocks, results=RESULTS.relative_to(page.parent, walk_up=True).as_posix())


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the pages and charts; returns 1 if ``--check`` finds a page that is not up to date."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args(arguments)
    blocks = all_blocks()
    stale = [page for page in pages() if filled(page, blocks) != page.read_text()]
    for page in stale:
        if options.check:
            print(f"{page.relative_to(ROOT)} differs from the results: run python -m benchmarks.report")
        else:
            page.write_text(filled(page, blocks))
    if not options.check:
        for name in BENCHMARKS:
            if (result := load(name)) is not None:
                draw(name, result, RESULTS)
    return int(options.check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
