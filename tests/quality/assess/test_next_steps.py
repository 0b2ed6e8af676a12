"""The commands that ``assess`` advises run as they are: they fit the recording, the file, and what was asked for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lewm_data.config import AssessConfig
from lewm_data.quality.assess.assessment import NextStep
from lewm_data.quality.assess.next_steps import add_to_shifts, next_steps, source_of_file, with_settings
from tests.viewing.judgments import IN_STEP, LATE, camera, finding, make_judgment

TRAIN = "python train.py --config configs/{}.yaml --data.h5_path {}"


def lines(source: str, *, frame_height: int | None = None, late: bool = False, idle: bool = False) -> list[str]:
    """The advice for two cameras, of which ``top`` sees more."""
    answers = make_judgment(cameras={"top": camera(LATE if late else IN_STEP), "wrist": camera()}).answers
    answers = replace(answers, frameskip=replace(answers.frameskip, recommended=None))
    codes = {"idle_head"} if idle else set()
    return [step.line for step in next_steps(answers, codes, source, "ready", None, frame_height)]


@pytest.mark.parametrize(
    ("frame_height", "expected"),
    [
        (224, TRAIN.format("so101", "arm.h5")),
        (480, TRAIN.format("so101", "arm.h5") + " --data.image_size native"),
        (96, TRAIN.format("laptop", "arm.h5")),
        (64, TRAIN.format("laptop", "arm.h5") + " --data.image_size native"),
    ],
)
def test_a_file_is_trained_on_at_its_own_size(frame_height: int, expected: str) -> None:
    """With all of its cameras: it is not converted again to leave some out."""
    assert lines("arm.h5", frame_height=frame_height) == [f"{expected} --model.cameras all"]


def test_a_file_with_a_fault_is_converted_again_at_its_size() -> None:
    assert lines("arm.h5", frame_height=64, late=True, idle=True) == [
        "lewm-data convert DATASET OUTPUT.h5 --image_size 64 --camera top --shift top=+2 --trim_idle",
        TRAIN.format("laptop", "OUTPUT.h5") + " --data.image_size native",
    ]


def test_a_dataset_is_converted_with_the_camera_that_sees_most() -> None:
    assert lines("arm")[0] == "lewm-data convert arm arm-96.h5 --image_size 96 --camera top"


def test_the_settings_of_the_judgment_are_in_its_commands() -> None:
    steps = [
        NextStep("lewm-data convert arm arm.h5", ""),
        NextStep("lewm-data convert arm arm.h5 --camera top --trim_idle", ""),
        NextStep("python train.py --data.h5_path arm.h5", ""),
        NextStep("lewm-data preview arm preview.html", ""),
    ]
    config = AssessConfig(camera="wrist", episodes="0:5", action="a,b", state="s t", frameskip=8)
    assert [step.line for step in with_settings(steps, config)] == [
        "lewm-data convert arm arm.h5 --camera wrist --episodes 0:5 --action a,b --state 's t'",
        "lewm-data convert arm arm.h5 --camera top --trim_idle --episodes 0:5 --action a,b --state 's t'",
        "python train.py --data.h5_path arm.h5 --data.frameskip 8",
        "lewm-data preview arm preview.html",
    ]
    assert with_settings(steps, AssessConfig()) == tuple(steps)


def test_a_file_names_the_dataset_to_convert_again() -> None:
    step = NextStep("lewm-data convert DATASET OUTPUT.h5 --trim_idle", "")
    for names, expected in (
        (["me/arm", "me/arm"], "me/arm"),
        (["my arm"], "'path/to/my arm'"),
        (["me/arm", "me/leg"], "DATASET"),
        ([], "DATASET"),
    ):
        [settled] = with_settings([step], AssessConfig(), source=source_of_file(names))
        assert settled.line == f"lewm-data convert {expected} OUTPUT.h5 --trim_idle"


@pytest.mark.parametrize(
    ("recorded", "flag", "words"),
    [
        ({}, " --shift top=+2", "What to do about camera_lag."),
        ({"wrist": 3}, " --shift top=+2", "What to do about camera_lag."),
        (
            {"top": 1},
            " --shift top=+3",
            "The file was converted with --shift top=+1. Convert again with --shift top=+3.",
        ),
        ({"top": -2}, "", "The file was converted with --shift top=-2. Convert again without it."),
    ],
)
def test_the_advice_on_a_shifted_file_adds_to_its_shift(recorded: dict[str, int], flag: str, words: str) -> None:
    judged = make_judgment(cameras={"top": camera(LATE)}, findings=(finding("camera_lag", "top"),))
    step = NextStep("lewm-data convert arm OUTPUT.h5 --shift top=+2 --trim_idle", "")
    settled = add_to_shifts(replace(judged, next_steps=(step,)), recorded)
    assert settled.next_steps[0].line == f"lewm-data convert arm OUTPUT.h5{flag} --trim_idle"
    assert settled.findings[0].remedy == words
