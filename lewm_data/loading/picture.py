"""A window as a picture: its frames and its goal above, its actions below."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from lewm_data.drawing import ACCENT, LINE, PAPER, QUIET, text
from lewm_data.errors import UsageError
from lewm_data.format.schema import ACTION, GOAL_PREFIX, GOAL_STEPS, camera_name
from lewm_data.loading.goals import draws_from_torch
from lewm_data.paths import local_path

if TYPE_CHECKING:
    from lewm_data.loading.batches import Batch, BatchDataset
    from lewm_data.loading.dataset import WindowDataset

_TASK_INDEX = "task_index"
_MARGIN, _LABEL, _GAP, _GOAL_GAP = 24, 124, 6, 30
_TITLE, _LINE, _ROW = 36, 22, 34
_MIN_WIDTH, _MAX_WIDTH, _MIN_SIDE, _MAX_SIDE = 640, 1400, 96, 224
_MAX_FRAMES, _MAX_CURVES = 12, 12
_SHARPNESS = 4


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that a notebook displays by itself.

    Attributes:
        png: The picture as a PNG file.
        title: What it shows.
    """

    png: bytes
    title: str

    def save(self, path: str | Path) -> None:
        """Writes the PNG file, and makes its folder.

        Raises:
            UsageError: The path is an address, or its suffix is not ``.png``.
        """
        file = local_path(path, "path")
        if file.suffix.lower() != ".png":
            raise UsageError(f"path is {path}, but the picture is a PNG file. Write {file.with_suffix('.png')}.")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(self.png)

    def __repr__(self) -> str:
        return f"Picture({self.title})"

    def _repr_png_(self) -> bytes:
        return self.png


@dataclass(frozen=True, slots=True, eq=False)
class _Curve:
    """The values of one dimension of the action at each step, and their range in the whole file."""

    name: str
    values: NDArray[np.float64]
    low: float
    high: float


@dataclass(frozen=True, slots=True, eq=False)
class _Content:
    """What a picture shows.

    Attributes:
        title: Its first line.
        facts: Further lines.
        cameras: Names of the cameras.
        columns: A label, and one frame of each camera, (3, H, W): the window's frames, then its goal.
        has_goal: Whether the last column is the goal.
        curves: The dimensions of the action.
    """

    title: str
    facts: list[str]
    cameras: list[str]
    columns: list[tuple[str, list[Tensor]]]
    has_goal: bool
    curves: list[_Curve]


def show_window(
    dataset: BatchDataset,
    window: int,
    path: str | Path | None,
    change: Callable[[Batch, NDArray[np.uint64]], Batch] = lambda batch, draws: batch,
) -> Picture:
    """Reads and draws a window.

    Args:
        dataset: Where it comes from.
        window: Its number; -1 is the last window.
        path: Where to write the picture as a PNG file. None writes nothing.
        change: Changes the batch before it is drawn, by a random number for each window.

    Returns:
        The picture.

    Raises:
        IndexError: There is no such window.
    """
    part, number = dataset.part_of(dataset.number(window))
    draws = draws_from_torch(1)
    picture = window_picture(part, number, change(part.read([number], draws=draws), draws))
    if path is not None:
        picture.save(path)
    return picture


def window_picture(dataset: WindowDataset, window: int, batch: Batch) -> Picture:
    """Draws a window.

    Args:
        dataset: Where it comes from.
        window: Its number in the dataset.
        batch: The window as a batch of one on the CPU; frames uint8, or floating point in [0, 1].

    Returns:
        The picture.
    """
    content = _content(dataset, window, batch)
    png = io.BytesIO()
    _draw(content).save(png, "PNG", optimize=True)
    return Picture(png.getvalue(), f"{content.facts[-1]}: {content.title}")


def _content(dataset: WindowDataset, window: int, batch: Batch) -> _Content:
    header, skip = dataset.store.header, dataset.frameskip
    [episode], [start] = (values.tolist() for values in dataset.windows.locate([window]))
    stop = start + dataset.windows.span
    title = f"episode {episode}, steps {start} to {stop - 1}"
    if header is not None:
        title += f" ({start / header.fps:.1f} to {stop / header.fps:.1f} s)"
    facts = [f"{Path(str(dataset.store.path)).name}, window {window:,} of {len(dataset):,}"]
    task = _task(dataset, int(dataset.windows.rows([window])[0]))
    cameras = [name for name in dataset.store.frame_columns if name in batch]
    shown = np.linspace(0, dataset.num_steps - 1, min(dataset.num_steps, _MAX_FRAMES)).round().astype(int).tolist()
    columns = [(f"step {start + number * skip}", [batch[name][0, number] for name in cameras]) for number in shown]
    if GOAL_STEPS in batch:
        goal = start + (dataset.num_steps - 1) * skip + int(batch[GOAL_STEPS][0])
        columns.append((f"goal: step {goal}", [batch[GOAL_PREFIX + name][0, 0] for name in cameras]))
    return _Content(
        title=title,
        facts=[f"task: {task}", *facts] if task else facts,
        cameras=[camera_name(header.cameras.get(name, name)) if header is not None else name for name in cameras],
        columns=columns,
        has_goal=GOAL_STEPS in batch,
        curves=_curves(dataset, batch[ACTION][0]) if ACTION in batch else [],
    )


