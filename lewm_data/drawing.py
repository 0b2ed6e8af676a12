"""Colors and lines of text for pictures that Pillow draws."""

from __future__ import annotations

from bisect import bisect
from typing import Any

from PIL import ImageDraw, ImageFont

PAPER, CARD, INK, QUIET, LINE, ACCENT = "#fbfbf9", "#ffffff", "#1c2024", "#5d666f", "#dfe2e0", "#0b6e75"
LEVELS = {"good": "#1b7a43", "fair": "#8a5a00", "bad": "#b3261e"}
SOFT = {"good": "#e3f3e8", "fair": "#fdf0d5", "bad": "#fbe4e1"}

_MAX_LETTERS = 400


def text(
    draw: ImageDraw.ImageDraw, place: tuple[float, float], words: str, size: int, color: str = INK, *, right: float
) -> float:
    """Draws one line of text, cut off at the right edge.

    Args:
        draw: The picture.
        place: Left and top of the line.
        words: The text.
        size: Of the font, in pixels.
        color: Of the text.
        right: Where the line must end.

    Returns:
        Where the line ends.
    """
    font = ImageFont.load_default(size)
    line = cut(draw, words, font, right - place[0])
    draw.text(place, line, color, font)
    return place[0] + draw.textlength(line, font)


def cut(draw: ImageDraw.ImageDraw, words: str, font: Any, width: float) -> str:
    """One line of text that fits into a width, with an ellipsis where it was cut."""
    line = " ".join(words.split())[:_MAX_LETTERS]
    if draw.textlength(line, font) <= width:
        return line
    kept = bisect(range(len(line)), width, key=lambda end: draw.textlength(f"{line[: end + 1]}...", font))
    return f"{line[:kept]}..."


def wrapped(draw: ImageDraw.ImageDraw, words: str, font: Any, width: float) -> list[str]:
    """Breaks a text into lines that fit into a width; a longer word is cut."""
    lines: list[str] = []
    for word in words.split():
        if lines and draw.textlength(f"{lines[-1]} {word}", font) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(cut(draw, word, font, width))
    return lines
