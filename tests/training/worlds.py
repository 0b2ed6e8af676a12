"""Latent worlds whose future is known, and models that know it, ignore it, or get it wrong."""

from __future__ import annotations

import torch

from lewm_data.training.latents import EpisodeLatents


def walk(length: int, seed: int = 0) -> EpisodeLatents:
    """An episode in which each latent is the one before plus its action."""
    actions = torch.randn(length, 3, generator=torch.Generator().manual_seed(seed))
    latents = torch.cat([torch.zeros(1, 3), actions[:-1].cumsum(0)])
    return EpisodeLatents(seed, latents, actions, latents[:, :1])


class Sum:
    """Predicts the latent plus its action: the truth of ``walk``."""

    device = torch.device("cpu")

    def predict(self, latents: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        return latents + actions


class Copy(Sum):
    """Predicts that nothing changes, whatever the actions."""

    def predict(self, latents: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        return latents


class NoisySum(Sum):
    """The truth with an error of its own for each prediction."""

    def __init__(self, noise: float) -> None:
        self._noise, self._random = noise, torch.Generator().manual_seed(1)

    def predict(self, latents: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        return latents + actions + self._noise * torch.randn(latents.shape, generator=self._random)
