"""Charts that stay legible when a README shows them 800 pixels wide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import Spread

COLORS = {"limit": "#8c8c8c", "ours": "#1b7f5c", "peer": "#c2571a", "mp4": "#7a3b8f"}
"""Told apart also by those who see no red or no green: they differ in lightness."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """One bar.

    Attributes:
        label: What stands beside it.
        group: A key of ``COLORS``.
        value: Its length, and the whisker's ends.
    """

    label: str
    group: str
    value: Spread


def draw_bars(path: Path, bars: Sequence[Bar], *, title: str, axis: str, groups: dict[str, str], note: str) -> None:
    """Draws horizontal bars on a logarithmic axis, the first on top.

    Args:
        path: The PNG to write.
        bars: From top to bottom.
        title: What is shown.
        axis: What the axis counts.
        groups: Group to its words in the legend.
        note: One small line below: circumstances.
    """
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot
    from matplotlib.patches import Patch

    figure, axes = pyplot.subplots(figsize=(9, 1.8 + 0.33 * len(bars)), dpi=120, layout="constrained")
    least = min(bar.value.min for bar in bars)
    for place, bar in enumerate(reversed(bars)):
        value = bar.value
        axes.barh(place, value.median, color=COLORS[bar.group], height=0.72)
        axes.plot([value.min, value.max], [place, place], color="black", linewidth=1.2, solid_capstyle="butt")
        axes.text(value.max * 1.1, place, f"{value.median:,.0f}", va="center", fontsize=11)
    axes.set_yticks(range(len(bars)), [bar.label for bar in reversed(bars)], fontsize=11)
    axes.set_xscale("log")
    axes.set_xlim(least / 3, max(bar.value.max for bar in bars) * 3)
    axes.tick_params(axis="x", labelsize=11)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlabel(axis, fontsize=11)
    axes.grid(axis="x", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    handles = [Patch(color=COLORS[group], label=words) for group, words in groups.items()]
    legend = {"fontsize": 10, "ncols": 2, "frameon": False, "title": title, "title_fontsize": 13, "alignment": "left"}
    figure.legend(handles=handles, loc="outside upper left", **legend)
    figure.text(0.01, -0.005, note, ha="left", va="top", fontsize=9, color="#555555")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, bbox_inches="tight")
    pyplot.close(figure)
