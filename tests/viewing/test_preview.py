"""Previews as files: complete or absent, small, true to the data, harmless, and possible for any damaged dataset."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lewm_data.config import ConvertConfig, PreviewConfig
from lewm_data.conversion.pipeline import convert
from lewm_data.errors import DamagedChunkError, OutputError, UsageError
from lewm_data.viewing import html, summary
from lewm_data.viewing.judgment import judgment
from lewm_data.viewing.preview import make_preview, open_recording
from lewm_data.viewing.summary import summarize
from tests.loading import files
from tests.quality import dirt as spoil
from tests.quality.dirt import DECODED, INSPECTED, Dirt
from tests.recording import EPISODE_LENGTHS, read_camera, read_code, row_values
from tests.viewing.judgments import make_judgment
from tests.viewing.pages import EVIL, Page, addresses, hostile
from tests.viewing.test_strips import unpacked


@pytest.fixture(scope="module")
def converted(recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("preview") / "file.h5"
    convert(str(recorded), path, ConvertConfig(camera="front", cameras="all", image_size="96x128"))
    return path


@pytest.mark.parametrize("kind", ["file", "dataset"])
def test_a_page_shows_what_is_in_the_data(kind: str, recorded: Path, converted: Path, tmp_path: Path) -> None:
    target = recorded if kind == "dataset" else converted
    made = make_preview(str(target), tmp_path / "page.html", PreviewConfig(num_steps=2, frameskip=3))
    page = Page(made.path)
    data = page.data
    assert data["episodes"]["length"] == list(EPISODE_LENGTHS)
    assert data["cameras"] == ["front", "top"]
    assert data["columns"]["action"]["names"] == [f"goal_{i}" for i in range(6)]
    for position, length in enumerate(EPISODE_LENGTHS):
        shown = data["shown"][str(position)]
        assert shown["steps"] == list(range(length))
        for camera, strip in enumerate(shown["strips"]):
            frames = [page.frames(strip, number, length) for number in range(length)]
            assert [read_code(frame) for frame in frames] == [(position, step) for step in range(length)]
            assert {read_camera(frame) for frame in frames} == {camera}
        for column in ("action", "state"):
            low, high = (np.array(data["columns"][column][limit]) for limit in ("min", "max"))
            expected = np.array([row_values(column, position, step, 6) for step in range(length)])
            np.testing.assert_allclose(unpacked(shown[column], low, high), expected, atol=1e-4)
        assert shown["done"] == [length - 1]
    assert [sum(counts) for counts in data["columns"]["state"]["histogram"]] == [sum(EPISODE_LENGTHS)] * 6
    assert {run["position"] for run in data["runs"]} <= {0, 1, 3, 4}  # 2 has five steps, a window six


def test_statistics_are_numpys(converted: Path, tmp_path: Path) -> None:
    data = Page(make_preview(str(converted), tmp_path / "page.html", PreviewConfig()).path).data
    every = np.concatenate(
        [[row_values("state", e, s, 6) for s in range(length)] for e, length in enumerate(EPISODE_LENGTHS)]
    ).astype(np.float64)
    for name in ("mean", "std", "min", "max"):
        np.testing.assert_allclose(data["columns"]["state"][name], getattr(every, name)(axis=0), rtol=1e-5)
    for dimension, counts in enumerate(data["columns"]["state"]["histogram"]):
        assert counts == np.histogram(every[:, dimension], bins=40)[0].tolist()


def test_untrusted_text_stays_text(tmp_path: Path) -> None:
    hostile(tmp_path / "file.h5")
    page = Page(make_preview(str(tmp_path / "file.h5"), tmp_path / "page.html", PreviewConfig()).path)
    tags = [tag for tag, _ in page.tags]
    assert tags.count("script") == 2 + len(set(page.texts) & {f"p{n}" for n in range(999)})
    assert "img" not in tags
    assert "b" not in tags
    assert EVIL not in page.html
    assert page.data["name"] == EVIL
    assert page.texts["title"] == f"{EVIL}: preview"
    assert {entry["code"] for entry in page.data["findings"]} == {EVIL, "frames_black", "tasks_missing"}


def test_commands_to_paste_are_quoted(recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lewm_data.quality.assess.judge.MIN_MOTION_SECONDS", 0.0)
    root = shutil.copytree(recorded, tmp_path / "mine; rm -rf $HOME")
    data = Page(make_preview(str(root), tmp_path / "raw.html", PreviewConfig(num_steps=1, frameskip=1)).path).data
    assert shlex.split(data["verdict"]["next"])[:4] == ["lewm-data", "convert", root.name, f"{root.name}-96.h5"]
    files.write(tmp_path / 'a"+evil().h5', (8,))
    data = Page(make_preview(str(tmp_path / 'a"+evil().h5'), tmp_path / "file.html", PreviewConfig()).path).data
    assert data["verdict"]["next"] == 'LeWMDataModule(h5_path="a\\"+evil().h5")'


def test_a_page_contains_no_address_and_forbids_connections(converted: Path, tmp_path: Path) -> None:
    page = Page(make_preview(str(converted), tmp_path / "page.html", PreviewConfig()).path)
    assert addresses(page.html) <= {
        "//www.w3.org/2000/svg",
        "http://www.w3.org/2000/svg",
    }  # SVG's namespace, which browsers never fetch
    [policy] = [a["content"] for tag, a in page.tags if tag == "meta" and "content" in a and a.get("http-equiv")]
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy
    assert str(tmp_path) not in page.html
    assert str(Path.home()) not in page.html


def test_a_page_says_which_pictures_it_leaves_out(tmp_path: Path) -> None:
    written = files.write(tmp_path / "file.h5", [10] * 39 + [60], height=48, width=64, cameras=("wrist",))
    config = PreviewConfig(max_episodes=5, num_steps=2, frameskip=2)
    data = Page(make_preview(str(written.path), tmp_path / "few.html", config).path).data
    assert len(data["shown"]) == 5
    assert "39" in data["shown"]  # the odd one
    assert data["episodes"]["lengthOdd"] == [0] * 39 + [1]
    chosen = PreviewConfig(episodes="3:5,9", num_steps=2, frameskip=2)
    data = Page(make_preview(str(written.path), tmp_path / "chosen.html", chosen).path).data
    assert list(data["shown"]) == ["3", "4", "9"]
    assert len(data["episodes"]["length"]) == 40
    recording = open_recording(str(written.path), PreviewConfig())
    preview = summarize(recording, PreviewConfig(), max_picture_bytes=20_000)
    (tmp_path / "small.html").write_text("".join(html.page(preview)))
    page = Page(tmp_path / "small.html")
    assert page.data["isCutShort"]
    assert sum(len(text) for name, text in page.texts.items() if name[1:].isdigit()) < 40_000
    assert len(page.data["shown"]) == 40  # curves are still there


def test_a_finding_comes_with_its_frame(recorded: Path, copy_of: Callable, tmp_path: Path) -> None:
    root = copy_of(recorded)
    spoil.value("action", 13, [np.nan] * 6, episode=3)(root)
    made = make_preview(str(root), tmp_path / "page.html", PreviewConfig(num_steps=1, frameskip=1))
    page = Page(made.path)
    [found] = [entry for entry in page.data["findings"] if entry["severity"] == "error"]
    assert (found["code"], found["position"], found["step"]) == ("values_not_finite", 3, 13)
    shown = page.data["shown"]["3"]
    frame = page.frames(shown["strips"][1], shown["steps"].index(13), len(shown["steps"]))
    assert read_code(frame) == (3, 13)
    assert page.data["verdict"]["level"] == "bad"
    assert (
        page.data["verdict"]["next"]
        == "lewm-data convert recorded recorded.h5 --camera front --dirty_episode_policy skip"
    )


def test_findings_of_decoding_are_added(
    recorded: Path, copy_of: Callable, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    [dirt] = [dirt for dirt in DECODED if dirt.code == "decode_error"][:1]
    root = copy_of(request.getfixturevalue(dirt.dataset))
    dirt.spoil(root)
    data = Page(make_preview(str(root), tmp_path / "page.html", PreviewConfig()).path).data
    found = [entry for entry in data["findings"] if entry["code"] == "decode_error"]
    assert {entry["episode"] for entry in found} == set(dirt.episodes)
    assert all(entry["handling"] == "refused" for entry in found)
    assert data["verdict"]["level"] == "bad"
    [position] = dirt.episodes
    assert any(strip["absent"] for strip in data["shown"][str(position)]["strips"])


QUICK = {"metadata_unreadable", "file_missing", "column_width", "location_null", "video_truncated", "rows_missing"}
"""Every run tries one example of each of these; the slow tests try all examples of all codes."""


def _one_way_each() -> list[Dirt]:
    return list({dirt.code: dirt for dirt in INSPECTED if dirt.code in QUICK}.values())


def check_any_dirt(dirt: Dirt, root: Path, page: Path) -> None:
    dirt.spoil(root)
    data = Page(make_preview(str(root), page, PreviewConfig(num_steps=1, frameskip=1)).path).data
    if dirt in INSPECTED and dirt.options is None:  # otherwise only other settings or other frames show it
        codes = {entry["code"] for entry in data["findings"]}
        # a preview takes every camera, so one without any file is absent where a conversion of it misses a file
        assert dirt.code in codes or (dirt.code, "camera_absent") == ("file_missing", *dirt.also & codes)
    for shown in data["shown"].values():
        assert all(len(strip["absent"]) <= len(shown["steps"]) for strip in shown["strips"])


@pytest.mark.parametrize("dirt", _one_way_each(), ids=str)
def test_a_damaged_dataset_has_a_page(
    dirt: Dirt, copy_of: Callable, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    check_any_dirt(dirt, copy_of(request.getfixturevalue(dirt.dataset)), tmp_path / "page.html")


@pytest.mark.slow
@pytest.mark.parametrize("dirt", [*INSPECTED, *DECODED], ids=str)
def test_every_kind_of_dirt_has_a_page(
    dirt: Dirt, copy_of: Callable, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if dirt.dataset == "recorded_slow":
        pytest.skip("its dataset is that of test_dirty")
    check_any_dirt(dirt, copy_of(request.getfixturevalue(dirt.dataset)), tmp_path / "page.html")


def test_a_contact_sheet_has_a_row_for_each_episode(converted: Path, tmp_path: Path) -> None:
    made = make_preview(str(converted), tmp_path / "sheet.png", PreviewConfig())
    with Image.open(made.path) as sheet:
        picture = np.asarray(sheet.convert("RGB"))
    assert picture.shape[1] == 1600
    width = (1600 - 64 - 170 - 11 * 4) // 12
    height = round(width / (128 / 96))
    seen = top = 0
    while top < len(picture) - height and seen < 5:
        is_next = _code(picture[top : top + height, 202 : 202 + width]) == (seen, 0)
        top += height if is_next else 1
        seen += is_next
    assert seen == 5


def _code(frame: np.ndarray) -> tuple[int, int] | None:
    try:
        return read_code(frame)
    except ValueError:
        return None


def test_an_output_is_complete_or_absent(converted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.html"
    page.write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        make_preview(str(converted), page, PreviewConfig())
    assert page.read_text() == "mine"

    def fails(preview: object) -> object:
        yield "half of it"
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(html, "page", fails)
        with pytest.raises(KeyboardInterrupt):
            make_preview(str(converted), page, PreviewConfig(overwrite=True))
    assert page.read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    make_preview(str(converted), page, PreviewConfig(overwrite=True))
    assert page.read_text().startswith("<!doctype html>")
    with pytest.raises(UsageError, match=r"a page \(.html\) or a contact sheet \(.png\)"):
        make_preview(str(converted), tmp_path / "page.pdf", PreviewConfig())


def test_wrong_lengths_in_the_metadata_break_no_page(recorded: Path, copy_of: Callable, tmp_path: Path) -> None:
    root = copy_of(recorded)
    spoil.meta("length", 3, 10**12)(root)
    data = Page(make_preview(str(root), tmp_path / "page.html", PreviewConfig(num_steps=1, frameskip=1)).path).data
    assert data["verdict"]["level"] == "bad"
    assert 3 not in {run["position"] for run in data["runs"]}
    assert make_preview(str(root), tmp_path / "page.png", PreviewConfig()).file_bytes > 1000


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    written = files.write(tmp_path / "file.h5", (30, 25), codec="zstd")
    files.damage(written.path, 0, byte=0)
    with pytest.raises(DamagedChunkError, match="episode 0, step 0"):
        make_preview(str(written.path), tmp_path / "page.html", PreviewConfig())
    assert not (tmp_path / "page.html").exists()


def test_settings_are_checked() -> None:
    for name in ("num_steps", "frameskip", "max_episodes"):
        with pytest.raises(UsageError, match=f"{name} is 0"):
            PreviewConfig(**{name: 0})
    with pytest.raises(UsageError, match="episodes is"):
        PreviewConfig(episodes="all")


def test_a_result_converts_to_json(converted: Path, tmp_path: Path) -> None:
    made = make_preview(str(converted), tmp_path / "page.html", PreviewConfig())
    answer = json.loads(json.dumps(made.to_dict()))
    assert (answer["num_episodes"], answer["num_episodes_shown"], answer["verdict"]) == (5, 5, "fair")
    assert answer["file_bytes"] == (tmp_path / "page.html").stat().st_size


def test_a_joint_that_only_shows_noise_is_flagged_and_does_not_hide_a_pause(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    steps = np.arange(600)
    arm = np.where(steps % 300 < 150, np.sin(steps / 10), np.sin(150 / 10))  # moves for 5 s, then pauses for 5 s
    state = np.stack([arm, 7 + 0.01 * rng.normal(size=600)], axis=1).astype(np.float32)
    written = files.write(tmp_path / "file.h5", (300, 300), height=8, width=8, extra={"state": state, "action": state})
    data = Page(make_preview(str(written.path), tmp_path / "page.html", PreviewConfig()).path).data
    assert data["columns"]["state"]["moves"] == [True, False]
    fps = data["fps"]
    assert all(share > 0.4 for share in data["episodes"]["still"]), (fps, data["episodes"]["still"])
    peaks = {*data["episodes"]["extremeDimension"], *data["episodes"]["jumpDimension"]}
    assert peaks <= {0, 2}  # the arm, in action or state


def test_the_judgment_can_be_left_out(converted: Path, tmp_path: Path) -> None:
    made = make_preview(str(converted), tmp_path / "page.html", PreviewConfig(assess=False))
    assert Page(made.path).data["judgment"] is None
    assert made.to_dict()["judgment"] is None
    judged = make_preview(str(converted), tmp_path / "judged.html", PreviewConfig())
    assert Page(judged.path).data["judgment"]["verdict"] == judged.to_dict()["judgment"] == "record_again"


def test_a_relative_folder_is_typed_as_it_was_given(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").symlink_to(recorded.parent)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lewm_data.quality.assess.judge.MIN_MOTION_SECONDS", 0.0)
    source = f"mine/{recorded.name}"
    data = Page(make_preview(source, tmp_path / "page.html", PreviewConfig(num_steps=1, frameskip=1)).path).data
    assert shlex.split(data["verdict"]["next"])[:3] == ["lewm-data", "convert", source]


def test_the_page_names_one_command_to_type_next(recorded: Path, tmp_path: Path) -> None:
    data = Page(make_preview(str(recorded), tmp_path / "page.html", PreviewConfig(num_steps=1, frameskip=1)).path).data
    steps = data["judgment"]["nextSteps"]
    assert data["verdict"]["next"] == (steps[0]["line"] if steps else "")


def test_a_dataset_whose_errors_can_be_left_out_is_converted_as_its_judgment_says(
    recorded: Path, copy_of: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = judgment(make_judgment(), total_episodes=4)
    monkeypatch.setattr(summary, "judge_recording", lambda *_: judged)
    root = copy_of(recorded)
    spoil.value("action", 13, [np.nan] * 6, episode=3)(root)
    config = PreviewConfig(num_steps=1, frameskip=1, max_episodes=1)
    data = Page(make_preview(str(root), tmp_path / "page.html", config).path).data
    assert data["verdict"]["level"] == "bad"
    assert data["verdict"]["next"] == judged["nextSteps"][0]["line"]
