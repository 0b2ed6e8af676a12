"""The diagnostics as one picture, in the style of the preview page."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lewm_data.notation import count_of
from lewm_data.training.diagnosis import Diagnosis, blindness_words
from lewm_data.training.latents import EpisodeLatents
from lewm_data.training.verdict import Run, cautions, judge, next_steps

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

_NUM_PATHS = 4
_MAX_NAMES = 16
_PAPER, _CARD, _INK, _QUIET, _LINE = "#fbfbf9", "#ffffff", "#1c2024", "#5d666f", "#dfe2e0"
_MODEL, _SHUFFLED, _COPY, _MEAN = "#0b6e75", "#0072b2", "#c05a00", "#6f7a74"
_LEVELS = {"good": ("#1b7a43", "#e3f3e8", "✓"), "fair": ("#8a5a00", "#fdf0d5", "!"), "bad": ("#b3261e", "#fbe4e1", "×")}
_WIDTH, _HEIGHT, _DPI = 15.0, 7.0, 110
_LINE_HEIGHT = 0.23
"""Of the cautions and next steps, in inches, below a picture that is ``_HEIGHT`` inches high."""

_LETTERS = 190


def draw(diagnosis: Diagnosis, episodes: Sequence[EpisodeLatents], path: Path, *, run: Run) -> None:
    """Draws the verdict, the numbers, and four charts: errors, plans, paths through the latent space, and the probe.

    Args:
        diagnosis: What was measured.
        episodes: The validation episodes.
        path: PNG to write; it appears whole or not at all.
        run: The training run.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    style = {
        "font.size": 10,
        "text.color": _INK,
        "axes.edgecolor": _LINE,
        "axes.facecolor": _CARD,
        "axes.labelcolor": _QUIET,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlelocation": "left",
        "axes.titlesize": 11,
        "axes.titleweight": "bold",
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": _LINE,
        "xtick.color": _QUIET,
        "ytick.color": _QUIET,
    }
    with rc_context(style):
        lines = _footer(diagnosis, run)
        below = _LINE_HEIGHT * (len(lines) + 1)
        picture = Figure(figsize=(_WIDTH, _HEIGHT + below), facecolor=_PAPER)
        canvas = FigureCanvasAgg(picture)
        parts: Any = picture.subfigures(2, 1, height_ratios=(_HEIGHT, below))
        figure, footer = parts
        _draw_header(figure, diagnosis, run)
        _draw_tiles(figure, diagnosis)
        panels = figure.subplots(1, 4, gridspec_kw={"left": 0.045, "right": 0.98, "bottom": 0.08, "top": 0.545})
        figure.subplots_adjust(wspace=0.32)
        _draw_errors(panels[0], diagnosis)
        _draw_plans(panels[1], diagnosis)
        _draw_paths(panels[2], episodes)
        _draw_probe(panels[3], diagnosis)
        for number, (line, color) in enumerate(lines):
            footer.text(0.02, 1 - (number + 0.5) * _LINE_HEIGHT / below, line, size=9.5, color=color, va="center")
        temporary = path.with_suffix(".tmp.png")
        canvas.print_figure(temporary, dpi=_DPI, facecolor=_PAPER)
    temporary.replace(path)


def _draw_header(figure: SubFigure, diagnosis: Diagnosis, run: Run) -> None:
    of_all = f" of {run.max_steps:,}" if run.max_steps > run.step else ""
    episodes = count_of(diagnosis.num_episodes, "validation episode")
    figure.text(0.02, 0.949, "Does the world model see?", size=17, weight="bold")
    figure.text(0.98, 0.949, f"after {run.step:,}{of_all} steps, on {episodes}", size=10, color=_QUIET, ha="right")
    verdict = judge(diagnosis, is_over=run.is_over)
    color, soft, mark = _LEVELS[verdict.level]
    words, _, rest = verdict.sentence.partition(": ")
    text = textwrap.fill(f"{mark}  {words}: {rest}".replace("(R2 ", "(R2\N{NO-BREAK SPACE}"), 165)
    box = {"facecolor": soft, "edgecolor": "none", "boxstyle": "round,pad=0.5,rounding_size=0.8"}
    figure.text(0.026, 0.869, text, size=10.5, color=color, weight="bold", va="center", bbox=box, linespacing=1.35)


def _draw_tiles(figure: SubFigure, diagnosis: Diagnosis) -> None:
    tiles = (
        ("blindness", blindness_words(diagnosis.blindness), "error; repeating the last frame is 1"),
        ("action gain", _number(diagnosis.action_gain), "error with actions from elsewhere; deaf is 1"),
        ("plan rank", _number(diagnosis.plan_rank), "of the recorded actions; chance is 0.5"),
        ("effective rank", _number(diagnosis.effective_rank), f"of {len(diagnosis.variances)} latent dimensions"),
        ("probe R2", _number(diagnosis.mean_r2), "of the state, from a latent; best is 1"),
    )
    from matplotlib.patches import FancyBboxPatch

    width, gap, height, bottom = 0.184, 0.01, 0.143, 0.64
    for number, (name, shown, meaning) in enumerate(tiles):
        left = 0.02 + number * (width + gap)
        figure.add_artist(
            FancyBboxPatch(
                (left, bottom),
                width,
                height,
                boxstyle="round,pad=0,rounding_size=0.008",
                mutation_aspect=_WIDTH / _HEIGHT,
                facecolor=_CARD,
                edgecolor=_LINE,
                transform=figure.transSubfigure,
            )
        )
        figure.text(left + 0.012, bottom + 0.1, name, size=9.5, color=_QUIET)
        figure.text(left + 0.012, bottom + 0.048, shown, size=16, weight="bold")
        figure.text(left + 0.012, bottom + 0.016, meaning, size=8, color=_QUIET)


