"""Charts: what stands on them can be read."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from benchmarks.charts import Line, Panel, draw_panels
from benchmarks.harness import Spread

pyplot = pytest.importorskip("matplotlib.pyplot")


def test_names_of_points_that_lie_close_cover_neither_each_other_nor_a_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = {"blosc2": (86, 6188), "zstd": (89, 6173), "lzf": (105, 6439), "lz4": (112, 21265), "none": (150, 97682)}
    line = Line(
        label="decoding",
        x=[x for x, _ in places.values()],
        y=[Spread.of([y]) for _, y in places.values()],
        joined=False,
        names=list(places),
    )
    kept: list[object] = []
    monkeypatch.setattr(pyplot, "close", kept.append)
    panel = Panel(title="", x_axis="KB", y_axis="frames/s", lines=[line], log_x=False)
    draw_panels(tmp_path / "chart.png", [panel, panel], title="", note="")
    [figure] = kept
    for axes in figure.axes:  # type: ignore[attr-defined]
        boxes = {text.get_text(): text.get_window_extent() for text in axes.texts}
        assert set(boxes) == set(places)
        assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes.values(), 2))
        assert not any(box.contains(*axes.transData.transform(at)) for box in boxes.values() for at in places.values())
        assert all(axes.bbox.contains(box.x0, box.y0) and axes.bbox.contains(box.x1, box.y1) for box in boxes.values())
