"""A contact sheet: film strips of some episodes in one picture, ready to paste into a message."""

from __future__ import annotations

import base64
import io
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from lewm_data.findings import count_of
from lewm_data.viewing.summary import Preview

MAX_EPISODES = 24
FRAMES = 12

_WIDTH, _MARGIN, _LABEL, _GAP = 1600, 32, 170, 4
_PAPER, _INK, _QUIET, _ABSENT = "#fbfbf9", "#1c2024", "#5d666f", "#dfe2e0"
_LEVELS = {"good": "#1b7a43", "fair": "#8a5a00", "bad": "#b3261e"}
_MAX_SIDE_RATIO = 2.5
"""Limit on a frame's width divided by its height; wider frames are squeezed."""


def contact_sheet(preview: Preview) -> bytes:
    """Draws a contact sheet.

    Args:
        preview: The preview; the sheet shows at most ``MAX_EPISODES`` of its episodes.

    Returns:
        A PNG file.
    """
    data = preview.data
    shown = list(data["shown"])[:MAX_EPISODES]
    rows = [_strips(preview, position) for position in shown]
    row_heights = [max(66, sum(strip.height + _GAP for strip in strips)) for strips in rows]
    top = _MARGIN + 108
    sheet = Image.new("RGB", (_WIDTH, top + sum(height + 14 for height in row_heights) + _MARGIN), _PAPER)
    draw = ImageDraw.Draw(sheet)
    lengths = data["episodes"]["length"]
    _text(draw, (_MARGIN, _MARGIN), data["name"], 34)
    counts = f"{count_of(len(lengths), 'episode')}, {count_of(sum(lengths), 'step')}"
    facts = f"{counts} at {data['fps']:g} fps, {', '.join(data['cameras'])}"
    _text(draw, (_MARGIN, _MARGIN + 44), facts, 18, _QUIET)
    _text(draw, (_MARGIN, _MARGIN + 70), data["verdict"]["sentence"], 18, _LEVELS[data["verdict"]["level"]])
    for position, strips, height in zip(shown, rows, row_heights, strict=True):
        place = int(position)
        draw.line((_MARGIN, top - 7, _WIDTH - _MARGIN, top - 7), _ABSENT)
        _text(draw, (_MARGIN, top), f"episode {data['episodes']['number'][place]}", 18)
        _text(draw, (_MARGIN, top + 23), f"{lengths[place] / data['fps']:.1f} s", 16, _QUIET)
        flaws = [found for found in data["findings"] if found["position"] == place]
        if flaws:
            worst = "bad" if any(found["severity"] == "error" for found in flaws) else "fair"
            _text(draw, (_MARGIN, top + 44), count_of(len(flaws), "finding"), 16, _LEVELS[worst])
        left = top
        for strip in strips:
            sheet.paste(strip, (_MARGIN + _LABEL, left))
            left += strip.height + _GAP
        top += height + 14
    if len(shown) < len(lengths):
        _text(draw, (_MARGIN, top + 8), f"{len(shown)} of {count_of(len(lengths), 'episode')}", 16, _QUIET)
    file = io.BytesIO()
    sheet.save(file, "PNG", optimize=True)
    return file.getvalue()


def _strips(preview: Preview, position: str) -> list[Image.Image]:
    """One strip per camera, as wide as the sheet allows."""
    detail = preview.data["shown"][position]
    return [_strip(preview, found, len(detail["steps"])) for found in detail["strips"] if found["picture"] is not None]


def _strip(preview: Preview, found: dict[str, Any], num_frames: int) -> Image.Image:
    picture = Image.open(io.BytesIO(base64.b64decode(preview.pictures[found["picture"]])))
    own_width = picture.width / num_frames
    width = (_WIDTH - 2 * _MARGIN - _LABEL - (FRAMES - 1) * _GAP) // FRAMES
    height = round(width / min(found["aspect"], _MAX_SIDE_RATIO))
    count = min(FRAMES, num_frames)
    strip = Image.new("RGB", (FRAMES * (width + _GAP) - _GAP, height), _PAPER)
    for place in range(count):
        number = round(place * (num_frames - 1) / max(1, count - 1))
        box = (round(number * own_width), 0, round((number + 1) * own_width), picture.height)
        frame = picture.convert("RGB").crop(box).resize((width, height), Image.Resampling.LANCZOS)
        if number in found["absent"]:
            frame.paste(_ABSENT, (0, 0, width, height))
        strip.paste(frame, (place * (width + _GAP), 0))
    return strip


def _text(draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, size: int, color: str = _INK) -> None:
    """Draws one line of text, cut off at the edge of the sheet."""
    font = ImageFont.load_default(size)
    line = " ".join(text.split())
    while line and draw.textlength(line, font) > _WIDTH - _MARGIN - place[0]:
        line = f"{line[: len(line) * 9 // 10]}..." if len(line) > 12 else ""
    draw.text(place, line, color, font)
