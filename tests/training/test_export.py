"""An exported model, loaded and planned with by stable-worldmodel itself."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from lewm_data.datamodule import LeWMDataModule
from lewm_data.errors import OutputError
from lewm_data.loading.normalizer import normalize_pixels
from lewm_data.training.export import export, planner_inputs
from lewm_data.training.lewm import LeWMModule
from tests.training.dots import SIDE, small_lewm, write_dots
from tests.training.test_diagnostics import train
from tests.training.test_encoder import save_encoder

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # about simulators that are not installed
    from stable_worldmodel.policy import AutoCostModel, PlanConfig, WorldModelPolicy
    from stable_worldmodel.solver import CEMSolver
    from stable_worldmodel.wm.utils import load_pretrained


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> LeWMDataModule:
    path = write_dots(tmp_path_factory.mktemp("dots") / "dots.h5", num_episodes=60).path
    data = LeWMDataModule(h5_path=str(path), frameskip=1, batch_size=64, val_fraction=0.2, num_workers=0)
    data.setup()
    return data


def module_of(**settings: object) -> LeWMModule:
    torch.manual_seed(0)
    module = small_lewm(**settings)
    columns = ("pixels", "pixels_wrist") if settings.get("cameras") else ("pixels",)
    module.build(action_dim=2, image_size=(SIDE, SIDE), camera_columns=columns)
    gates = [layer.adaLN_modulation[-1] for layer in module.model.predictor.transformer.layers]
    for gate in gates:  # as after training; at first actions change nothing
        torch.nn.init.normal_(gate.weight, std=0.5)
    module.eval()
    return module


@pytest.mark.parametrize("kind", ["lewm", "dinov2", "two cameras"])
def test_stable_worldmodel_loads_the_same_model(data: LeWMDataModule, tmp_path: Path, kind: str) -> None:
    settings: dict[str, dict[str, Any]] = {"lewm": {}, "two cameras": {"cameras": "all"}}
    if kind == "dinov2":
        settings[kind] = {"encoder": str(save_encoder(tmp_path / "encoder", "dinov2")), "freeze_encoder": True}
    module = module_of(**settings[kind])
    folder = export(module, data, tmp_path / "exported")
    pixels = torch.randn(2, 3, *((2,) if kind == "two cameras" else ()), 3, SIDE, SIDE)
    with torch.no_grad():
        expected = module.encode(pixels)
        for model in (load_pretrained(str(folder)).eval(), AutoCostModel(str(folder))):
            torch.testing.assert_close(model.encode({"pixels": pixels})["emb"], expected)
            predicted = model.predict(expected, model.action_encoder(torch.ones(2, 3, 2)))
            torch.testing.assert_close(predicted, module.predict(expected, torch.ones(2, 3, 2)))


def test_their_cost_is_the_distance_to_the_goal_that_the_diagnostics_use(data: LeWMDataModule, tmp_path: Path) -> None:
    module = module_of()
    model = AutoCostModel(str(export(module, data, tmp_path / "exported")))
    pixels, goal, actions = torch.randn(1, 1, 3, SIDE, SIDE), torch.randn(1, 1, 3, SIDE, SIDE), torch.randn(1, 7, 4, 2)
    info = {
        "pixels": pixels[:, None].expand(1, 7, 1, 3, SIDE, SIDE),
        "goal": goal[:, None].expand(1, 7, -1, -1, -1, -1),
    }
    with torch.no_grad():
        costs = model.get_cost({**info, "action": actions[:, :, :1]}, actions)[0]
        history = module.encode(pixels).expand(7, -1, -1)
        predicted = history[:, -1:]
        latents = history
        for step in range(4):  # a planner starts from a single frame and lets the history grow
            first = max(0, step + 1 - 3)
            predicted = module.predict(latents[:, first:], actions[0, :, first : step + 1])[:, -1:]
            latents = torch.cat([latents, predicted], dim=1)
    torch.testing.assert_close(costs, (predicted[:, 0] - module.encode(goal)[0]).square().sum(dim=1))


def plan(folder: Path, frames: np.ndarray, goals: np.ndarray) -> np.ndarray:
    """The first actions of stable-worldmodel's MPC with CEM, from frames to goals, (N, H, W, 3) each."""
    solver = CEMSolver(AutoCostModel(str(folder)), num_samples=64, n_steps=6, topk=8)
    policy = WorldModelPolicy(solver, PlanConfig(horizon=3, receding_horizon=1), **planner_inputs(folder))
    space = gymnasium.spaces.Box(-1, 1, (len(frames), 2))
    single = gymnasium.spaces.Box(-1, 1, (2,))
    policy.set_env(SimpleNamespace(num_envs=len(frames), action_space=space, single_action_space=single))
    info = {"pixels": frames[:, None], "goal": goals[:, None], "action": np.zeros((len(frames), 1, 2), np.float32)}
    return np.asarray(policy.get_action(info))


@pytest.mark.slow
def test_their_planner_moves_the_dot_towards_its_goal(data: LeWMDataModule, tmp_path: Path) -> None:
    module = small_lewm()
    train(Path(data.source), tmp_path, max_steps=300, module=module)
    folder = export(module.eval(), data, tmp_path / "exported")
    store = data.splits.stores[0]
    state = data.splits.files[0].dataset.values("state")
    rows = []  # in each episode, the start of the longest way in three steps
    for episode in data.val_positions[:12]:
        steps = int(store.ep_offset[episode]) + np.arange(int(store.ep_len[episode]) - 3)
        rows.append(int(steps[np.linalg.norm(state[steps + 3] - state[steps], axis=1).argmax()]))
    frames, goals = np.empty((2, len(rows), SIDE, SIDE, 3), np.uint8)
    for ahead, out in ((0, frames), (3, goals)):
        store.read_frames("pixels", np.array(rows) + ahead, out)
    actions = plan(folder, frames, goals)
    wanted = np.stack([state[row + 3] - state[row] for row in rows])
    cosines = (actions * wanted).sum(axis=1) / np.linalg.norm(actions, axis=1) / np.linalg.norm(wanted, axis=1)
    assert np.median(cosines) > 0.7


def test_a_planner_gets_and_gives_the_units_of_the_robot(data: LeWMDataModule, tmp_path: Path) -> None:
    inputs = planner_inputs(export(module_of(), data, tmp_path / "exported"))
    actions = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    scaler, normalizer = inputs["process"]["action"], data.normalizers["action"]
    np.testing.assert_allclose(scaler.transform(actions), normalizer.normalize(torch.from_numpy(actions)), rtol=1e-5)
    np.testing.assert_allclose(scaler.inverse_transform(scaler.transform(actions)), actions, atol=1e-6)
    frame = torch.randint(0, 256, (3, SIDE, SIDE), dtype=torch.uint8)
    assert torch.equal(inputs["transform"]["pixels"](frame), normalize_pixels(frame, torch.float32))
    assert inputs["transform"]["goal"](torch.zeros(3, 96, 96, dtype=torch.uint8)).shape == (3, SIDE, SIDE)


def test_an_export_replaces_an_earlier_one_and_nothing_else(data: LeWMDataModule, tmp_path: Path) -> None:
    module, folder = module_of(), tmp_path / "exported"
    export(module, data, folder)
    export(module, data, folder)
    assert json.loads((folder / "data.json").read_text())["frameskip"] == 1
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds something other than an exported model"):
        export(module, data, folder)
    assert not list(tmp_path.glob(".exported*"))
