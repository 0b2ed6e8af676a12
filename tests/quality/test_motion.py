"""A robot at rest and dimensions that never move, from the rows alone."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from lewm_data.findings import Finding
from lewm_data.quality.motion import MAX_SAMPLE_STEPS, MotionSample

FPS = 30.0
PARTS = {"action": ("action",), "state": ("observation.state",)}
NAMES = {"action": ("pan", "lift", "grip"), "state": ("pan", "lift", "grip")}


def arm(seed: int, *, length: int = 300, rest: int = 0, jitter: bool = False) -> dict[str, NDArray[np.float64]]:
    """Two joints that move and a gripper that snaps, after some steps at rest; with jitter, the gripper is dead."""
    random = np.random.default_rng(seed)
    time = np.maximum(np.arange(length) - rest, 0) / FPS
    joints = 30 * np.sin(time[:, None] * random.uniform(0.8, 1.6, 2) + random.uniform(0, 6, 2))
    grip = 50.0 * (np.sin(2 * time + seed) > 0)
    if jitter:
        grip = 12 + 0.088 * random.integers(0, 2, length)
    action = np.c_[joints, grip if not jitter else np.full(length, 12.0)]
    state = np.c_[joints, grip] + np.c_[random.normal(0, 0.05, (length, 2)), np.zeros(length)]
    return {"action": action, "observation.state": state}


def findings(episodes: dict[int, dict[str, NDArray[np.float64]]]) -> list[Finding]:
    lengths = np.array([len(rows["action"]) for rows in episodes.values()])
    sample = MotionSample(np.array(list(episodes)), lengths)
    for number, rows in episodes.items():
        sample.add(number, rows, PARTS)
    return sample.findings(FPS, NAMES)


def test_an_arm_that_moves_has_no_findings() -> None:
    assert findings({number: arm(number) for number in range(6)}) == []


def test_a_third_at_rest_is_seen_though_a_dead_joint_jitters() -> None:
    found = findings({number: arm(number, rest=100, jitter=True) for number in range(6)})
    [idle] = [one for one in found if one.code == "robot_idle"]
    share = int(idle.found.split("%")[0].split()[-1])
    assert 31 <= share <= 36
    still = [one.found for one in found if one.code == "dimension_still"]
    assert still == ["1 dimension at rest: grip in action and state"]


def test_an_episode_at_rest_throughout_is_named() -> None:
    found = findings({number: arm(number, rest=300 if number == 7 else 0) for number in (3, 5, 7, 9)})
    [idle] = found
    assert idle.found.endswith("and throughout episode 7")
    assert idle.severity == "warning"
    assert idle.episode is None


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_episode_with_numbers_that_are_not_finite_says_nothing(value: float) -> None:
    spoiled = arm(1, rest=300)
    spoiled["action"][5] = value
    assert findings({0: arm(0), 1: spoiled, 2: arm(2)}) == []


def test_few_steps_say_nothing() -> None:
    assert findings({0: arm(0, length=30, rest=30)}) == []


def test_a_huge_dataset_is_sampled_evenly() -> None:
    lengths = np.full(1000, 1000)
    sample = MotionSample(np.arange(1000), lengths)
    for number in range(1000):
        sample.add(number, {"action": np.zeros((1000, 1)), "observation.state": np.zeros((1000, 1))}, PARTS)
    kept = sorted(sample._rows)
    assert len(kept) * 1000 <= MAX_SAMPLE_STEPS
    assert kept[0] == 0
    assert kept[-1] == 999
    assert max(np.diff(kept)) <= 22
