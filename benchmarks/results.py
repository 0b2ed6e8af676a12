"""What every benchmark has in common: its three sizes, its options, and the JSON that it leaves."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from benchmarks.harness import machine, versions

HERE = Path(__file__).parent
RESULTS = HERE / "results"

type Form = Literal["quick", "bench", "full"]
type Sizes = Mapping[Form, Mapping[str, Any]]
"""Form to the values of the options that it decides: ``quick`` shows that a benchmark works, and its numbers mean
nothing; ``bench`` is for two cores and a few minutes; ``full`` is the long one."""


def make_parser(doc: str | None) -> argparse.ArgumentParser:
    """A command line with what all benchmarks take.

    Args:
        doc: The module's docstring, which ``--help`` shows.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument("--quick", action="store_true", help="small and short: to see that it works")
    forms.add_argument("--full", action="store_true", help="the long form")
    parser.add_argument("--data", type=Path, default=HERE / "data", help="folder that keeps what is measured on")
    parser.add_argument(
        "--output",
        type=Path,
        help="JSON to write; charts lie beside it (benchmarks/results/NAME.json; with --quick benchmarks/data/quick/)",
    )
    return parser


def parse(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None, *, name: str, sizes: Sizes
) -> argparse.Namespace:
    """Reads the command line; what was not given is as the form has it.

    Args:
        parser: Of ``make_parser``, with options of its own that are None by default where a form decides them.
        arguments: The command line; None is the process's own.
        name: The benchmark.
        sizes: The values of its forms.

    Returns:
        The options, ``form`` and ``output`` among them; the folder ``data`` exists.
    """
    options = parser.parse_args(arguments)
    options.form = "quick" if options.quick else "full" if options.full else "bench"
    for key, value in sizes[options.form].items():
        if getattr(options, key, None) is None:
            setattr(options, key, value)
    options.data.mkdir(parents=True, exist_ok=True)
    options.output = options.output or (HERE / "data" / "quick" if options.quick else RESULTS) / f"{name}.json"
    return options


class Run:
    """A run of a benchmark, from its begin to its JSON."""

    def __init__(self, name: str, form: str, *distributions: str) -> None:
        """Looks at the machine while it is still quiet.

        Args:
            name: The benchmark.
            form: ``quick``, ``bench`` or ``full``.
            distributions: Packages whose versions matter, besides lewm_data and numpy.
        """
        self._began = time.perf_counter()
        self._head: dict[str, Any] = {
            "benchmark": name,
            "form": form,
            "machine": machine(),
            "versions": versions("lewm_data", "numpy", *distributions),
        }

    @property
    def processor(self) -> str:
        """Name of the processor."""
        return str(self._head["machine"]["processor"])

    def finish(self, output: Path, measured: Mapping[str, Any]) -> dict[str, Any]:
        """Writes the JSON, whole or not at all.

        Args:
            output: Where to.
            measured: What was found.

        Returns:
            The whole result.
        """
        seconds = round(time.perf_counter() - self._began, 1)
        result = {**self._head, **measured, "seconds": seconds, "load_at_end": round(os.getloadavg()[0], 2)}
        output.parent.mkdir(parents=True, exist_ok=True)
        partial = output.with_name(f"{output.name}.partial")
        partial.write_text(json.dumps(result, indent=2) + "\n")
        partial.replace(output)
        return result


def load(name: str, folder: Path = RESULTS) -> dict[str, Any] | None:
    """The last result of a benchmark; None where there is none."""
    path = folder / f"{name}.json"
    if not path.exists():
        return None
    result: dict[str, Any] = json.loads(path.read_text())
    return result
