"""The checks as pure functions: what they let pass, mostly; what they find is in test_validate.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lewm_data.catalog import CATALOG
from lewm_data.findings import POLICIES, Finding, decide, finding
from lewm_data.quality.checks import check_length, check_rows
from lewm_data.quality.clock import read_clock
from lewm_data.quality.episode_rows import EpisodeRows
from lewm_data.quality.video_checks import Spans, check_spans, check_video, frames_are_equal
from lewm_data.source.episodes import keep_last_of_run
from lewm_data.source.info import Feature
from lewm_data.source.video import VideoHeader

FEATURES = {
    "action": Feature(key="action", dtype="float32", shape=(2,)),
    "next.done": Feature(key="next.done", dtype="bool", shape=(1,)),
}
COLUMNS = {"action": ("action",), "done": ("next.done",)}


def header(**values: Any) -> VideoHeader:
    known = {"codec": "h264", "width": 128, "height": 96, "num_frames": 100, "fps": 30.0, "start_seconds": 0.0}
    return VideoHeader(**{**known, "duration_seconds": None, **values})


def rows_of(count: int, fps: float, **values: Any) -> EpisodeRows:
    action = np.random.default_rng(0).normal(size=(count, 2))
    known = {
        "length": count,
        "frame_index": np.arange(count),
        "timestamp": (np.arange(count) / fps).astype(np.float32).astype(np.float64),
        "index": np.arange(count) + 1000,
        "columns": {"action": action, "next.done": np.arange(count) == count - 1},
    }
    return EpisodeRows(episode=3, file="data.parquet", **{**known, **values})


def codes(found: Any) -> list[str]:
    return [one.code for one in found]


def row_codes(rows: EpisodeRows, fps: float = 30.0, **values: Any) -> list[str]:
    known = {
        "length": rows.length,
        "first_index": 1000,
        "fps": fps,
        "features": FEATURES,
        "columns": COLUMNS,
        "frames": "equal",
    }
    return codes(check_rows(rows, **{**known, **values}))


def spans_of(lengths: list[int], starts: list[float], stops: list[float], fps: float = 30, **values: Any) -> Spans:
    """Spans in frames."""
    known = {
        "file": "video.mp4",
        "fps": fps,
        "episodes": np.arange(len(lengths)),
        "lengths": np.array(lengths),
        "start_seconds": np.array(starts, np.float64) / fps,
        "stop_seconds": np.array(stops, np.float64) / fps,
        "next_seconds": np.array([min((s for s in starts if s > start), default=np.inf) for start in starts]) / fps,
        "is_declared": True,
        "is_complete": True,
    }
    return Spans(**{**known, **values})


def span_codes(
    lengths: list[int], starts: list[float], stops: list[float], fps: float = 30, **values: Any
) -> list[str]:
    shown = values.pop("header", header(num_frames=sum(lengths)))
    return codes(check_spans(shown, spans_of(lengths, starts, stops, fps, **values)))


# --- rows


@given(count=st.integers(1, 3000), fps=st.sampled_from([1, 5, 10, 15, 24, 25, 29.97, 30, 50, 60, 120]))
def test_rows_as_lerobot_writes_them_have_no_findings(count: int, fps: float) -> None:
    found = row_codes(rows_of(count, fps), fps)
    assert found == []


def test_float32_timestamps_of_hours_are_no_jitter() -> None:
    assert row_codes(rows_of(400_000, 30)) == []


@given(step=st.integers(1, 98), off=st.floats(0.01, 0.49))
def test_a_timestamp_off_by_less_than_half_a_frame_is_jitter(step: int, off: float) -> None:
    timestamp = np.arange(100) / 30.0
    timestamp[step] += off / 30
    assert row_codes(rows_of(100, 30, timestamp=timestamp)) == ["timestamps_jitter"]


@given(step=st.integers(1, 98), off=st.floats(0.51, 0.9))
def test_a_timestamp_off_by_more_than_half_a_frame_is_an_error(step: int, off: float) -> None:
    timestamp = np.arange(100) / 30.0
    timestamp[step] += off / 30
    assert row_codes(rows_of(100, 30, timestamp=timestamp)) == ["timestamps_off_fps"]


@given(
    count=st.integers(1, 2000),
    frames=st.integers(-300, 100_000).filter(bool),
    fps=st.sampled_from([5, 10, 20, 29.97, 30, 60]),
    single=st.booleans(),
)
def test_an_offset_of_whole_frames_is_found_at_the_first_step(
    count: int, frames: int, fps: float, single: bool
) -> None:
    timestamp = (np.arange(count) + frames) / fps
    if single:  # as LeRobot stores them
        timestamp = timestamp.astype(np.float32).astype(np.float64)
    clock = read_clock(timestamp, fps)
    assert (clock.kind, clock.step, round(clock.seconds * fps)) == ("offset", 0, frames)
    assert row_codes(rows_of(count, fps, timestamp=timestamp), fps) == ["timestamps_offset"]
    assert row_codes(rows_of(count, fps, timestamp=timestamp), fps, frames="in_rows") == ["timestamps_offset"]
    assert row_codes(rows_of(count, fps, timestamp=timestamp), fps, frames="unequal") == ["timestamps_off_fps"]


@given(jump=st.integers(1, 99), frames=st.integers(1, 50))
def test_a_jump_in_mid_episode_is_not_an_offset(jump: int, frames: int) -> None:
    timestamp = (np.arange(100) + np.where(np.arange(100) >= jump, frames, 0)) / 30
    assert row_codes(rows_of(100, 30, timestamp=timestamp)) == ["timestamps_off_fps"]


def test_drifting_timestamps_do_not_matter_where_the_pictures_are_in_the_rows() -> None:
    rows = rows_of(100, 30, timestamp=np.arange(100) / 29)
    assert row_codes(rows) == ["timestamps_off_fps"]
    assert row_codes(rows, frames="in_rows") == ["timestamps_wall_clock"]


@pytest.mark.parametrize(("frames", "expected"), [("equal", []), ("in_rows", []), ("unequal", ["timestamps_off_fps"])])
def test_missing_timestamps_follow_from_the_order_where_every_row_has_its_frame(
    frames: str, expected: list[str]
) -> None:
    assert row_codes(rows_of(9, 30, timestamp=None), frames=frames) == expected


@pytest.mark.parametrize("frame_index", [np.arange(9) + 1, np.arange(9) + 5000, np.zeros(9, int), np.full(9, -1)])
def test_a_frame_index_that_was_never_counted_from_0_is_derived(frame_index: np.ndarray) -> None:
    assert row_codes(rows_of(9, 30, frame_index=frame_index)) == ["column_derived"]


def test_a_wrong_frame_index_matters_where_the_timestamps_do_not_confirm_the_order() -> None:
    wrong = np.array([0, 1, 2, 2, 4, 5, 6, 7, 8])
    drifting = np.arange(9) / 20
    assert row_codes(rows_of(9, 30, frame_index=wrong)) == ["column_derived"]
    assert row_codes(rows_of(9, 30, frame_index=wrong), length=10) == ["rows_missing", "frame_index_broken"]
    broken = ["frame_index_broken", "timestamps_off_fps", "rows_misplaced"]
    assert row_codes(rows_of(9, 30, frame_index=wrong, timestamp=drifting)) == broken
    broken = ["frame_index_broken", "timestamps_wall_clock", "rows_misplaced"]
    assert row_codes(rows_of(9, 30, frame_index=wrong, timestamp=drifting), frames="in_rows") == broken
    assert row_codes(rows_of(9, 30, frame_index=wrong, timestamp=None)) == ["frame_index_broken", "rows_misplaced"]


@given(length=st.integers(1, 60), run=st.integers(1, 60))
def test_an_unbroken_run_of_end_flags_is_one_end(length: int, run: int) -> None:
    run = min(run, length)
    flags = np.arange(length) >= length - run
    rows = rows_of(length, 30)
    rows.columns["next.done"] = flags
    assert row_codes(rows) == (["done_run"] if run > 1 else [])
    assert keep_last_of_run(flags).tolist() == [step == length - 1 for step in range(length)]


@given(flags=st.lists(st.booleans(), min_size=1, max_size=12))
def test_end_flags_change_only_where_they_are_a_run_up_to_the_end(flags: list[bool]) -> None:
    text = "".join("x" if flag else "." for flag in flags)
    is_run = text.lstrip(".") == "x" * text.count("x") and text.count("x") > 0
    expected = text if not is_run else "." * (len(text) - 1) + "x"
    assert "".join("x" if flag else "." for flag in keep_last_of_run(np.array(flags))) == expected


@given(lost=st.integers(1, 8))
def test_rows_lost_in_the_middle_cannot_be_aligned(lost: int) -> None:
    kept = np.delete(np.arange(10), lost)
    rows = rows_of(9, 30, frame_index=kept, timestamp=kept / 30)
    assert row_codes(rows) == ["frame_index_broken", "timestamps_off_fps", "rows_misplaced"]


def test_index_is_compared_if_the_metadata_states_it() -> None:
    assert row_codes(rows_of(5, 30), first_index=7) == ["index_mismatch"]
    assert row_codes(rows_of(5, 30), first_index=-1) == []


def test_one_step_cannot_be_frozen() -> None:
    assert row_codes(rows_of(1, 30)) == []


def test_numbers_for_done_are_taken_for_flags() -> None:
    rows = rows_of(5, 30)
    rows.columns["next.done"] = np.array([0.0, 0, 0, 0, 1])
    assert row_codes(rows) == []


def test_an_extra_column_may_hold_what_its_own_dtype_can() -> None:
    rows = rows_of(5, 30)
    rows.columns["wide"] = np.full(5, 1e300)
    wide = Feature(key="wide", dtype="float64", shape=(1,))
    narrow = Feature(key="wide", dtype="float32", shape=(1,))
    columns = {**COLUMNS, "wide": ("wide",)}
    assert row_codes(rows, features={**FEATURES, "wide": wide}, columns=columns) == []
    assert row_codes(rows, features={**FEATURES, "wide": narrow}, columns=columns) == ["values_not_finite"]


@pytest.mark.parametrize(
    ("length", "expected"), [(0, ["episode_empty"]), (4, ["episode_short"]), (5, []), (100, ["episode_too_long"])]
)
def test_lengths(length: int, expected: list[str]) -> None:
    assert codes(check_length(0, length, 5, 99)) == expected


# --- videos


@pytest.mark.parametrize(
    ("fps", "num_frames"),
    [(30.0, 100), (29.97, 100), (30.2, 1000), (None, 100), (30.3, 100), (34.0, 10), (38.0, 5), (60.0, 1)],
)
def test_a_rate_that_a_header_may_well_show_for_30_fps(fps: float | None, num_frames: int) -> None:
    shown = header(fps=fps, num_frames=num_frames)
    assert codes(check_video(shown, file="v", fps=30, declared_shape=(96, 128, 3), episodes=[0])) == []


@pytest.mark.parametrize(("fps", "num_frames"), [(25.0, 100), (15.0, 100), (31.0, 1000), (60.0, 20), (30.5, None)])
def test_a_rate_that_is_another(fps: float, num_frames: int | None) -> None:
    shown = header(fps=fps, num_frames=num_frames)
    assert codes(check_video(shown, file="v", fps=30, declared_shape=(96, 128, 3), episodes=[0])) == ["video_fps"]


@pytest.mark.parametrize("shape", [(96, 128, 3), (3, 96, 128), (128, 96, 3), (96, 128, 1), (96, 128), (0,)])
def test_any_order_of_the_shape_is_taken(shape: tuple[int, ...]) -> None:
    assert codes(check_video(header(), file="v", fps=30, declared_shape=shape, episodes=[0])) == []


# --- spans

lengths_of = st.lists(st.integers(1, 500), min_size=1, max_size=20)


@given(lengths=lengths_of, fps=st.sampled_from([5, 10, 29.97, 30, 60]), complete=st.booleans())
def test_spans_that_follow_each_other_have_no_findings(lengths: list[int], fps: float, complete: bool) -> None:
    stops = np.cumsum(lengths)
    assert span_codes(lengths, [0, *stops[:-1]], list(stops), fps, is_complete=complete) == []


@given(lengths=lengths_of, drift=st.floats(-0.4, 0.4))
def test_spans_may_drift_by_less_than_half_a_frame(lengths: list[int], drift: float) -> None:
    stops = np.cumsum(lengths) + drift
    assert span_codes(lengths, [0, *stops[:-1]], list(stops)) == []


@given(lengths=st.lists(st.integers(2, 50), min_size=2, max_size=10))
def test_pauses_between_joined_pieces_are_not_missing_frames(lengths: list[int]) -> None:
    starts = np.cumsum([0, *(length + 1 for length in lengths[:-1])])
    stops = starts + lengths
    shown = header(num_frames=sum(lengths), duration_seconds=float(stops[-1]) / 30)
    assert span_codes(lengths, list(starts), list(stops), header=shown) == []


def test_one_frame_more_than_rows_is_passed_over() -> None:
    shown = header(num_frames=12)
    assert span_codes([5, 5], [0, 6], [6, 12], header=shown) == ["span_gap", "video_frames_extra"]


def test_gaps_mean_nothing_where_not_all_episodes_are_chosen() -> None:
    assert span_codes([5, 5], [10, 30], [15, 35], header=header(), is_complete=False) == []


@given(shift=st.integers(1, 4))
def test_both_episodes_that_claim_a_frame_are_blamed(shift: int) -> None:
    shown = header(num_frames=10 - shift)
    assert span_codes([5, 5], [0, 5 - shift], [5, 10 - shift], header=shown) == ["span_overlap", "span_overlap"]


def test_the_order_of_the_spans_need_not_be_that_of_the_episodes() -> None:
    assert span_codes([5, 7], [7, 0], [12, 7]) == []


def test_a_video_without_a_frame_count_is_judged_by_its_duration() -> None:
    shown = header(num_frames=None, duration_seconds=10 / 30)
    assert span_codes([5, 5], [0, 5], [5, 10], header=shown) == []
    assert span_codes([5, 6], [0, 5], [5, 11], header=shown) == ["video_frames_short"]


@given(lengths=lengths_of, fps=st.sampled_from([10, 29.97, 30]))
def test_a_to_timestamp_that_is_the_last_frames_time_is_confirmed_by_file_and_next_span(
    lengths: list[int], fps: float
) -> None:
    stops = np.cumsum(lengths)
    starts = [0, *stops[:-1]]
    assert span_codes(lengths, starts, list(stops - 1), fps) == ["span_stop_short"] * len(lengths)
    assert frames_are_equal(header(num_frames=sum(lengths)), spans_of(lengths, starts, list(stops - 1), fps)).all()


def test_a_short_span_with_no_room_for_its_rows_is_an_error() -> None:
    assert span_codes([5, 5], [0, 4], [4, 8], header=header(num_frames=9)) == [
        "span_length",
        "span_stop_short",
        "span_overlap",
        "span_overlap",
    ]
    assert span_codes([5], [0], [4], header=header(num_frames=4)) == ["span_length", "video_frames_short"]


def test_a_selection_still_knows_the_next_span_of_the_file() -> None:
    spans = {"next_seconds": np.array([5 / 30]), "is_complete": False}
    assert span_codes([5], [0], [4], header=header(num_frames=50), **spans) == ["span_stop_short"]


NTSC = {"fps": 30000 / 1001, "base_fps": 30000 / 1001}


@pytest.mark.parametrize(("length", "expected"), [(400, []), (500, []), (502, ["video_fps"]), (2000, ["video_fps"])])
def test_29_97_fps_in_a_dataset_of_30_slips_by_half_a_frame_after_500(length: int, expected: list[str]) -> None:
    shown = header(num_frames=length, **NTSC)
    assert span_codes([length], [0], [length], header=shown, is_declared=False) == expected


def test_a_slipping_file_leads_later_episodes_to_the_wrong_frame() -> None:
    shown = header(num_frames=1000, **NTSC)
    starts = list(range(0, 1000, 100))
    found = span_codes([100] * 10, starts, [start + 100 for start in starts], header=shown)
    assert found == ["video_fps"] * 5  # those that end half a frame or more after their time


def test_a_last_frame_of_odd_duration_is_not_a_slip() -> None:
    shown = header(num_frames=1000, fps=30 * 1000 / 1001, base_fps=30.0)
    assert span_codes([1000], [0], [1000], header=shown) == []


def test_a_video_header_without_facts_is_left_to_decoding() -> None:
    assert span_codes([5], [0], [5], header=header(num_frames=None, duration_seconds=None)) == []


# --- policies


def made(code: str, episode: int | None = 1) -> Finding:
    return finding(code, episode=episode, expected="this", found="that")


@pytest.mark.parametrize("policy", POLICIES)
def test_a_warning_is_recorded_whatever_the_policy(policy: str) -> None:
    decision = decide([made("camera_frozen")], policy)
    assert [found.handling for found in decision.findings] == ["recorded"]
    assert (decision.refused, decision.dropped) == (False, frozenset())


@pytest.mark.parametrize("code", [code for code, rule in CATALOG.items() if rule.severity == "error"])
def test_every_error_is_refused_dropped_or_kept(code: str) -> None:
    keepable = CATALOG[code].keepable
    assert decide([made(code)], "fail").refused
    assert decide([made(code)], "skip").dropped == {1}
    assert decide([made(code)], "keep").dropped == (frozenset() if keepable else {1})
    assert decide([made(code, None)], "skip").refused
    assert decide([made(code, None)], "keep").refused == (not keepable)


@pytest.mark.parametrize("code", ["metadata_unreadable", "total_mismatch"])
def test_what_an_unfinished_session_lacks_can_be_skipped(code: str) -> None:
    found = finding(code, expected="this", found="that", is_skippable=True)
    assert decide([found], "fail").refused
    for policy in ("skip", "keep"):
        decision = decide([found], policy)
        assert (decision.refused, decision.dropped) == (False, frozenset())


@pytest.mark.parametrize("code", CATALOG)
def test_every_finding_has_a_remedy_in_whole_sentences(code: str) -> None:
    remedy = CATALOG[code].remedy
    assert remedy[0].isupper()
    assert remedy.endswith((".", ")."))


def test_a_finding_reads_as_a_sentence() -> None:
    found = finding("rows_missing", episode=41, file="data/file-000.parquet", expected="311 rows", found="309")
    assert found.sentence() == (
        "episode 41: rows_missing: expected 311 rows, found 309 (data/file-000.parquet). Steps are missing. "
        "Exclude it with --episodes, or drop it with --dirty_episode_policy skip."
    )
