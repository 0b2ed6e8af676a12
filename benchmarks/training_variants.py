"""Variants of the training step of LeWM: how to build them, and whether they compute and learn the same."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

SEEDS = (0, 1, 2)
LAST_STEPS = 20
"""The loss after training is the mean over so many last steps."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """A way to run a step.

    Attributes:
        label: Its name in tables.
        settings: Settings of ``LeWMModule``, each also a flag ``--model.NAME`` of ``train.py``.
        is_fused: Whether AdamW is fused, as it is by default on a GPU.
    """

    label: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    is_fused: bool = True

    @property
    def is_compiled(self) -> bool:
        """Whether it needs a compiler."""
        return bool(self.settings.get("compile"))


_PACKED, _RESIDUALS = {"packed_attention": True}, {"low_precision_residuals": True}
_BOTH = {**_PACKED, **_RESIDUALS}

BASE, DEFAULT = "eager", "fused"
VARIANTS = {
    BASE: Variant(label="eager, AdamW not fused", is_fused=False),
    DEFAULT: Variant(label="eager (the default)"),
    "packed": Variant(label="packed attention", settings=_PACKED),
    "residuals": Variant(label="bf16 residuals", settings=_RESIDUALS),
    "both": Variant(label="packed attention, bf16 residuals", settings=_BOTH),
    "compiled": Variant(label="blocks compiled", settings={"compile": True}),
    "compiled_both": Variant(label="blocks compiled, packed, bf16 residuals", settings={"compile": True, **_BOTH}),
    "graphs": Variant(
        label="the same, with CUDA graphs", settings={"compile": True, "compile_mode": "reduce-overhead", **_BOTH}
    ),
    "autotuned": Variant(
        label="the same, autotuned",
        settings={"compile": True, "compile_mode": "max-autotune-no-cudagraphs", **_BOTH},
    ),
}
"""In the order of the table."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """What a step works on.

    Attributes:
        batch_size: Windows.
        side: Side of a frame, in pixels.
        action_width: Numbers per kept frame.
        projections: Directions of SIGReg.
    """

    batch_size: int
    side: int
    action_width: int
    projections: int


class Step:
    """A step of ``train.py`` with its defaults. Weights and everything random depend on the seed alone.

    Attributes:
        module: The model.
        weights: What is trained.
    """

    def __init__(
        self, variant: Variant, sizes: Sizes, device: Any, *, seed: int = 0, mixed: bool, dropout: float | None = None
    ) -> None:
        """Builds the networks.

        Args:
            variant: How to run it.
            sizes: What it works on.
            device: Torch device.
            seed: Seed of weights, dropout and SIGReg.
            mixed: Whether to compute in bfloat16 where autocast does.
            dropout: Dropout of the predictor; None is LeWM's.
        """
        import torch

        from lewm_data.training.lewm import LeWMModule
        from lewm_data.training.speed import adamw

        torch.manual_seed(seed)
        settings: dict[str, Any] = {} if dropout is None else {"predictor_dropout": dropout}
        self.module = LeWMModule(sigreg_projections=sizes.projections, seed=seed, **settings, **variant.settings)
        self.module.build(action_dim=sizes.action_width, image_size=(sizes.side, sizes.side))
        self.module.to(device).train()
        self.module.log = lambda *args, **options: None  # type: ignore[method-assign]
        self.weights = [weight for weight in self.module.parameters() if weight.requires_grad]
        rates = {"weight_decay": self.module.hparams["weight_decay"]}
        rate = self.module.hparams["learning_rate"]
        if variant.is_fused:
            self._optimizer = adamw(self.weights, learning_rate=rate, **rates)
        else:
            self._optimizer = torch.optim.AdamW(self.weights, lr=rate, **rates)
        self._mixed, self._device = mixed, device
        self._number = 0

    def gradients(self, pixels: Any, action: Any) -> Any:
        """Computes the loss and its gradients; returns the loss."""
        import torch

        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._mixed):
            loss = self.module.training_step({"pixels": pixels, "action": action}, self._number)
        loss.backward()
        return loss.detach()

    def __call__(self, pixels: Any, action: Any) -> Any:
        """Trains on a batch: pixels (B, T, 3, side, side) and action (B, T, action_width), float; returns the loss."""
        import torch

        self._optimizer.zero_grad(set_to_none=True)
        loss = self.gradients(pixels, action)
        torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
        self._optimizer.step()
        self._number += 1
        return loss


def usable(device: Any, names: Sequence[str]) -> Iterator[str]:
    """The variants that this machine can run: compiling needs a GPU or a C++ compiler."""
    for name in names:
        if not VARIANTS[name].is_compiled or device.type == "cuda" or shutil.which("g++"):
            yield name


def moving_dots(sizes: Sizes, num_windows: int, device: Any) -> tuple[Any, Any]:
    """Windows in which a colored dot moves as the first two numbers of its actions say.

    Returns:
        pixels (num_windows, 4, 3, side, side) uint8 and action (num_windows, 4, action_width) float.
    """
    import torch

    random = torch.Generator().manual_seed(0)
    action = torch.randn(num_windows, 4, sizes.action_width, generator=random)
    start = torch.rand(num_windows, 1, 2, generator=random)
    moves = torch.cat([torch.zeros(num_windows, 1, 2), 0.1 * action[:, :-1, :2].cumsum(1)], dim=1)
    places = (start + moves).to(device)  # (n, 4, 2), in sides
    color = torch.rand(num_windows, 1, 3, 1, 1, generator=random).to(device)
    grid = torch.arange(sizes.side, device=device) / sizes.side
    pixels = torch.empty(num_windows, 4, 3, sizes.side, sizes.side, dtype=torch.uint8, device=device)
    for number in range(0, num_windows, 16):
        part = slice(number, number + 16)
        rows, columns = (torch.exp(-200 * (grid - places[part, :, axis, None]).square()) for axis in (0, 1))
        dots = rows[:, :, None, :, None] * columns[:, :, None, None, :] * color[part]
        pixels[part] = (255 * (0.3 * grid[:, None] + 0.7 * dots)).to(torch.uint8)
    return pixels, action.to(device)


def normalized(pixels: Any) -> Any:
    """Frames as the data module hands them over: float, channels last."""
    import torch

    values = pixels.float().div_(127.5).sub_(1)
    return values.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, pixels.shape[:2])


def agreement(names: Sequence[str], sizes: Sizes, device: Any) -> dict[str, dict[str, float]]:
    """How far each variant's gradients are from those of eager float32, as a share of their norm.

    Dropout is off: compiled code draws other random numbers.

    Returns:
        Variant to ``float32`` and ``bfloat16``.
    """
    import torch

    pixels, action = moving_dots(sizes, sizes.batch_size, device)

    def gradients(name: str, mixed: bool) -> Any:
        step = Step(VARIANTS[name], sizes, device, mixed=mixed, dropout=0.0)
        step.gradients(normalized(pixels), action)
        return torch.cat([weight.grad.flatten() for weight in step.weights if weight.grad is not None])

    exact = gradients(BASE, mixed=False)
    return {
        name: {
            precision: float((gradients(name, mixed) - exact).norm() / exact.norm())
            for precision, mixed in (("float32", False), ("bfloat16", True))
        }
        for name in names
    }


def disagreeing(errors: Mapping[str, Mapping[str, float]]) -> list[str]:
    """The variants whose gradients are further from the exact ones than twice eager's rounding.

    Rounding the residual stream to bfloat16 as well adds half of it again; an error in the code adds far more.
    """
    bound = 2 * errors[BASE]["bfloat16"] + 1e-3
    return [name for name, error in errors.items() if error["float32"] > 1e-3 or error["bfloat16"] > bound]


def learned(name: str, seed: int, sizes: Sizes, device: Any, *, num_steps: int, mixed: bool) -> float:
    """The training loss of a variant after some steps on moving dots."""
    import torch

    pixels, action = moving_dots(sizes, 4 * sizes.batch_size, device)
    step = Step(VARIANTS[name], sizes, device, seed=seed, mixed=mixed)
    random = torch.Generator().manual_seed(seed)
    losses = []
    for _ in range(num_steps):
        chosen = torch.randint(len(pixels), (sizes.batch_size,), generator=random).to(device)
        losses.append(step(normalized(pixels[chosen]), action[chosen]))
    return float(torch.stack(losses[-LAST_STEPS:]).mean())


@dataclass(frozen=True, kw_only=True, slots=True)
class LossCheck:
    """The losses of a variant and of eager training, one per seed.

    Attributes:
        variant: The variant.
        num_steps: Steps that each run trained.
        eager: Losses of eager training.
        losses: Losses of the variant.
        spread: Largest minus smallest loss of eager training.
        difference: Mean loss of the variant, minus that of eager training.
        is_same: Whether the difference is within the spread.
    """

    variant: str
    num_steps: int
    eager: list[float]
    losses: list[float]
    spread: float
    difference: float
    is_same: bool

    @classmethod
    def of(cls, variant: str, num_steps: int, eager: list[float], losses: list[float]) -> LossCheck:
        """Compares losses.

        Example:
            >>> LossCheck.of("compiled", 500, [1.0, 1.1, 1.2], [1.05, 1.15, 1.2]).is_same
            True
        """
        spread = max(eager) - min(eager)
        difference = statistics.mean(losses) - statistics.mean(eager)
        return cls(
            variant=variant, num_steps=num_steps, eager=eager, losses=losses, spread=spread, difference=difference,
            is_same=abs(difference) <= spread,
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """For the result."""
        return asdict(self)


def check_loss(name: str, sizes: Sizes, device: Any, *, num_steps: int, mixed: bool) -> LossCheck:
    """Trains eagerly and as a variant, with each seed."""
    runs = {
        which: [learned(which, seed, sizes, device, num_steps=num_steps, mixed=mixed) for seed in SEEDS]
        for which in (BASE, name)
    }
    return LossCheck.of(name, num_steps, runs[BASE], runs[name])
