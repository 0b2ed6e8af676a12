from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import re
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import lightning
import numpy as np
import pytest
import torch
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger

from lewm_data.config import ConvertConfig
from lewm_data.datamodule import LeWMDataModule
from lewm_data.errors import UsageError
from lewm_data.findings import Finding
from lewm_data.loading.normalizer import IMAGENET_MEAN, IMAGENET_STD
from lewm_data.loading.remote.config import RemoteConfig
from lewm_data.loading.store import FrameStore
from tests.loading import ddp_script, files

pytestmark = [
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return files.write(tmp_path_factory.mktemp("data") / "a.h5", [30, 25, 7, 40, 33, 28], cameras=["wrist"])


def make(written, **options):
    defaults = {"h5_path": written.path, "batch_size": 4, "num_workers": 2, "val_fraction": 0.3, "cache": "none"}
    return LeWMDataModule(**(defaults | options))


class Probe(lightning.LightningModule):
    """Remembers what it is given."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
        self.seen = []
        self.val_seen = []
        self.tested = []
        self.goals = []
        self.pixels = []
        self.dtypes = set()

    def training_step(self, batch, batch_idx):
        self.seen.append(batch["state"].float().clone())
        self.goals.append({name: values.clone() for name, values in batch.items() if name.startswith("goal_")})
        self.pixels.append(batch["pixels"].clone())
        self.dtypes.add((batch["pixels"].dtype, batch["state"].dtype))
        return self.layer(batch["action"][..., :2].to(self.layer.weight.dtype)).square().mean()

    def validation_step(self, batch, batch_idx):
        self.val_seen.append(batch["state"].clone())

    def test_step(self, batch, batch_idx):
        self.tested.append(batch["state"].clone())

    def predict_step(self, batch, batch_idx):
        return batch["state"]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-3)


def trainer(tmp_path, **options):
    defaults = {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": tmp_path,
        "log_every_n_steps": 1,
    }
    return lightning.Trainer(**(defaults | options))


def threads():
    return [thread for thread in threading.enumerate() if "lewm_data" in thread.name]


@pytest.mark.parametrize("worker_type", ["thread", "process"])
def test_a_trainer_fits_validates_and_predicts(written, tmp_path, worker_type):
    data, model = make(written, worker_type=worker_type, cache="ram"), Probe()
    run = trainer(tmp_path, max_epochs=2)
    run.fit(model, data)
    num_train = sum(written.lengths[data.train_positions] - 19)
    num_val = sum(written.lengths[data.val_positions] - 19)
    assert len(model.seen) == 2 * (num_train // 4)
    assert sum(map(len, model.val_seen[1:])) >= 2 * num_val  # after a sanity check of two batches
    assert threads() == []
    predicted = torch.cat(run.predict(model, data))
    assert len(predicted) == len(written.starts(20))
    assert threads() == []


def test_batches_are_normalized_with_training_statistics(written):
    data = make(written)
    data.setup()
    raw = next(iter(make_like(data).train_dataloader()))
    batch = data.on_after_batch_transfer(raw, 0)
    assert raw["pixels"].dtype == torch.uint8
    mean, std = (torch.tensor(c).view(3, 1, 1) for c in (IMAGENET_MEAN, IMAGENET_STD))
    torch.testing.assert_close(batch["pixels"], (raw["pixels"] / 255 - mean) / std, atol=1e-5, rtol=1e-5)
    assert batch["pixels_wrist"].dtype == torch.float32
    rows = np.isin(written.data["episode_idx"], data.train_positions)
    for name, width in (("action", 2), ("state", 3)):
        values = written.data[name][rows].astype(np.float64)
        expected = (raw[name].numpy().reshape(4, -1, width) - values.mean(0)) / values.std(0)
        got = batch[name].numpy().reshape(4, -1, width)
        np.testing.assert_allclose(got, expected, atol=1e-4)
        torch.testing.assert_close(data.normalizers[name].denormalize(batch[name]), raw[name])
    assert torch.equal(batch["done"], raw["done"])


def make_like(data):
    data.setup()
    return data


def test_pixels_keep_their_channels_last_memory(written):
    data = make_like(make(written))
    batch = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    assert batch["pixels"].permute(0, 1, 3, 4, 2).is_contiguous()


def test_normalization_can_be_turned_off(written):
    data = make_like(make(written, normalize=False))
    raw = next(iter(data.train_dataloader()))
    assert data.on_after_batch_transfer(raw, 0)["pixels"].dtype == torch.uint8


@pytest.mark.parametrize(
    ("precision", "pixels", "state"),
    [
        ("32-true", torch.float32, torch.float32),
        ("bf16-mixed", torch.bfloat16, torch.float32),
        ("bf16-true", torch.bfloat16, torch.bfloat16),
        ("64-true", torch.float64, torch.float64),
    ],
)
def test_precision_follows_the_trainer(written, tmp_path, precision, pixels, state):
    model = Probe()
    trainer(tmp_path, precision=precision, max_steps=2, limit_val_batches=0).fit(model, make(written))
    assert model.dtypes == {(pixels, state)}


def test_transforms_run_in_training_only_on_frames_as_they_came(written, tmp_path):
    calls = []

    def transform(batch):
        calls.append(batch["pixels"].dtype)
        return batch | {"pixels": batch["pixels"].float() / 255}

    model = Probe()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    trainer(tmp_path, max_steps=3).fit(model, make(written, train_transform=transform))
    assert torch.equal(torch.get_rng_state(), before)
    assert calls == [torch.uint8] * 3
    data = make_like(make(written))
    raw = next(iter(data.train_dataloader()))
    expected = data.on_after_batch_transfer(raw, 0)["pixels"]
    floats = data.on_after_batch_transfer(transform(raw), 0)["pixels"]
    torch.testing.assert_close(floats, expected)


def test_the_split_is_by_episode(written):
    data = make_like(make(written))
    assert set(data.train_positions.tolist()) | set(data.val_positions.tolist()) == {0, 1, 3, 4, 5}
    train, val = (
        np.concatenate([batch["state"].numpy().reshape(-1, 3) for batch in loader])
        for loader in (data.train_dataloader(), data.val_dataloader())
    )
    assert not {tuple(row) for row in train} & {tuple(row) for row in val}
    everything = make_like(make(written, val_fraction=0))
    assert everything.val_dataloader() == []
    assert len(everything.train_positions) == 5


def test_a_trainer_tests_on_the_episodes_named_for_it(written, tmp_path):
    data, model = make(written, val_episodes="0", test_episodes="1,3:5"), Probe()
    run = trainer(tmp_path, max_steps=2)
    run.fit(model, data)
    run.test(model, data, verbose=False)
    assert data.test_positions.tolist() == [1, 3, 4]
    tested = torch.cat(model.tested)
    assert len(tested) == sum(written.lengths[[1, 3, 4]] - 19)
    first_rows = written.data["state"][written.offsets[1]]
    torch.testing.assert_close(data.normalizers["state"].denormalize(tested[0, 0]), torch.from_numpy(first_rows))
    assert threads() == []


def test_testing_without_test_episodes_names_the_setting(written, tmp_path):
    with pytest.raises(UsageError, match="there are no test episodes. Before you train, name some: test_episodes="):
        trainer(tmp_path).test(Probe(), make(written), verbose=False)


def test_testing_a_checkpoint_refuses_episodes_that_it_was_trained_on(written, tmp_path):
    run, data = trainer(tmp_path, max_steps=1, limit_val_batches=0), make(written, val_episodes="0", test_episodes="1")
    run.fit(Probe(), data)
    run.save_checkpoint(tmp_path / "a.ckpt")
    options = {"ckpt_path": tmp_path / "a.ckpt", "weights_only": True, "verbose": False}
    trainer(tmp_path).test(Probe(), make(written, val_episodes="3", test_episodes="0:2"), **options)
    with pytest.raises(UsageError, match="split: episode 3 of me/test tested now, but trained on before"):
        trainer(tmp_path).test(Probe(), make(written, val_episodes="0", test_episodes="3"), **options)


def test_the_split_is_printed_and_its_text_repeats_it(written, caplog):
    data = make(written, seed=5)
    with caplog.at_level("INFO"):
        data.setup()
    assert "Split by val_fraction 0.3 and seed 5:\n  train " in caplog.text
    assert data.split["test"] == {}
    again = make_like(make(written, val_episodes=data.split["val"]))
    assert again.split == data.split
    np.testing.assert_array_equal(again.val_positions, data.val_positions)


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        ({"val_episodes": "0,3", "test_episodes": "1"}, {"val_episodes": "0,4", "test_episodes": "1"}),
        ({"fold": (0, 3)}, {"fold": "1/3"}),
        ({"train_episodes": "0:2"}, {"train_episodes": "0"}),
    ],
)
def test_a_run_resumes_with_its_lists_and_folds_only(written, tmp_path, options, changed):
    whole, rest = Probe(), Probe()
    trainer(tmp_path, callbacks=[Save(tmp_path)]).fit(whole, make(written, **options))
    data = make(written, worker_type="process", num_workers=1, **options)
    trainer(tmp_path).fit(rest, data, ckpt_path=tmp_path / "step2.ckpt", weights_only=True)
    assert len(rest.seen) == len(whole.seen) - 2
    assert all(torch.equal(a, b) for a, b in zip(rest.seen, whole.seen[2:], strict=True))
    state = make_like(make(written, **options)).state_dict()
    if "train_episodes" not in options:  # then val_fraction does not count
        resumed(make(written, **options | {"val_fraction": 0.5}), state)
    with pytest.raises(
        UsageError, match=r"accept_changes=\['normalizers', 'split'\].*accept_changes='\[normalizers, split\]'"
    ):
        resumed(make(written, **changed), state)
    resumed(make(written, **changed, accept_changes=["split", "normalizers"]), state)


@pytest.mark.parametrize("worker_type", ["thread", "process"])
def test_a_batch_says_where_its_windows_come_from(tmp_path, worker_type):
    tasks = {"tasks": {0: "push", 1: "lift"}, "extra": {"task_index": np.repeat([1, 0, 1], [30, 25, 40])}}
    written = files.write(tmp_path / "a.h5", [30, 25, 40], **tasks)

    class Reads(Probe):
        places = ()

        def training_step(self, batch, batch_idx):
            assert batch["task"] == ["push" if e == 1 else "lift" for e in batch["episode_idx"][:, 0].tolist()]
            assert [data.tasks[i] for i in batch["task_idx"][:, 0].tolist()] == batch["task"]
            self.places = [*self.places, (int(batch["episode_idx"][0, 0]), int(batch["step_idx"][0, 0]))]
            return super().training_step(batch, batch_idx)

    columns = ["task", "episode_idx", "step_idx"]
    data, model = make(written, worker_type=worker_type, columns=columns, val_fraction=0, batch_size=1), Reads()
    trainer(tmp_path).fit(model, data)
    assert sorted(model.places) == written.starts(20)
    assert [(source.repo_id, source.episode) for source in data.episodes] == [("me/test", e) for e in range(3)]


def test_asking_for_tasks_converts_them(tmp_path):
    data = LeWMDataModule(root=tmp_path, columns="task", extra_columns=["reward"])
    assert data.config.extra_columns == ("reward", "task_index")
    assert LeWMDataModule(root=tmp_path, columns=["step_idx"]).config.extra_columns == ()


@pytest.mark.parametrize("worker_type", ["thread", "process"])
def test_each_dataset_is_normalized_by_its_own_statistics(several, written, tmp_path, worker_type):
    options = {"h5_path": paths(several), "normalize": "per_dataset", "worker_type": worker_type, "num_workers": 1}
    data = make_like(make(written, **options, batch_size=32))
    raw = next(iter(data.train_dataloader()))
    data.teardown()
    batch = data.on_after_batch_transfer(raw, 0)
    own = [make_like(make(file)) for file in several]
    for window, number in enumerate(raw["dataset_idx"].tolist()):
        for name in ("action", "state"):
            expected = own[number].normalizers[name].normalize(raw[name][window])
            torch.testing.assert_close(batch[name][window], expected)
    assert set(raw["dataset_idx"].tolist()) == {0, 1}
    for name in ("action", "state"):
        inverted = data.normalizers[name].denormalize(batch[name], batch["dataset_idx"])
        torch.testing.assert_close(inverted, raw[name], rtol=1e-4, atol=1e-5)
    resumed(make(written, **options), data.state_dict())
    with pytest.raises(UsageError, match=r"normalize: 'per_dataset' in the checkpoint, True now"):
        resumed(make(written, **options | {"normalize": True}), data.state_dict())
    run, ckpt = trainer(tmp_path, max_steps=1, limit_val_batches=0), tmp_path / "a.ckpt"
    run.fit(Probe(), make(written, **options))
    run.save_checkpoint(ckpt)
    validate = {"ckpt_path": ckpt, "weights_only": True, "verbose": False}
    trainer(tmp_path).validate(Probe(), make(written, **options), **validate)
    with pytest.raises(UsageError, match="normalizes action by the statistics of each of 2 datasets"):
        trainer(tmp_path).validate(Probe(), make(written, **options | {"normalize": True}), **validate)


def test_dimensions_that_never_move_are_said_at_setup(tmp_path, caplog):
    state = np.random.default_rng(0).normal(0, 5, (55, 3)).astype(np.float32)
    state[:, 1] = 2
    written = files.write(tmp_path / "a.h5", [30, 25], extra={"state": state})
    with caplog.at_level("INFO"):
        make(written).setup()
    assert "state dimension 1 never moves in the training episodes: centered, not scaled." in caplog.text


@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_arrays_and_tensors_name_episodes(written, kind):
    folds = {"train_episodes": kind([0, 3, 4]), "val_episodes": kind([1, 5])}  # as scikit-learn's KFold gives them
    data = make_like(make(written, **folds, test_episodes={"me/test": kind([2])}, num_steps=1))
    assert data.train_positions.tolist() == [0, 3, 4]
    assert data.val_positions.tolist() == [1, 5]
    assert data.hparams["val_episodes"] == "1,5"
    assert data.hparams["train_episodes"] == "0,3:5"


def test_settings_are_hyperparameters_without_secrets(written, tmp_path):
    options = {
        "val_episodes": {"me/test": [0, slice(2, None)]},
        "remote": RemoteConfig(storage_options={"key": "hush"}),
    }
    data, run = make(written, **options, train_transform=dict), trainer(tmp_path, max_steps=1, limit_val_batches=0)
    run.fit(Probe(), data)
    run.save_checkpoint(tmp_path / "a.ckpt")
    saved = torch.load(tmp_path / "a.ckpt", weights_only=True)["datamodule_hyper_parameters"]
    assert saved["val_episodes"] == {"me/test": "0,2:"}
    assert saved["h5_path"] == str(written.path)
    assert not {"remote", "train_transform"} & saved.keys()
    again = LeWMDataModule.load_from_checkpoint(tmp_path / "a.ckpt", batch_size=2)
    assert (again.batch_size, again.num_steps) == (2, data.num_steps)
    again.setup()
    assert again.split == data.split
    address = "s3://bucket/a.h5?X-Amz-Signature=hush"
    assert "hush" not in str(LeWMDataModule(h5_path=address).hparams)


def loggers(name, folder):
    if name == "csv":
        return CSVLogger(folder)
    if name == "tensorboard":
        pytest.importorskip("tensorboard")
        return TensorBoardLogger(folder)
    pytest.importorskip("wandb")
    return WandbLogger(save_dir=folder, offline=True)


@pytest.mark.parametrize("name", ["csv", "tensorboard", "wandb"])
def test_loggers_get_the_settings_next_to_those_of_the_model(written, tmp_path, name):
    class Model(Probe):
        def __init__(self, seed=1):
            super().__init__()
            self.save_hyperparameters()

    logger = loggers(name, tmp_path)
    trainer(tmp_path, max_steps=1, logger=logger, limit_val_batches=0).fit(Model(), make(written))
    if name == "wandb":
        config = dict(logger.experiment.config)
        assert (config["seed"], config["data/seed"]) == (1, 3072)
        logger.experiment.finish()
    else:
        logged = (Path(logger.log_dir) / "hparams.yaml").read_text()
        assert "\nseed: 1\n" in f"\n{logged}"
        assert "data/seed: 3072\n" in logged


def test_training_without_validation(written, tmp_path):
    model = Probe()
    trainer(tmp_path).fit(model, make(written, val_fraction=0))
    assert len(model.seen) == len(written.starts(20)) // 4


class Save(lightning.Callback):
    """Writes a checkpoint after some step and at the end of each epoch, and keeps no state of its own."""

    def __init__(self, folder):
        self.folder = folder

    def on_train_batch_end(self, trainer, *_):
        trainer.save_checkpoint(self.folder / f"step{trainer.global_step}.ckpt")

    def on_train_epoch_end(self, trainer, *_):
        trainer.save_checkpoint(self.folder / f"epoch{trainer.current_epoch}.ckpt")


@pytest.mark.parametrize(("name", "num_before"), [("step3", 3), ("step11", 11), ("step13", 13), ("epoch0", 11)])
def test_a_resumed_run_sees_what_an_uninterrupted_one_would(written, tmp_path, name, num_before):
    whole, rest = Probe(), Probe()
    trainer(tmp_path, max_epochs=3, callbacks=[Save(tmp_path)]).fit(whole, make(written))
    assert len(whole.seen) == 33
    data = make(written, worker_type="process", num_workers=1)
    trainer(tmp_path, max_epochs=3).fit(rest, data, ckpt_path=tmp_path / f"{name}.ckpt", weights_only=True)
    assert len(rest.seen) == 33 - num_before
    assert all(torch.equal(a, b) for a, b in zip(rest.seen, whole.seen[num_before:], strict=True))


def test_a_resumed_run_draws_the_same_goals_with_other_workers_and_batch_sizes(written, tmp_path):
    whole, rest = Probe(), Probe()
    trainer(tmp_path, callbacks=[Save(tmp_path)]).fit(whole, make(written, goal="geometric:0.9"))
    data = make(written, goal="geometric:0.9", worker_type="process", num_workers=1, batch_size=2)
    trainer(tmp_path, limit_val_batches=0).fit(rest, data, ckpt_path=tmp_path / "step7.ckpt", weights_only=True)
    assert set(whole.goals[0]) == {"goal_pixels", "goal_pixels_wrist", "goal_state", "goal_steps"}
    for name in whole.goals[0]:
        wanted, got = (torch.cat([batch[name] for batch in goals]) for goals in (whole.goals[7:], rest.goals))
        assert len(wanted) == 16
        assert torch.equal(got[:16], wanted), name


def test_a_resumed_run_draws_the_same_augmentations_with_other_workers_and_batch_sizes(written, tmp_path):
    augment, whole, rest = {"shift": 0.2, "brightness": 0.3, "hue": 0.1}, Probe(), Probe()
    trainer(tmp_path, callbacks=[Save(tmp_path)]).fit(whole, make(written, augment=augment))
    data = make(written, augment=augment, worker_type="process", num_workers=1, batch_size=2)
    trainer(tmp_path, limit_val_batches=0).fit(rest, data, ckpt_path=tmp_path / "step7.ckpt", weights_only=True)
    wanted, got = torch.cat(whole.pixels[7:]), torch.cat(rest.pixels)
    torch.testing.assert_close(got[: len(wanted)], wanted, atol=1e-5, rtol=0)
    plain = Probe()
    trainer(tmp_path, limit_val_batches=0).fit(plain, make(written))
    assert not torch.equal(plain.pixels[0], whole.pixels[0])


def test_augmentation_comes_before_a_transform_of_your_own_and_in_training_only(written, tmp_path):
    seen = []
    data = make(written, augment={"shift": 0.2}, train_transform=lambda batch: seen.append(batch["pixels"]) or batch)
    trainer(tmp_path, max_steps=2).fit(Probe(), data)
    assert len(seen) == 2
    assert seen[0].dtype == torch.uint8
    raw = next(iter(make_like(make(written)).train_dataloader()))
    assert not torch.equal(seen[0], raw["pixels"])
    plain = data.on_after_batch_transfer(raw, 0)
    assert torch.equal(plain["pixels"], make_like(make(written)).on_after_batch_transfer(raw, 0)["pixels"])


@pytest.mark.parametrize(
    ("transform", "words"),
    [
        (lambda batch: None, "returned nothing"),
        (lambda batch: [1], "returned a list"),
        (lambda batch: batch | {"state": batch["state"].numpy()}, r"batch\['state'\] as a numpy array.*from_numpy"),
        (lambda batch: batch | {"pixels": batch["pixels"].float()}, r"from 0 to 2\d\d.*Divide them by 255"),
        (lambda batch: batch | {"pixels_wrist": batch["pixels"] / 50 - 2.5}, "from -2.5 to .*Set normalize=False"),
    ],
)
def test_a_transform_that_returns_no_batch_is_refused(written, tmp_path, transform, words):
    data = make(written, train_transform=transform)
    with pytest.raises(UsageError, match=words):
        trainer(tmp_path, limit_val_batches=0).fit(Probe(), data)


@pytest.mark.parametrize("options", [{"normalize": False}, {}])
def test_frames_that_a_transform_makes_noisy_or_normalizes_itself_pass(written, tmp_path, options):
    scale, noise = (10.0, 0.0) if options else (1.0, 0.1)
    data = make(
        written,
        train_transform=lambda batch: batch | {"pixels": batch["pixels"] / 255 * scale + noise},
        **options,
    )
    model = Probe()
    trainer(tmp_path, limit_val_batches=0, max_steps=1).fit(model, data)
    assert len(model.pixels) == 1


def test_goals_are_normalized_like_their_columns(written):
    data = make_like(make(written, goal="uniform"))
    raw = next(iter(data.train_dataloader()))
    batch = data.on_after_batch_transfer(raw, 0)
    for name in ("state", "pixels", "pixels_wrist"):
        alone = data.on_after_batch_transfer({name: raw[f"goal_{name}"]}, 0)[name]
        assert torch.equal(batch[f"goal_{name}"], alone)
    assert torch.equal(batch["goal_steps"], raw["goal_steps"])


@pytest.mark.parametrize("options", [{"overfit_batches": 2}, {"limit_train_batches": 3}, {"fast_dev_run": 2}])
def test_trainer_options_that_touch_loaders_do_not_break_it(written, tmp_path, options):
    model = Probe()
    trainer(tmp_path, max_epochs=2, **options).fit(model, make(written))
    assert len(model.seen) == {"overfit_batches": 4, "limit_train_batches": 6, "fast_dev_run": 2}[[*options][0]]
    repeats = torch.equal(model.seen[0], model.seen[len(model.seen) // 2])
    assert repeats == ("overfit_batches" in options)


@pytest.mark.parametrize(
    ("error", "raised"), [(ValueError, ValueError), (KeyboardInterrupt, (KeyboardInterrupt, SystemExit))]
)
@pytest.mark.parametrize("worker_type", ["thread", "process"])
def test_an_error_or_an_interrupt_in_training_leaves_no_worker(written, tmp_path, error, raised, worker_type):
    class Fails(Probe):
        def training_step(self, batch, batch_idx):
            raise error("no")

    with pytest.raises(raised):
        trainer(tmp_path).fit(Fails(), make(written, num_workers=2, worker_type=worker_type))
    assert threads() == []
    assert multiprocessing.active_children() == []


def test_other_errors_in_workers_reach_the_trainer_with_episode_and_step(written, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("the disk is on fire")

    monkeypatch.setattr(FrameStore, "read_all", fail)
    with pytest.raises(OSError, match="on fire") as caught:
        trainer(tmp_path).fit(Probe(), make(written, val_fraction=0))
    assert re.search(r"a\.h5, episode \d, step \d+\.", caught.value.__notes__[0])
    with pytest.raises(OSError, match=r"(?s)on fire.*a\.h5, episode \d, step \d+\."):
        trainer(tmp_path).fit(Probe(), make(written, val_fraction=0, worker_type="process"))


def test_damage_reaches_the_trainer(tmp_path):
    from lewm_data.errors import DamagedChunkError

    written = files.write(tmp_path / "a.h5", [30, 30])
    for row in range(60):
        files.damage(written.path, row)
    with pytest.raises(DamagedChunkError, match=r"episode [01], step \d+: .*checksum"):
        trainer(tmp_path).fit(Probe(), make(written, verify_checksums=True))
    assert threads() == []


def test_steps_per_epoch_draws_with_replacement(written, tmp_path):
    model = Probe()
    trainer(tmp_path, max_epochs=2).fit(model, make(written, steps_per_epoch=13, batch_size=9))
    assert len(model.seen) == 26


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_steps": 9}, r"9 \* 5 = 45 steps, but the longest of 6 episodes has 40"),
        ({"batch_size": 500}, r"fewer than one batch of batch_size 500. Set batch_size to \d+"),
        ({"h5_path": "nowhere.h5"}, r"nowhere\.h5: no such file"),
        ({"num_steps": 8}, "none of the 2 validation episodes .* holds a window of 40 steps.*lower num_steps"),
    ],
)
def test_what_cannot_be_trained_on_is_said_before_training(written, options, words):
    with pytest.raises(UsageError, match=words):
        make(written, **options).setup()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "No source is given"),
        ({"h5_path": "a", "steps_per_epoch": 0}, "steps_per_epoch is 0"),
        ({"h5_path": "a", "num_workers": -1}, "num_workers is -1"),
        ({"h5_path": "a", "batch_size": 0}, "batch_size is 0"),
        ({"h5_path": "a", "image_size": -3}, "image_size is -3"),
        ({"h5_path": "a", "worker_type": "fibre"}, "worker_type is 'fibre'"),
        ({"h5_path": "a", "cache": "disk"}, "cache is 'disk'"),
        ({"h5_path": "a", "val_fraction": 1.5}, "val_fraction is 1.5"),
        ({"h5_path": "a", "shift": "top=1"}, "shift changes how a recording is converted, but h5_path a is converted"),
        ({"h5_path": "a", "trim_idle": True}, "trim_idle changes how a recording is converted"),
        ({"root": "a", "shift": "top"}, "'top' is not CAMERA=FRAMES"),
        ({"h5_path": "a", "num_steps": 0}, "num_steps is 0, but must be 1 or more"),
        ({"h5_path": "a", "frameskip": [1, 5]}, r"frameskip is \[1, 5\].*make a dataset or a data module for each"),
        ({"h5_path": "a", "batch_size": None}, "batch_size is None, but must be one whole number"),
        ({"h5_path": "a", "num_workers": 1.5}, "num_workers is 1.5, but must be one whole number, 0 or more"),
        ({"h5_path": "a", "augment": {"flip": 1}}, "augment names 'flip'"),
        ({"h5_path": "a", "accept_changes": "sed"}, "accept_changes names sed"),
        ({"h5_path": 3}, "h5_path is 3, but must be a name or path, a list of them"),
        ({"repo_id": "so101.h5"}, "repo_id is so101.h5, which looks like a converted file.*h5_path='so101.h5'"),
        ({"root": Path("data/so101.H5")}, "root is data/so101.H5, which looks like a converted file"),
        ({"h5_path": "a", "goal": "far"}, 'goal is \'far\', but must be "uniform", or "geometric:DISCOUNT"'),
    ],
)
def test_impossible_settings_are_refused_at_once(options, words):
    with pytest.raises(UsageError, match=words):
        LeWMDataModule(**options)


def test_a_source_is_converted_by_prepare_data_and_found_by_setup(written, tmp_path, monkeypatch):
    calls = []
    fake = types.ModuleType("lewm_data.conversion.prepare")
    fake.prepare_file = lambda *args: calls.append(args) or written.path
    fake.prepared_file = lambda *args: calls.append(args) or written.path
    monkeypatch.setitem(sys.modules, "lewm_data.conversion.prepare", fake)
    data = LeWMDataModule(
        root=tmp_path / "recorded", data_dir=tmp_path, image_size=96, num_steps=2, cameras="all", batch_size=4
    )
    data.prepare_data()
    data.setup()
    config = ConvertConfig(image_size=96, cameras="all", min_episode_steps=1)
    assert calls == [(str(tmp_path / "recorded"), tmp_path, config)] * 2
    assert next(iter(data.train_dataloader()))["pixels"].shape == (4, 2, 3, 24, 20)


def test_a_converted_file_needs_no_conversion(written, monkeypatch):
    monkeypatch.setitem(sys.modules, "lewm_data.conversion.prepare", None)
    make(written).prepare_data()


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    folder = tmp_path_factory.mktemp("several")
    return [
        files.write(
            folder / f"{number}.h5",
            lengths,
            cameras=["wrist"],
            codec=codec,
            seed=number * 50,
            sources=files.sources(f"me/{number}", len(lengths)),
        )
        for number, (lengths, codec) in enumerate([([30, 25, 7, 40], "lzf"), ([60, 70, 90], "none")])
    ]


def paths(several):
    return [file.path for file in several]


def states(batches):
    return np.concatenate([batch["state"].numpy()[:, 0] for batch in batches])


def test_a_list_visits_every_window_of_every_dataset_once(several, written):
    data = make_like(make(written, h5_path=paths(several), batch_size=1))
    # Episodes count on through the files, as they do in a file that lewm-data merge makes of them.
    everything = np.concatenate([file.lengths for file in several])
    assert sorted([*data.train_positions, *data.val_positions]) == [0, 1, 3, 4, 5, 6]
    assert min(data.val_positions) < 4 <= max(data.val_positions)  # each dataset has its share
    assert len(data.train_dataloader()) == sum(everything[data.train_positions] - 19)
    all_rows = np.concatenate([file.data["state"] for file in several])
    stops = np.cumsum(everything)
    for episodes, loader in (
        (data.train_positions, data.train_dataloader()),
        (data.val_positions, data.val_dataloader()),
    ):
        starts = [stops[e] - everything[e] + start for e in episodes for start in range(everything[e] - 19)]
        assert sorted(map(tuple, states(loader))) == sorted(map(tuple, all_rows[starts]))
    assert sum(len(batch["done"]) for batch in data.predict_dataloader()) == sum(
        len(file.starts(20)) for file in several
    )


def test_a_mapping_gives_each_dataset_its_share(several, written):
    data = make_like(make(written, h5_path=dict(zip(map(str, paths(several)), (3, 1), strict=True)), val_fraction=0))
    loader = data.train_dataloader()
    first = {tuple(row) for row in several[0].data["state"]}
    come_from_first = np.array([tuple(row) in first for row in states(loader)])
    total = sum(len(file.starts(20)) for file in several)
    assert len(come_from_first) == total // 4 * 4
    assert abs(come_from_first.sum() - 0.75 * total) <= 4  # exact, but for the last batch that is not full
    assert 0.5 < come_from_first[: total // 2].mean() < 0.95
    assert not np.array_equal(come_from_first, np.array([tuple(row) in first for row in states(loader)]))


def test_statistics_count_rows_as_often_as_their_datasets_windows_come(several, written):
    pooled = make_like(make(written, h5_path=paths(several), val_fraction=0))
    rows = np.concatenate(
        [
            file.data["action"][np.isin(file.data["episode_idx"], [0, 1, 3] if i == 0 else [0, 1, 2])]
            for i, file in enumerate(several)
        ]
    )
    np.testing.assert_allclose(pooled.normalizers["action"].mean, rows.astype(np.float64).mean(0), rtol=1e-6)
    weighted = make_like(make(written, h5_path={str(several[0].path): 1, str(several[1].path): 1e-9}, val_fraction=0))
    alone = make_like(make(several[0], val_fraction=0))
    for name in ("action", "state"):
        torch.testing.assert_close(weighted.normalizers[name].mean, alone.normalizers[name].mean)
        torch.testing.assert_close(weighted.normalizers[name].std, alone.normalizers[name].std)


def test_a_mixed_run_resumes_with_other_workers(several, written, tmp_path):
    options = {"h5_path": dict(zip(map(str, paths(several)), (1, 2), strict=True))}
    whole, rest = Probe(), Probe()
    trainer(tmp_path, max_epochs=2, callbacks=[Save(tmp_path)]).fit(whole, make(written, **options, cache="ram"))
    data = make(written, **options, worker_type="process", num_workers=1)
    trainer(tmp_path, max_epochs=2).fit(rest, data, ckpt_path=tmp_path / "step5.ckpt", weights_only=True)
    assert len(rest.seen) == len(whole.seen) - 5
    assert all(torch.equal(a, b) for a, b in zip(rest.seen, whole.seen[5:], strict=True))


def test_files_that_differ_are_refused_before_training(written, several):
    with pytest.raises(UsageError, match=r"cannot be joined: action: 2 wide.* but 5 wide"):
        make(written, h5_path=[written.path, wider(several[0].path.with_name("wide.h5"))]).setup()


def wider(path):
    return files.write(path, [30, 30], cameras=["wrist"], extra={"action": np.zeros((60, 5), np.float32)}).path


def test_a_dataset_that_cannot_take_part_is_named(written, several, tmp_path):
    short = files.write(tmp_path / "short.h5", [7, 9], cameras=["wrist"]).path
    with pytest.raises(UsageError, match=r"short\.h5: a window takes .* but the longest of 2 episodes has 9"):
        make(written, h5_path=[*paths(several), short]).setup()


def test_every_source_of_a_list_is_converted(written, several, tmp_path, monkeypatch):
    found = dict(zip(("me/a", "me/b"), paths(several), strict=True))
    prepared = []
    fake = types.ModuleType("lewm_data.conversion.prepare")
    fake.prepare_file = lambda source, *_: prepared.append(source)
    fake.prepared_file = lambda source, *_: found[source]
    monkeypatch.setitem(sys.modules, "lewm_data.conversion.prepare", fake)
    data = LeWMDataModule(repo_id={"me/b": 1, "me/a": 2}, data_dir=tmp_path, batch_size=4)
    with pytest.raises(UsageError, match="not set up"):
        data.train_dataloader()
    data.prepare_data()
    assert prepared == ["me/b", "me/a"]
    data.setup()
    assert [store.path for store in data.splits.stores] == paths(several)[::-1]


@pytest.mark.parametrize(
    ("flags", "names", "weights"),
    [
        (["--data.repo_id=[me/a, me/b]"], ("me/a", "me/b"), None),
        (["--data.repo_id={me/a: 2, me/b: 0.5}"], ("me/a", "me/b"), (2.0, 0.5)),
        (["--data.h5_path=[a.h5, b.h5]"], ("a.h5", "b.h5"), None),
        (["--data.repo_id=me/a"], ("me/a",), None),
    ],
)
@pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")
def test_lightnings_command_line_takes_all_forms(tmp_path, monkeypatch, flags, names, weights):
    def parse(arguments):
        monkeypatch.setattr(sys, "argv", ["train.py", "--trainer.logger=false", *arguments])
        return LightningCLI(Probe, LeWMDataModule, run=False, seed_everything_default=1).datamodule

    config = tmp_path / "config.yaml"
    [flag] = flags
    key, value = flag.removeprefix("--data.").split("=", 1)
    config.write_text(f"data:\n  {key}: {value}\n")
    for arguments in (flags, [f"--config={config}"]):
        sources = parse(arguments).sources
        assert (sources.kind, sources.names, sources.weights) == (key, names, weights)


@pytest.mark.parametrize(
    ("flags", "text", "rule"),
    [
        (["--data.val_episodes=1:3,5"], "val_episodes: '1:3,5'", {"val_episodes": "1:3,5"}),
        (["--data.test_episodes", "2:4"], "test_episodes: '2:4'", {"test_episodes": "2:4"}),
        (["--data.train_episodes=[1, 2]"], "train_episodes: [1, 2]", {"train_episodes": [1, 2]}),
        (["--data.val_episodes={a.h5: '1:3'}"], "val_episodes: {a.h5: '1:3'}", {"val_episodes": {"a.h5": "1:3"}}),
        (["--data.fold=1/5"], "fold: [1, 5]", {"fold": (1, 5)}),
    ],
)
@pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")
def test_lightnings_command_line_takes_a_split(tmp_path, monkeypatch, flags, text, rule):
    config = tmp_path / "config.yaml"
    config.write_text(f"data:\n  h5_path: a.h5\n  {text}\n")
    for arguments in (["--data.h5_path=a.h5", *flags], [f"--config={config}"]):
        monkeypatch.setattr(sys, "argv", ["train.py", "--trainer.logger=false", *arguments])
        found = LightningCLI(Probe, LeWMDataModule, run=False, seed_everything_default=1).datamodule.split_rule
        assert {name: getattr(found, name) for name in rule} == rule


@pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")
def test_lightnings_command_line_takes_goals_and_augmentation(tmp_path, monkeypatch):
    config = tmp_path / "config.yaml"
    config.write_text("data:\n  h5_path: a.h5\n  goal: geometric:0.98\n  augment: {shift: 0.05, hue: 0.1}\n")
    flags = ["--data.h5_path=a.h5", "--data.goal=geometric:0.98", "--data.augment={shift: 0.05, hue: 0.1}"]
    for arguments in (flags, [f"--config={config}"]):
        monkeypatch.setattr(sys, "argv", ["train.py", "--trainer.logger=false", *arguments])
        data = LightningCLI(Probe, LeWMDataModule, run=False, seed_everything_default=1).datamodule
        assert (data.goal, data.augment) == ("geometric:0.98", {"shift": 0.05, "hue": 0.1})


@pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")
def test_a_range_that_yaml_reads_as_a_time_of_day_is_refused(tmp_path, monkeypatch, capsys):
    """YAML 1.1 reads an unquoted 1:8 as 68 minutes."""
    config = tmp_path / "config.yaml"
    config.write_text("data:\n  h5_path: a.h5\n  val_episodes: 1:8\n")
    monkeypatch.setattr(sys, "argv", ["train.py", f"--config={config}"])
    with pytest.raises(SystemExit):
        LightningCLI(Probe, LeWMDataModule, run=False, seed_everything_default=1)
    assert "val_episodes" in capsys.readouterr().err


@pytest.mark.slow
def test_folders_in_a_list_are_converted_and_mixed(recorded, copy_of, tmp_path):
    options = {"camera": "front", "image_size": 32, "num_steps": 2, "frameskip": 2, "batch_size": 4}
    data = LeWMDataModule(root=[recorded, copy_of(recorded)], data_dir=tmp_path / "data", **options)
    data.prepare_data()
    data.setup()
    assert next(iter(data.train_dataloader()))["pixels"].shape == (4, 2, 3, 32, 32)
    one = LeWMDataModule(root=recorded, data_dir=tmp_path / "data", **options)
    one.setup()
    assert len(data.splits.predict) == 2 * len(one.splits.predict)


@pytest.mark.slow
@pytest.mark.parametrize("worker_type", ["thread", "process"])
def test_two_processes_share_the_windows(written, several, tmp_path, worker_type):
    sources = [str(written.path)] if worker_type == "thread" else list(map(str, paths(several)))
    script = Path(__file__).parent / "loading" / "ddp_script.py"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    subprocess.run(
        [sys.executable, str(script), str(tmp_path), worker_type, *sources],
        check=True,
        env=environment,
        timeout=240,
    )
    ranks = [torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2)]
    whole = make_like(make(written, h5_path=ddp_script.weighted(sources), batch_size=8))
    assert ranks[0]["inode"] == ranks[1]["inode"]  # one copy of the frames
    batches = list(whole.train_dataloader())
    assert len(ranks[0]["seen"]) == len(ranks[1]["seen"]) == len(batches)
    for left, right, both in zip(ranks[0]["seen"], ranks[1]["seen"], batches, strict=True):
        state = whole.on_after_batch_transfer(both, 0)["state"]
        assert torch.equal(left, state[0::2])
        assert torch.equal(right, state[1::2])
    val = sum(len(batch) for rank in ranks for batch in rank["val"])
    assert 0 <= len(whole.splits.val) - val < 2  # fewer than ranks may be left out


def test_a_file_of_another_camera_or_size_than_asked_for_is_refused(tmp_path):
    written = files.write(tmp_path / "a.h5", [30, 25])
    for accepted in ({"camera": "top"}, {"camera": "observation.images.top"}, {"image_size": "24x20"}, {}):
        make(written, **accepted).setup()
    with pytest.raises(UsageError, match="its pixels are camera 'top', but camera is 'side'"):
        make(written, camera="side").setup()
    with pytest.raises(UsageError, match="its frames are 24x20, but image_size is 96"):
        make(written, image_size=96).setup()


def test_setup_warns_of_dirty_episodes_that_were_kept(tmp_path, caplog):
    found = {"severity": "error", "expected": "finite numbers", "found": "NaN", "remedy": "Record it again."}
    kept = Finding(code="values_not_finite", episode=1, handling="kept", **found)
    written = files.write(tmp_path / "a.h5", [30, 25], findings=(kept,))
    make(written).setup()
    assert "training draws from them like from all others: episode 1 (values_not_finite)" in caplog.text
    assert "--dirty_episode_policy skip" in caplog.text


def state_of(data):
    data.setup()
    return data.state_dict()


def resumed(data, state):
    data.setup()
    data.load_state_dict(state)
    return data


def test_a_checkpoint_of_other_data_is_refused_unless_accepted(tmp_path):
    written = files.write(tmp_path / "a.h5", [30, 25], fingerprint="one")
    state = state_of(make(written))
    resumed(make(files.write(tmp_path / "copy.h5", [30, 25], fingerprint="one")), state)
    other = files.write(tmp_path / "b.h5", [30, 25], fingerprint="two")
    with pytest.raises(UsageError, match=r"made on other data .*data: other files.*accept_changes=\['data'\]"):
        resumed(make(other), state)
    resumed(make(other, accept_changes=["data"]), state)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"seed": 5}, "normalizers, seed, split"),
        ({"val_fraction": 0.5}, "normalizers, split, val_fraction"),
        ({"num_steps": 3}, "num_steps"),
        ({"frameskip": 4}, "frameskip"),
        ({"steps_per_epoch": 7}, "steps_per_epoch"),
        ({"normalize": False}, "normalize"),
        ({"goal": "uniform"}, "goal"),
        ({"augment": {"shift": 0.1}}, "augment"),
    ],
)
def test_a_run_with_other_settings_is_not_resumed_silently(written, changes, names):
    state = state_of(make(written))
    with pytest.raises(
        UsageError, match=rf"{[*changes][0]}: .* in the checkpoint, .* now.*accept_changes='\[{names}\]'"
    ):
        resumed(make(written, **changes), state)
    resumed(make(written, **changes, accept_changes=names.split(", ")), state)
    data = make(written, **changes)
    data.load_state_dict(state)  # before it is set up
    with pytest.raises(UsageError, match="accept_changes"):
        data.setup()


@pytest.mark.parametrize(
    "changes", [{"batch_size": 2}, {"num_workers": 0}, {"worker_type": "process"}, {"cache": "ram"}]
)
def test_a_run_may_resume_with_other_batches_and_workers(written, changes):
    resumed(make(written, **changes), state_of(make(written)))


def test_a_change_that_cannot_be_accepted_is_refused(written):
    with pytest.raises(UsageError, match=r"accept_changes names sed, but only .*seed.* can change"):
        make(written, accept_changes=["sed"])


def test_validation_of_a_checkpoint_takes_its_normalizers_and_refuses_its_training_episodes(written, tmp_path):
    first, run = make(written), trainer(tmp_path)
    run.fit(Probe(), first)
    run.save_checkpoint(tmp_path / "first.ckpt")
    longer = make(written, num_steps=5)
    trainer(tmp_path).validate(Probe(), longer, ckpt_path=tmp_path / "first.ckpt", weights_only=True, verbose=False)
    for name in ("action", "state"):
        assert torch.equal(longer.normalizers[name].mean, first.normalizers[name].mean)
    with pytest.raises(UsageError, match=r"split: episode .* validated now, but trained on before"):
        trainer(tmp_path).validate(
            Probe(), make(written, seed=5), ckpt_path=tmp_path / "first.ckpt", weights_only=True, verbose=False
        )


def test_another_process_goes_on_where_this_one_stands(written):
    data = make(written)
    data.setup()
    batches = iter(data.train_dataloader())
    next(batches)
    sent = pickle.loads(pickle.dumps(data))
    theirs, expected = iter(sent.train_dataloader()), next(batches)
    for name, values in next(theirs).items():
        torch.testing.assert_close(values, expected[name])
    sent.teardown()
    data.teardown()


@pytest.mark.parametrize("worker_type", ["thread", "process"])
def test_replaced_loaders_leave_no_worker(written, tmp_path, worker_type):
    gc.disable()  # so that nothing depends on when the collector runs
    try:
        data = make(written, worker_type=worker_type)
        trainer(tmp_path, max_epochs=3, reload_dataloaders_every_n_epochs=1).fit(Probe(), data)
        assert threads() == []
        assert multiprocessing.active_children() == []
        began = time.monotonic()
        gc.collect()
        assert time.monotonic() - began < 20  # one collection took 40 s when workers were left
    finally:
        gc.enable()


def test_the_positions_of_the_split_have_their_earlier_names(written):
    data = make(written)
    data.setup()
    assert len(data.train_episodes)
    for side in ("train", "val", "test"):
        assert getattr(data, f"{side}_episodes").tolist() == getattr(data, f"{side}_positions").tolist()


def test_the_data_module_prints_what_it_draws_from(written):
    data = make(written)
    assert "not set up yet" in str(data)
    data.setup()
    assert str(make_like(make(written, val_fraction=0, val_episodes=[0]))).endswith(
        "validation 11 of 1 episode, test 0 of 0 episodes)"
    )
    assert repr(data.normalizers["state"]) == "Normalizer(3 dimensions)"
    assert re.search(
        r"a\.h5: windows of 4 frames 5 steps apart in batches of 4; training \d+ of \d episodes", str(data)
    )
    assert "5 steps apart with uniform goals in batches of 4; not" in str(make(written, goal="uniform"))


@pytest.mark.parametrize(
    ("codec", "options", "expected"),
    [
        ("lzf", {}, 16),
        ("lz4", {}, 4),
        ("none", {}, 4),
        ("none", {"worker_type": "process"}, 16),
        ("lz4", {"cache": "ram"}, 16),
        ("lz4", {"num_workers": 9}, 9),
    ],
)
def test_no_more_threads_read_by_default_than_help(tmp_path, monkeypatch, codec, options, expected):
    monkeypatch.setattr("lewm_data.loading.distributed.num_cpus", lambda: 32)
    written = files.write(tmp_path / "a.h5", codec=codec)
    data = make(written, **({"num_workers": None, "batch_size": 2} | options))
    data.setup()
    assert data.train_dataloader().num_workers == expected
