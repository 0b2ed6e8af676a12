"""How many windows per second does LeWM consume on this machine, and which way to run its step is the fastest?

The model trains on batches that are already on the device and cost nothing to load, so its loader need not be faster.
The throughput benchmark then shows whether data or model is the limit.

On a GPU, every variant of the step is timed in interleaved rounds, its gradients are compared with those of eager
float32, and the fastest that agrees is trained for 500 steps with three seeds: its loss must be within the spread that
the seeds make in eager training. On a CPU, only the default is timed, and the variants are compared on small frames.

    python -m benchmarks.training            batch 128 on a GPU (some minutes), 8 on a CPU
    python -m benchmarks.training --full     longer
    python -m benchmarks.training --quick    a small model, two steps: shows that it works
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from benchmarks.harness import Spread, interleaved, log, machine, measure_round
from benchmarks.runner import Benchmark, Option
from benchmarks.training_variants import (
    BASE,
    DEFAULT,
    VARIANTS,
    Sizes,
    Step,
    agreement,
    check_loss,
    disagreeing,
    usable,
)

NUM_STEPS = 4
"""LeWM's: three frames predict the next one."""

OPTIONS = {
    "batch_size": Option("windows in a batch (128 on a GPU, 8 on a CPU)", 4, None, None, type=int),
    "side": Option("side of a frame, in pixels, a multiple of 14", 56, 224, 224),
    "action_width": Option("numbers per kept frame: frameskip 5, 6 joints", 30),
    "device": Option("torch device (cuda if there is one, else cpu)", None, type=str),
    "variants": Option("variants to compare", (BASE, DEFAULT, "both"), tuple(VARIANTS), tuple(VARIANTS),
                       choices=list(VARIANTS)),
    "loss_steps": Option("steps of the loss check (500 on a GPU; 0: none)", 2, None, None, type=int),
    "rounds": Option("rounds", 1, 3, 7),
    "seconds": Option("least counted seconds of a round", 0.0, 3.0, 20.0),
    "warmup_seconds": Option("least seconds before them", 0.0, 1.0, 5.0),
    "projections": Option("", 16, 1024, 1024),
}  # fmt: skip
AGREEMENT_SIDE, AGREEMENT_BATCH = 56, 4
"""Sizes at which a CPU compares the variants."""


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Trains on one batch, again and again; ends the run if a loss is not finite or a variant computes otherwise."""
    import torch

    device = torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    on_gpu = device.type == "cuda"
    sizes = Sizes(
        batch_size=options.batch_size or (128 if on_gpu else 8),
        side=options.side,
        action_width=options.action_width,
        projections=options.projections,
    )
    names = list(usable(device, options.variants))
    compared = sizes if on_gpu else dataclasses.replace(sizes, side=AGREEMENT_SIDE, batch_size=AGREEMENT_BATCH)
    errors = agreement(names, dataclasses.replace(compared, batch_size=min(compared.batch_size, 16)), device)
    log(f"differences of gradients from eager float32: {errors}")
    if wrong := disagreeing(errors):
        raise SystemExit(f"these variants compute other gradients than eager training does: {', '.join(wrong)}")
    rows = time_variants(names if on_gpu else [DEFAULT], sizes, device, options)
    rates = {row["name"]: row["windows_per_second"]["median"] for row in rows}
    fastest = max(rates, key=lambda name: rates[name]) if on_gpu else names[-1]
    loss_steps = options.loss_steps if options.loss_steps is not None else (500 if on_gpu else 0)
    check = check_loss(fastest, compared, device, num_steps=loss_steps, mixed=on_gpu) if loss_steps else None
    default = next(row for row in rows if row["name"] == DEFAULT)
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else machine()["processor"],
        "device_type": device.type,
        **dataclasses.asdict(sizes),
        "num_threads": torch.get_num_threads(),
        **{key: default[key] for key in ("windows_per_second", "num_parameters", "first_loss", "last_loss", "rounds")},
        "variants": rows,
        "gradient_errors": errors,
        "gradient_side": compared.side,
        "loss_check": None if check is None else check.to_dict(),
    }


def time_variants(names: Sequence[str], sizes: Sizes, device: Any, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Times variants in interleaved rounds. The first step of each, which compiles, is timed apart."""
    import torch

    mixed = device.type == "cuda" and torch.cuda.is_bf16_supported()
    pixels = torch.randn(sizes.batch_size, NUM_STEPS, 3, sizes.side, sizes.side, device=device)
    action = torch.randn(sizes.batch_size, NUM_STEPS, sizes.action_width, device=device)
    steps = {name: Step(VARIANTS[name], sizes, device, mixed=mixed) for name in names}
    losses: dict[str, list[float]] = {name: [] for name in names}
    first_seconds = {}
    for name, step in steps.items():
        began = time.perf_counter()
        losses[name].append(step(pixels, action).item())
        first_seconds[name] = time.perf_counter() - began

    def batches(name: str) -> Callable[[], Iterator[int]]:
        def run() -> Iterator[int]:
            while True:
                losses[name].append(steps[name](pixels, action).item())  # waits for the device
                yield sizes.batch_size

        return run

    timing = {"seconds": options.seconds, "warmup_seconds": options.warmup_seconds, "multiple": 1}
    rounds = interleaved(
        names,
        options.rounds,
        lambda name: measure_round(batches(name), **timing),
        lambda done: f"{done.windows_per_second:,.1f} windows/s",
    )
    for name, found in losses.items():
        if not torch.isfinite(torch.tensor(found)).all():
            raise SystemExit(f"the loss of {name!r} is {found[-1]}, so this was not training")
    return [
        {
            "name": name,
            "label": VARIANTS[name].label,
            "settings": dict(VARIANTS[name].settings),
            "windows_per_second": dataclasses.asdict(Spread.of([done.windows_per_second for done in rounds[name]])),
            "first_step_seconds": round(first_seconds[name], 2),
            "num_parameters": sum(weight.numel() for weight in steps[name].weights),
            "first_loss": losses[name][0],
            "last_loss": losses[name][-1],
            "rounds": [dataclasses.asdict(done) for done in rounds[name]],
        }
        for name in names
    ]


BENCHMARK = Benchmark(
    name="training", doc=__doc__, options=OPTIONS, measure=measure,
    distributions=("torch", "stable-worldmodel", "transformers"),
)  # fmt: skip
main = BENCHMARK.main

if __name__ == "__main__":
    main()
