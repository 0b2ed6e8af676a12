"""How many windows per second does LeWM consume on this machine?

The model trains on batches that are already on the device and cost nothing to load, so its loader need not be faster.
The throughput benchmark then shows whether data or model is the limit. Runs on a CPU; meant for a GPU.

    python -m benchmarks.training            batch 128 on a GPU, 8 on a CPU
    python -m benchmarks.training --full     longer
    python -m benchmarks.training --quick    a small model, two steps: shows that it works
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.harness import Spread, interleaved, machine, measure_round
from benchmarks.runner import Benchmark, Option

HISTORY, NUM_STEPS = 3, 4
"""LeWM's: three frames predict the next one."""

OPTIONS = {
    "batch_size": Option("windows in a batch (128 on a GPU, 8 on a CPU)", 4, None, None, type=int),
    "side": Option("side of a frame, in pixels, a multiple of 14", 56, 224, 224),
    "action_width": Option("numbers per kept frame: frameskip 5, 6 joints", 30),
    "device": Option("torch device (cuda if there is one, else cpu)", None, type=str),
    "rounds": Option("rounds", 1, 3, 7),
    "seconds": Option("least counted seconds of a round", 0.0, 6.0, 20.0),
    "warmup_seconds": Option("least seconds before them", 0.0, 2.0, 5.0),
    "projections": Option("", 16, 1024, 1024),
}


def make_step(device: Any, *, side: int, action_width: int, num_projections: int) -> tuple[Callable[..., Any], int]:
    """Builds a step of ``train.py`` with its defaults, and counts the of parameters.

    The step takes pixels (B, T, 3, side, side) and action (B, T, action_width), both float, uses bf16 if the device has
    it, and returns the loss.
    """
    import torch

    from lewm_data.training.lewm import LeWMModule

    module = LeWMModule(sigreg_projections=num_projections)
    module.build(action_dim=action_width, image_size=(side, side))
    module.to(device).train()
    settings = module.hparams
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=settings["learning_rate"], weight_decay=settings["weight_decay"])
    mixed = device.type == "cuda" and torch.cuda.is_bf16_supported()

    def step(pixels: Any, action: Any) -> Any:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
            latents = module.encode(pixels)
            predicted = module.predict(latents[:, :HISTORY], action[:, :HISTORY])
            prediction_loss = (predicted - latents[:, 1:]).square().mean()
            loss = prediction_loss + settings["sigreg_weight"] * module.sigreg(latents.transpose(0, 1))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        return loss

    return step, sum(weight.numel() for weight in weights)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Trains on one batch, again and again; ends the run if the loss is not finite."""
    import torch

    device = torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    batch_size = options.batch_size or (128 if device.type == "cuda" else 8)
    torch.manual_seed(0)
    step, num_parameters = make_step(
        device, side=options.side, action_width=options.action_width, num_projections=options.projections
    )
    pixels = torch.randn(batch_size, NUM_STEPS, 3, options.side, options.side, device=device)
    action = torch.randn(batch_size, NUM_STEPS, options.action_width, device=device)
    losses: list[float] = []

    def batches() -> Iterator[int]:
        while True:
            losses.append(step(pixels, action).item())  # waits for the device
            yield batch_size

    timing = {"seconds": options.seconds, "warmup_seconds": options.warmup_seconds, "multiple": 1}
    rounds = interleaved(
        ["LeWM"],
        options.rounds,
        lambda _: measure_round(batches, **timing),
        lambda done: f"{done.windows_per_second:,.1f} windows/s, loss {losses[-1]:.3f}",
    )["LeWM"]
    if not all(map(torch.isfinite, torch.tensor(losses))):
        raise SystemExit(f"the loss is {losses[-1]}, so this was not training")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else machine()["processor"]
    return {
        "device": name,
        "device_type": device.type,
        "batch_size": batch_size,
        "side": options.side,
        "num_threads": torch.get_num_threads(),
        "windows_per_second": dataclasses.asdict(Spread.of([done.windows_per_second for done in rounds])),
        "num_parameters": num_parameters,
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "rounds": [dataclasses.asdict(done) for done in rounds],
    }


BENCHMARK = Benchmark(
    name="training", doc=__doc__, options=OPTIONS, measure=measure,
    distributions=("torch", "stable-worldmodel", "transformers"),
)  # fmt: skip
main = BENCHMARK.main

if __name__ == "__main__":
    main()
