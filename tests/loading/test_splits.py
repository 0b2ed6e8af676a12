from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lewm_data.errors import UsageError
from lewm_data.format.header import SourceRecord
from lewm_data.loading.data_record import DataRecord
from lewm_data.loading.episode_split import SIDES, SplitRule, is_validation
from lewm_data.loading.full_datasets import dirty_episode_warnings, open_datasets
from lewm_data.loading.splits import Splits
from tests.loading import files

REPOS = ("me/a", "me/b", "me/c")


def record(repo, episodes, revision=None):
    return SourceRecord(repo_id=repo, revision=revision, codebase_version="v3.0", episodes=tuple(episodes))


def split(paths, *, num_steps=2, frameskip=1, val_fraction=0.3, seed=1, weights=None, allow_duplicates=False, **rule):
    datasets = open_datasets(paths, num_steps=num_steps, frameskip=frameskip)
    rule = SplitRule(val_fraction=val_fraction, seed=seed, **rule)
    return Splits.of(datasets, rule, weights=weights, allow_duplicates=allow_duplicates)


def sides(splits):
    """Source episodes that each side draws windows from: train, val and test."""
    sources = [source for file in splits.files for source in file.sources]
    return [[sources[i].recording for i in splits.episodes(side)] for side in SIDES]


episodes_of_a_file = st.lists(
    st.tuples(st.sampled_from(REPOS), st.integers(0, 40), st.integers(2, 9)), min_size=1, max_size=12
)


rules = st.one_of(
    st.fixed_dictionaries({"val_fraction": st.floats(0.05, 0.8)}),
    st.integers(2, 6).flatmap(lambda k: st.fixed_dictionaries({"fold": st.tuples(st.integers(0, k - 1), st.just(k))})),
    st.fixed_dictionaries(
        {}, optional={"train_episodes": st.none(), "val_episodes": st.none(), "test_episodes": st.none()}
    ),
)


def draw_lists(data, rule, recordings):
    """Replaces the lists of a rule by disjoint random ones, by source."""
    free = sorted(recordings)
    for name in ("train_episodes", "val_episodes", "test_episodes") if "fold" not in rule else ("test_episodes",):
        if free and (name in rule or data.draw(st.booleans())):
            chosen = data.draw(st.lists(st.sampled_from(free), min_size=1, max_size=4, unique=True))
            free = [recording for recording in free if recording not in chosen]
            rule[name] = {repo: [e for r, e in chosen if r == repo] for repo in {repo for repo, _ in chosen}}
        else:
            rule.pop(name, None)


@given(
    st.lists(episodes_of_a_file, min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(1, 6), st.integers(1, 2)), min_size=1, max_size=2),
    rules,
    st.integers(0, 2**40),
    st.randoms(),
    st.data(),
)
@settings(max_examples=25, deadline=None)
def test_no_source_episode_is_ever_on_two_sides(tmp_path_factory, contents, horizons, rule, seed, rng, data):
    """Random files, merges, orders, horizons, folds and lists, with duplicates, under one seed and rule."""
    folder = tmp_path_factory.mktemp("files")
    merged = [*itertools.chain.from_iterable(contents)]
    rng.shuffle(merged)
    draw_lists(data, rule, {(repo, episode) for repo, episode, _ in merged})
    paths = []
    for number, content in enumerate([*contents, merged]):
        sources = [record(repo, [episode]) for repo, episode, _ in content]
        lengths = [length for _, _, length in content]
        paths.append(files.write(folder / f"{number}.h5", lengths, height=2, width=2, sources=tuple(sources)).path)
    ever = [set(), set(), set()]
    for num_steps, frameskip in horizons:
        for chosen in ([path] for path in paths), [paths], [paths[::-1]]:
            for group in chosen:
                options = {"num_steps": num_steps, "frameskip": frameskip, "seed": seed, "allow_duplicates": True}
                try:
                    found = split(group, **options, **rule)
                except UsageError:  # a side without windows, or a list of what this file does not hold
                    continue
                for side, drawn in zip(ever, sides(found), strict=True):
                    side.update(drawn)
                for drawn in sides(found)[1:]:
                    assert len(set(drawn)) == len(drawn)
                for name in rule.keys() & {"train_episodes", "val_episodes", "test_episodes"}:
                    named = {(repo, e) for repo, episodes in rule[name].items() for e in episodes}
                    assert set(sides(found)[SIDES.index(name.removesuffix("_episodes"))]) == named
    assert not ever[0] & ever[1] | ever[0] & ever[2] | ever[1] & ever[2]


