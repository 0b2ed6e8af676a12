"""Every fault that ``assess`` knows, made on purpose in a recording whose truth is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.arm import JOINTS, Arm, delayed, film, make_arm, retrack
from lewm_data.quality.assess.answers import Answers, answer
from lewm_data.quality.assess.assessment import Assessment
from lewm_data.quality.assess.excitation import near_duplicates
from lewm_data.quality.assess.footage import Footage, episode_blocks
from lewm_data.quality.assess.idle import find_idle
from lewm_data.quality.assess.judge import judge
from lewm_data.quality.assess.lag import find_lag, num_independent
from lewm_data.quality.assess.next_steps import shifts
from lewm_data.quality.assess.response import find_response
from lewm_data.quality.assess.visibility import BLIND, SEES, find_visibility, look


@pytest.fixture(scope="module")
def arm() -> Footage:
    return make_arm()


@pytest.fixture(scope="module")
def answers(arm: Footage) -> Answers:
    return answer(arm)


def assessed(footage: Footage, frameskip: int = 5) -> Assessment:
    return judge(footage, answer(footage), source="arm", frameskip=frameskip)


def codes(assessment: Assessment) -> set[str]:
    return {found.code for found in assessment.findings}


def first_episodes(footage: Footage, count: int) -> Footage:
    kept = footage.episode < count
    return replace(
        footage,
        episode=footage.episode[kept],
        numbers=footage.numbers[:count],
        action=footage.action[kept],
        state=footage.state[kept],
        cameras={name: track.select(kept) for name, track in footage.cameras.items()},
    )


def test_a_good_recording_is_ready(arm: Footage, answers: Answers) -> None:
    found = judge(arm, answers, source="arm", frameskip=5)
    assert found.verdict == "ready"
    assert codes(found) == set()
    assert [step.line.split(" --data.frameskip")[0] for step in found.next_steps] == [
        "lewm-data convert arm arm-96.h5 --image_size 96",
        "python train.py --config configs/laptop.yaml --data.h5_path arm-96.h5",
        "lewm-data convert arm arm.h5",
    ]
    data = found.to_dict()
    assert data["cameras"]["top"]["visibility"] > 0.5
    assert abs(data["cameras"]["top"]["lag_frames"]) < 0.3
    assert data["response"]["elbow"]["lag_steps"] == 2
    assert data["response"]["elbow"]["gain"] == pytest.approx(1.0, abs=0.05)
    assert data["still_dimensions"] == {"action": [], "state": []}
    assert data["frameskip"]["recommended"] in (3, 5, 8)
    assert data["episodes"]["count"] == 8
    assert data["idle"]["share"] < 0.02


@pytest.mark.parametrize("frames", [-3, -0.5, 1, 2])
def test_a_shift_is_found_within_a_fifth_of_a_frame(arm: Footage, frames: float) -> None:
    shifted = delayed(arm, frames)
    lag = find_lag(shifted, shifted.cameras["top"])
    assert lag.frames == pytest.approx(frames, abs=0.2)


def test_joints_that_the_camera_does_not_show_leave_the_lag_alone(arm: Footage) -> None:
    hidden = make_arm(Arm(seed=3, num_episodes=arm.num_episodes, length=len(arm.episode) // arm.num_episodes)).state
    names = {**arm.names, "state": tuple(f"joint {number}" for number in range(6))}
    footage = replace(arm, state=np.concatenate([arm.state, hidden], axis=1), names=names)
    assert find_lag(footage, arm.cameras["top"]).frames == pytest.approx(0, abs=0.15)


def test_frames_that_cannot_be_read_leave_the_lag_alone(arm: Footage) -> None:
    late = delayed(arm, 1)
    track = late.cameras["top"]
    is_lost = np.random.default_rng(0).random(len(late.episode)) < 0.04
    touched = is_lost | np.r_[False, is_lost[:-1]]
    track = replace(
        track,
        thumbnails=np.where(is_lost[:, None, None, None], np.uint8(0), track.thumbnails),
        energy=np.where(touched, np.float32(np.nan), track.energy),
        is_known=~is_lost,
    )
    assert find_lag(late, track).frames == pytest.approx(1, abs=0.2)


def test_a_state_that_holds_increments_shows_the_lag_too() -> None:
    random = np.random.default_rng(4)
    episode = np.repeat(np.arange(6), 100)
    jerks = random.normal(0, 3, (600, 3))
    increments = np.stack([np.convolve(jerk, np.ones(5) / np.sqrt(5), "same") for jerk in jerks.T], axis=1)
    paths = np.concatenate([np.cumsum(increments[steps], axis=0) for steps in episode_blocks(episode)])
    names = {"action": JOINTS, "state": JOINTS}
    footage = Footage(
        name="rover", fps=20.0, episode=episode, numbers=np.arange(6), action=increments, state=increments, names=names
    )
    late = delayed(replace(footage, cameras={"top": film(paths, episode, random)}), 2)
    # whether an increment leads to its step or away from it is not known
    assert find_lag(late, late.cameras["top"]).frames == pytest.approx(2, abs=0.6)


def test_motion_that_does_not_change_the_picture_by_its_speed_shows_the_lag_too(arm: Footage) -> None:
    # a second, brighter thing moves at random: what the picture changes says little about the speed of the joints
    random = np.random.default_rng(5)
    thumbnails = arm.cameras["top"].thumbnails.copy()
    for frame, height in zip(thumbnails, random.integers(0, 40, len(thumbnails)), strict=True):
        frame[height : height + 8, :6] = 255
    late = delayed(replace(arm, cameras={"top": retrack(thumbnails, arm.episode)}), 2)
    assert find_lag(late, late.cameras["top"]).frames == pytest.approx(2, abs=0.3)


def test_episodes_that_repeat_one_path_are_not_evidence_of_a_narrow_interval() -> None:
    habit = make_arm(Arm(seed=2, habit=True, length=120))
    lag = find_lag(habit, habit.cameras["top"])
    assert lag.low is not None
    assert lag.high is not None
    assert lag.high - lag.low >= 1


def test_repeated_speeds_count_as_one_episode_and_unrelated_ones_as_many() -> None:
    random = np.random.default_rng(0)
    speeds = [speed - speed.mean() for speed in random.normal(size=(10, 400))]
    assert num_independent([speeds[0]] * 10) == pytest.approx(1)
    assert num_independent(speeds) == pytest.approx(10, rel=0.1)
    assert num_independent([speeds[0], speeds[1][:200]]) == pytest.approx(2, rel=0.1)


def test_a_whole_shift_names_its_correction(arm: Footage, answers: Answers) -> None:
    late = delayed(arm, 2)
    top = replace(answers.cameras["top"], lag=find_lag(late, late.cameras["top"]))
    found = judge(arm, replace(answers, cameras={"top": top}), source="arm", frameskip=5)
    assert codes(found) == {"camera_lag"}
    assert shifts(found.answers) == {"top": 2}
    assert "Convert with --shift top=+2" in found.findings[0].remedy
    assert found.next_steps[0].line == "lewm-data convert arm arm-96.h5 --image_size 96 --shift top=+2"
    assert found.verdict == "fixable"


def test_rest_at_both_ends_is_measured() -> None:
    still = make_arm(Arm(head=40, tail=30, num_episodes=5))
    idle = find_idle(still)
    assert np.abs(idle.head - 40).max() <= 4
    assert np.abs(idle.tail - 30).max() <= 4


def test_a_dead_joint_with_jitter_hides_no_rest() -> None:
    still = make_arm(Arm(head=40, num_episodes=5))
    random = np.random.default_rng(1)
    jitter = random.integers(0, 2, (len(still.episode), 1)) * 0.088
    state = np.concatenate([still.state, jitter], axis=1)
    with_dead = replace(still, state=state, names={"action": JOINTS, "state": (*JOINTS, "dead")})
    assert np.abs(find_idle(with_dead).head - 40).max() <= 4
    found = assessed(replace(with_dead, cameras={}))
    assert found.to_dict()["still_dimensions"] == {"action": [], "state": ["dead"]}
    assert {"dimension_still", "idle_head"} <= codes(found)
    [one] = [finding.found for finding in found.findings if finding.code == "dimension_still"]
    assert one == "1 dimension never moves above noise: dead in state"
    assert any("--trim_idle" in finding.remedy for finding in found.findings)


def frozen(footage: Footage) -> Footage:
    thumbnails = footage.cameras["top"].thumbnails.copy()
    thumbnails[:] = thumbnails[0]
    return replace(footage, cameras={"top": retrack(thumbnails, footage.episode)})


def black(footage: Footage) -> Footage:
    noise = np.random.default_rng(0).integers(0, 3, footage.cameras["top"].thumbnails.shape)
    return replace(footage, cameras={"top": retrack(noise.astype(np.uint8), footage.episode)})


def unrelated(footage: Footage) -> Footage:
    blocks = episode_blocks(footage.episode)
    order = np.concatenate([blocks[(position + 3) % len(blocks)] for position in range(len(blocks))])
    return replace(footage, cameras={"top": footage.cameras["top"].select(order)})


@pytest.mark.parametrize("spoil", [frozen, black, unrelated])
def test_a_camera_that_shows_nothing_of_the_robot_is_blind(arm: Footage, spoil: Callable[[Footage], Footage]) -> None:
    footage = spoil(arm)
    track = footage.cameras["top"]
    score = find_visibility(footage, look(footage, track)).score
    assert score is not None
    assert score <= BLIND < SEES
    assert find_lag(footage, track).frames is None


@pytest.mark.parametrize("seed", [18, 22])
def test_a_match_by_chance_with_another_recordings_video_is_not_sight(seed: int) -> None:
    own, other = (make_arm(Arm(seed=s, num_episodes=4, length=100)) for s in (100 + seed, seed))
    score = find_visibility(own, look(own, other.cameras["top"])).score
    assert score is None or score < SEES
    assert (find_visibility(own, look(own, own.cameras["top"])).score or 0) >= SEES


def test_actions_that_tell_a_fifth_of_the_motion_are_not_followed() -> None:
    found = assessed(replace(make_arm(Arm(obedience=0.2)), cameras={}))  # models trained on such arms are blind
    assert "action_not_followed" in codes(found)
    half = assessed(replace(make_arm(Arm(obedience=0.5)), cameras={}))
    assert "action_not_followed" not in codes(half)


def test_actions_of_noise_and_constant_actions_are_not_followed(arm: Footage) -> None:
    noise = np.random.default_rng(0).normal(size=arm.action.shape)
    for action in (noise, np.ones_like(arm.action)):
        found = assessed(replace(arm, action=action, cameras={}))
        assert "action_not_followed" in codes(found)
        assert found.verdict == "record_again"


def test_an_action_copied_from_the_state_is_recognized(arm: Footage) -> None:
    found = assessed(replace(arm, action=arm.state, cameras={}))
    assert "action_is_state" in codes(found)


def test_a_leader_calibrated_apart_is_measured(arm: Footage) -> None:
    action = arm.action.copy()
    action[:, 1] -= 17
    joint = find_response(replace(arm, action=action)).joints["elbow"]
    assert joint.offset == pytest.approx(17, abs=0.5)
    found = assessed(replace(arm, action=action, cameras={}))
    assert "action_offset" in codes(found)


def test_one_habit_repeated_is_predictable() -> None:
    assert "actions_predictable" in codes(assessed(replace(make_arm(Arm(habit=True)), cameras={})))


def test_copies_of_an_episode_are_named(arm: Footage) -> None:
    blocks = episode_blocks(arm.episode)
    state, action = arm.state.copy(), arm.action.copy()
    random = np.random.default_rng(0)
    for values in (state, action):
        values[blocks[5]] = values[blocks[2]] + random.normal(0, 0.2, values[blocks[2]].shape)
    assert near_duplicates(replace(arm, state=state, action=action)) == [(2, 5)]
    assert near_duplicates(arm) == []


def with_copy(footage: Footage, of: int, at: int) -> Footage:
    """The recording with one episode repeated, with noise, in place of another."""
    [(name, track)] = footage.cameras.items()
    blocks = episode_blocks(footage.episode)
    rows = np.arange(len(footage.episode))
    rows[blocks[at]] = blocks[of]
    state, action = footage.state[rows], footage.action[rows]
    random = np.random.default_rng(0)
    for values in (state, action):
        values[blocks[at]] += random.normal(0, 0.01, values[blocks[at]].shape) * values.std(axis=0)
    pictures = retrack(track.thumbnails[rows], footage.episode)
    return replace(footage, state=state, action=action, cameras={name: pictures})


def test_a_copy_is_no_control_for_its_original() -> None:
    copied = answer(with_copy(make_arm(Arm(num_episodes=2, length=80)), 0, 1))
    assert copied.near_duplicates == ((0, 1),)
    assert copied.response.following is None
    assert copied.cameras["top"].visibility.score is None


def test_a_copy_among_other_episodes_adds_nothing() -> None:
    copied = with_copy(make_arm(Arm(num_episodes=5, length=80)), 1, 4)
    rest = first_episodes(copied, 4)
    with_it, without = (find_visibility(f, look(f, f.cameras["top"])) for f in (copied, rest))
    assert with_it.score == pytest.approx(without.score, abs=1e-3)
    assert find_response(copied).following == pytest.approx(find_response(rest).following, abs=1e-3)


def test_few_episodes_are_too_few() -> None:
    found = assessed(make_arm(Arm(num_episodes=4)))
    assert codes(found) == {"episodes_too_few"}
    assert found.findings[0].found.startswith("4 episodes, with 22 s of motion to train on")


def test_enough_episodes_with_little_motion_are_too_few() -> None:
    short = assessed(replace(make_arm(Arm(num_episodes=7, length=60)), cameras={}))
    assert codes(short) == {"episodes_too_few"}
    [found] = short.findings
    assert found.found == "7 episodes, with 18 s of motion to train on if one of them validates"
    assert found.expected == "at least 5 episodes, 20 s of motion, and a score that has leveled off"
    assert short.verdict == "record_again"


def test_rest_and_copies_are_not_motion_to_train_on() -> None:
    resting = make_arm(Arm(num_episodes=6, length=60, head=60))  # 5 x 3 s of motion, and as much rest
    copied = with_copy(make_arm(Arm(num_episodes=5, length=90)), 0, 3)  # 3 x 4.5 s, and a copy
    for footage, seconds in ((resting, 15), (copied, 13.5)):
        judged = assessed(replace(footage, cameras={}))
        [found] = [f.found for f in judged.findings if f.code == "episodes_too_few"]
        assert int(found.split("with ")[1].split(" s ")[0]) == pytest.approx(seconds, abs=1)


def test_without_enough_evidence_there_is_no_number(arm: Footage) -> None:
    data = assessed(first_episodes(arm, 1)).to_dict()
    assert data["cameras"]["top"]["visibility"] is None
    assert data["frameskip"]["recommended"] is None
    assert data["excitation"]["action_r2_from_state"] is None


def test_a_recording_without_state_is_judged_by_its_actions(arm: Footage) -> None:
    stateless = replace(arm, state=np.empty((len(arm.episode), 0)), names={"action": JOINTS, "state": ()})
    seen = find_visibility(stateless, look(stateless, arm.cameras["top"]))
    assert seen.state_r2 is None
    assert seen.score is not None
    assert seen.score > SEES
    assert find_lag(stateless, arm.cameras["top"]).frames is not None
