"""Whole episodes as latents, with predictions and plans from their frames: what the diagnostics measure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lewm_data.datamodule import LeWMDataModule
from lewm_data.format.motion import moving_dimensions
from lewm_data.format.schema import ACTION, PIXELS, STATE
from lewm_data.loading.columns import DATASET_IDX
from lewm_data.training.diagnosis import rank_of_first
from lewm_data.training.world_model import WorldModel

_BATCH_FRAMES = 64
_BATCH_ANCHORS = 512
_DEFAULT_FPS = 10.0


class Predictor(Protocol):
    """Predicts latents; see ``LeWMModule.predict``."""

    @property
    def device(self) -> torch.device:
        """Where its weights are."""

    def predict(self, latents: Tensor, actions: Tensor) -> Tensor:
        """The latent that follows each of some latents."""


class EpisodeLatents(NamedTuple):
    """An episode as the model sees it, float32 on the CPU.

    Attributes:
        episode: Its number in the data module.
        latents: (T, D) latents of the kept frames.
        actions: (T, K*A), normalized: the actions from each kept frame up to the next.
        states: (T, S), normalized; S is 0 if the data has no state.
    """

    episode: int
    latents: Tensor
    actions: Tensor
    states: Tensor


class Anchors(NamedTuple):
    """Frames from which the future is predicted.

    Attributes:
        history: (N, H, D) latents up to and including the anchor's own.
        actions: (N, H - 1 + horizon, K*A) actions from the first of these on; 0 beyond an episode's end.
        futures: (N, horizon, D) latents that followed; NaN beyond an episode's end.
    """

    history: Tensor
    actions: Tensor
    futures: Tensor


@torch.no_grad()
def encode_episodes(
    module: WorldModel,
    data: LeWMDataModule,
    episodes: Iterable[int],
    *,
    max_frames: int,
) -> list[EpisodeLatents]:
    """Encodes whole episodes, up to a number of frames.

    Args:
        module: In evaluation mode.
        data: Set up.
        episodes: Numbers of episodes, in the order to take them.
        max_frames: Kept frames in all; the last episode may be cut off.

    Returns:
        One entry per episode.
    """
    encoded = []
    for episode in episodes:
        if max_frames <= 0:
            break
        stored = data.read_episode(int(episode), max_frames=max_frames)
        num_frames = stored[PIXELS].shape[1]
        pieces = []
        for start in range(0, num_frames, _BATCH_FRAMES):
            frames = {
                name: stored[name][:, start : start + _BATCH_FRAMES].to(module.device) for name in module.camera_columns
            }
            with torch.autocast(module.device.type, enabled=False):
                pixels = module.frames_of(data.normalize_batch(frames)).float()
                pieces.append(module.encode(pixels)[0].float().cpu())
        small = data.normalize_batch({name: stored[name] for name in (ACTION, STATE, DATASET_IDX) if name in stored})
        states = small.get(STATE, torch.empty(1, num_frames, 0))
        encoded.append(EpisodeLatents(int(episode), torch.cat(pieces), small[ACTION][0].float(), states[0].float()))
        max_frames -= num_frames
    return encoded


def moving_state(data: LeWMDataModule, episodes: Sequence[int]) -> NDArray[np.bool_] | None:
    """Which dimensions of the state move more than their noise, in the units and at the frame rate of the recording.

    Args:
        data: Set up.
        episodes: Numbers of the episodes to look at.

    Returns:
        (S,); None if the data has no state.
    """
    values, lengths, fps, first = [], [], _DEFAULT_FPS, 0
    for file in data.splits.files:
        store = file.dataset.store
        if STATE not in file.dataset.columns:
            return None
        fps = store.header.fps if store.header is not None else fps
        for number in sorted({episode - first for episode in episodes if first <= episode < first + len(file.sources)}):
            start, length = int(store.ep_offset[number]), int(store.ep_len[number])
            values.append(file.dataset.values(STATE)[start : start + length].reshape(length, -1))
            lengths.append(length)
        first += len(file.sources)
    numbers = np.repeat(np.arange(len(lengths)), lengths)
    return moving_dimensions(np.concatenate(values).astype(np.float64), numbers, fps) if values else None


def cut_anchors(episodes: Iterable[EpisodeLatents], *, history_size: int, horizon: int) -> Anchors:
    """Every frame with a full history and at least one frame after it.

    Args:
        episodes: Encoded episodes.
        history_size: Latents that a prediction starts from, H.
        horizon: Frames to look ahead.

    Returns:
        The anchors, episode after episode; none if all episodes are too short.
    """
    history, actions, futures = [], [], []
    for episode in episodes:
        num_anchors = len(episode.latents) - history_size
        if num_anchors < 1:
            continue
        ahead = episode.latents.new_full((horizon, episode.latents.shape[1]), float("nan"))
        latents = torch.cat([episode.latents, ahead])
        acts = torch.cat([episode.actions, episode.actions.new_zeros(horizon, episode.actions.shape[1])])
        starts = torch.arange(num_anchors)[:, None]
        history.append(episode.latents[starts + torch.arange(history_size)])
        actions.append(acts[starts + torch.arange(history_size - 1 + horizon)])
        futures.append(latents[starts + history_size + torch.arange(horizon)])
    if not history:
        return Anchors(*(torch.empty(0, size, 1) for size in (history_size, history_size - 1 + horizon, horizon)))
    return Anchors(torch.cat(history), torch.cat(actions), torch.cat(futures))


@torch.no_grad()
def roll_out(module: Predictor, history: Tensor, actions: Tensor, *, horizon: int) -> Tensor:
    """Predicts frame after frame, each from the predictions before it.

    Args:
        module: In evaluation mode.
        history: float (N, H, D) latents.
        actions: float (N, H - 1 + horizon, K*A), normalized.
        horizon: Frames to predict.

    Returns:
        float32 (N, horizon, D) on the CPU.
    """
    size = history.shape[1]
    rolled = []
    for start in range(0, len(history), _BATCH_ANCHORS):
        latents = history[start : start + _BATCH_ANCHORS].to(module.device)
        acts = actions[start : start + _BATCH_ANCHORS].to(module.device)
        for step in range(horizon):
            predicted = module.predict(latents[:, -size:], acts[:, step : step + size])[:, -1:]
            latents = torch.cat([latents, predicted], dim=1)
        rolled.append(latents[:, size:].float().cpu())
    return torch.cat(rolled) if rolled else history.new_empty(0, horizon, history.shape[2])


def errors(predicted: Tensor, futures: Tensor) -> NDArray[np.float64]:
    """Mean squared error at each step ahead.

    Args:
        predicted: (N, horizon, D), or of a shape that broadcasts to it.
        futures: (N, horizon, D), NaN beyond an episode's end.

    Returns:
        (horizon,) mean over anchors and dimensions; NaN if no anchor reaches that far.
    """
    squares = (predicted - futures).double().square().mean(dim=2)
    counts = squares.isfinite().sum(dim=0)
    sums = squares.nan_to_num(0.0).sum(dim=0)
    return np.asarray(torch.where(counts > 0, sums / counts, float("nan")))


STILL_SHARE = 0.05
"""An anchor whose squared distance to its goal is below this share of the mean has nothing to plan for."""


def plan_ranks(
    module: Predictor,
    anchors: Anchors,
    *,
    horizon: int,
    num_candidates: int = 256,
    max_anchors: int = 64,
    random: np.random.Generator,
) -> NDArray[np.float64]:
    """Ranks the recorded actions of each anchor among actions from elsewhere, as a sampling planner would.

    The goal is the latent ``horizon`` frames ahead. Each candidate replaces the actions from the anchor on. Candidates
    are ordered by the squared distance of their predicted last latent to the goal, which is LeWM's cost.

    Args:
        module: In evaluation mode.
        anchors: All anchors. Those that do not reach ``horizon`` frames ahead, or that do not move, are left out.
        horizon: Kept frames to the goal, at most as many as the anchors look ahead.
        num_candidates: Action sequences to compare for each anchor, with the recorded one.
        max_anchors: Limit on the anchors to try, chosen at random.
        random: Chooses anchors and candidates.

    Returns:
        (N,) in [0, 1]: 0 if the recorded actions come first, 0.5 for chance. Empty if nothing moves.
    """
    size = anchors.history.shape[1]
    goals = anchors.futures[:, horizon - 1]
    reaches = np.flatnonzero(np.asarray(goals.isfinite().all(dim=1)))
    if len(reaches) < 2:
        return np.empty(0)
    distances = np.asarray((goals - anchors.history[:, -1]).double().square().mean(dim=1))[reaches]
    moving = reaches[(distances > STILL_SHARE * distances.mean()) & (distances > 0)]
    chosen = np.sort(random.permutation(moving)[:max_anchors])
    num_others = min(num_candidates, len(reaches)) - 1
    ranks = []
    for anchor in chosen:
        others = random.choice(reaches[reaches != anchor], num_others, replace=False)
        candidates = torch.from_numpy(np.concatenate([[anchor], others]))
        past = anchors.actions[anchor, : size - 1].expand(len(candidates), -1, -1)
        actions = torch.cat([past, anchors.actions[candidates, size - 1 : size - 1 + horizon]], dim=1)
        history = anchors.history[anchor].expand(len(candidates), -1, -1)
        predicted = roll_out(module, history, actions, horizon=horizon)[:, -1]
        distance = (predicted - goals[anchor]).double().square().sum(dim=1)
        ranks.append(rank_of_first(distance.numpy()[None]))
    return np.concatenate(ranks) if ranks else np.empty(0)