def test_a_longer_horizon_moves_no_episode_and_only_drops_short_ones(tmp_path):
    path = files.write(tmp_path / "a.h5", [9, 30, 12, 8, 30, 30, 7, 30, 30, 30], height=4, width=4).path
    short, long = (sides(split([path], num_steps=steps))[:2] for steps in (2, 20))
    for now, before in zip(long, short, strict=True):
        assert set(now) < set(before)


def test_the_same_episodes_in_two_files_are_refused_with_their_names(tmp_path):
    first = files.write(tmp_path / "a.h5", [20] * 5, sources=(record("me/a", range(5)),)).path
    second = files.write(tmp_path / "b.h5", [20] * 5, sources=(record("me/a", range(3, 8)),)).path
    with pytest.raises(UsageError, match=r"episode 3-4 of me/a is in .*a\.h5 and in .*b\.h5.*allow_duplicates=True"):
        split([first, second])
    train, val, _ = sides(split([first, second], allow_duplicates=True))
    assert len(train) + len(val) == 10 - len({3, 4} & {episode for _, episode in val})
    assert not set(train) & set(val)
    assert len(set(val)) == len(val)


def test_a_later_revision_of_a_source_keeps_its_episodes_on_their_sides(tmp_path):
    old = files.write(tmp_path / "old.h5", [20] * 5, sources=(record("me/a", range(5), "1" * 40),)).path
    new = files.write(tmp_path / "new.h5", [20] * 9, sources=(record("me/a", range(9), "2" * 40),)).path
    train, val, _ = sides(split([old, new]))
    assert not set(train) & set(val)


def test_one_file_of_another_program_under_two_names_is_refused(tmp_path):
    path = files.write(tmp_path / "a.h5", [20, 20, 20], ours=False).path
    link = tmp_path / "link.h5"
    link.symlink_to(path)
    with pytest.raises(UsageError, match=r"episode 0-2 of .*a\.h5 is in .*a\.h5 and in .*link\.h5"):
        split([path, link])


def test_a_split_without_validation_windows_is_refused(tmp_path):
    path = files.write(tmp_path / "a.h5", [30, 30, 9, 9], sources=(record("me/a", [4, 5, 0, 1]),)).path
    assert sides(split([path], num_steps=9, val_fraction=0.1))[1]
    with pytest.raises(
        UsageError, match=r"none of the 1 validation episodes \([01] of the source\) holds a window of 20 steps"
    ):
        split([path], num_steps=20, val_fraction=0.1)
    rest = files.write(tmp_path / "rest.h5", [30, 30], sources=(record("me/a", [4, 5]),)).path
    with pytest.raises(
        UsageError, match=r"none of the 2 episodes is a validation episode. Raise val_fraction.* val_episodes='0,5'"
    ):
        split([rest], val_fraction=0.1)
    assert len(sides(split([rest], val_fraction=0))[0]) == 2


@pytest.mark.parametrize("seed", range(4))
def test_one_episode_cannot_be_split(tmp_path, seed):
    path = files.write(tmp_path / "a.h5", [30], height=4, width=4).path
    with pytest.raises(UsageError, match=r"only one episode, and an episode is never split. Set val_fraction=0"):
        split([path], seed=seed)


