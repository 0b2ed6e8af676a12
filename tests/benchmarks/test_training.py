"""The training benchmark: the real LeWM, small."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import training, training_variants


@pytest.mark.slow
def test_it_trains_the_real_lewm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("stable_worldmodel")
    pytest.importorskip("transformers")
    output = tmp_path / "training.json"
    training.main(["--quick", "--rounds", "2", "--device", "cpu", "--output", str(output)])
    result = json.loads(output.read_text())
    assert result["last_loss"] < result["first_loss"]
    assert 10e6 < result["num_parameters"] < 30e6
    assert result["windows_per_second"]["median"] > 0
    assert list(result["gradient_errors"]) == ["eager", "fused", "both"]
    assert result["gradient_errors"]["both"]["float32"] < 1e-4
    assert len(result["loss_check"]["losses"]) == 3
    printed = capsys.readouterr().out
    assert "LeWM, consumes" in printed
    assert "packed attention, bf16 residuals" in printed


def test_a_variant_that_computes_something_else_is_named() -> None:
    exact, rounded = {"float32": 0.0, "bfloat16": 0.02}, {"float32": 0.0, "bfloat16": 0.025}
    for wrong in ({"float32": 0.1, "bfloat16": 0.02}, {"float32": 0.0, "bfloat16": 0.2}):
        found = training_variants.disagreeing({"eager": exact, "both": rounded, "packed": wrong})
        assert found == ["packed"]


@pytest.mark.parametrize(("shift", "is_same"), [(0.0, True), (0.15, True), (0.3, False), (-0.3, False)])
def test_a_loss_is_the_same_if_it_differs_no_more_than_seeds_do(shift: float, is_same: bool) -> None:
    eager = [1.0, 1.1, 1.2]
    assert training_variants.LossCheck.of("x", 500, eager, [loss + shift for loss in eager]).is_same is is_same


def test_dots_move_as_their_actions_say() -> None:
    torch = pytest.importorskip("torch")
    sizes = training_variants.Sizes(batch_size=2, side=56, action_width=4, projections=16)
    pixels, action = training_variants.moving_dots(sizes, 20, torch.device("cpu"))
    assert (pixels.shape, pixels.dtype, action.shape) == ((20, 4, 3, 56, 56), torch.uint8, (20, 4, 4))
    again, _ = training_variants.moving_dots(sizes, 20, torch.device("cpu"))
    assert torch.equal(pixels, again)
    still = (pixels[:, 0].float() - pixels[:, 1].float()).abs().mean((1, 2, 3))
    far = action[:, 0, :2].abs().amax(1)
    assert torch.corrcoef(torch.stack([still, far]))[0, 1] > 0.3
