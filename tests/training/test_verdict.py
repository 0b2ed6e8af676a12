"""What a diagnosis means in words, and what to do next."""

from __future__ import annotations

import math
import shlex
from typing import Any

import pytest

from lewm_data.training.diagnosis import Diagnosis, blindness_words
from lewm_data.training.verdict import Run, cautions, judge, next_steps


def diagnosis(**changes: object) -> Diagnosis:
    values: dict[str, Any] = {
        "num_episodes": 5,
        "num_anchors": 100,
        "model_errors": (0.4, 0.6),
        "copy_errors": (1.0, 1.5),
        "mean_errors": (2.0, 2.0),
        "shuffled_errors": (0.8, 1.0),
        "plan_horizon": 5,
        "plan_ranks": (0.0, 0.1),
        "effective_rank": 12.0,
        "variances": (1.0,) * 16,
        "probe_r2": (0.9, 0.7, math.nan),
        "state_names": ("x", "y", "grip"),
    }
    return Diagnosis(**{**values, **changes})


def run(**changes: object) -> Run:
    values: dict[str, Any] = {
        "step": 2000,
        "max_steps": 2000,
        "max_epochs": None,
        "num_train_episodes": 12,
        "frameskip": 5,
        "sigreg_weight": 0.09,
        "data": "my arm.h5",
    }
    return Run(**{**values, **changes})


def test_ratios_are_those_of_one_step() -> None:
    found = diagnosis()
    assert found.blindness == pytest.approx(0.4)
    assert found.versus_mean == pytest.approx(0.2)
    assert found.action_gain == pytest.approx(2.0)
    assert found.plan_rank == pytest.approx(0.05)
    assert found.mean_r2 == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("changes", "level", "words"),
    [
        (
            {},
            "good",
            "It predicts: its one-step error is 0.40 times that of repeating the last frame; actions from elsewhere",
        ),
        ({"plan_ranks": ()}, "good", "It predicts: "),
        (
            {"model_errors": (1.1, 1.6)},
            "bad",
            "Blind: its one-step error is 1.10 times that of repeating the last frame, and",
        ),
        ({"model_errors": (1.0, 1.6)}, "bad", "Blind: its one-step error is 1.00 times that of repeating"),
        (
            {"model_errors": (1.1, 0.6)},
            "fair",
            "Blind to the next frame: its one-step error is 1.10 times that of repeating",
        ),
        ({"model_errors": (0.4, 1.6)}, "fair", "It predicts, but not far: its one-step error is 0.40"),
        ({"model_errors": (0.95, 1.2), "shuffled_errors": (1.1, 2.0)}, "fair", "Nearly blind: its one-step error is 0"),
        ({"mean_errors": (0.2, 0.2)}, "bad", "Blind: its one-step error is 2.00 times that of predicting the mean"),
        ({"shuffled_errors": (0.41, 0.61)}, "bad", "Deaf to actions: its one-step error is 0.40"),
        ({"plan_ranks": (0.4, 0.5)}, "fair", "It predicts, but not well enough to plan: "),
        ({"probe_r2": (-0.1, 0.0, 0.0)}, "fair", "It predicts something, but hardly the robot: "),
        ({"variances": (1e-4,) * 16}, "bad", "Collapsed: the encoder gives nearly the same latent for every frame"),
        ({"effective_rank": 1.2}, "bad", "Collapsed: "),
        ({"model_errors": (), "copy_errors": ()}, "bad", "Unknown: no validation episode has a frame to predict."),
    ],
)
def test_the_verdict_is_one_sentence_about_all_distances(changes: dict[str, object], level: str, words: str) -> None:
    verdict = judge(diagnosis(**changes))
    assert verdict.sentence.startswith(words)
    assert verdict.sentence.endswith(".")
    assert verdict.level == level


def test_distances_that_no_episode_reaches_do_not_count_against_a_model() -> None:
    unknown = {name: (*getattr(diagnosis(), name), math.nan) for name in ("model_errors", "copy_errors", "mean_errors")}
    assert judge(diagnosis(**unknown, shuffled_errors=(0.8, 1.0, math.nan))).level == "good"


def test_a_json_has_null_for_unknown_numbers() -> None:
    found = diagnosis(model_errors=(), copy_errors=(0.0,), plan_ranks=()).to_json()
    assert found["blindness"] is None
    assert found["plan_rank"] is None
    assert found["probe_r2"] == [0.9, 0.7, None]


def test_few_steps_few_episodes_and_the_middle_of_training_are_a_caution() -> None:
    assert cautions(diagnosis(), run()) == ()
    [steps, middle, episodes] = cautions(diagnosis(num_episodes=1), run(step=200))
    assert "only 200 steps" in steps
    assert "training is at 10%" in middle
    assert "on 1 episode, which may be easier or harder" in episodes


