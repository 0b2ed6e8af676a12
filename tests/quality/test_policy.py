"""Which dirty-episode policy a refused dataset is advised."""

from __future__ import annotations

from lewm_data.findings import Finding, advised_policy, finding


def dirt(code: str, *episodes: int | None) -> list[Finding]:
    return [finding(code, episode=episode, expected="", found="") for episode in episodes]


def test_a_clean_dataset_needs_no_policy() -> None:
    assert advised_policy([], 6) is None
    assert advised_policy(dirt("camera_frozen", 1, 2), 6) is None


def test_few_dirty_episodes_are_skipped() -> None:
    assert advised_policy(dirt("timestamps_off_fps", 1, 2), 6) == "skip"


def test_many_that_can_be_aligned_are_kept() -> None:
    assert advised_policy(dirt("timestamps_off_fps", 0, 1, 2, 3, 4), 6) == "keep"


def test_many_that_cannot_be_aligned_are_skipped() -> None:
    assert advised_policy(dirt("video_truncated", 0, 1, 2, 3, 4), 6) == "skip"


def test_nothing_helps_where_no_episode_is_whole() -> None:
    assert advised_policy(dirt("video_truncated", *range(6)), 6) is None
    assert advised_policy(dirt("metadata_unreadable", None), 6) is None
