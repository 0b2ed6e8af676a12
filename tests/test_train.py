"""train.py builds what its YAML says, its tiny model learns without collapsing, and errors are one sentence."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

import train
from lewm_data.datamodule import LeWMDataModule
from lewm_data.errors import UsageError
from lewm_data.training.report import TrainingReport
from lewm_data.training.tiny import TinyJEPA, vicreg_terms

# Lightning's own command line still calls jsonargparse by an older name.
pytestmark = pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")

ROOT = Path(__file__).parent.parent


@pytest.fixture
def arguments(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    return lambda *given: monkeypatch.setattr(sys, "argv", ["train.py", *map(str, given)])


def a_batch(*, num_windows: int = 8, num_steps: int = 4, action_dim: int = 10) -> dict[str, torch.Tensor]:
    frames = torch.randn(num_windows, num_steps, 32, 32, 3)
    return {"pixels": frames.permute(0, 1, 4, 2, 3), "action": torch.randn(num_windows, num_steps, action_dim)}


@pytest.mark.parametrize("config", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_configs_build_the_real_classes(config: Path, tmp_path: Path, arguments: Callable[..., None]) -> None:
    arguments("--config", config, "--trainer.default_root_dir", tmp_path)
    cli = train.make_cli()
    assert isinstance(cli.model, TinyJEPA)
    assert isinstance(cli.datamodule, LeWMDataModule)
    assert any(isinstance(callback, TrainingReport) for callback in cli.trainer.callbacks)


def test_without_a_config_it_is_the_demo(arguments: Callable[..., None]) -> None:
    arguments()
    cli = train.make_cli()
    wanted = yaml.safe_load(train.DEMO_CONFIG.read_text())
    assert cli.datamodule.source == wanted["data"]["root"]
    assert cli.model.action_dim == wanted["model"]["action_dim"]


def test_another_config_inherits_nothing_from_the_demo(tmp_path: Path, arguments: Callable[..., None]) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text(
        yaml.safe_dump({"data": {"repo_id": "someone/arm"}, "model": {"action_dim": 30}, "trainer": {"logger": False}})
    )
    arguments(f"--config={config}")
    assert train.make_cli().datamodule.source == "someone/arm"


def test_a_source_that_is_none_is_one_sentence_and_a_status(
    tmp_path: Path, arguments: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments(
        "--trainer.logger=false",
        f"--trainer.default_root_dir={tmp_path}",
        f"--data.data_dir={tmp_path}",
        f"--data.root={tmp_path / 'absent'}",
    )
    status = train.main()
    stderr = capsys.readouterr().err
    assert status == 2
    assert str(tmp_path / "absent") in stderr
    assert "Traceback" not in stderr


@pytest.mark.parametrize("size", [32, 96])
def test_latents_and_predictions_have_one_shape(size: int) -> None:
    model = TinyJEPA(action_dim=10, latent_dim=16)
    latents = model.encode(torch.randn(2, 4, 3, size, size))
    assert latents.shape == (2, 4, 16)
    assert model.predict(latents[:, :-1], torch.randn(2, 3, 10)).shape == (2, 3, 16)


def test_prediction_uses_the_action_between_two_frames_and_not_the_last() -> None:
    torch.manual_seed(0)
    model, batch = TinyJEPA(action_dim=10), a_batch()
    model.log = lambda *_, **__: None  # type: ignore[method-assign]
    loss = model.training_step(batch, 0)
    for step, matters in ((0, True), (2, True), (3, False)):
        changed = {**batch, "action": batch["action"].clone()}
        changed["action"][:, step] += 1
        assert (model.training_step(changed, 0) != loss).item() is matters


def test_vicreg_terms_see_collapse_and_redundancy() -> None:
    torch.manual_seed(0)
    spread = torch.randn(4096, 8)
    variance, covariance = vicreg_terms(spread)
    assert variance < 0.05
    assert covariance < 0.05
    assert vicreg_terms(torch.zeros(64, 8))[0] == pytest.approx(1, abs=0.02)
    assert vicreg_terms(spread[:, :1].expand(-1, 8))[1] == pytest.approx(7, rel=0.15)


def test_a_wrong_action_dim_names_the_right_one() -> None:
    with pytest.raises(UsageError, match=r"is 10, but a kept frame has 30 .* Set --model.action_dim 30\."):
        TinyJEPA(action_dim=10).training_step(a_batch(action_dim=30), 0)


def test_a_window_of_one_frame_has_nothing_to_predict() -> None:
    with pytest.raises(UsageError, match=r"num_steps is 1, but a prediction needs a next frame"):
        TinyJEPA(action_dim=10).training_step(a_batch(num_steps=1), 0)


@pytest.mark.slow
def test_three_steps_from_a_dataset_folder(recorded: Path, tmp_path: Path) -> None:
    flags = {
        "data.root": recorded,
        "data.data_dir": tmp_path,
        "data.camera": "front",
        "data.num_steps": 2,
        "data.frameskip": 2,
        "data.batch_size": 4,
        "data.image_size": 32,
        "data.val_fraction": 0.3,
        "model.action_dim": 12,
        "trainer.max_steps": 3,
        "trainer.val_check_interval": 2,
        "trainer.accelerator": "cpu",
        "trainer.default_root_dir": tmp_path,
        "trainer.logger.init_args.save_dir": tmp_path,
    }
    command = [sys.executable, "train.py", *(f"--{key}={value}" for key, value in flags.items())]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert "(4, 2, 3, 32, 32)" in result.stdout
    assert "(4, 2, 12)" in result.stdout
    summary = " ".join(result.stdout.split())
    assert "3 steps, 12 windows in" in summary
    assert "of the time waiting for data" in summary
    metrics = next(tmp_path.rglob("metrics.csv")).read_text()
    assert "val/vs_copy" in metrics
