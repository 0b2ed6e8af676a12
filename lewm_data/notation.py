"""How people write episodes, image sizes, parts and counts, in settings and in messages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Literal

from lewm_data.errors import UsageError

MAX_IMAGE_SIDE = 16384
"""Longest side of a frame, in pixels. Larger values are treated as an attempt to exhaust memory."""

NATIVE = "native"
"""The image size that keeps the source's own."""

AUTO = "auto"
"""A shift that ``assess`` measures."""

MAX_SHIFT = 1000
"""Largest shift, in frames. Larger ones are typing errors."""


def check_count(name: str, value: object, *, least: int = 1) -> None:
    """Refuses anything but a whole number that is large enough.

    Args:
        name: Name of the setting, for the message.
        value: Its value.
        least: Smallest allowed number.

    Raises:
        UsageError: It is not a whole number, or it is too small; says what to write instead.
    """
    if isinstance(value, Integral) and not isinstance(value, bool):
        check_least(name, int(value), least)
        return
    remedy = ""
    if isinstance(value, (list, tuple)):
        remedy = " Give one number. For several, make a dataset or a data module for each."
    elif isinstance(value, (str, float)) and re.fullmatch(r"\d{1,18}(\.0+)?", str(value)):
        remedy = f" Write {str(value).partition('.')[0]}."
    raise UsageError(f"{name} is {value!r}, but must be one whole number, {least} or more.{remedy}")


def check_least(name: str, value: float, least: float) -> None:
    """Refuses NaN, and numbers that are too small.

    Raises:
        UsageError: Names the setting, its value and the smallest allowed one.
    """
    if not value >= least:
        raise UsageError(f"{name} is {value}, but must be {least} or more.")


def check_choice(name: str, value: object, choices: Sequence[object]) -> None:
    """Refuses anything but one of some choices.

    Raises:
        UsageError: It is none of them; names them.
    """
    if value not in choices:
        raise UsageError(f"{name} is {value!r}, but must be one of {', '.join(map(str, choices))}.")


def parse_image_size(image_size: int | str) -> tuple[int, int] | None:
    """Reads an image size.

    Args:
        image_size: ``224``, ``"480x640"`` (height x width) or ``"native"``.

    Returns:
        (height, width) in pixels, or None for the source's own size.

    Raises:
        UsageError: It is none of these, or a side is not within [1, 16384].
    """
    if image_size == NATIVE:
        return None
    match = re.fullmatch(r"(\d{1,6})(?:x(\d{1,6}))?", str(image_size))
    sides = [int(side) for side in match.groups() if side] if match else []
    if not sides or not all(1 <= side <= MAX_IMAGE_SIDE for side in sides):
        raise UsageError(
            f"image_size is {image_size!r}, but must be a number of pixels such as 224, HEIGHTxWIDTH such as "
            f"480x640 (each side 1 to {MAX_IMAGE_SIDE}), or native."
        )
    return sides[0], sides[-1]


def parse_part(text: str) -> tuple[int, int]:
    """Reads a part of a whole, such as ``0/8``.

    Args:
        text: ``i/n``.

    Returns:
        i and n, with 0 <= i < n.

    Raises:
        UsageError: The text has another form.
    """
    match = re.fullmatch(r"\s*(\d{1,9})\s*/\s*(\d{1,9})\s*", text)
    if match is None or not int(match[1]) < int(match[2]):
        raise UsageError(
            f"shard is {text!r}, but must be i/n with i from 0 to n-1. Example: 0/8 is the first of eight parts."
        )
    return int(match[1]), int(match[2])


def parse_shift(text: str) -> dict[str | None, int | Literal["auto"]]:
    """Reads the shifts of cameras, such as ``front=+2,wrist=-1``.

    Args:
        text: ``CAMERA=FRAMES`` or ``CAMERA=auto``, with commas between; ``auto`` alone stands for all other cameras.

    Returns:
        Camera, as it was given, to its shift in frames; None to ``auto`` for all other cameras.

    Raises:
        UsageError: A part has another form, a camera is given twice, or a shift is above 1000 frames.

    Example:
        >>> parse_shift("auto,wrist=-1")
        {None: 'auto', 'wrist': -1}
    """
    shifts: dict[str | None, int | Literal["auto"]] = {}
    for part in map(str.strip, text.split(",")):
        camera, equals, amount = (word.strip() for word in part.rpartition("="))
        if amount == AUTO and bool(camera) == bool(equals):
            value: int | Literal["auto"] = "auto"
        elif camera and re.fullmatch(r"[+-]?\d{1,4}", amount) and abs(int(amount)) <= MAX_SHIFT:
            value = int(amount)
        else:
            raise UsageError(
                f"shift is {text!r}: {part!r} is not CAMERA=FRAMES, CAMERA=auto or auto (frames from -{MAX_SHIFT} to "
                f"{MAX_SHIFT}). Example: front=+2 pairs each row with the frame two later."
            )
        if (camera or None) in shifts:
            raise UsageError(f"shift is {text!r}: {camera or AUTO!r} is given twice. Leave one of them out.")
        shifts[camera or None] = value
    return shifts


def parse_episodes(text: str) -> tuple[range, ...]:
    """Reads a selection of episodes such as ``0:50,60,70:80``.

    Args:
        text: Numbers and half-open ``start:stop`` ranges, separated by commas.

    Returns:
        One range per part, in the order given.

    Raises:
        UsageError: A part is neither a number nor a range, or a range is empty.
    """
    ranges = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,18})\s*(?::\s*(\d{1,18})\s*)?", part)
        if match is None:
            raise UsageError(
                f"episodes is {text!r}: {part.strip()!r} is neither a number nor a range start:stop. "
                "Example: 0:50,60 takes episodes 0 to 49 and 60."
            )
        start = int(match[1])
        stop = int(match[2]) if match[2] else start + 1
        if stop <= start:
            raise UsageError(
                f"episodes is {text!r}: the range {part.strip()} is empty, because it stops before it begins."
            )
        ranges.append(range(start, stop))
    return tuple(ranges)


def episode_ranges(episodes: Iterable[int], most: int = 6) -> str:
    """Writes episode numbers as ranges, both ends included: ``0-2, 5``.

    Args:
        episodes: Ascending, each once.
        most: Ranges to write out. The rest are counted: ``and 12 more``.
    """
    ranges: list[tuple[int, int]] = []
    for episode in episodes:
        if ranges and episode == ranges[-1][1] + 1:
            ranges[-1] = ranges[-1][0], episode
        else:
            ranges.append((episode, episode))
    shown = [str(first) if first == last else f"{first}-{last}" for first, last in ranges[:most]]
    rest = sum(last - first + 1 for first, last in ranges[most:])
    return ", ".join(shown) + (f" and {rest:,} more" if rest else "")


def output_name(source: str, suffix: str = ".h5") -> str:
    """Names an output after its source: ``robots/so101_pick`` becomes ``so101_pick.h5``."""
    name = source.rstrip("/").split("/")[-1]
    return f"{name if name.strip('.') else 'dataset'}{suffix}"


def count_of(number: int, what: str) -> str:
    """Writes a number of things: ``1 error``, ``2,000 errors``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """Formats a duration, such as ``2 min 5 s``."""
    rounded = max(1, round(seconds))
    if rounded < 60:
        return f"{rounded} s"
    if rounded < 3600:
        return f"{rounded // 60} min {rounded % 60} s"
    return f"{rounded // 3600} h {rounded % 3600 // 60} min"