def _draw_errors(axes: Axes, diagnosis: Diagnosis) -> None:
    axes.set_title("How far off is a prediction?")
    series = (
        ("repeat the last frame", diagnosis.copy_errors, _COPY, "--"),
        ("predict the mean", diagnosis.mean_errors, _MEAN, ":"),
        ("model, actions from elsewhere", diagnosis.shuffled_errors, _SHUFFLED, "-."),
        ("model", diagnosis.model_errors, _MODEL, "-"),
    )
    for label, errors, color, line in series:
        axes.plot(range(1, len(errors) + 1), errors, line, color=color, label=label, marker="o", markersize=3)
    axes.set_xlabel("kept frames ahead")
    axes.set_ylabel("mean squared error of the latent")
    top = max((error for _, errors, _, _ in series for error in errors if math.isfinite(error)), default=1.0)
    axes.set_ylim(0, 1.55 * top)  # room for the legend
    axes.locator_params(axis="x", integer=True)
    axes.legend(fontsize=8, frameon=False, loc="upper left")


def _draw_plans(axes: Axes, diagnosis: Diagnosis) -> None:
    axes.set_title("How do recorded actions rank?")
    ranks = diagnosis.plan_ranks
    if not ranks:
        _say_nothing(axes, "nothing moves, or episodes are too short")
        return
    axes.hist(ranks, bins=[share / 10 for share in range(11)], color=_MODEL, edgecolor=_CARD)
    axes.axhline(len(ranks) / 10, color=_COPY, linestyle="--")
    label = {"facecolor": _CARD, "edgecolor": "none", "pad": 1.5}
    axes.text(0.98, len(ranks) / 10, "chance", color=_COPY, size=8, ha="right", va="center", bbox=label)
    axes.set_xlabel("share of other actions that look better")
    axes.set_ylabel(f"goals {count_of(diagnosis.plan_horizon, 'frame')} ahead")
    axes.set_xlim(0, 1)


def _draw_paths(axes: Axes, episodes: Sequence[EpisodeLatents]) -> None:
    axes.set_title(f"{count_of(min(len(episodes), _NUM_PATHS), 'episode')} as paths, dark to bright")
    latents = torch.cat([episode.latents for episode in episodes]).double().numpy()
    center = latents.mean(axis=0)
    _, singular, directions = np.linalg.svd(latents - center, full_matrices=False)
    shares = np.square(singular) / max(float(np.square(singular).sum()), 1e-30)
    for episode in episodes[:_NUM_PATHS]:
        path = (episode.latents.double().numpy() - center) @ directions[:2].T
        axes.plot(path[:, 0], path[:, 1], color=_LINE, linewidth=1, zorder=1)
        axes.scatter(path[:, 0], path[:, 1], c=np.arange(len(path)), cmap="viridis", s=14, zorder=2)
    axes.set_xlabel(f"first component ({shares[0]:.0%} of the variance)")
    axes.set_ylabel(f"second ({shares[1]:.0%})" if len(shares) > 1 else "")


def _draw_probe(axes: Axes, diagnosis: Diagnosis) -> None:
    axes.set_title("Can the state be read from it?")
    names, values = diagnosis.state_names[:_MAX_NAMES], diagnosis.probe_r2[:_MAX_NAMES]
    if not values:
        _say_nothing(axes, "the data has no state")
        return
    places = list(range(len(values)))
    axes.barh(places, [max(r2, 0.0) if math.isfinite(r2) else 0.0 for r2 in values], color=_MODEL, height=0.7)
    for place, r2 in zip(places, values, strict=True):
        known = math.isfinite(r2)
        inside = known and r2 > 0.3
        axes.text(
            r2 - 0.02 if inside else max(r2, 0.0) + 0.02 if known else 0.02,
            place,
            f"{r2:.2f}" if known else "never moves",
            va="center",
            ha="right" if inside else "left",
            fontsize=8,
            color=_CARD if inside else _QUIET,
        )
    axes.set_yticks(places, [textwrap.shorten(name, 18, placeholder="...") for name in names], fontsize=8)
    axes.set_ylim(max(len(places), 4) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.set_xlim(0, 1)
    more = len(diagnosis.probe_r2) - len(values)
    axes.set_xlabel("R2 of a linear probe" + (f" ({more} more not shown)" if more else ""))


def _footer(diagnosis: Diagnosis, run: Run) -> list[tuple[str, str]]:
    """Cautions and next steps as lines of text with their colors."""
    paragraphs = [(line, _LEVELS["fair"][0]) for line in cautions(diagnosis, run)]
    for step in next_steps(diagnosis, run):
        paragraphs.append((f"Next: {step.why}", _INK))
        paragraphs += [(f"    {step.command}", _MODEL)] if step.command else []
    return [(line, color) for text, color in paragraphs for line in _wrapped(text)]


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _LETTERS, subsequent_indent="    ", break_on_hyphens=False)


def _number(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "unknown"


def _say_nothing(axes: Axes, why: str) -> None:
    axes.text(0.5, 0.5, why, ha="center", color=_QUIET, transform=axes.transAxes)
    axes.set_axis_off()
