"""A joint that never moves is named once, though two columns hold it."""

from __future__ import annotations

from lewm_data.quality.assess.idle import MAX_NAMES, num_still, still_words


def test_a_joint_at_rest_in_both_columns_is_named_once() -> None:
    still = {"action": ["roll"], "state": ["roll", "aux"]}
    assert still_words(still) == "roll in action and state; aux in state"
    assert num_still(still) == 2


def test_nothing_at_rest_has_no_words() -> None:
    assert still_words({"action": [], "state": []}) == ""


def test_many_names_are_cut_and_counted() -> None:
    still = {"state": [f"joint {number}" for number in range(MAX_NAMES + 3)]}
    assert still_words(still).endswith(f"joint {MAX_NAMES - 1} in state; and 3 more")
    assert num_still(still) == MAX_NAMES + 3
