"""Draws the picture of ``lewm-data inspect``: ``python docs/inspect_screenshot.py``, from the repository's root.

It records a small dataset with LeRobot's own writer, damages it, and draws the output of the command.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from io import StringIO
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np  # noqa: E402
from rich._export_format import CONSOLE_SVG_FORMAT  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.terminal_theme import MONOKAI  # noqa: E402

import lewm_data  # noqa: E402
from lewm_data.cli.display import show_commands, show_inspection, show_verdict  # noqa: E402
from lewm_data.report import next_commands  # noqa: E402
from tests.quality import dirt  # noqa: E402
from tests.recording import record_v3  # noqa: E402

IMAGES = ROOT / "docs" / "images"
WIDTH = 100


def main() -> None:
    """Draws the picture."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        record_v3(Path("pick_cube"), episode_lengths=(40, 32, 55, 47, 12), cameras=("front", "wrist"))
        Path("pick_cube").rename("pick_cube_dirty")
        spoil(Path("pick_cube_dirty"))
        draw("pick_cube_dirty", IMAGES / "inspect_dirty.svg", camera="front")


def spoil(root: Path) -> None:
    """Puts NaN into one episode's actions and removes the video span of another."""
    dirt.rows(lambda table: dirt.set_column(table, "action", _with_nan(table["action"].to_pylist())))(root)
    dirt.span(3, 1.0, 0.5)(root)


def _with_nan(values: list[list[float]]) -> list[list[float]]:
    return [[np.nan] * len(row) if 45 <= place < 52 else row for place, row in enumerate(values)]


def draw(source: str, image: Path, **settings: str) -> None:
    """Inspects a source and draws the output of the command."""
    console = Console(record=True, width=WIDTH, file=StringIO(), force_terminal=True, color_system="truecolor")
    flags = "".join(f" --{name} {value}" for name, value in settings.items())
    console.print(f"[bold]$ lewm-data inspect {source}{flags}[/]", highlight=False)
    result = lewm_data.inspect(source, **settings)
    show_inspection(console, result.inspection)
    show_verdict(console, result.verdict)
    show_commands(console, next_commands(result.inspection))
    console.print()
    image.parent.mkdir(parents=True, exist_ok=True)
    # rich's own template fetches a font from the network; use the reader's monospaced font
    template = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    template = template.replace("font-family: Fira Code, monospace", "font-family: monospace")
    image.write_text(
        console.export_svg(title="lewm-data inspect", theme=MONOKAI, unique_id=image.stem, code_format=template)
    )


if __name__ == "__main__":
    main()
