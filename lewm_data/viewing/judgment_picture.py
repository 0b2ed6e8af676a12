"""What ``assess`` found as one PNG: the verdict, what to do, what to type, and a card for each question."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from lewm_data.conversion.output import output_place
from lewm_data.drawing import ACCENT, CARD, INK, LEVELS, LINE, PAPER, QUIET, SOFT, text, wrapped
from lewm_data.format.writer import replace_durably
from lewm_data.notation import count_of
from lewm_data.quality.assess.assessment import Assessment
from lewm_data.viewing.card import Card, Gauge
from lewm_data.viewing.judgment import LEVELS as LEVEL_OF
from lewm_data.viewing.judgment import cards, commands_title, findings_title, is_flawed

_WIDTH, _MARGIN, _GAP, _PADDING = 1400, 36, 18, 18
_MAX_HEIGHT = 8000
_COLUMN = (_WIDTH - 2 * _MARGIN - _GAP) // 2
_LABEL, _SCALE, _ROW = 130, 170, 26
_MAX_FINDINGS = 8


def write_judgment(assessment: Assessment, path: Path, *, overwrite: bool = False) -> None:
    """Writes the picture of a judgment; it appears whole or not at all.

    Args:
        assessment: The judgment.
        path: PNG to write.
        overwrite: Replace an existing file.

    Raises:
        OutputError: The file exists, or cannot be written.
    """
    with output_place(path, overwrite=overwrite):
        temporary = path.with_name(path.name + ".tmp")
        try:
            temporary.write_bytes(judgment_picture(assessment))
            replace_durably(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def judgment_picture(assessment: Assessment) -> bytes:
    """Draws a judgment.

    Args:
        assessment: The judgment.

    Returns:
        A PNG file.
    """
    picture = Image.new("RGB", (_WIDTH, _MAX_HEIGHT), PAPER)
    draw = ImageDraw.Draw(picture)
    top = _draw_header(draw, assessment)
    top = _draw_findings(draw, top, assessment)
    top = _draw_commands(draw, top, assessment)
    codes = {found.code for found in assessment.findings}
    tops = [top, top]
    for card in cards(assessment):  # each into the shorter column
        column = tops.index(min(tops))
        left = _MARGIN + column * (_COLUMN + _GAP)
        tops[column] = _draw_card(draw, left, tops[column], card, is_flawed=is_flawed(card, codes)) + _GAP
    file = io.BytesIO()
    picture.crop((0, 0, _WIDTH, min(_MAX_HEIGHT, round(max(tops)) + _MARGIN - _GAP))).save(file, "PNG", optimize=True)
    return file.getvalue()


def _draw_header(draw: ImageDraw.ImageDraw, assessment: Assessment) -> float:
    right = _WIDTH - _MARGIN
    level = LEVEL_OF[assessment.verdict]
    text(draw, (_MARGIN, _MARGIN), "Will a world model learn from it?", 20, QUIET, right=right)
    text(draw, (_MARGIN, _MARGIN + 28), Path(assessment.source).name or assessment.source, 36, right=right)
    counts = f"{count_of(assessment.num_episodes, 'episode')}, {count_of(assessment.num_steps, 'step')}"
    text(draw, (_MARGIN, _MARGIN + 76), f"{counts} at {assessment.fps:g} fps", 18, QUIET, right=right)
    top = _MARGIN + 112
    words = assessment.sentence
    width = draw.textlength(words, ImageFont.load_default(22))
    draw.rounded_rectangle((_MARGIN, top, min(right, _MARGIN + width + 40), top + 44), 22, SOFT[level])
    text(draw, (_MARGIN + 20, top + 9), words, 22, LEVELS[level], right=right - 20)
    return top + 44 + _GAP


def _draw_findings(draw: ImageDraw.ImageDraw, top: float, assessment: Assessment) -> float:
    if not assessment.findings:
        return top
    text(draw, (_MARGIN, top), findings_title(assessment), 24, right=_WIDTH - _MARGIN)
    top += 38
    shown = assessment.findings[:_MAX_FINDINGS]
    for number, found in enumerate(shown, 1):
        about = f"{found.camera}: " if found.camera else ""
        text(draw, (_MARGIN, top), f"{number}.", 18, QUIET, right=_WIDTH)
        what = f"{about}{found.found}; expected {found.expected} ({found.code})."
        for words, color in ((what, INK), (found.remedy, QUIET)):
            font = ImageFont.load_default(18)
            for line in wrapped(draw, words, font, _WIDTH - 2 * _MARGIN - 30):
                draw.text((_MARGIN + 30, top), line, color, font)
                top += 25
        top += 8
    if len(assessment.findings) > len(shown):
        more = count_of(len(assessment.findings) - len(shown), "more finding")
        text(draw, (_MARGIN + 30, top), f"and {more}", 18, QUIET, right=_WIDTH)
        top += 30
    return top + _GAP / 2


def _draw_commands(draw: ImageDraw.ImageDraw, top: float, assessment: Assessment) -> float:
    if not assessment.next_steps:
        return top
    text(draw, (_MARGIN, top), commands_title(assessment), 24, right=_WIDTH - _MARGIN)
    top += 38
    left, right, font = _MARGIN + 14, _WIDTH - _MARGIN - 14, ImageFont.load_default(18)
    for step in assessment.next_steps:
        lines = wrapped(draw, step.line, font, right - left)
        height = 38 + 24 * len(lines)
        draw.rounded_rectangle((_MARGIN, top, _WIDTH - _MARGIN, top + height), 8, CARD, LINE)
        text(draw, (left, top + 7), f"# {step.purpose}", 15, QUIET, right=right)
        for number, line in enumerate(lines):
            draw.text((left, top + 29 + 24 * number), line, ACCENT, font)
        top += height + 8
    return top + _GAP / 2


def _draw_card(draw: ImageDraw.ImageDraw, left: float, top: float, card: Card, *, is_flawed: bool) -> float:
    """Draws one question; returns its lower edge."""
    inner, right = left + _PADDING, left + _COLUMN - _PADDING
    font = ImageFont.load_default(14)
    notes = wrapped(draw, card.note, font, right - inner)
    height = 2 * _PADDING + 58 + _ROW * len(card.gauges) + (6 + 20 * len(notes) if notes else 0)
    draw.rounded_rectangle((left, top, left + _COLUMN, top + height), 12, CARD, LINE)
    if is_flawed:
        draw.rounded_rectangle((left, top, left + 6, top + height), 3, LEVELS["fair"])
    text(draw, (inner, top + _PADDING), card.question, 16, QUIET, right=right)
    text(draw, (inner, top + _PADDING + 22), card.answer, 22, LEVELS["fair"] if is_flawed else INK, right=right)
    line = top + _PADDING + 58
    for gauge in card.gauges:
        _draw_gauge(draw, inner, line, right, card, gauge)
        line += _ROW
    for words in notes:
        draw.text((inner, line + 6), words, QUIET, font)
        line += 20
    return top + height


def _draw_gauge(draw: ImageDraw.ImageDraw, left: float, top: float, right: float, card: Card, gauge: Gauge) -> None:
    text(draw, (left, top), gauge.label, 15, right=left + _LABEL - 8)
    begin = left + _LABEL
    if card.scale is not None:
        end, middle = begin + _SCALE, top + 9
        low, high = card.scale

        def place(value: float) -> float:
            return begin + (end - begin) * min(1.0, max(0.0, (value - low) / (high - low)))

        draw.line((begin, middle, end, middle), LINE, 5)
        if gauge.value is not None:
            if gauge.low is not None and gauge.high is not None:
                draw.line((place(gauge.low), middle, place(gauge.high), middle), ACCENT, 5)
            else:
                draw.line((place(max(0.0, low)), middle, place(gauge.value), middle), ACCENT, 5)
            x = place(gauge.value)
            draw.ellipse((x - 6, middle - 6, x + 6, middle + 6), ACCENT)
        if card.mark is not None:
            draw.line((place(card.mark), middle - 8, place(card.mark), middle + 8), INK, 1)
        begin = end + 16
    text(draw, (begin, top), gauge.text, 15, QUIET, right=right)