def test_a_split_without_training_windows_is_refused(tmp_path):
    path = files.write(tmp_path / "a.h5", [30, 3], height=4, width=4).path
    seed = next(seed for seed in range(50) if is_validation(np.arange(2), val_fraction=0.5, seed=seed)[0])
    with pytest.raises(UsageError, match=r"no training episode holds a window of 9 steps.* set val_fraction=0"):
        split([path], num_steps=9, seed=seed, val_fraction=0.5)


def test_numbers_that_are_not_finite_in_another_programs_file_are_counted(tmp_path):
    written = files.write(tmp_path / "a.h5", [20, 20, 20], ours=False)
    action = written.data["action"].copy()
    action[[19, 45, 46]] = np.nan
    path = files.write(tmp_path / "b.h5", [20, 20, 20], ours=False, extra={"action": action}).path
    clean, dirty = open_datasets([written.path, path], num_steps=2, frameskip=1)
    assert dirty_episode_warnings([clean]) == []
    [sentence] = dirty_episode_warnings([dirty])
    assert "b.h5: contains dirty episodes" in sentence
    assert "0 (action is not finite in 1 step of 20), 2 (action is not finite in 2 steps of 20)" in sentence


settings_of = {"seed": 1, "num_steps": 2}


def test_a_record_of_the_data_survives_a_checkpoint(tmp_path):
    path = files.write(tmp_path / "a.h5", [20] * 12, height=4, width=4).path
    record_of = DataRecord.of(split([path]), settings_of)
    restored = DataRecord.from_state_dict(record_of.state_dict())
    assert restored.differences(record_of) == {}
    assert record_of.differences(restored) == {}
    assert restored.split == record_of.split
    assert DataRecord.from_state_dict({"files": ["abc"]}) is None


@pytest.mark.parametrize(
    ("changes", "names", "words"),
    [
        ({"settings": {"num_steps": 3}}, {"num_steps"}, "num_steps: 2 in the checkpoint, 3 now"),
        ({"seed": 9}, {"split", "normalizers"}, r"episode \d+.* of me/test validated now, but trained on before"),
        ({"fingerprint": "other"}, {"data"}, "other files, or the same converted otherwise"),
        ({"values": 2}, {"normalizers"}, "the mean or std of action and state moved"),
        ({"val_fraction": 0}, {"split", "normalizers"}, r"trained on now, but validated before"),
    ],
)
def test_each_difference_from_a_record_is_named(tmp_path, changes, names, words):
    def record_of(name, fingerprint="abc", values=1, settings=(), **options):
        path = files.write(tmp_path / name, [20] * 12, height=4, width=4, seed=values, fingerprint=fingerprint).path
        return DataRecord.of(split([path], **options), settings_of | dict(settings))

    found = record_of("a.h5").differences(record_of("b.h5", **changes))
    assert set(found) == names
    assert any(re.search(words, sentence) for sentence in found.values())


def test_only_episodes_that_were_trained_on_contaminate_validation(tmp_path):
    path = files.write(tmp_path / "a.h5", [20] * 12, height=4, width=4).path
    before = DataRecord.of(split([path]), settings_of)
    assert before.leaks(DataRecord.of(split([path], num_steps=12), {"num_steps": 12}), "val") == {}
    assert "trained on before" in before.leaks(DataRecord.of(split([path], seed=9), settings_of), "val")["split"]


def test_a_test_side_is_recorded_and_may_not_have_been_trained_on(tmp_path):
    path = files.write(tmp_path / "a.h5", [20] * 12, height=4, width=4).path
    before = DataRecord.of(split([path], val_episodes="0:2", test_episodes="2:4"), {})
    assert before.split_text() == {"train": {"me/test": "4:12"}, "val": {"me/test": "0:2"}, "test": {"me/test": "2:4"}}
    assert DataRecord.from_state_dict(before.state_dict()).split == before.split
    moved = DataRecord.of(split([path], val_episodes="0:2", test_episodes="3:5"), {})
    assert "episode 4 of me/test tested now, but trained on before" in before.leaks(moved, "test")["split"]
    assert before.leaks(moved, "val") == {}
    assert "episode 4 of me/test tested now, but trained on before" in before.differences(moved)["split"]
    trained = DataRecord.of(split([path], val_episodes="0:2", test_episodes="3"), {})
    assert "episode 2 of me/test trained on now, but tested before" in before.differences(trained)["split"]


