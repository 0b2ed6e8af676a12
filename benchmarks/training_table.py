"""The table of the variants of the training step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.tables import Columns, spread, table
from benchmarks.training_variants import VARIANTS


def variants_table(result: Mapping[str, Any]) -> str:
    """How fast each variant of the step is, how exact, and whether the fastest learns the same."""
    if "variants" not in result:
        return "*The variants are not measured yet: run `python -m benchmarks.training`.*"
    rows = {row["name"]: row for row in result["variants"]}
    base = rows["eager"]["windows_per_second"]["median"] if "eager" in rows else None
    labels = {name: VARIANTS[name].label for name in result["gradient_errors"]}
    columns: Columns = {
        "step": lambda name: labels[name],
        "windows/s (min to max)": lambda name: spread(rows[name]["windows_per_second"]) if name in rows else "",
        "times eager": lambda name: (
            f"{rows[name]['windows_per_second']['median'] / base:.2f}" if name in rows and base else ""
        ),
        "first step s": lambda name: f"{rows[name]['first_step_seconds']:.1f}" if name in rows else "",
        "error of gradients, float32": lambda name: f"{result['gradient_errors'][name]['float32']:.1e}",
        "bfloat16": lambda name: f"{result['gradient_errors'][name]['bfloat16']:.1e}",
    }
    words = [table(list(labels), columns)]
    if check := result.get("loss_check"):
        words.append(
            f"Training loss after {check['num_steps']} steps, three seeds: eager "
            f"{', '.join(f'{loss:.4f}' for loss in check['eager'])} (spread {check['spread']:.4f}); "
            f"{labels[check['variant']]} {', '.join(f'{loss:.4f}' for loss in check['losses'])}. The means differ by "
            f"{check['difference']:.4f}: {'within' if check['is_same'] else '**beyond**'} the spread."
        )
    return "\n\n".join(words)
