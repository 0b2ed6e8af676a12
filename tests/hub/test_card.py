"""The card of a pushed file: source, license, findings, and how to load the file."""

from __future__ import annotations

import ast
import dataclasses
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from lewm_data.errors import printable
from lewm_data.findings import Finding
from lewm_data.format.header import FileHeader, SourceRecord
from lewm_data.format.statistics import ColumnStatistics
from lewm_data.hub.card import CardFacts, dataset_card, read_facts
from lewm_data.hub.push import push, source_licenses
from tests.format.test_header import FINDING, HEADER
from tests.hub import StandIn
from tests.loading.files import write

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # huggingface_hub's own

FACTS = CardFacts(
    name="so101.h5",
    file_bytes=3_200_000,
    header=HEADER,
    num_episodes=4,
    num_steps=11_939,
    columns={
        "pixels": ("uint8", (11_939, 96, 128, 3)),
        "action": ("float32", (11_939, 2)),
        "done": ("bool", (11_939,)),
    },
)


def card(header: FileHeader = HEADER, **licenses: tuple[str, ...]) -> str:
    stated = {record.repo_id: licenses.get(record.repo_id.replace("/", "_"), ()) for record in header.sources}
    return dataset_card(dataclasses.replace(FACTS, header=header), repo_id="me/so101", licenses=stated)


def metadata(text: str) -> dict:
    return yaml.safe_load(text.split("---\n")[1])


def test_the_metadata_is_what_the_hub_reads() -> None:
    found = metadata(card(a_b=("mit",), c_d=("mit",)))
    assert found["license"] == "mit"
    assert found["task_categories"] == ["robotics"]
    assert found["size_categories"] == ["10K<n<100K"]
    assert found["source_datasets"] == ["c/d"]  # the other one is a local folder
    assert found["viewer"] is False


@pytest.mark.parametrize(
    ("licenses", "expected"),
    [
        ({}, "unknown"),
        ({"a_b": ("mit",)}, "unknown"),  # the other source states none
        ({"a_b": ("mit",), "c_d": ("apache-2.0",)}, ["apache-2.0", "mit"]),
    ],
)
def test_a_license_is_never_guessed(licenses: dict[str, tuple[str, ...]], expected: object) -> None:
    text = card(**licenses)
    assert metadata(text)["license"] == expected
    assert ("An unknown license does not permit anyone to use this data" in text) == (expected == "unknown")


def test_the_card_shows_every_attribute() -> None:
    text = card(c_d=("cc-by-4.0",))
    assert "**4 episodes, 11,939 steps, 6.6 minutes at 29.97 fps**, cameras top, front at 96x128, 3 MB" in text
    assert "| a/b | local folder | v3.0 | 0-1, 7 | unknown |" in text
    assert "| [c/d](https://huggingface.co/datasets/c/d) | `f00` | v2.1 | 3 | cc-by-4.0 |" in text
    assert "| `pixels` | uint8 | (11939, 96, 128, 3) | RGB frames of `observation.images.top` |" in text
    assert "| `done` | bool | (11939,) |  |" in text
    assert "| `action` | y | 0.2 | 2 | 0 | 4 |" in text
    assert "| error | `rows_missing` | 1 | episode 4 | dropped | expected 9 rows, found 8 |" in text
    assert "Dropped episodes: 4." in text
    assert "- push — schieben" in text
    for value in ("`crop`", "`zstd`, lossless", "`next.done`", "policy `skip`", "`abc`", "after `import hdf5plugin`"):
        assert value in text


def test_the_card_of_a_lossy_file_says_so() -> None:
    text = card(header=dataclasses.replace(HEADER, compression="jpeg", lossy_quality=80))
    assert "| codec of the frames | `jpeg` of quality 80, lossy |" in text
    assert "**The frames are lossy** (jpeg of quality 80, lossy): not the pixels of the recording." in text
    assert "after `lewm_data.format.jpeg_filter.register()`" in text
    assert "root attribute `reading` says how" in text
    assert "lossy" not in card()


def test_thousands_of_findings_dimensions_and_tasks_stay_a_short_card() -> None:
    wide = tuple(float(i) for i in range(5000))
    header = dataclasses.replace(
        HEADER,
        findings=tuple(dataclasses.replace(FINDING, episode=2 * i) for i in range(5000)),
        dropped_episodes=tuple(range(0, 10_000, 2)),
        statistics={"state": ColumnStatistics(count=9, mean=wide, std=wide, min=wide, max=wide)},
        tasks={i: f"task {i}" for i in range(5000)},
    )
    text = card(header)
    assert len(text.splitlines()) < 200
    assert "| error | `rows_missing` | 5,000 | episodes 0, 2, 4, 6, 8, 10 and 4,994 more | dropped |" in text
    assert "and 4,936 more" in text
    assert "- and 4,980 more" in text


def test_untrusted_text_stays_text() -> None:
    nasty = "a | b\n\n# Title\n<script>alert(1)</script> [link](x) ![i](y) `c`"
    header = dataclasses.replace(
        HEADER,
        tasks={0: nasty},
        findings=(dataclasses.replace(FINDING, found=nasty),),
        feature_names={"action": (nasty, "y")},
    )
    text = card(header)
    assert "\n# Title" not in text
    assert "<script>" not in text.replace("\\<", "")
    rows = [line for line in text.splitlines() if line.startswith("| error")]
    assert len(re.findall(r"(?<!\\)\|", rows[0])) == 7