def test_a_checkpoint_from_before_there_was_a_test_side_still_reads(tmp_path):
    path = files.write(tmp_path / "a.h5", [20] * 12, height=4, width=4).path
    now = DataRecord.of(split([path]), {})
    state = now.state_dict()
    del state["split"]["test"]
    assert DataRecord.from_state_dict(state).differences(now) == {}


def test_a_split_is_said_in_words(tmp_path):
    path = files.write(tmp_path / "a.h5", [20] * 12, height=4, width=4).path
    found = split([path], train_episodes="3:6", val_episodes="0:2,9", test_episodes=[2])
    assert found.describe() == [
        "Split by train_episodes, val_episodes, test_episodes:",
        "  train 3 episodes, 57 windows (3-5 of me/test)",
        "  val   3 episodes, 57 windows (0-1, 9 of me/test)",
        "  test  1 episode, 19 windows (2 of me/test)",
        "  5 episodes not used",
    ]
    assert split([path]).describe()[0] == "Split by val_fraction 0.3 and seed 1:"
    assert split([path]).describe()[3] == "  test  nothing"


def test_lists_call_sources_by_repo_file_or_path(tmp_path):
    first = files.write(tmp_path / "a.h5", [20] * 5, sources=(record("me/a", range(5)),)).path
    second = files.write(tmp_path / "b.h5", [20] * 5, sources=(record("me/b", range(5)),)).path
    for name in ("me/b", "b.h5", str(second)):
        _, val, _ = sides(split([first, second], val_episodes={name: "1:3", "me/a": 4}))
        assert sorted(val) == [("me/a", 4), ("me/b", 1), ("me/b", 2)]
    with pytest.raises(UsageError, match=r"but the data has 2 sources. Name the source: {'me/a': '0:8'"):
        split([first, second], val_episodes="0:2")
    with pytest.raises(UsageError, match=r"val_episodes: me/c is not a source of the data. .* me/a, me/b"):
        split([first, second], val_episodes={"me/c": "0"})
    merged = files.write(tmp_path / "m.h5", [20] * 4, sources=(record("me/a", [0, 1]), record("me/b", [0, 1]))).path
    with pytest.raises(UsageError, match=r"m.h5 may be me/a or me/b"):
        split([merged], val_episodes={"m.h5": "0"})


def test_episodes_of_another_programs_file_are_named_by_their_position(tmp_path):
    path = files.write(tmp_path / "a.h5", [20, 20, 20], ours=False).path
    assert [episode for _, episode in sides(split([path], val_episodes="2"))[1]] == [2]
    assert [episode for _, episode in sides(split([path], val_episodes={"a.h5": "1:"}))[1]] == [1, 2]


def test_few_shots_leave_the_rest_unused(tmp_path):
    path = files.write(tmp_path / "a.h5", [20] * 30, height=4, width=4).path
    few = sides(split([path], train_episodes="0:5"))
    every = sides(split([path]))
    assert [episode for _, episode in few[0]] == [0, 1, 2, 3, 4]
    assert set(few[1]) == set(every[1]) - set(few[0])


def test_folds_cover_every_episode_that_is_not_for_the_test(tmp_path):
    path = files.write(tmp_path / "a.h5", [20] * 13, height=4, width=4).path
    folds = [sides(split([path], fold=(i, 4), test_episodes="10:")) for i in range(4)]
    validated = [episode for _, val, _ in folds for _, episode in val]
    assert sorted(validated) == list(range(10))
    for train, val, test in folds:
        assert sorted(episode for _, episode in train + val) == list(range(10))
        assert [episode for _, episode in test] == [10, 11, 12]
