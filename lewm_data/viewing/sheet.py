"""A contact sheet: film strips of some episodes in one picture, ready to paste into a message."""

from __future__ import annotations

import base64
import io
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from lewm_data.drawing import INK, LEVELS, LINE, PAPER, QUIET, cut, text, wrapped
from lewm_data.notation import count_of
from lewm_data.viewing.summary import Preview

MAX_EPISODES = 24
FRAMES = 12

_WIDTH, _MARGIN, _LABEL, _GAP = 1600, 32, 170, 4
_RIGHT = _WIDTH - _MARGIN
_HEADER, _TIMES, _ROW_GAP, _MIN_ROW = 108, 18, 14, 66
_MAX_SIDE_RATIO = 2.5
"""Limit on a frame's width divided by its height; wider frames are squeezed."""

_FRAME_WIDTH = (_WIDTH - 2 * _MARGIN - _LABEL - (FRAMES - 1) * _GAP) // FRAMES
_MAX_TASK_LINES = 3


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
    heights = [max(_MIN_ROW, _TIMES + sum(strip.height + _GAP for strip in strips)) for strips in rows]
    top = _MARGIN + _HEADER
    sheet = Image.new("RGB", (_WIDTH, top + sum(height + _ROW_GAP for height in heights) + _MARGIN), PAPER)
    draw = ImageDraw.Draw(sheet)
    _draw_header(draw, data)
    for position, strips, height in zip(shown, rows, heights, strict=True):
        draw.line((_MARGIN, top - 7, _RIGHT, top - 7), LINE)
        _draw_label(draw, top, data, int(position), height)
        _draw_times(draw, top, data, position)
        left = top + _TIMES
        for strip in strips:
            sheet.paste(strip, (_MARGIN + _LABEL, left))
            left += strip.height + _GAP
        top += height + _ROW_GAP
    lengths = data["episodes"]["length"]
    if len(shown) < len(lengths):
        text(draw, (_MARGIN, top + 8), f"{len(shown)} of {count_of(len(lengths), 'episode')}", 16, QUIET, right=_RIGHT)
    file = io.BytesIO()
    sheet.save(file, "PNG", optimize=True)
    return file.getvalue()


def _draw_header(draw: ImageDraw.ImageDraw, data: dict[str, Any]) -> None:
    lengths, cameras = data["episodes"]["length"], data["cameras"]
    text(draw, (_MARGIN, _MARGIN), data["name"], 34, right=_RIGHT)
    counts = f"{count_of(len(lengths), 'episode')}, {count_of(sum(lengths), 'step')} at {data['fps']:g} fps"
    facts = f"{counts}, {count_of(len(cameras), 'camera')}: {', '.join(cameras)}" if cameras else counts
    text(draw, (_MARGIN, _MARGIN + 44), facts, 18, QUIET, right=_RIGHT)
    verdict = data["verdict"]
    text(draw, (_MARGIN, _MARGIN + 70), verdict["sentence"], 18, LEVELS[verdict["level"]], right=_RIGHT)


def _draw_label(draw: ImageDraw.ImageDraw, top: int, data: dict[str, Any], place: int, height: int) -> None:
    """Draws an episode's number, duration, findings and task to the left of its strips."""
    right = _MARGIN + _LABEL - 12
    episodes = data["episodes"]
    text(draw, (_MARGIN, top), f"episode {episodes['number'][place]}", 18, right=right)
    text(draw, (_MARGIN, top + 23), f"{episodes['length'][place] / data['fps']:.1f} s", 16, QUIET, right=right)
    line = top + 44
    flaws = [found for found in data["findings"] if found["position"] == place]
    if flaws:
        worst = "bad" if any(found["severity"] == "error" for found in flaws) else "fair"
        text(draw, (_MARGIN, line), count_of(len(flaws), "finding"), 16, LEVELS[worst], right=right)
        line += 20
    task = data["tasks"].get(str(episodes["task"][place]), "")
    font = ImageFont.load_default(14)
    for words in wrapped(draw, task, font, right - _MARGIN)[:_MAX_TASK_LINES]:
        if line + 18 <= top + height:
            draw.text((_MARGIN, line), words, QUIET, font)
            line += 18


def _draw_times(draw: ImageDraw.ImageDraw, top: int, data: dict[str, Any], position: str) -> None:
    """Draws the time of each frame above the strips."""
    steps = data["shown"][position]["steps"]
    for place, number in enumerate(_frame_numbers(len(steps))):
        left = _MARGIN + _LABEL + place * (_FRAME_WIDTH + _GAP)
        text(draw, (left, top), f"{steps[number] / data['fps']:.1f} s", 13, QUIET, right=_RIGHT)


def _strips(preview: Preview, position: str) -> list[Image.Image]:
    """One strip per camera, as wide as the sheet allows, with the camera's name."""
    detail, cameras = preview.data["shown"][position], preview.data["cameras"]
    strips = []
    for camera, found in zip(cameras, detail["strips"], strict=True):
        if found["picture"] is not None:
            strip = _strip(preview, found, len(detail["steps"]))
            _draw_camera(strip, camera)
            strips.append(strip)
    return strips


def _strip(preview: Preview, found: dict[str, Any], num_frames: int) -> Image.Image:
    picture = Image.open(io.BytesIO(base64.b64decode(preview.pictures[found["picture"]])))
    own_width = picture.width / num_frames
    height = round(_FRAME_WIDTH / min(found["aspect"], _MAX_SIDE_RATIO))
    strip = Image.new("RGB", (FRAMES * (_FRAME_WIDTH + _GAP) - _GAP, height), PAPER)
    for place, number in enumerate(_frame_numbers(num_frames)):
        box = (round(number * own_width), 0, round((number + 1) * own_width), picture.height)
        frame = picture.convert("RGB").crop(box).resize((_FRAME_WIDTH, height), Image.Resampling.LANCZOS)
        if number in found["absent"]:
            frame.paste(LINE, (0, 0, _FRAME_WIDTH, height))
        strip.paste(frame, (place * (_FRAME_WIDTH + _GAP), 0))
    return strip


def _draw_camera(strip: Image.Image, camera: str) -> None:
    """Draws a camera's name into the lower left corner of its first frame."""
    draw, font = ImageDraw.Draw(strip), ImageFont.load_default(13)
    name = cut(draw, camera, font, _FRAME_WIDTH - 12)
    width = draw.textlength(name, font)
    draw.rectangle((0, strip.height - 19, width + 9, strip.height), INK)
    draw.text((4, strip.height - 18), name, PAPER, font)


def _frame_numbers(num_frames: int) -> list[int]:
    """Which frames of an episode's strip the sheet shows."""
    count = min(FRAMES, num_frames)
    return [round(place * (num_frames - 1) / max(1, count - 1)) for place in range(count)]
