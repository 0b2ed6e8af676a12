"""One question about a recording with its answer, as a page or a PNG draws it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Gauge:
    """One line of a card: a label, a value on the card's scale, and the value in words.

    Attributes:
        label: What was measured.
        text: The value in words.
        value: Its place on the card's scale; None if it is unknown.
        low: Lower end of its interval; None without one.
        high: Upper end.
    """

    label: str
    text: str
    value: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """One question.

    Attributes:
        question: The question.
        answer: The answer in a few words.
        codes: Codes of the findings that belong to it; without one of them, nothing is wrong.
        gauges: The numbers behind the answer.
        scale: The smallest and largest value that the gauges can show; None: there is nothing to draw.
        mark: The place on the scale that separates good from bad; None without one.
        note: How to read it.
    """

    question: str
    answer: str
    codes: tuple[str, ...]
    gauges: tuple[Gauge, ...] = ()
    scale: tuple[float, float] | None = None
    mark: float | None = None
    note: str = ""
