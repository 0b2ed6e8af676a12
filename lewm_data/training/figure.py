"""The diagnostics as one picture."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from lewm_data.training.latents import EpisodeLatents
from lewm_data.training.metrics import Diagnosis

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NUM_PATHS = 4
_MAX_NAMES = 24
_MODEL, _SHUFFLED, _COPY, _MEAN = "#0072b2", "#56b4e9", "#d55e00", "#999999"  # Okabe and Ito's colours


def draw(diagnosis: Diagnosis, episodes: Sequence[EpisodeLatents], path: Path, *, step: int) -> None:
    """Draws errors over the horizon, a few episodes' paths through the latent space, and the probe.

    Args:
        diagnosis: What was measured.
        episodes: The validation episodes.
        path: PNG to write; it appears whole or not at all.
        step: Training steps so far.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.8), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    left, middle, right = figure.subplots(1, 3)
    _draw_errors(left, diagnosis)
    _draw_paths(middle, episodes)
    _draw_probe(right, diagnosis)
    verdict = textwrap.fill(diagnosis.verdict(), 130)
    figure.suptitle(f"After {step:,} steps. {verdict}", fontsize=10, x=0.01, ha="left")
    temporary = path.with_suffix(".tmp.png")
    canvas.print_figure(temporary, dpi=110)
    temporary.replace(path)


def _draw_errors(axes: Axes, diagnosis: Diagnosis) -> None:
    axes.set_title("How far is a prediction off?", fontsize=10)
    series = (
        ("repeat the last frame", diagnosis.copy_errors, _COPY, "--"),
        ("always say the mean", diagnosis.mean_errors, _MEAN, ":"),
        ("model, other places' actions", diagnosis.shuffled_errors, _SHUFFLED, "-"),
        ("model", diagnosis.model_errors, _MODEL, "-"),
    )
    for label, errors, colour, style in series:
        axes.plot(range(1, len(errors) + 1), errors, style, color=colour, label=label, marker="o", markersize=3)
    axes.set_xlabel("kept frames ahead")
    axes.set_ylabel("mean squared error of the latent")
    axes.set_ylim(bottom=0)
    axes.locator_params(axis="x", integer=True)
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)


def _draw_paths(axes: Axes, episodes: Sequence[EpisodeLatents]) -> None:
    axes.set_title(
        f"{min(len(episodes), _NUM_PATHS)} validation episodes, from dark (begin) to bright (end)", fontsize=10
    )
    latents = torch.cat([episode.latents for episode in episodes]).double().numpy()
    centre = latents.mean(axis=0)
    _, singular, directions = np.linalg.svd(latents - centre, full_matrices=False)
    shares = np.square(singular) / max(float(np.square(singular).sum()), 1e-30)
    for episode in episodes[:_NUM_PATHS]:
        path = (episode.latents.double().numpy() - centre) @ directions[:2].T
        axes.plot(path[:, 0], path[:, 1], color="0.8", linewidth=0.8, zorder=1)
        axes.scatter(path[:, 0], path[:, 1], c=np.arange(len(path)), cmap="viridis", s=14, zorder=2)
    axes.set_xlabel(f"first principal component ({shares[0]:.0%} of the variance)")
    axes.set_ylabel(f"second ({shares[1]:.0%})" if len(shares) > 1 else "")
    axes.grid(alpha=0.3)


def _draw_probe(axes: Axes, diagnosis: Diagnosis) -> None:
    axes.set_title("Can the state be read from the latent?", fontsize=10)
    names, values = diagnosis.state_names[:_MAX_NAMES], diagnosis.probe_r2[:_MAX_NAMES]
    if not values:
        axes.text(0.5, 0.5, "the data has no state", ha="center", transform=axes.transAxes)
        axes.set_axis_off()
        return
    places = list(range(len(values)))
    axes.barh(places, [max(r2, 0.0) if math.isfinite(r2) else 0.0 for r2 in values], color=_MODEL)
    for place, r2 in zip(places, values, strict=True):
        text = f"{r2:.2f}" if math.isfinite(r2) else "does not vary"
        axes.text(
            0.02, place, text, va="center", fontsize=8, bbox={"facecolor": "white", "alpha": 0.7, "lw": 0, "pad": 1}
        )
    axes.set_yticks(places, [textwrap.shorten(name, 24, placeholder="...") for name in names], fontsize=8)
    axes.set_ylabel("dimension of the state")
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    more = len(diagnosis.probe_r2) - len(values)
    axes.set_xlabel("R2 of a linear probe" + (f" ({more} more dimensions are not shown)" if more else ""))
    axes.grid(axis="x", alpha=0.3)
