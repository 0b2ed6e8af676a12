from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lewm_data.config import ConvertConfig
from lewm_data.errors import UsageError
from lewm_data.notation import parse_episodes, parse_image_size

# --- image sizes


@pytest.mark.parametrize(
    ("image_size", "expected"),
    [
        (224, (224, 224)),
        ("224", (224, 224)),
        ("480x640", (480, 640)),
        (1, (1, 1)),
        (16384, (16384, 16384)),
        ("native", None),
    ],
)
def test_image_sizes(image_size: int | str, expected: tuple[int, int] | None) -> None:
    assert parse_image_size(image_size) == expected


@pytest.mark.parametrize(
    "image_size", [0, -1, 16385, 2.5, True, None, "", "x", "480x", "x640", "480X640", "480 x 640", "1x2x3", "0x5", "²"]
)
def test_an_invalid_image_size_is_refused(image_size: Any) -> None:
    with pytest.raises(UsageError, match="image_size is .*, but must be a number of pixels such as 224, HEIGHTxWIDTH"):
        parse_image_size(image_size)


# --- episodes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0:50", (range(0, 50),)),
        ("7", (range(7, 8),)),
        ("0:50,60,70:80", (range(0, 50), range(60, 61), range(70, 80))),
        (" 1 , 3 : 5 ", (range(1, 2), range(3, 5))),
    ],
)
def test_episodes(text: str, expected: tuple[range, ...]) -> None:
    assert parse_episodes(text) == expected


@pytest.mark.parametrize("text", ["", ",", "1,", "a", "-1", "1:", ":5", "1:2:3", "1.5", "1-5", "0:5;7", "9" * 19])
def test_an_invalid_selection_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is neither a number nor a range start:stop"):
        parse_episodes(text)


@pytest.mark.parametrize("text", ["5:5", "5:4", "0:3,9:2"])
def test_an_empty_range_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is empty, because it stops before it begins"):
        parse_episodes(text)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), min_size=1, max_size=5), st.integers(0, 99))
def test_an_episode_is_selected_if_any_range_holds_it(ranges: list[tuple[int, int]], index: int) -> None:
    text = ",".join(f"{start}:{start + count}" for start, count in ranges)
    expected = any(start <= index < start + count for start, count in ranges)
    assert any(index in part for part in parse_episodes(text)) == expected


# --- the dataclass


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"resize": "zoom"}, "resize is 'zoom', but must be one of stretch, crop, pad"),
        ({"compression": "gzip"}, "compression is 'gzip', but must be one of lzf, none, lz4, zstd, blosc2"),
        ({"dirty_episode_policy": "no"}, "dirty_episode_policy is 'no', but must be one of fail, skip, keep"),
        ({"micro_batch": 0}, "micro_batch is 0, but must be 1 or more"),
        ({"watchdog_seconds": -1.0}, "watchdog_seconds is -1.0, but must be 0 or more"),
        ({"watchdog_seconds": float("nan")}, "watchdog_seconds is nan"),
        ({"min_episode_steps": 0}, "min_episode_steps is 0"),
        ({"shard_bytes": 0}, "shard_bytes is 0"),
        ({"decode_threads": -1}, "decode_threads is -1"),
        ({"image_size": "big"}, "image_size is 'big'"),
        ({"episodes": "all"}, "episodes is 'all'"),
        ({"shift": "2"}, "'2' is not CAMERA=FRAMES, CAMERA=auto or auto"),
        ({"shift": "front=half"}, "'front=half' is not CAMERA=FRAMES"),
        ({"shift": "front=2,front=3"}, "'front' is given twice"),
        ({"shift": "front=2000"}, "frames from -1000 to 1000"),
    ],
)
def test_a_setting_out_of_range_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        ConvertConfig(**values)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ConvertConfig().micro_batch = 3  # type: ignore[misc]


def test_settings_survive_json() -> None:
    config = ConvertConfig(image_size="480x640", extra_columns=["task_index"], episodes="0:3")
    assert ConvertConfig(**json.loads(json.dumps(config.to_json()))) == config


def test_columns_may_be_one_text_with_commas() -> None:
    assert ConvertConfig(extra_columns="task_index, timestamp,").extra_columns == ("task_index", "timestamp")  # type: ignore[arg-type]
    assert ConvertConfig(extra_columns=["task_index"]).extra_columns == ("task_index",)  # type: ignore[arg-type]
