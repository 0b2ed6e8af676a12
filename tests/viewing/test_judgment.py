"""What a person sees of a judgment: cards in words, and one picture of them."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lewm_data.drawing import LEVELS
from lewm_data.errors import OutputError
from lewm_data.quality.assess.assessment import Assessment, NextStep
from lewm_data.quality.assess.response import JointResponse
from lewm_data.quality.assess.visibility import UNKNOWN as NOT_SEEN
from lewm_data.quality.assess.visibility import Visibility
from lewm_data.viewing.card import Card
from lewm_data.viewing.judgment import cards, judgment
from lewm_data.viewing.judgment_picture import judgment_picture, write_judgment
from tests.viewing.judgments import SEEN, UNKNOWN_CAMERA, UNSEEN, camera, finding, make_judgment
from tests.viewing.pages import EVIL


def by_question(assessment: Assessment) -> dict[str, Card]:
    return {card.question: card for card in cards(assessment)}


def test_each_answer_is_in_words() -> None:
    asked = by_question(make_judgment())
    assert {question: card.answer for question, card in asked.items()} == {
        "What does each camera see?": "1 of 2 cameras shows the robot",
        "Is a camera out of step with the joints?": "yes, by 2.1 frames",
        "Does the robot stand still?": "30% of the time",
        "Does the state follow the action?": "yes, 1 joint",
        "Do the actions vary by themselves?": "69% is new",
        "Which frameskip?": "5 shows the actions best",
        "Are there enough episodes?": "4 episodes",
        "Which dimensions never move?": "1 dimension",
    }
    wrist, top = asked["Is a camera out of step with the joints?"].gauges
    assert (wrist.label, wrist.value, wrist.text) == ("wrist", 2.1, "2.1 frames late (+1.7 to +2.4)")
    assert top.text == "in step (-0.2 to +0.4)"
    assert [gauge.text for gauge in asked["Does the robot stand still?"].gauges] == [
        "30%, 6 s in all",
        "0%, 0 s in all",
        "0%, 0 s in all",
    ]
    [elbow] = asked["Does the state follow the action?"].gauges
    assert elbow.text == "after 2 steps, gain 1.01, offset -17 (14% of its range)"


def test_what_cannot_be_told_has_no_number() -> None:
    asked = by_question(make_judgment(cameras={"top": UNKNOWN_CAMERA}))
    for question in ("What does each camera see?", "Is a camera out of step with the joints?"):
        [gauge] = asked[question].gauges
        assert asked[question].answer == gauge.text == "cannot tell"
        assert gauge.value is None


def test_a_camera_whose_lag_is_unknown_is_not_called_in_step() -> None:
    asked = by_question(make_judgment(cameras={"top": camera(), "wrist": UNKNOWN_CAMERA}))
    assert asked["Is a camera out of step with the joints?"].answer == "1 of 2 in step"


def test_a_finding_marks_its_card_alone() -> None:
    shown = judgment(make_judgment(findings=(finding("camera_lag", "wrist"),)), total_episodes=4)
    flawed = [card["question"] for card in shown["cards"] if card["isFlawed"]]
    assert flawed == ["Is a camera out of step with the joints?"]
    assert shown["findings"][0]["remedy"] == "What to do about camera_lag."
    assert [step["line"].split()[0] for step in shown["nextSteps"]] == ["lewm-data", "python"]


def test_a_recording_without_cameras_has_cards_too() -> None:
    assert "What does each camera see?" not in by_question(make_judgment(cameras={}))


@pytest.mark.parametrize("verdict", ["ready", "fixable", "record_again"])
def test_the_picture_shows_the_verdicts_color(verdict: str) -> None:
    picture = np.asarray(Image.open(io.BytesIO(judgment_picture(make_judgment(verdict=verdict)))).convert("RGB"))
    color = {"ready": "good", "fixable": "fair", "record_again": "bad"}[verdict]
    wanted = np.array([int(LEVELS[color][place : place + 2], 16) for place in (1, 3, 5)])
    assert (picture[:300] == wanted).all(axis=-1).sum() > 200


def test_the_picture_grows_with_what_it_says_and_keeps_its_width() -> None:
    plain = Image.open(io.BytesIO(judgment_picture(make_judgment())))
    many = make_judgment(
        findings=tuple(finding(f"code_{n}", EVIL, EVIL * 3) for n in range(12)),
        cameras={f"{n} {EVIL}": camera() for n in range(6)},
        source=EVIL * 9,
        joint=EVIL,
    )
    long = Image.open(io.BytesIO(judgment_picture(many)))
    assert plain.width == long.width == 1400
    assert plain.height < long.height < 8000
    margin = np.asarray(long.convert("L"))[:, -20:]
    assert (margin == margin[0, 0]).all()  # no text runs over the edge


def test_the_picture_shows_a_long_command_whole() -> None:
    judged = make_judgment()
    long = " ".join(["lewm-data convert recording recording.h5", *(f"--flag_{n} value" for n in range(30))])
    heights = [
        Image.open(io.BytesIO(judgment_picture(replace(judged, next_steps=(NextStep(line, "convert it"),))))).height
        for line in (long[:40], long)
    ]
    assert heights[1] - heights[0] >= 2 * 24  # further lines


def test_what_a_ready_recording_has_found_is_not_called_wrong() -> None:
    found = (finding("dimension_still"),)
    titles = [
        judgment(make_judgment(verdict=verdict, findings=found), total_episodes=4) for verdict in ("ready", "fixable")
    ]
    assert [title["findingsTitle"] for title in titles] == ["Worth knowing", "What is wrong, and what to do"]


def test_of_many_joints_the_card_shows_those_that_follow_least() -> None:
    judged = make_judgment()
    near = JointResponse(lag_steps=1, gain=1.0, offset=0.0, offset_share=0.0)
    joints = {f"joint {n}": near for n in range(20)} | {"loose": replace(near, gain=0.1)}
    answers = replace(judged.answers, response=replace(judged.answers.response, joints=joints))
    card = by_question(replace(judged, answers=answers))["Does the state follow the action?"]
    assert (card.gauges[0].label, len(card.gauges)) == ("loose", 12)
    assert card.note == "and 9 more joints, with gains nearer to 1"


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (SEEN, "shows the robot (score 0.62 of 1); in step with the joints"),
        (UNSEEN, "does not show the robot (score 0.01; 0.05 is enough); in step with the joints"),
        (replace(SEEN, score=0.03), "cannot tell whether it shows the robot (score 0.03; 0.05 is enough); in step"),
        (NOT_SEEN, "cannot tell whether it shows the robot; in step with the joints"),
    ],
)
def test_the_terminal_says_what_a_camera_sees(seen: Visibility, words: str) -> None:
    facts = dict(make_judgment(cameras={"top": camera(visibility=seen)}).facts())
    assert facts["camera top"].startswith(words)
    assert facts["state"] == "follows the action after 2 steps"
    assert facts["actions"] == "31% follows from the state, and the rest is new"


def test_an_existing_picture_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "judgment.png"
    write_judgment(make_judgment(), path)
    before = path.read_bytes()
    with pytest.raises(OutputError, match="--overwrite"):
        write_judgment(make_judgment(verdict="ready"), path)
    assert path.read_bytes() == before
    write_judgment(make_judgment(verdict="ready"), path, overwrite=True)
    assert path.read_bytes() != before
    assert [file.name for file in tmp_path.iterdir()] == ["judgment.png"]