HEADINGS = ["demo", "Load it", "Source and license", "Columns", "How it was made", "Statistics", "Findings", "Tasks"]
PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
HOSTILE = (
    *("|", "`", "``", "\\", "<b>", "</b>", "<script>x</script>", "![i](http://e.x)", "[l](javascript:x)", "&lt;", "~~"),
    *("\n", "\n\n", "# ", "- ", "1. ", "2) ", "> ", "---", "===", "```\n", "$", "*", "_", "\t", "\x1b[31m", "\u202e"),
    *("a", " "),
)


def body(text: str) -> str:
    """What follows the Hub's metadata, which ends at the second line that is only ``---``."""
    return re.split(r"^---$", text, maxsplit=2, flags=re.MULTILINE)[2]


def cells(text: str) -> list[list[str]]:
    """The rows of all tables of a card as a reader sees them."""
    rows: list[list[str]] = []
    for token in PARSER.parse(body(text)):
        if token.type == "tr_open":
            rows.append([])
        if token.type == "inline" and rows and token.level >= 4:
            rows[-1].append("".join(child.content for child in token.children or ()))
    return rows


@settings(deadline=None, max_examples=60)
@given(st.lists(st.sampled_from(HOSTILE), max_size=12).map("".join))
def test_hostile_text_is_shown_as_it_is(nasty: str) -> None:
    shown = " ".join(printable(nasty).split())
    source = SourceRecord(repo_id=nasty, revision=nasty, codebase_version=nasty, episodes=(0,))
    header = dataclasses.replace(
        HEADER,
        sources=(source,),
        cameras={"pixels": nasty},
        resize=nasty,
        compression=nasty,
        done_source=nasty,
        dirty_episode_policy=nasty,
        fingerprint=nasty,
        lewm_data_version=nasty,
        tasks={0: nasty},
        findings=(dataclasses.replace(FINDING, code=nasty, severity=nasty, handling=nasty, found=nasty),),
        feature_names={"action": (nasty, "y")},
    )
    facts = dataclasses.replace(FACTS, header=header, columns={nasty: ("uint8", (1,)), "action": ("float32", (1, 2))})
    text = dataset_card(facts, repo_id="me/demo", licenses={nasty: (nasty,)})
    tokens = PARSER.parse(body(text))
    kinds = {child.type for token in tokens for child in token.children or ()} | {token.type for token in tokens}
    assert kinds.isdisjoint({"html_block", "html_inline", "image", "link_open", "s_open", "blockquote_open", "hr"})
    headings = [tokens[place + 1].content for place, token in enumerate(tokens) if token.type == "heading_open"]
    assert headings == HEADINGS
    rows = cells(text)
    assert rows[1] == [shown, shown, shown, "0", shown or "unknown"]
    assert ["frame size", f"96x128, resized by {shown}"] in [
        [cell.rstrip() for cell in row] for row in rows
    ] or not shown
    [finding] = [row for row in rows if len(row) == 6 and row[2] == "1"]
    assert finding == [shown, shown, "1", "episode 4", shown, f"expected 9 rows, found {shown}".rstrip()]


def test_a_file_without_findings_says_so() -> None:
    text = card(dataclasses.replace(HEADER, findings=(), dropped_episodes=(), statistics={}, tasks={}))
    assert "None: the recording passed every check of lewm_data." in text
    assert "## Statistics" not in text
    assert "## Tasks" not in text


def test_warnings_alone_drop_nothing() -> None:
    warning = Finding(code="span_gap", severity="warning", expected="x", found="y", remedy="z")
    text = card(dataclasses.replace(HEADER, findings=(warning,), dropped_episodes=()))
    assert "| warning | `span_gap` | 1 | the whole dataset | recorded |" in text
    assert "No episodes were dropped." in text


@pytest.mark.filterwarnings("ignore")  # what stable-worldmodel imports is not about this file
def test_the_code_on_the_card_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("stable_worldmodel")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STABLEWM_HOME", str(tmp_path / "swm"))
    file = write(tmp_path / "demo.h5", (400, 300), height=8, width=8).path
    text = dataset_card(read_facts(file), repo_id="me/demo", licenses={"me/test": ()})
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 2
    names: dict = {}
    for block in blocks:
        ast.parse(block)
        exec(block, names)
    names["dm"].setup()
    assert len(names["dataset"]) == (400 - 19) + (300 - 19)
    assert "lewm-data pull me/demo demo.h5\n" in text


def test_the_license_is_the_one_on_the_source_s_own_card(converted: Path, online: StandIn) -> None:
    records = [
        SourceRecord(repo_id=repo_id, revision=revision, codebase_version="v3.0", episodes=(0,))
        for repo_id, revision in (("robot/dataset", "a" * 40), ("me/local", None), ("robot/unknown", "b" * 40))
    ]
    assert source_licenses(records) == {"robot/dataset": (), "me/local": (), "robot/unknown": ()}
    online.card_data = {"license": "apache-2.0"}
    assert source_licenses(records)["robot/dataset"] == ("apache-2.0",)
    online.card_data = {"license": ["mit", "unknown"]}
    assert source_licenses(records)["robot/dataset"] == ("mit",)
    assert not any("me/local" in request for request in online.requests)


def test_a_local_source_is_pushed_with_an_unknown_license(converted: Path, online: StandIn) -> None:
    push(converted, "me/demo")
    assert metadata(online.content("me/demo", "README.md").decode())["license"] == "unknown"
