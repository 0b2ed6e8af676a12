from __future__ import annotations

import pytest

from lewm_data.errors import UsageError
from lewm_data.loading.episode_split import SplitRule
from lewm_data.loading.file_split import SourceContent, named_episodes

CONTENTS = {
    "me/a": SourceContent(
        names=frozenset({"a.h5"}), steps={0: 30, 1: 9, 2: 30, 4: 30, 5: 8, 7: 30}, dropped=frozenset({3})
    )
}


def named(**lists):
    return named_episodes(SplitRule(seed=1, **lists), CONTENTS, span=20)


def test_the_named_episodes_of_each_side_are_found():
    assert named(val_episodes="0,2", test_episodes="6:") == {"val": {"me/a": {0, 2}}, "test": {"me/a": {7}}}


@pytest.mark.parametrize(
    ("lists", "words"),
    [
        ({"val_episodes": "6,8"}, r"episodes 6, 8 of me/a do not exist \(its episodes are 0-2, 4-5, 7\). Name others"),
        ({"val_episodes": "2:5"}, r"episode 3 of me/a was dropped as dirty. Write val_episodes='2,4'\."),
        (
            {"test_episodes": "0,1"},
            r"episode 1 of me/a has 9 steps, fewer than a window.* Write test_episodes='0'",
        ),
        ({"test_episodes": "1,5"}, r"1, 5 of me/a have at most 9 steps.*Name others, or lower num_steps or frameskip"),
        ({"val_episodes": "8:"}, r"takes no episode of me/a, which has the episodes 0-2, 4-5, 7"),
        (
            {"val_episodes": "0,2", "test_episodes": "2:3"},
            r"val_episodes and test_episodes both name episode 2",
        ),
        ({"train_episodes": "0:1", "test_episodes": "0"}, r"train_episodes and test_episodes both name episode 0"),
        ({"val_episodes": {"me/a": 0, "a.h5": 2}}, r"val_episodes names me/a twice, once as a.h5"),
    ],
)
def test_episodes_that_cannot_be_used_are_named_with_a_remedy(lists, words):
    with pytest.raises(UsageError, match=words):
        named(**lists)


@pytest.mark.parametrize("lists", [{"train_episodes": "0"}, {"val_episodes": "0"}])
def test_a_fold_and_a_list_that_both_say_what_validates_are_refused(lists):
    with pytest.raises(UsageError, match=f"fold and {[*lists][0]} are both given"):
        SplitRule(seed=1, fold=(0, 2), **lists)
