"""train.py builds what its YAML says, resumes, exports, and reports errors in one sentence."""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

import train
from lewm_data.datamodule import LeWMDataModule
from lewm_data.errors import UsageError
from lewm_data.training.diagnostics import Diagnostics
from lewm_data.training.lewm import LeWMModule
from lewm_data.training.report import TrainingReport
from tests.loading.files import write

# Lightning's own command line still calls jsonargparse by an older name.
pytestmark = pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")

ROOT = Path(__file__).parent.parent
ON_CPU = ("--trainer.accelerator=cpu", "--trainer.precision=32-true")


@pytest.fixture
def arguments(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    return lambda *given: monkeypatch.setattr(sys, "argv", ["train.py", *map(str, given)])


@pytest.mark.parametrize("config", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_configs_build_the_real_classes(config: Path, tmp_path: Path, arguments: Callable[..., None]) -> None:
    arguments("--config", config, "--trainer.default_root_dir", tmp_path, *ON_CPU)
    cli = train.make_cli()
    assert isinstance(cli.model, LeWMModule)
    assert isinstance(cli.datamodule, LeWMDataModule)
    callbacks = {type(callback) for callback in cli.trainer.callbacks}
    assert {TrainingReport, Diagnostics} <= callbacks
    assert cli.datamodule.num_steps == cli.model.hparams["history_size"] + 1


def test_without_a_config_it_is_lewm_as_published(arguments: Callable[..., None]) -> None:
    arguments("--data.repo_id=someone/arm", *ON_CPU)
    cli = train.make_cli()
    assert cli.datamodule.source == "someone/arm"
    assert (cli.datamodule.batch_size, cli.datamodule.frameskip, cli.datamodule.seed) == (128, 5, 3072)
    given = {name: value for name, value in cli.model.hparams.items() if not name.startswith("_")}
    assert given == dict(LeWMModule().hparams)
    assert cli.trainer.gradient_clip_val == 1.0
    assert cli.config.ckpt_path is None


def test_another_config_inherits_nothing_from_the_default(tmp_path: Path, arguments: Callable[..., None]) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text(yaml.safe_dump({"data": {"repo_id": "someone/arm"}, "trainer": {"logger": False}}))
    arguments(f"--config={config}")
    cli = train.make_cli()
    assert cli.datamodule.batch_size == 256
    assert not any(isinstance(callback, Diagnostics) for callback in cli.trainer.callbacks)


@pytest.mark.parametrize("name", ["root", "h5_path"])
def test_a_dataset_on_the_command_line_replaces_the_configs(arguments: Callable[..., None], name: str) -> None:
    arguments(f"--data.{name}", "mine", *ON_CPU)
    datamodule = train.make_cli().datamodule
    assert (datamodule.sources.kind, datamodule.source) == (name, "mine")


def test_print_config_shows_every_setting(arguments: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    arguments("--print_config")
    with pytest.raises(SystemExit) as stopped:
        train.make_cli()
    assert stopped.value.code == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["model"]["sigreg_weight"] == 0.09
    assert shown["data"]["dirty_episode_policy"] == "fail"


@pytest.mark.skipif(torch.cuda.is_available() or torch.backends.mps.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(
    ("accelerator", "precision"), [("gpu", "bf16-mixed"), ("cuda", "32-true"), ("auto", "16-mixed")]
)
def test_a_missing_gpu_is_reported_at_once(
    arguments: Callable[..., None], capsys: pytest.CaptureFixture[str], accelerator: str, precision: str
) -> None:
    arguments(f"--trainer.accelerator={accelerator}", f"--trainer.precision={precision}")
    assert train.main() == UsageError.exit_status
    stderr = " ".join(capsys.readouterr().err.split())
    assert f"trainer.accelerator is '{accelerator}'" in stderr
    assert "--trainer.accelerator cpu" in stderr
    assert "Traceback" not in stderr


def test_a_missing_source_is_one_sentence_and_a_status(
    tmp_path: Path, arguments: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments(
        "--trainer.logger=false",
        f"--trainer.default_root_dir={tmp_path}",
        f"--data.data_dir={tmp_path}",
        f"--data.root={tmp_path / 'absent'}",
        *ON_CPU,
    )
    status = train.main()
    stderr = capsys.readouterr().err
    assert status == 2
    assert str(tmp_path / "absent") in stderr
    assert "Traceback" not in stderr


def test_a_run_keeps_everything_that_it_writes_in_one_folder(tmp_path: Path, arguments: Callable[..., None]) -> None:
    arguments("--data.root=mine", f"--trainer.default_root_dir={tmp_path}", *ON_CPU)
    trainer = train.make_cli().trainer
    assert trainer.checkpoint_callback is not None
    assert Path(str(trainer.checkpoint_callback.dirpath)) == tmp_path / "checkpoints"  # type: ignore[attr-defined]
    assert Path(str(trainer.log_dir)).is_relative_to(tmp_path)
    arguments("--data.root=mine", f"--trainer.default_root_dir={tmp_path}", "--trainer.logger=false", *ON_CPU)
    assert train.make_cli().trainer.loggers == []


def test_a_first_run_may_ask_to_continue(
    tmp_path: Path, arguments: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments("--data.root=mine", "--ckpt_path=last", f"--trainer.default_root_dir={tmp_path}", *ON_CPU)
    cli = train.make_cli()
    assert train.checkpoint_to_continue(cli) is None
    assert "a new one starts" in capsys.readouterr().err
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    assert train.checkpoint_to_continue(cli) == "last"
    assert capsys.readouterr().err == ""


def test_a_converted_file_needs_no_settings_of_a_conversion(arguments: Callable[..., None]) -> None:
    config = f"--config={ROOT / 'configs' / 'so101.yaml'}"
    arguments(config, "--data.h5_path=mine.h5", *ON_CPU)
    assert train.make_cli().datamodule.config.camera is None
    arguments(config, "--data.h5_path=mine.h5", "--data.camera=side", *ON_CPU)
    assert train.make_cli().datamodule.config.camera == "side"


@pytest.mark.parametrize(("config", "size"), [("laptop.yaml", "96x96"), ("so101.yaml", "224x224")])
def test_a_file_of_another_size_than_the_configuration_is_refused(
    config: str, size: str, tmp_path: Path, arguments: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "small.h5", [20] * 6, height=32, width=32).path
    given = f"--config={ROOT / 'configs' / config}"
    arguments(given, f"--data.h5_path={path}", f"--trainer.default_root_dir={tmp_path}", *ON_CPU)
    assert train.main() == UsageError.exit_status
    stderr = " ".join(capsys.readouterr().err.split())
    assert f"its frames are 32x32, but image_size is {size}. Set image_size to 32x32, or convert" in stderr


def test_a_file_has_its_own_size_unless_a_configuration_or_a_flag_names_one(
    tmp_path: Path, arguments: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "small.h5", [20] * 6, height=32, width=32).path
    flags = f"--data.h5_path={path}", "--data.batch_size=4", f"--trainer.default_root_dir={tmp_path}", *ON_CPU
    arguments(*flags)  # configs/lewm.yaml, where 224 stands, is a default, too
    cli = train.make_cli()
    cli.datamodule.setup()
    saved = tmp_path / "config.yaml"
    saved.write_text(cli.parser.dump(cli.config))
    arguments(f"--config={saved}")  # the configuration that a run saves
    train.make_cli().datamodule.setup()
    arguments(f"--config={ROOT / 'configs' / 'so101.yaml'}", *flags, "--data.image_size=32")
    train.make_cli().datamodule.setup()
    arguments(*flags, "--data.image_size=224")
    assert train.main() == UsageError.exit_status
    assert "image_size is 224x224" in " ".join(capsys.readouterr().err.split())


def test_a_dataset_is_converted_to_the_default_size(arguments: Callable[..., None]) -> None:
    arguments("--data.root=mine", *ON_CPU)
    assert train.make_cli().datamodule.config.image_size == 224


def command(recorded: Path, folder: Path, **flags: object) -> list[str]:
    settings = {
        "data.root": recorded,
        "data.data_dir": folder,
        "data.camera": "front",
        "data.frameskip": 1,
        "data.batch_size": 4,
        "data.image_size": 32,
        "data.val_fraction": 0.3,
        "model.patch_size": 8,
        "model.encoder_depth": 1,
        "trainer.max_steps": 3,
        "trainer.val_check_interval": 2,
        "trainer.accelerator": "cpu",
        "trainer.default_root_dir": folder,
        **flags,
    }
    given = [f"--{key}={value}" for key, value in settings.items()]
    callbacks = yaml.safe_load((ROOT / "configs" / "demo.yaml").read_text())["trainer"]["callbacks"]
    callbacks[-1]["init_args"]["every_n_train_steps"] = 1
    callbacks[-2]["init_args"] |= {"dirpath": str(folder)}
    config = folder / "demo.yaml"
    demo = yaml.safe_load((ROOT / "configs" / "demo.yaml").read_text())
    config.write_text(yaml.safe_dump({**demo, "trainer": {**demo["trainer"], "callbacks": callbacks}}))
    return [sys.executable, "train.py", "--config", str(config), *given]


def test_the_command_to_paste_has_no_credentials() -> None:
    assert train.command_line(["train.py", "--data.h5_path", "monkey.h5"]) == (
        "python",
        "train.py",
        "--data.h5_path",
        "monkey.h5",
    )
    for secret in (
        '--data.remote.storage_options={"secret": "x"}',
        "--data.h5_path=https://me:word@host/a.h5",
        "--trainer.logger.init_args.api_key=x",
    ):
        assert train.command_line(["train.py", secret]) == ()


def test_a_saved_configuration_has_no_storage_credentials(tmp_path: Path) -> None:
    parser = train.LightningArgumentParser()
    parser.add_class_arguments(train.LeWMDataModule, "data")
    options = {"key": "me", "secret": "TOPSECRET", "endpoint_url": "https://me:TOPSECRET@host", "anon": False}
    config = parser.parse_object(
        {
            "data": {
                "h5_path": "https://host/a.h5?X-Amz-Signature=TOPSECRET",
                "remote": {"storage_options": {**options, "client_kwargs": {"region_name": "eu", "x": "TOPSECRET"}}},
                "num_steps": 7,
            }
        }
    )
    public = train.without_secrets(config)
    parser.save(public, tmp_path / "config.yaml")
    text = (tmp_path / "config.yaml").read_text()
    assert "TOPSECRET" not in text
    assert "num_steps: 7" in text
    assert public.data.remote.storage_options == {
        "endpoint_url": "https://***@host",
        "anon": False,
        "client_kwargs": {"region_name": "eu"},
    }
    assert config.data.remote.storage_options["secret"] == "TOPSECRET"  # the run itself still has it


def test_an_unexpected_error_shows_no_storage_credentials(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Runs the script here, as Python would in a process of its own: that takes 13 s to import everything again."""
    flags = ["--data.h5_path=a.h5", '--data.remote.storage_options={"secret":"TOPSECRET"}']
    monkeypatch.setattr(
        sys, "argv", ["train.py", "--config=configs/demo.yaml", *flags, "--data.remote.num_connections=0"]
    )
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.chdir(ROOT)
    with pytest.raises(BaseException) as caught:  # noqa: B017, PT011
        runpy.run_path("train.py", run_name="__main__")
    if not isinstance(caught.value, SystemExit):
        sys.excepthook(caught.type, caught.value, caught.tb)
    elif caught.value.code == 0:
        pytest.fail("the script ended without an error")
    out, err = capsys.readouterr()
    assert "num_connections is 0" in err
    assert "TOPSECRET" not in out + err


@pytest.mark.slow
def test_from_a_dataset_folder_to_a_verdict(recorded: Path, tmp_path: Path) -> None:
    secret = json.dumps({"secret": "TOPSECRET"})
    arguments = command(recorded, tmp_path, **{"data.remote.storage_options": secret, "export": tmp_path / "exported"})
    result = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"TOPSECRET" in path.read_bytes()]
    assert next(tmp_path.rglob("config.yaml")).stat().st_mode & 0o077 == 0
    assert "(4, 4, 3, 32, 32)" in result.stdout
    summary = " ".join(result.stdout.split())
    assert "3 steps, 12 windows in" in summary
    assert "of the time waiting for data" in summary
    verdict = json.loads((tmp_path / "diagnostics.json").read_text())["verdict"]
    assert " ".join(verdict.split()) in summary
    assert (tmp_path / "diagnostics.png").is_file()
    assert (tmp_path / "checkpoints" / "last.ckpt").exists()
    assert {file.name for file in (tmp_path / "exported").iterdir()} >= {"weights.pt", "config.json"}
    assert "val/blindness" in next(tmp_path.rglob("metrics.csv")).read_text()


@pytest.mark.slow
def test_a_terminated_run_saves_a_checkpoint_and_the_next_one_continues(recorded: Path, tmp_path: Path) -> None:
    endless = command(recorded, tmp_path, **{"trainer.max_steps": 100_000})
    with subprocess.Popen(endless, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 300
        while not (tmp_path / "checkpoints" / "last.ckpt").exists():
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        os.kill(process.pid, signal.SIGTERM)
        _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130, stderr
    assert "To continue, add --ckpt_path last to the command." in stderr
    assert "No run to continue" not in stderr
    saved = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=False)["global_step"]
    goes_on = command(recorded, tmp_path, **{"trainer.max_steps": saved + 3, "ckpt_path": "last"})
    result = subprocess.run(goes_on, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    assert "3 steps, 12 windows in" in " ".join(result.stdout.split())


@pytest.mark.slow
def test_two_processes_train_and_the_final_weights_are_judged(recorded: Path, tmp_path: Path) -> None:
    """Nothing waits for a process that does not come: not the saved configuration, nor the diagnosis at the end."""
    flags = {"trainer.devices": 2, "trainer.strategy": "ddp", "trainer.val_check_interval": 1000}
    result = subprocess.run(command(recorded, tmp_path, **flags), cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    history = json.loads((tmp_path / "diagnostics.json").read_text())["history"]
    assert [step for step, _ in history] == [3]
    assert next(tmp_path.rglob("config.yaml")).stat().st_mode & 0o077 == 0
