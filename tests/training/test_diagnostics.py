"""The diagnostics separate a model that sees from a blind one, in a world where the truth is known."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lewm_data.datamodule import LeWMDataModule
from lewm_data.training.diagnosis import Diagnosis
from lewm_data.training.diagnostics import Diagnostics
from lewm_data.training.lewm import LeWMModule
from lewm_data.training.verdict import judge
from tests.training.dots import quiet_trainer, small_lewm, write_dots


def train(path: Path, folder: Path, *, max_steps: int, module: LeWMModule | None = None, **settings: Any) -> Diagnosis:
    """Trains on a file and returns the last diagnosis."""
    torch.manual_seed(0)
    data = LeWMDataModule(h5_path=str(path), frameskip=1, batch_size=64, val_fraction=0.2, num_workers=1)
    diagnostics = Diagnostics(dirpath=folder, **{"max_frames": 400, **settings})
    trainer = quiet_trainer(
        folder,
        max_steps=max_steps,
        val_check_interval=max_steps,
        gradient_clip_val=1.0,
        callbacks=[diagnostics],
    )
    trainer.fit(module or small_lewm(), data)
    assert diagnostics.diagnosis is not None
    metrics = trainer.callback_metrics
    blindness = diagnostics.diagnosis.blindness
    if math.isfinite(blindness):
        assert metrics["val/blindness"] == pytest.approx(blindness)
    else:  # an error over no error
        assert "val/blindness" not in metrics
    assert metrics["val/effective_rank"] == pytest.approx(diagnostics.diagnosis.effective_rank)
    return diagnostics.diagnosis


@pytest.mark.slow
def test_a_world_that_follows_its_actions_is_seen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen = train(write_dots(tmp_path / "dots.h5").path, tmp_path, max_steps=300)
    assert seen.blindness < 0.7
    assert seen.versus_mean < 0.7
    assert seen.action_gain > 1.5
    assert seen.mean_r2 > 0.8
    assert seen.plan_rank < 0.1
    assert "It predicts: its one-step error is 0." in " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
def test_a_world_whose_actions_are_noise_cannot_be_predicted(tmp_path: Path) -> None:
    unseen = train(write_dots(tmp_path / "dots.h5", has_true_actions=False).path, tmp_path, max_steps=300)
    assert unseen.blindness > 0.8
    assert unseen.action_gain < 1.05
    assert unseen.plan_rank > 0.4
    assert judge(unseen).sentence.startswith(("Blind: ", "Deaf to actions: "))


class OneColor(nn.Module):
    """A vision transformer with the same output for every frame."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(dim))

    def forward(self, pixels: torch.Tensor, **options: object) -> Any:
        class Output:
            last_hidden_state = self.token.expand(len(pixels), 1, -1) + 0 * pixels.mean()

        return Output


def test_a_collapsed_encoder_is_called_collapsed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = small_lewm()
    module.build(action_dim=2, image_size=(28, 28))
    assert module.model is not None
    module.model.encoder = OneColor(48)
    data = write_dots(tmp_path / "dots.h5", num_episodes=10).path
    found = train(data, tmp_path, max_steps=2, module=module, horizon=3)
    assert found.is_collapsed
    assert found.effective_rank == 0
    assert math.isnan(found.plan_rank)
    assert "Collapsed: the encoder gives nearly the same latent for every frame" in " ".join(
        capsys.readouterr().out.split()
    )


def test_the_files_hold_what_was_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = train(write_dots(tmp_path / "dots.h5", num_episodes=10).path, tmp_path, max_steps=2, horizon=4)
    written = json.loads((tmp_path / "diagnostics.json").read_text())
    assert written["step"] == 2
    assert written["blindness"] == pytest.approx(found.blindness)
    assert written["plan_rank"] == pytest.approx(sum(found.plan_ranks) / len(found.plan_ranks))
    assert written["plan_horizon"] == 4
    assert [len(written[f"{name}_errors"]) for name in ("model", "copy", "mean", "shuffled")] == [4] * 4
    assert len(written["probe_r2"]) == len(written["state_names"]) == 2
    assert len(written["variances"]) == 16
    assert written["history"] == [[2, pytest.approx(found.blindness)]]
    assert written["verdict"] == judge(found).sentence
    printed = capsys.readouterr().out
    for line in (written["verdict"], *written["cautions"]):
        assert line in printed
    assert written["next_steps"]
    for step in written["next_steps"]:
        assert all(part.removesuffix(".") in printed for part in step.split(": "))
    assert "Caution: only 2 steps so far" in printed
    assert printed.count("diagnostics.png") == 1
    png = (tmp_path / "diagnostics.png").read_bytes()
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = (int.from_bytes(png[start : start + 4]) for start in (16, 20))
    assert width == 1650
    assert 770 < height < 1100  # as many cautions and next steps as there are
    assert not list(tmp_path.glob("*tmp*"))


def test_a_diagnosis_comes_before_the_first_validation_and_does_not_change_training(tmp_path: Path) -> None:
    path = write_dots(tmp_path / "dots.h5", num_episodes=10).path
    steps, weights = [], []
    for first_seconds in (0.0, math.inf):
        folder = tmp_path / str(first_seconds)
        module = built_module()
        train(path, folder, max_steps=4, module=module, horizon=2, max_frames=40, first_seconds=first_seconds)
        steps.append([step for step, _ in json.loads((folder / "diagnostics.json").read_text())["history"]])
        weights.append({name: value.clone() for name, value in module.state_dict().items()})
    assert steps == [[1, 4], [4]]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_the_final_weights_are_judged_even_if_the_last_step_is_not_validated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_dots(tmp_path / "dots.h5", num_episodes=10).path
    data = LeWMDataModule(h5_path=str(path), frameskip=1, batch_size=64, val_fraction=0.2, num_workers=1)
    diagnostics = Diagnostics(dirpath=tmp_path, horizon=2, max_frames=40, first_seconds=0.0)
    rare = {"val_check_interval": 1000, "check_val_every_n_epoch": None, "num_sanity_val_steps": 0}
    quiet_trainer(tmp_path, max_steps=3, callbacks=[diagnostics], **rare).fit(small_lewm(), data)
    written = json.loads((tmp_path / "diagnostics.json").read_text())
    assert [step for step, _ in written["history"]] == [1, 3]
    assert not any("training is at" in caution for caution in written["cautions"])
    assert "Next:" in capsys.readouterr().out


def built_module() -> LeWMModule:
    torch.manual_seed(0)
    module = small_lewm(predictor_dropout=0.3)
    module.build(action_dim=2, image_size=(28, 28))
    return module