def history(*blindness: float) -> tuple[tuple[int, float], ...]:
    return tuple((500 * (number + 1), value) for number, value in enumerate(blindness))


@pytest.mark.parametrize(
    ("changes", "facts", "words"),
    [
        (
            {},
            {"history": history(0.9, 0.7)},
            "It still gets better (blindness 0.90, then 0.70), so train on: add --ckpt_path last --trainer.max_",
        ),
        ({}, {"history": history(0.9, 0.7), "max_epochs": 10}, "--ckpt_path last --trainer.max_epochs 20"),
        (
            {},
            {"step": 200, "max_steps": 200, "history": history(0.7)},
            "Training was short, so train on: add --ckpt_path",
        ),
        ({}, {"history": history(0.6, 0.5, 0.7)}, r"It was better after 1,000 steps (blindness 0.50), so it overfits."),
        (
            {"effective_rank": 1.0},
            {},
            "Start again with a stronger pull against collapse: add --model.sigreg_weight 0.18.",
        ),
        (
            {"effective_rank": 1.0},
            {"step": 100, "max_steps": 100},
            "Training was short, so train on: add --ckpt_path last",
        ),
        ({"model_errors": (1.1, 0.6)}, {}, "so start again: add --data.frameskip 10"),
        ({"shuffled_errors": (0.41, 0.61)}, {}, "lewm-data assess 'my arm.h5'"),
        (
            {"model_errors": (1.1, 1.6)},
            {"num_train_episodes": 5},
            "It trained on 5 episodes, which are few. Record more.",
        ),
    ],
)
def test_the_next_step_can_be_typed(changes: dict[str, object], facts: dict[str, object], words: str) -> None:
    assert any(words in str(step) for step in next_steps(diagnosis(**changes), run(**facts)))


def test_a_next_step_is_the_command_of_the_run_with_other_flags() -> None:
    command = "python", "train.py", "--data.h5_path", "my arm.h5", "--trainer.max_steps=2000", "--ckpt_path", "last"
    [step, export] = next_steps(diagnosis(), run(history=history(0.9, 0.7), command=command))
    kept = "python train.py --data.h5_path 'my arm.h5'"
    assert step.command == f"{kept} --ckpt_path last --trainer.max_steps 4000"
    assert step.why == "It still gets better (blindness 0.90, then 0.70), so train on"
    assert export.command == f"{kept} --trainer.max_steps=2000 --ckpt_path last --export 'my arm-model'"
    [again, _] = next_steps(diagnosis(effective_rank=1.0), run(command=command))
    assert again.command == f"{shlex.join(command)} --model.sigreg_weight 0.18"


def test_a_good_model_whose_loss_has_settled_is_exported() -> None:
    [step] = next_steps(diagnosis(), run(history=history(0.5, 0.4, 0.4)))
    assert str(step) == "Export it for a planner: add --ckpt_path last --export 'my arm-model'."
    exported = "python", "train.py", "--export=here"
    assert next_steps(diagnosis(), run(history=history(0.5, 0.4, 0.4), command=exported)) == ()


def test_a_fair_model_leads_back_to_the_recording() -> None:
    [step] = next_steps(diagnosis(plan_ranks=(0.4, 0.5)), run())
    assert step.command == "lewm-data assess 'my arm.h5'"


def test_how_far_a_blindness_is_above_one_is_not_shown() -> None:
    shown = [blindness_words(value) for value in (0.871, 1.3, 2.0, 122.05, math.inf, math.nan)]
    assert shown == ["0.87", "1.30", "2.00", "over 2", "over 2", "unknown"]
    blind = diagnosis(model_errors=(122.0, 180.0))
    assert judge(blind).sentence.startswith("Blind: its one-step error is more than twice that of repeating the last")
    history_of_large = history(122.0, 9.0)
    [step] = [step.why for step in next_steps(blind, run(history=history_of_large)) if "better" in step.why]
    assert step.startswith("It still gets better (blindness falls), so train on")
    assert blind.to_json()["blindness"] == 122.0


def test_a_model_that_is_blind_in_the_middle_of_training_is_blind_so_far() -> None:
    for changes, words in (
        ({"model_errors": (1.1, 1.6)}, "Blind so far: "),
        ({"shuffled_errors": (0.41, 0.61)}, "Deaf to actions so far: "),
        ({"effective_rank": 1.2}, "Collapsed so far: "),
    ):
        verdict = judge(diagnosis(**changes), is_over=False)
        assert verdict.sentence.startswith(words)
        assert verdict.level == "fair"


def test_a_run_that_is_not_over_needs_nothing_yet() -> None:
    assert next_steps(diagnosis(model_errors=(1.1, 1.6)), run(step=100)) == ()
