"""The demo's scripted policy for PushT: straight pushes, each the best of those tried in a copy of the physics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

# Corners of the T in its own frame, in PushT's pixels (``PushTEnv.add_tee`` with scale 30).
_OUTLINE = np.array([(-60, 0), (60, 0), (60, 30), (15, 30), (15, 120), (-15, 120), (-15, 30), (-60, 30)], float)
_FINGER = 15.0
_ARENA = (5 + 2 + _FINGER, 506 - 2 - _FINGER)
_CLEARANCE = 112.0  # from the middle of the block, so that the finger passes every corner of the T
_SPEED = 24.0  # pixels per step
_LONGEST_PUSH = 130.0  # pixels
_TRIED_SPEED = 300.0  # pixels per second


class PushPolicy:
    """Straight pushes, each the best of those tried in a copy of the physics.

    In PushT, the block stops as soon as nothing pushes it (damping 0), so a push ends almost as it did in the copy.
    """

    def __init__(self, env: Any, planner: Any, rng: np.random.Generator) -> None:
        self._env = env
        self._planner = planner
        self._rng = rng
        self._targets: Iterator[np.ndarray] = iter(())

    def act(self) -> np.ndarray:
        """The finger's next target, float32 (x, y) in [0, 512]."""
        target = next(self._targets, None)
        if target is None:
            self._targets = self._plan()
            target = next(self._targets)
        return np.clip(target, *_ARENA).astype(np.float32)

    def _plan(self) -> Iterator[np.ndarray]:
        start, stop = self._best_push()
        yield from self._go_around(start)
        yield from _line(start, stop, _SPEED / 2)
        yield stop
        yield stop
        yield stop + (start - stop) / max(1.0, float(np.linalg.norm(start - stop))) * 12

    def _best_push(self) -> tuple[np.ndarray, np.ndarray]:
        """Start and end of the finger's path that brings the block nearest to its goal."""
        block = self._env.block
        goal = self._env.get_goal_pose_body(self._env.goal_pose)
        wanted = np.array([goal.local_to_world(tuple(corner)) for corner in _OUTLINE])
        rotation = _rotation(block.angle)
        origin = np.array(block.position)
        best, best_cost = None, np.inf
        for contact, normal in _contacts():
            outward = rotation @ normal
            start = origin + rotation @ contact + outward * (_FINGER + 4)
            if not ((start > _ARENA[0]) & (start < _ARENA[1])).all():
                continue
            for tilt in (-0.7, -0.35, 0.0, 0.35, 0.7):
                direction = -_rotation(tilt) @ outward
                distance, cost = self._try(start, direction, wanted)
                # A little randomness, so that the policy does not repeat a push that changes nothing.
                cost *= 1 + 0.03 * self._rng.random()
                if cost < best_cost:
                    best, best_cost = (start, start + direction * distance), cost
        if best is None:  # the block fills a corner of the arena: touch it from the middle
            return np.array([256.0, 256.0]), origin
        return best

    def _try(self, start: np.ndarray, direction: np.ndarray, wanted: np.ndarray) -> tuple[float, float]:
        """Tries a push, and finds the length at which the corners of the block are nearest to their goal.

        Args:
            start: Position of the finger at the start.
            direction: Unit vector.
            wanted: The corners' goal, of shape (8, 2).

        Returns:
            (length, mean distance of the corners), both in pixels.
        """
        plan, block = self._planner, self._env.block
        plan.block.position, plan.block.angle = block.position, block.angle
        plan.block.velocity, plan.block.angular_velocity = (0, 0), 0
        plan.agent.position, plan.agent.velocity = tuple(start), tuple(direction * _TRIED_SPEED)
        plan.space.reindex_shapes_for_body(plan.block)
        plan.space.reindex_shapes_for_body(plan.agent)
        poses = []
        for _ in range(int(_LONGEST_PUSH / _TRIED_SPEED / plan.dt)):
            plan.space.step(plan.dt)
            poses.append((*plan.block.position, plan.block.angle))
        x, y, angle = np.array(poses).T[..., None]
        corner_x = x + np.cos(angle) * _OUTLINE[:, 0] - np.sin(angle) * _OUTLINE[:, 1]
        corner_y = y + np.sin(angle) * _OUTLINE[:, 0] + np.cos(angle) * _OUTLINE[:, 1]
        costs = np.hypot(corner_x - wanted[:, 0], corner_y - wanted[:, 1]).mean(axis=1)
        best = int(costs.argmin())
        return (best + 1) * _TRIED_SPEED * plan.dt, float(costs[best])

    def _go_around(self, goal: np.ndarray) -> Iterator[np.ndarray]:
        """A path to ``goal`` around the block: out to a circle, along it, and in again."""
        block = self._env.block
        middle = np.array(block.local_to_world(block.center_of_gravity))
        here = np.array(self._env.agent.position)
        if _distance_to_segment(middle, here, goal) > _CLEARANCE:
            yield from _line(here, goal, _SPEED)
            return
        first, last = (np.arctan2(*(point - middle)[::-1]) for point in (here, goal))
        turn = (last - first + np.pi) % (2 * np.pi) - np.pi
        ring = [
            middle + _CLEARANCE * np.array([np.cos(angle), np.sin(angle)])
            for angle in first + np.linspace(0, turn, max(2, int(abs(turn) * _CLEARANCE / _SPEED)))
        ]
        yield from _line(here, ring[0], _SPEED)
        yield from ring[1:]
        yield from _line(ring[-1], goal, _SPEED)
        yield goal


def _contacts() -> list[tuple[np.ndarray, np.ndarray]]:
    """Points on the T's outline, with the outward normal of each, in the block's frame."""
    contacts = []
    for corner, following in zip(_OUTLINE, np.roll(_OUTLINE, -1, axis=0), strict=True):
        along = following - corner
        length = np.linalg.norm(along)
        normal = np.array([along[1], -along[0]]) / length
        count = max(1, int(length / 12))
        contacts += [(corner + along * (i + 0.5) / count, normal) for i in range(count)]
    return contacts


def _rotation(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _line(start: np.ndarray, stop: np.ndarray, speed: float) -> Iterator[np.ndarray]:
    """Targets from ``start`` (exclusive) to ``stop``, at most ``speed`` pixels apart."""
    count = int(np.ceil(np.linalg.norm(stop - start) / speed))
    yield from (start + (stop - start) * i / count for i in range(1, count + 1))


def _distance_to_segment(point: np.ndarray, start: np.ndarray, stop: np.ndarray) -> float:
    along = stop - start
    share = np.clip((point - start) @ along / max(1e-9, float(along @ along)), 0, 1)
    return float(np.linalg.norm(point - start - share * along))
