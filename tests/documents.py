"""What the pages of the documentation say: their code blocks, inline code and links.

A block may be preceded by a mark, which readers do not see: ``<!-- run -->`` (a test runs it, in a folder with a small
dataset ``recording``) or ``<!-- file: NAME -->`` (a test writes it there under this name).
"""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = tuple(
    path
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
    if path.exists()
)
RUN = "run"

_BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>[^>]+?) -->\n)?^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$", re.M | re.S
)
_INLINE = re.compile(r"`([^`\n]+(?:\n[^`\n]+)?)`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of code.

    Attributes:
        place: Page and line, for messages.
        language: What stands after the fence; empty for commands.
        mark: Of the comment before it; empty where there is none.
        text: Its lines.
    """

    place: str
    language: str
    mark: str
    text: str

    def commands(self) -> list[list[str]]:
        """The commands as words, where it holds some."""
        if self.language not in ("", "bash", "sh", "console"):
            return []
        lines = self.text.replace("\\\n", " ").splitlines()
        found = [shlex.split(line.removeprefix("$ "), comments=True) for line in lines]
        return [[words[0].removeprefix(".venv/bin/"), *words[1:]] for words in found if words]


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text()
    return [
        Block(
            f"{page.relative_to(ROOT)}:{text.count(chr(10), 0, match.start('indent')) + 1}",
            match["language"],
            match["mark"] or "",
            textwrap.dedent(match["text"]),
        )
        for match in _BLOCK.finditer(text)
    ]


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return _BLOCK.sub("", page.read_text())


def inline_code(page: Path) -> Iterator[str]:
    """Every span of inline code."""
    return (" ".join(match[1].split()) for match in _INLINE.finditer(prose(page)))


def relative_links(page: Path) -> list[str]:
    """Targets of links and pictures that lie in the repository, without anchors."""
    targets = (match[1] for match in _LINK.finditer(prose(page)))
    return [target.split("#")[0] for target in targets if not re.match(r"[a-z]+:|#", target)]
