"""What the documentation says is so: commands exist, code runs, links lead somewhere, generated pages are current."""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import inspect
import io
import os
import re
import runpy
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
import yaml

from lewm_data.cli import commands as cli
from lewm_data.cli.parser import parse
from lewm_data.config import ConvertConfig
from lewm_data.conversion.pipeline import convert
from lewm_data.format.codecs import CODECS
from tests.documents import PAGES, ROOT, RUN, Block, blocks, inline_code, relative_links
from tests.recording import read_code, record_v3, row_values

# Lightning's own command line still calls jsonargparse by an older name.
pytestmark = [
    pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning"),
    pytest.mark.usefixtures("own_signal_handlers"),
]

DOCS = ROOT / "docs"
LENGTHS = (30, 33, 28, 41)
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording whose episodes are long enough for windows."""
    root = tmp_path_factory.mktemp("docs") / "recording"
    return record_v3(root, episode_lengths=LENGTHS, cameras=("front", "top"))


@pytest.fixture
def folder(recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where blocks run: an empty folder but for ``recording``."""
    (tmp_path / "recording").symlink_to(recording)
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ------------------------------------------------------------------------------------------------------------
# Commands
# ------------------------------------------------------------------------------------------------------------


def status(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Runs ``lewm-data`` in this process; returns its status and what it said."""
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    captured = capsys.readouterr()
    return int(ended.value.code or 0), captured.out + captured.err


def problem_of(words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str | None:
    """What is wrong with a command, asked of its own parser; None if nothing is, or if it is not ours."""
    program, *arguments = words
    if program == "lewm-data":
        return _parsing(lambda: parse(arguments), capsys)
    if program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
        return next((f"no target {word}" for word in arguments if "=" not in word and word not in targets), None)
    if program == "pip":
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        named = re.findall(r"lewm_data\[([\w,]+)\]", " ".join(arguments))
        missing = {extra for group in named for extra in group.split(",")} - set(project["optional-dependencies"])
        return f"no extra {missing}" if missing else None
    if program in ("python", "torchrun") and "train.py" in arguments:
        import train

        given = arguments[arguments.index("train.py") + 1 :]
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr(sys, "argv", ["train.py", *given, "--print_config"])
        return _parsing(train.make_cli, capsys)
    if program == "python" and arguments[0] == "-m":
        return None if importlib.util.find_spec(arguments[1]) else f"no module {arguments[1]}"
    if program == "python" and arguments[0].endswith(".py"):
        return None if (ROOT / arguments[0]).is_file() else f"no script {arguments[0]}"
    return None


def _parsing(parse: Any, capsys: pytest.CaptureFixture[str]) -> str | None:
    """What a parser says against its arguments."""
    try:
        parse()
    except SystemExit as ended:
        return capsys.readouterr().err if ended.code else None
    return None


@each_page
def test_every_command_is_one(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = blocks(page)
    write_files(found, tmp_path)
    problems = []
    for block in found:
        for words in block.commands():
            monkeypatch.chdir(tmp_path)
            problem = problem_of(words, monkeypatch, capsys)
            if problem:
                problems.append(f"{block.place}: {' '.join(words)}: {problem}")
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize(
    "wrong",
    [
        "lewm-data inspect",
        "lewm-data inspect recording --camra front",
        "lewm-data improve recording",
        "lewm-data convert recording out.h5 --micro_batch many",
        "python train.py --data.frameskp 5",
        "python train.py --config configs/none.yaml",
        "python benchmarks/none.py",
        "python -m nowhere",
        "make believe",
        "pip install 'lewm_data[nothing]'",
    ],
)
def test_a_wrong_command_would_be_found(
    wrong: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    [words] = Block("here", "", "", wrong).commands()
    assert problem_of(words, monkeypatch, capsys)


@cache
def flags(command: str) -> frozenset[str]:
    """All flags of a command of ``lewm-data``; none if there is no such command."""
    shown = io.StringIO()
    with (
        pytest.raises(SystemExit) as ended,
        contextlib.redirect_stdout(shown),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        parse([command, "--help"])
    return frozenset() if ended.value.code else frozenset(re.findall(r"--[\w.]+", shown.getvalue()))


@each_page
def test_commands_in_the_text_exist_and_have_those_flags(page: Path) -> None:
    for span in inline_code(page):
        words = span.split()
        if words[0] != "lewm-data" or words[1:2] == ["--version"] or len(words) < 2:
            continue
        assert flags(words[1]), f"{page.name}: there is no {span}"
        unknown = set(re.findall(r"--[\w.]+", span)) - flags(words[1])
        assert not unknown, f"{page.name}: {span} has no {unknown}"


@pytest.mark.slow
def test_flags_in_the_text_exist() -> None:
    """Flags that stand alone, such as ``--data.cache none``: some command of ours has them."""
    shown = subprocess.run([sys.executable, "train.py", "--help"], capture_output=True, text=True, cwd=ROOT, check=True)
    commands = re.findall(r"add_subcommand\(\s*\"(\w+)\"", (ROOT / "lewm_data" / "cli" / "parser.py").read_text())
    known = frozenset(re.findall(r"--[\w.]+", shown.stdout)).union(*map(flags, commands))

    def exists(
        flag: str,
    ) -> bool:  # a setting of a class, such as a logger's, is listed by the help of that class alone
        return flag in known or f"{flag.rpartition('.')[0]}.help" in known

    unknown = {
        f"{page.name}: {span}"
        for page in PAGES
        for span in inline_code(page)
        if span.startswith("--") and not all(map(exists, re.findall(r"--[\w.]+", span)))
    }
    assert not unknown


# ------------------------------------------------------------------------------------------------------------
# Running
# ------------------------------------------------------------------------------------------------------------


def write_files(found: list[Block], folder: Path) -> None:
    for block in found:
        if block.mark.startswith("file: "):
            (folder / block.mark.removeprefix("file: ")).write_text(block.text)


RUNNABLE = tuple(page for page in PAGES if any(block.mark == RUN for block in blocks(page)))


@pytest.mark.parametrize("page", RUNNABLE, ids=lambda path: path.name)
def test_what_is_marked_runs_in_order(page: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = blocks(page)
    write_files(found, folder)
    marked = [block for block in found if block.mark == RUN]
    converts = any("so101.h5" in words and "convert" in words for block in marked for words in block.commands())
    if not converts and not any("lewm_data.convert(" in block.text for block in marked):
        convert("recording", "so101.h5", ConvertConfig(camera="front"))
    for block in marked:
        if block.language == "python":
            run_python(block)
        for words in block.commands():
            assert words[0] == "lewm-data", f"{block.place}: only lewm-data runs here"
            code, said = status(words[1:], capsys)
            assert code == 0, f"{block.place}: {' '.join(words)}: status {code}: {said}"


def run_python(block: Block) -> dict[str, Any]:
    """Runs a block and stops its data modules; returns its names."""
    from lewm_data import LeWMDataModule

    names: dict[str, Any] = {"__name__": "documentation"}
    try:
        exec(compile(block.text, block.place, "exec"), names)
    finally:
        for value in names.values():
            if isinstance(value, LeWMDataModule):
                value.teardown()
    return names


@each_page
def test_python_compiles_and_names_what_there_is(page: Path) -> None:
    for block in blocks(page):
        if block.language == "python":
            tree = ast.parse(block.text, block.place)
            ours = _our_names(tree, block.place)
            for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
                if isinstance(call.func, ast.Name) and call.func.id in ours:
                    taken = inspect.signature(ours[call.func.id]).parameters
                    unknown = {keyword.arg for keyword in call.keywords if keyword.arg} - set(taken)
                    assert not unknown, f"{block.place}: {call.func.id} takes no {unknown}"


def _our_names(tree: ast.Module, place: str) -> dict[str, Any]:
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "lewm_data":
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                assert hasattr(module, alias.name), f"{place}: {node.module} has no {alias.name}"
                names[alias.asname or alias.name] = getattr(module, alias.name)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "lewm_data":
                    assert importlib.util.find_spec(alias.name), f"{place}: no module {alias.name}"
    return names


# ------------------------------------------------------------------------------------------------------------
# The format's page
# ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", ["lzf", "blosc2"])
def test_the_documented_reader_reads_what_was_recorded(folder: Path, compression: Any) -> None:
    convert("recording", "file.h5", ConvertConfig(camera="front", compression=compression))
    [block] = [block for block in blocks(DOCS / "format.md") if block.language == "python"]
    reader = run_python(block)["Reader"]("file.h5")
    episode, start = 1, 12
    window = reader.window(episode, start, num_steps=3, frameskip=7)
    assert [read_code(frame) for frame in window["pixels"]] == [(episode, start + step) for step in (0, 7, 14)]
    actions = [row_values("action", episode, start + step, 6) for step in range(21)]
    np.testing.assert_array_equal(window["action"], np.reshape(actions, (3, 42)))
    np.testing.assert_array_equal(
        window["state"], [row_values("state", episode, start + step, 6) for step in (0, 7, 14)]
    )
    np.testing.assert_array_equal(window["done"], [False, False, True])
    with pytest.raises(IndexError):
        reader.window(episode, start + 1, num_steps=3, frameskip=7)
    reader.file.close()


def test_the_format_page_names_every_attribute_dataset_and_filter(folder: Path) -> None:
    convert("recording", "file.h5", ConvertConfig(camera="front", cameras="all"))
    page = (DOCS / "format.md").read_text()
    with h5py.File("file.h5") as file:
        for name in (*file.attrs, *(name for name in file if not name.startswith("pixels_"))):
            assert f"`{name}`" in page, name
    for name, codec in CODECS.items():
        assert f"| `{name}` | {codec.filter_id or '(no filter)'} |" in page


# ------------------------------------------------------------------------------------------------------------
# Pages
# ------------------------------------------------------------------------------------------------------------


@each_page
def test_links_lead_to_files(page: Path) -> None:
    missing = [target for target in relative_links(page) if not (page.parent / target).exists()]
    assert not missing, f"{page.name} links to {missing}"


@each_page
def test_files_in_the_text_exist(page: Path) -> None:
    paths = [
        span for span in inline_code(page) if re.fullmatch(r"(lewm_data|tests|configs|benchmarks|docs)/[\w./]*\w", span)
    ]
    missing = [path for path in paths if not (ROOT / path).exists()]
    assert not missing, f"{page.name} speaks of {missing}"


def test_troubleshooting_is_what_the_catalog_says() -> None:
    made = SimpleNamespace(**runpy.run_path(str(DOCS / "make_troubleshooting.py")))
    assert made.PAGE.read_text() == made.page(), "run python docs/make_troubleshooting.py"


def test_numbers_are_those_of_the_results() -> None:
    report = pytest.importorskip("benchmarks.report")
    filled = report.all_blocks()
    for page in DOCS.glob("*.md"):
        written = page.read_text()
        assert written == report.fill(written, filled, results="../benchmarks/results"), page.name


def test_every_page_is_in_the_navigation() -> None:
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    named = {page for entry in settings["nav"] for page in entry.values()}
    assert named == {page.name for page in DOCS.glob("*.md")}, "mend nav in mkdocs.yml"


@pytest.mark.slow
def test_the_site_builds_strictly_and_asks_no_network(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) >= len(list(DOCS.glob("*.md")))
    for page in pages:
        fetched = re.findall(
            r"<(?:script|img|iframe)[^>]*\ssrc=[\"']?(?:https?:)?//|<link[^>]*href=[\"']?(?:https?:)?//",
            page.read_text(),
        )
        assert not fetched, f"{page.name} fetches {fetched}"
    assert "LeWMDataModule" in (tmp_path / "site" / "api.html").read_text()
    assert not list((tmp_path / "site").rglob("*.py"))
