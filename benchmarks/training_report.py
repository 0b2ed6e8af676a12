"""What a training result says, beside what the loader delivers on the same machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.harness import Spread, markdown
from benchmarks.results import load
from benchmarks.words import circumstances, count, picture, spread

NAME = "training"
CHART = "training.png"
BLOCKS = ("chart", "summary", "table")
"""Everything that ``blocks`` may write."""

_SHOWN = ("ram_thread", "lzf_thread", "swm_lance", "swm_hdf5", "lerobot_torchcodec")


def _loaders(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of the last throughput result, where it was measured on the same processor and for the same frames."""
    throughput = load("throughput")
    if throughput is None or throughput["machine"]["processor"] != result["machine"]["processor"]:
        return []
    if f"{result['side']}x{result['side']}" not in throughput["source"]:
        return []
    return [row for name in _SHOWN for row in throughput["rows"] if row["name"] == name]


def blocks(result: Mapping[str, Any]) -> dict[str, str]:
    """The result as Markdown, piece by piece.

    Args:
        result: As ``training.py`` writes it.

    Returns:
        Name of a block to its text.
    """
    consumed = result["windows_per_second"]
    words = (
        f"LeWM ({result['num_parameters'] / 1e6:.1f} million parameters, {result['side']}x{result['side']}, batch "
        f"{result['batch_size']}) consumes {spread(consumed)} windows/s on {result['device']} "
        f"({result['device_type']}). {circumstances(result)}"
    )
    rows = [("LeWM, consumes", spread(consumed), "1")]
    for row in _loaders(result):
        rate = row["windows_per_second"]
        rows.append((f"{row['label']}, delivers", spread(rate), count(rate["median"] / consumed["median"])))
    return {
        "chart": picture("What LeWM consumes beside what loaders deliver, windows per second", CHART),
        "summary": words,
        "table": markdown(("who", "windows/s (min to max)", "times what LeWM consumes"), rows),
    }


def draw(result: Mapping[str, Any], folder: Path) -> None:
    """Draws what the model consumes beside what loaders deliver."""
    from benchmarks.charts import Bar, draw_bars

    consumed = Bar(
        label=f"LeWM consumes ({result['device_type']})", group="limit", value=Spread(**result["windows_per_second"])
    )
    loaders = [
        Bar(label=row["label"], group=row["group"], value=Spread(**row["windows_per_second"]))
        for row in _loaders(result)
    ]
    groups = {"limit": "the model", "ours": "lewm_data", "peer": "stable-worldmodel", "mp4": "LeRobotDataset, MP4"}
    draw_bars(
        folder / CHART,
        [consumed, *loaders],
        title="Is the data or the model the limit?",
        axis="windows per second, log scale (line: slowest to fastest round)",
        groups={
            name: words for name, words in groups.items() if any(bar.group == name for bar in [consumed, *loaders])
        },
        note=f"LeWM: batch {result['batch_size']} on {result['device']}; loaders: the last throughput result",
        show=count,
    )
