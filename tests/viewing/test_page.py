"""The page in a real browser: mouse, keyboard, screen reader, phone, and dark mode."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lewm_data.config import PreviewConfig
from lewm_data.loading.windows import WindowIndex
from lewm_data.viewing import summary
from lewm_data.viewing.judgment import judgment
from lewm_data.viewing.preview import make_preview
from tests.loading import files
from tests.quality import dirt as spoil
from tests.recording import read_camera, read_code, row_values
from tests.viewing.judgments import finding, make_judgment
from tests.viewing.pages import EVIL, coded, hostile

LENGTHS = (25, 28, 22, 27, 26, 9, 24, 23, 80, 25)
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True, "device_scale_factor": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pages")


@pytest.fixture(scope="module")
def good(folder: Path) -> Path:
    """Ten episodes of two cameras: 5 is too short for a window, 8 is oddly long."""
    coded(folder / "good.h5", LENGTHS)
    return make_preview(str(folder / "good.h5"), folder / "good.html", PreviewConfig()).path


@pytest.fixture(scope="module")
def evil(folder: Path) -> Path:
    """A file in which every text is an attack."""
    hostile(folder / "evil.h5")
    return make_preview(str(folder / "evil.h5"), folder / "evil.html", PreviewConfig()).path


def picture(element: Any) -> np.ndarray:
    """A screenshot of an element, (H, W, 3)."""
    element.scroll_into_view_if_needed()
    return np.asarray(Image.open(io.BytesIO(element.screenshot())).convert("RGB"))


def listed(page: Any) -> list[int]:
    return [int(text.split()[1]) for text in page.locator(".row .who b").all_text_contents()]


def test_the_list_filters_sorts_and_finds(good: Path, visit: Callable[..., Any]) -> None:
    page = visit(good)
    assert listed(page) == list(range(10))
    page.get_by_label("Sort").select_option("Shortest first")
    assert listed(page) == np.argsort(LENGTHS, kind="stable").tolist()
    page.get_by_label("Sort").select_option("Longest first")
    assert listed(page) == np.argsort([-length for length in LENGTHS], kind="stable").tolist()
    page.get_by_text("Too short for a window").click()
    assert listed(page) == [5]
    page.get_by_text("Stand out").click()
    assert 8 in listed(page)
    assert page.locator("#row-8 .badge.odd").all_text_contents() == ["long"]
    page.locator(".chips").get_by_text("All", exact=False).first.click()
    page.get_by_role("searchbox").fill("7")
    assert listed(page) == [7]
    assert page.get_by_role("status").text_content() == "1 of 10 episodes"
    page.get_by_role("searchbox").fill("no such task")
    assert listed(page) == []


def test_the_slider_shows_the_frame_and_the_values_of_its_step(good: Path, visit: Callable[..., Any]) -> None:
    page = visit(good)
    page.locator("#row-3").click()
    assert page.locator("#row-3").get_attribute("aria-expanded") == "true"
    slider = page.get_by_role("slider", name="Frame of episode 3")
    slider.focus()
    steps = np.linspace(0, LENGTHS[3] - 1, 24).round().astype(int)
    for number in (0, 1, 23):
        page.keyboard.press("End" if number == 23 else "ArrowRight") if number else None
        step = int(steps[number])
        boxes = page.locator("#detail-3 .large .frame")
        for camera, box in enumerate(boxes.all()):
            seen = picture(box)
            assert read_code(seen) == (3, step)
            assert read_camera(seen) == camera
        assert slider.get_attribute("aria-valuetext") == f"{step / 30:.1f}\u202fs, step {step} of 27"
        shown = page.locator("#detail-3 .plots figure").first.locator(".now span").first.text_content()
        assert float(shown) == pytest.approx(row_values("action", 3, step, 6)[0], abs=0.006)


def test_arrow_keys_move_and_enter_opens(good: Path, visit: Callable[..., Any]) -> None:
    page = visit(good)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the episodes"
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "search"
    page.keyboard.type("/4")  # typed, not caught
    assert page.get_by_role("searchbox").input_value() == "/4"
    page.locator("#search").fill("")
    page.locator("#row-0").focus()
    for key, row in (("ArrowDown", 1), ("ArrowDown", 2), ("ArrowUp", 1), ("End", 9), ("Home", 0), ("ArrowUp", 0)):
        page.keyboard.press(key)
        assert page.evaluate("document.activeElement.id") == f"row-{row}"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert page.locator("#detail-1").is_visible()
    page.keyboard.press("Space")
    assert not page.locator("#detail-1").is_visible()


def test_the_first_looks_open_their_episodes(good: Path, visit: Callable[..., Any]) -> None:
    page = visit(good)
    page.get_by_role("searchbox").fill("0")
    page.get_by_role("button", name="Longest").click()
    assert page.evaluate("document.activeElement.id") == "row-8"
    assert page.locator("#detail-8 .large .frame").first.is_visible()
    assert page.get_by_role("searchbox").input_value() == ""


def test_windows_follow_their_settings(good: Path, visit: Callable[..., Any]) -> None:
    page = visit(good)
    for num_steps, frameskip in ((4, 5), (3, 7), (6, 1), (20, 2)):
        page.get_by_label("num_steps").fill(str(num_steps))
        page.get_by_label("frameskip", exact=True).fill(str(frameskip))
        offsets = np.cumsum(LENGTHS) - LENGTHS
        index = WindowIndex.build(LENGTHS, offsets, num_steps=num_steps, frameskip=frameskip)
        assert page.locator("#num-windows").text_content() == f"{len(index):,}"
        rows = index.rows(np.arange(len(index)))
        seen = len(np.unique(rows[:, None] + np.arange(num_steps) * frameskip))
        assert (
            page.locator("#frames-seen")
            .locator("xpath=..")
            .text_content()
            .endswith(f"{sum(LENGTHS) - seen} never used")
        )
    page.get_by_label("num_steps").fill("3")
    page.get_by_label("frameskip", exact=True).fill("4")
    page.get_by_label("Example").select_option("episode 9")
    start = page.get_by_label("First step")
    start.focus()
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    first = int(start.get_attribute("aria-valuetext").split()[1])
    frames = page.locator(".window .frame").all()
    assert [read_code(picture(frame)) for frame in frames] == [(9, first + step) for step in (0, 4, 8)] * 2
    heat = page.locator(".heat").nth(1)
    titles = heat.locator("title").all_text_contents()
    assert len(titles) == 6 * 4
    for title, (dimension, step) in zip(titles, np.ndindex(6, 4), strict=True):
        assert title.startswith(f"goal_{dimension}, step {first + 4 + step}: ")
        expected = row_values("action", 9, first + 4 + step, 6)[dimension]
        assert float(title.split(": ")[1]) == pytest.approx(expected, abs=0.006)
    assert page.locator(".batch").text_content().count("(B, 3, 24)") == 1


def test_every_control_has_an_accessible_name(good: Path, evil: Path, visit: Callable[..., Any]) -> None:
    for path in (good, evil):
        page = visit(path)
        session = page.context.new_cdp_session(page)
        nodes = session.send("Accessibility.getFullAXTree")["nodes"]
        of_interest = {
            "button",
            "slider",
            "searchbox",
            "textbox",
            "combobox",
            "spinbutton",
            "radio",
            "link",
            "image",
            "img",
        }
        named: dict[str, int] = {}
        for node in nodes:
            role = node.get("role", {}).get("value")
            if node.get("ignored") or role not in of_interest:
                continue
            assert node.get("name", {}).get("value", "").strip(), node
            named[role] = named.get(role, 0) + 1
        assert named["button"] > 10
        assert named["radio"] == 5
        assert named["slider"] == 2
        headings = page.locator("h1, h2, h3").evaluate_all("all => all.map(h => Number(h.tagName[1]))")
        assert headings[0] == 1
        assert headings.count(1) == 1
        assert all(later - before <= 1 for before, later in zip(headings, headings[1:], strict=False))
        assert page.locator("html").get_attribute("lang") == "en"
        ids = page.locator("[id]").evaluate_all("all => all.map(e => e.id)")
        assert len(ids) == len(set(ids))


def test_untrusted_text_stays_text(evil: Path, visit: Callable[..., Any]) -> None:
    page = visit(evil)
    assert page.locator("h1").text_content() == EVIL
    page.locator("#row-3").click()
    assert page.locator("#row-3 .task").text_content() == EVIL
    assert EVIL in page.locator("#findings").text_content()
    assert page.locator("#detail-3 figcaption", has_text="hacked=1").count() > 0
    assert page.locator("#evil, #page script, img").count() == 0
    assert page.evaluate("window.hacked === undefined")


def test_the_browser_itself_forbids_every_connection(good: Path, browser: Any) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(good.absolute().as_uri())
    refused = page.evaluate(
        """async () => {
            const seen = [];
            document.addEventListener("securitypolicyviolation", (event) => seen.push(event.effectiveDirective));
            await fetch("http://127.0.0.1:9/").catch(() => {});
            const image = new Image();
            const failed = new Promise((done) => { image.onerror = done; });
            image.src = "http://127.0.0.1:9/x.png";
            await failed;
            const script = document.createElement("script");
            script.textContent = "window.hacked = 3";
            document.body.append(script);
            await new Promise((done) => setTimeout(done, 50));
            return [seen.sort(), window.hacked];
        }"""
    )
    context.close()
    assert refused[0] == ["connect-src", "img-src", "script-src-elem"]
    assert len(refused) == 2
    assert refused[1] is None


def test_a_finding_leads_to_its_frame(recorded: Path, copy_of: Callable, visit: Callable[..., Any]) -> None:
    root = copy_of(recorded)
    spoil.value("action", 13, [np.nan] * 6, episode=3)(root)
    made = make_preview(str(root), root.parent / "dirty.html", PreviewConfig(num_steps=2, frameskip=2))
    page = visit(made.path)
    assert "Do not train on it as it is: 1 error in episode 3" in page.locator("#verdict").text_content()
    group = page.locator(".group.error")
    assert [read_code(picture(frame)) for frame in group.locator(".frame").all()] == [(3, 13), (3, 13)]
    group.get_by_role("button", name="episode 3, step 13").click()
    assert page.evaluate("document.activeElement.id") == "row-3"
    assert read_code(picture(page.locator("#detail-3 .large .frame").first)) == (3, 13)
    assert "step 13 of 21" in page.locator("#detail-3 output").text_content()
    assert page.locator("#detail-3 line.flaw.error").count() == 12  # in every plot: six actions, six states
    assert page.locator("#row-3 .frame.marked").count() == 2
    page.get_by_text("With findings").click()
    assert listed(page) == [3]


@pytest.mark.parametrize("options", [PHONE, {"color_scheme": "dark"}], ids=str)
def test_nothing_is_cut_off_on_a_phone_or_in_the_dark(
    options: dict[str, Any], good: Path, evil: Path, visit: Callable[..., Any]
) -> None:
    for path in (good, evil):
        page = visit(path, **options)
        width = page.evaluate("innerWidth")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for box in page.locator("h1, h2, button, input:not([type=radio]), select, .chart, .small").all():
            place = box.bounding_box()
            if place is not None and not box.evaluate("e => Boolean(e.closest('.scroller'))"):
                assert place["x"] >= 0
                assert place["x"] + place["width"] <= width + 1
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 26)"
        assert dark == (options.get("color_scheme") == "dark")


def test_many_episodes_are_listed_a_page_at_a_time(folder: Path, visit: Callable[..., Any]) -> None:
    written = files.write(folder / "many.h5", [4] * 400 + [40] * 3, height=8, width=8, codec="none")
    config = PreviewConfig(max_episodes=10, num_steps=1, frameskip=2)
    page = visit(make_preview(str(written.path), folder / "many.html", config).path)
    assert len(listed(page)) == 25
    page.get_by_role("button", name="Show 25 more of 378").click()
    assert listed(page) == list(range(50))
    assert page.evaluate("document.activeElement.id") == "row-25"
    assert "pictures and curves for 10 of 403 episodes" in page.locator("#episodes").text_content()
    page.locator("#row-26").click()
    assert "--episodes 26" in page.locator("#detail-26").text_content()
    page.get_by_role("button", name="Longest").click()
    assert page.evaluate("document.activeElement.id") == "row-400"


def test_an_unreadable_dataset_lists_its_findings(recorded: Path, copy_of: Callable, visit: Callable) -> None:
    root = copy_of(recorded)
    (root / "meta" / "episodes" / "chunk-000" / "file-000.parquet").write_bytes(b"not Parquet")
    page = visit(make_preview(str(root), root.parent / "broken.html", PreviewConfig()).path)
    assert "metadata_unreadable" in page.locator("#findings").text_content()
    assert page.locator("#verdict").get_attribute("class") == "verdict bad"


def test_the_judgment_comes_right_after_the_findings(good: Path, visit: Callable[..., Any]) -> None:
    page = visit(good)
    sections = page.locator("main > section").evaluate_all("all => all.map(e => e.id)")
    assert sections.index("learn") == sections.index("findings") + 1
    questions = page.locator("#learn .card h4").all_text_contents()
    assert len(questions) == 8
    assert "Is a camera out of step with the joints?" in questions
    page.locator("header a.verdict").click()
    assert page.url.endswith("#learn")


def test_a_joint_that_only_shows_noise_gets_a_flat_curve(folder: Path, visit: Callable[..., Any]) -> None:
    steps = np.arange(120)
    noise = 7 + 0.01 * np.random.default_rng(0).normal(size=120)
    state = np.stack([np.sin(steps / 10), noise], axis=1).astype(np.float32)
    written = files.write(folder / "noisy.h5", (60, 60), height=8, width=8, extra={"state": state})
    page = visit(make_preview(str(written.path), folder / "noisy.html", PreviewConfig()).path)
    curves = page.locator("#detail-0 figure:has(path.state)")
    heights = [box.bounding_box()["height"] for box in curves.locator("path.state").all()]
    assert curves.locator(".badge").all_text_contents() == ["does not move"]
    assert max(heights) > 40
    assert min(heights) < 10


def test_the_split_follows_the_window(folder: Path, visit: Callable[..., Any]) -> None:
    written = files.write(folder / "split.h5", (30, 31, 25, 33), height=8, width=8)
    page = visit(make_preview(str(written.path), folder / "split.html", PreviewConfig(val_episodes="1,2")).path)
    rows = page.locator("#split tbody tr")
    assert rows.all_inner_texts() == ["train\t2\t25\t0, 3", "val\t2\t18\t1-2", "test\t0\t0\tnone"]
    page.get_by_label("num_steps").fill("6")
    assert rows.all_inner_texts() == ["train\t2\t5\t0, 3", "val\t1\t2\t1-2", "test\t0\t0\tnone"]


def test_commands_break_between_words_and_are_copied_whole(
    folder: Path, visit: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = "lewm-data convert recording recording-96.h5 --image_size 96 --dirty_episode_policy keep --shift top=+1"
    judged = judgment(make_judgment(findings=(finding("camera_lag", "top"),)), total_episodes=4)
    monkeypatch.setattr(
        summary, "judge_recording", lambda *_: judged | {"nextSteps": [{"line": line, "purpose": "convert it"}]}
    )
    coded(folder / "commands.h5", (25, 28))
    page = visit(make_preview(str(folder / "commands.h5"), folder / "commands.html", PreviewConfig()).path, **PHONE)
    command = page.locator("#learn .commands code")
    assert command.text_content() == line
    assert page.evaluate("document.documentElement.scrollWidth") <= page.evaluate("innerWidth")
    heights = command.locator(".word").evaluate_all("all => all.map(e => e.getBoundingClientRect().height)")
    assert len(heights) == 5
    assert len(set(heights)) == 1  # each on one line
