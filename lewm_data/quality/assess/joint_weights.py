"""How much does each joint move the picture? A shoulder sweeps the whole arm through it, and a gripper barely shows.

The energy of the picture is explained by the speeds of the joints, with weights of at least 0, because no joint makes a
picture calmer. The weights of an episode come from the other episodes, so that they cannot make up a match.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

type Floats = NDArray[np.float64]

_SWEEPS = 100
_TOLERANCE = 1e-4


def joint_weights(speeds: Sequence[Floats], energies: Sequence[Floats], lags: Sequence[int]) -> Floats:
    """Weighs the joints at the lag at which they explain most of the energy, whichever that is.

    Args:
        speeds: (L, D) for each episode, the speed of each joint without its slow part.
        energies: (L,) for each episode, the motion energy of the picture, likewise.
        lags: Frames to try, by which the energy follows the speed; fewer than the steps of any episode.

    Returns:
        (E, D) weights of each episode, at least 0; equal ones where the other episodes explain nothing, or there are
        none.
    """
    scaled = [energy / (energy.std() + 1e-12) for energy in energies]
    sums = [_sums(speeds, scaled, lag) for lag in lags]
    squares, products = np.stack([s.sum(axis=0) for s, _ in sums]), np.stack([p.sum(axis=0) for _, p in sums])
    fits = _nonnegative(squares, products)
    explained = 2 * (fits * products).sum(axis=1) - np.einsum("ki,kij,kj->k", fits, squares, fits)
    best = int(explained.argmax())
    own_squares, own_products = sums[best]
    weights = _nonnegative(squares[best] - own_squares, products[best] - own_products)
    weights[~weights.any(axis=1)] = 1.0
    return weights


def paired(speed: Floats, energy: Floats, lag: int) -> tuple[Floats, Floats]:
    """Each speed, and the energy ``lag`` frames later; both centered.

    Args:
        speed: (L,) or (L, D).
        energy: (L,).
        lag: Frames, of either sign.
    """
    a = speed[max(0, -lag) : len(speed) - max(0, lag)]
    b = energy[max(0, lag) : len(energy) - max(0, -lag)]
    return a - a.mean(axis=0), b - b.mean()


def _sums(speeds: Sequence[Floats], energies: Sequence[Floats], lag: int) -> tuple[Floats, Floats]:
    """(E, D, D) and (E, D) sums of products of the joints with each other and with the energy, per episode."""
    pairs = [paired(speed, energy, lag) for speed, energy in zip(speeds, energies, strict=True)]
    return np.stack([a.T @ a for a, _ in pairs]), np.stack([a.T @ b for a, b in pairs])


def _nonnegative(squares: Floats, products: Floats) -> Floats:
    """(P, D) least squares with weights of at least 0, of P problems at once, by coordinate descent.

    Args:
        squares: (P, D, D) inputs times inputs.
        products: (P, D) inputs times targets.
    """
    weights = np.zeros_like(products)
    own = np.maximum(np.einsum("pii->pi", squares), 1e-12)
    for _ in range(_SWEEPS):
        before = weights.copy()
        for joint in range(products.shape[1]):
            slope = products[:, joint] - (squares[:, joint] * weights).sum(axis=1)
            weights[:, joint] = np.maximum(0.0, weights[:, joint] + slope / own[:, joint])
        if np.abs(weights - before).max() <= _TOLERANCE * np.abs(weights).max():
            break
    return weights