def _task(dataset: WindowDataset, row: int) -> str:
    """The task of a row; empty if the file does not say it."""
    header = dataset.store.header
    tasks = header.tasks if header is not None else {}
    if _TASK_INDEX in dataset.store.columns:
        return tasks.get(int(dataset.store.read_column(_TASK_INDEX, row, row + 1).reshape(-1)[0]), "")
    return next(iter(tasks.values())) if len(tasks) == 1 else ""


def _curves(dataset: WindowDataset, action: Tensor) -> list[_Curve]:
    values = action.reshape(dataset.windows.span, -1).double().numpy()
    header, stored = dataset.store.header, dataset.values(ACTION).reshape(dataset.store.num_rows, -1)
    names = header.feature_names.get(ACTION, ()) if header is not None else ()
    finite = np.where(np.isfinite(stored), stored, np.nan)
    curves = []
    for number in range(min(values.shape[1], _MAX_CURVES)):
        known = finite[:, number][~np.isnan(finite[:, number])]
        low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)
        name = names[number] if number < len(names) else f"action {number}"
        curves.append(_Curve(name, values[:, number], low, high))
    return curves


def _draw(content: _Content) -> Image.Image:
    room = _MAX_WIDTH - 2 * _MARGIN - _LABEL - _GOAL_GAP
    side = max(_MIN_SIDE, min(_MAX_SIDE, room // len(content.columns) - _GAP))
    lefts = [_MARGIN + _LABEL + number * (side + _GAP) for number in range(len(content.columns))]
    end = lefts[-1 - content.has_goal] + side  # of the window
    if content.has_goal:
        lefts[-1] += _GOAL_GAP
    heights = [max(1, round(side * frame.shape[-2] / frame.shape[-1])) for frame in content.columns[0][1]]
    frames_top = _MARGIN + _TITLE + _LINE * (len(content.facts) + 1) + _GAP
    curves_top = frames_top + sum(heights) + _GAP * (len(heights) + 1) + (_LINE if content.curves else 0)
    width = max(_MIN_WIDTH, lefts[-1] + side + _MARGIN)
    picture = Image.new("RGB", (width, curves_top + _ROW * len(content.curves) + _MARGIN), PAPER)
    draw = ImageDraw.Draw(picture)
    right = picture.width - _MARGIN
    text(draw, (_MARGIN, _MARGIN), content.title, 24, right=right)
    for number, fact in enumerate(content.facts):
        text(draw, (_MARGIN, _MARGIN + _TITLE + _LINE * number), fact, 16, QUIET, right=right)
    for left, (label, frames) in zip(lefts, content.columns, strict=True):
        text(draw, (left, frames_top - 20), label, 14, QUIET, right=left + side)
        top = frames_top
        for frame, height in zip(frames, heights, strict=True):
            picture.paste(_image(frame).resize((side, height), Image.Resampling.LANCZOS), (left, top))
            top += height + _GAP
    top = frames_top
    for camera, height in zip(content.cameras, heights, strict=True):
        text(draw, (_MARGIN, top), camera, 14, QUIET, right=_MARGIN + _LABEL - 10)
        top += height + _GAP
    if content.curves:
        text(draw, (lefts[0], curves_top - 20), "action, over its range in the file", 14, QUIET, right=right)
    for number, curve in enumerate(content.curves):
        top = curves_top + _ROW * number
        text(draw, (_MARGIN, top + 7), curve.name, 14, right=_MARGIN + _LABEL - 10)
        picture.paste(_drawn(curve, end - lefts[0]), (lefts[0], top))
    return picture


def _image(frame: Tensor) -> Image.Image:
    """A frame (3, H, W) as an image."""
    pixels = frame.permute(1, 2, 0)
    if pixels.dtype != torch.uint8:
        pixels = (pixels.float() * 255).round().clamp(0, 255).to(torch.uint8)
    return Image.fromarray(np.ascontiguousarray(pixels.numpy()))


def _drawn(curve: _Curve, width: int) -> Image.Image:
    """A curve in a row of the picture, drawn large and scaled down, so that its edges are smooth."""
    wide, high = width * _SHARPNESS, (_ROW - 8) * _SHARPNESS
    row = Image.new("RGB", (wide, high), PAPER)
    draw = ImageDraw.Draw(row)
    draw.rectangle((0, 0, wide - 1, high - 1), outline=LINE, width=_SHARPNESS)
    span = curve.high - curve.low or 1.0
    heights = (high - 1 - 3 * _SHARPNESS) - (curve.values - curve.low) / span * (high - 1 - 6 * _SHARPNESS)
    steps = (np.arange(len(heights)) + 0.5) / len(heights) * wide
    points = [(x, y) for x, y in zip(steps.tolist(), heights.tolist(), strict=True) if np.isfinite(y)]
    if len(points) > 1:
        draw.line(points, ACCENT, 2 * _SHARPNESS, joint="curve")
    for x, y in points if len(points) <= 60 else ():
        draw.ellipse((x - 8, y - 8, x + 8, y + 8), ACCENT)
    return row.resize((width, _ROW - 8), Image.Resampling.LANCZOS)
