"""How many windows per second does LeWM itself consume on this machine?

The reference model trains on batches that lie on the device already and cost nothing to load: whatever feeds it need
not be faster. Beside it, the throughput benchmark tells whether data or model is the limit. Runs on a CPU; meant for a
GPU.

    python benchmarks/training.py            batch 128 on a GPU, 8 on a CPU
    python benchmarks/training.py --full     longer
    python benchmarks/training.py --quick    a small model, two steps: to see that it works
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

if not __package__:  # run as a script, whose folder would hide other packages' datasets and codecs
    sys.path[0] = str(Path(__file__).parents[1])

from benchmarks import training_report as report
from benchmarks.datasets import log
from benchmarks.harness import Spread, measure_round
from benchmarks.results import Run, Sizes, make_parser, parse
from benchmarks.words import show

SIZES: Sizes = {
    "quick": {"batch_size": 4, "rounds": 1, "seconds": 0.0, "warmup_seconds": 0.0, "side": 56, "projections": 16},
    "bench": {"batch_size": None, "rounds": 3, "seconds": 6.0, "warmup_seconds": 2.0, "side": 224,
              "projections": 1024},
    "full": {"batch_size": None, "rounds": 7, "seconds": 20.0, "warmup_seconds": 5.0, "side": 224,
             "projections": 1024},
}  # fmt: skip

HISTORY, NUM_STEPS = 3, 4
"""LeWM's: three frames predict the next one."""


def make_step(device: Any, *, side: int, action_width: int, num_projections: int) -> Callable[[Any, Any], Any]:
    """Builds the LeWM of ``train.py``, by its defaults, with its optimizer.

    Args:
        device: A torch device.
        side: Side of a frame, in pixels, a multiple of 14.
        action_width: Numbers per kept frame in ``action``.
        num_projections: Random projections of SIGReg; 1,024 by default.

    Returns:
        A function of pixels (B, T, 3, side, side) float and action (B, T, action_width) float that makes one step of
        training, bf16 where the device has it, and returns the loss.
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

    step.num_parameters = sum(weight.numel() for weight in weights)  # type: ignore[attr-defined]
    return step


def measure(
    device: Any,
    *,
    batch_size: int,
    side: int,
    action_width: int,
    num_projections: int,
    num_rounds: int,
    seconds: float,
    warmup_seconds: float,
) -> dict[str, Any]:
    """Trains on one batch, again and again.

    Returns:
        ``windows_per_second`` with its spread, the rounds, parameters, and the last loss.

    Raises:
        SystemExit: The loss is not finite: what was timed was no training.
    """
    import torch

    torch.manual_seed(0)
    step = make_step(device, side=side, action_width=action_width, num_projections=num_projections)
    pixels = torch.randn(batch_size, NUM_STEPS, 3, side, side, device=device)
    action = torch.randn(batch_size, NUM_STEPS, action_width, device=device)
    losses: list[float] = []

    def batches() -> Iterator[int]:
        while True:
            losses.append(step(pixels, action).item())  # also waits for the device
            yield batch_size

    rounds = []
    for number in range(num_rounds):
        done = measure_round(batches, seconds=seconds, warmup_seconds=warmup_seconds, multiple=1)
        rounds.append(done)
        log(f"round {number + 1} of {num_rounds}: {done.windows_per_second:,.1f} windows/s, loss {losses[-1]:.3f}")
    if not all(map(torch.isfinite, torch.tensor(losses))):
        raise SystemExit(f"the loss is {losses[-1]}: what was timed was no training")
    return {
        "windows_per_second": dataclasses.asdict(Spread.of([done.windows_per_second for done in rounds])),
        "num_parameters": step.num_parameters,  # type: ignore[attr-defined]
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "rounds": [dataclasses.asdict(done) for done in rounds],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints the table, and writes JSON and chart."""
    parser = make_parser(__doc__)
    parser.add_argument("--batch_size", type=int, help="windows in a batch (128 on a GPU, 8 on a CPU)")
    parser.add_argument("--side", type=int, help="side of a frame, in pixels, a multiple of 14 (224)")
    parser.add_argument("--action_width", type=int, default=30, help="numbers per kept frame (frameskip 5 x 6 joints)")
    parser.add_argument("--device", help="torch device (cuda where there is one, else cpu)")
    parser.add_argument("--rounds", type=int, help="rounds (3; full 7)")
    parser.add_argument("--seconds", type=float, help="counted seconds of a round, at least (6; full 20)")
    parser.add_argument("--warmup_seconds", type=float, help="seconds before them, at least (2; full 5)")
    options = parse(parser, arguments, name=report.NAME, sizes=SIZES)
    this = Run(report.NAME, options.form, "torch", "stable-worldmodel", "transformers")
    import torch

    device = torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    batch_size = options.batch_size or (128 if device.type == "cuda" else 8)
    measured = measure(
        device,
        batch_size=batch_size,
        side=options.side,
        action_width=options.action_width,
        num_projections=options.projections,
        num_rounds=options.rounds,
        seconds=options.seconds,
        warmup_seconds=options.warmup_seconds,
    )
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else this.processor
    head = {"device": name, "device_type": device.type, "batch_size": batch_size, "side": options.side,
            "num_threads": torch.get_num_threads()}  # fmt: skip
    result = this.finish(options.output, {**head, **measured})
    report.draw(result, options.output.parent)
    print(show(report.blocks(result)))


if __name__ == "__main__":
    main()
