"""Run a benchmark from its command line to its JSON, table and charts."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import against
from benchmarks.blocks import blocks
from benchmarks.drawings import draw
from benchmarks.harness import machine, versions
from benchmarks.tables import PLACE, RESULTS

HERE = Path(__file__).parent
FORMS = ("quick", "bench", "full")
"""``quick`` shows that a benchmark works, and its numbers mean nothing; ``bench`` takes a few minutes on two cores;
``full`` is the long one."""


class Option:
    """A setting of a benchmark, with its value in each form.

    Args:
        help: What ``--help`` says; empty for a setting that is not a flag.
        values: One value for all forms, or those of ``quick``, ``bench`` and ``full``; sequences take several words.
        choices: What a word may be.
        type: What a word becomes; by default the type of the value.
    """

    def __init__(
        self, help: str, *values: Any, choices: Sequence[str] | None = None, type: Callable[[str], Any] | None = None
    ) -> None:
        self.values = dict(zip(FORMS, values * 3 if len(values) == 1 else values, strict=True))
        self._help, self._choices, self._type = help, choices, type

    def add_to(self, parser: argparse.ArgumentParser, name: str) -> None:
        """Adds the flag."""
        if not self._help:
            return
        value, full = self.values["bench"], self.values["full"]
        several = isinstance(value, tuple)
        default = f" ({_words(value)}{'' if full == value else f'; full {_words(full)}'})" if value is not None else ""
        parser.add_argument(
            f"--{name}",
            type=self._type or type(value[0] if several else value),
            nargs="+" if several else None,
            choices=self._choices,
            metavar="NAME" if self._choices else None,
            help=f"{self._help}{default}".replace("%", "%%"),
        )


def _words(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


@dataclass(frozen=True, kw_only=True, slots=True)
class Benchmark:
    """A benchmark: what it measures, and its settings.

    Attributes:
        name: Names the result, ``benchmarks/results/NAME.json``.
        doc: What ``--help`` says.
        options: Settings by name.
        measure: Takes the settings, and returns what the JSON holds besides machine and versions.
        distributions: Packages whose versions the JSON records, besides lewm_data and numpy.
    """

    name: str
    doc: str | None
    options: Mapping[str, Option]
    measure: Callable[[argparse.Namespace], dict[str, Any]]
    distributions: tuple[str, ...] = ()

    def parse(self, arguments: Sequence[str] | None) -> argparse.Namespace:
        """Reads the command line; the form decides what it leaves out. Creates the folder ``data``."""
        parser = argparse.ArgumentParser(description=self.doc, formatter_class=argparse.RawDescriptionHelpFormatter)
        forms = parser.add_mutually_exclusive_group()
        for form, help in (("quick", "small and short: shows that it works"), ("full", "the long form")):
            forms.add_argument(f"--{form}", dest="form", action="store_const", const=form, default="bench", help=help)
        parser.add_argument("--data", type=Path, default=HERE / "data", help="folder for prepared datasets")
        parser.add_argument(
            "--output",
            type=Path,
            help="JSON to write, with charts in the same folder (benchmarks/results; --quick: benchmarks/data/quick)",
        )
        if "rounds" in self.options:
            parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="compare the speed of this checkout "
                                "with another one, which has its own .venv; writes no results")  # fmt: skip
        for name, option in self.options.items():
            option.add_to(parser, name)
        options = parser.parse_args(arguments)
        for name, option in self.options.items():
            if getattr(options, name, None) is None:
                setattr(options, name, option.values[options.form])
        options.data.mkdir(parents=True, exist_ok=True)
        folder = HERE / "data" / "quick" if options.form == "quick" else RESULTS
        options.output = options.output or folder / f"{self.name}.json"
        return options

    def main(self, arguments: Sequence[str] | None = None) -> None:
        """Measures, writes JSON and charts, and prints the tables."""
        options = self.parse(arguments)
        if getattr(options, "against", None):
            print(against.compare(self.name, options.against, arguments, rounds=options.rounds, data=options.data))
            return
        began = time.perf_counter()
        head = {
            "benchmark": self.name,
            "form": options.form,
            "machine": machine(),
            "versions": versions("lewm_data", "numpy", *self.distributions),
        }
        measured = self.measure(options)
        seconds = round(time.perf_counter() - began, 1)
        result = {**head, **measured, "seconds": seconds, "load_at_end": round(os.getloadavg()[0], 2)}
        output = options.output
        output.parent.mkdir(parents=True, exist_ok=True)
        partial = output.with_name(f"{output.name}.partial")
        partial.write_text(json.dumps(result, indent=2) + "\n")
        partial.replace(output)
        draw(self.name, result, output.parent)
        print("\n\n".join(text for text in blocks(self.name, result).values() if PLACE not in text))
