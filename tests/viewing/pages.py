"""A parser for finished pages that uses none of our code, and files in which every text is an attack."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image

from tests.loading import files
from tests.recording import picture, row_values

EVIL = '</script><script>window.hacked=1</script><img src="http://evil.invalid/x" onerror="window.hacked=2"><b id=evil>'


class Page(HTMLParser):
    """The scripts, styles and other tags of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self._inside = ""
        self.html = path.read_text("utf-8")
        self.feed(self.html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = dict(attrs).get("id") or tag

    def handle_data(self, data: str) -> None:
        self.texts[self._inside] = self.texts.get(self._inside, "") + data

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    @property
    def data(self) -> dict[str, Any]:
        return json.loads(self.texts["data"])

    def frames(self, strip: dict[str, Any], number: int, count: int) -> np.ndarray:
        """One frame of a strip of ``count`` frames."""
        picture = Image.open(io.BytesIO(base64.b64decode(self.texts[f"p{strip['picture']}"])))
        width = picture.width / count
        box = (round(number * width), 0, round((number + 1) * width), picture.height)
        return np.asarray(picture.convert("RGB").crop(box))


def addresses(html: str) -> set[str]:
    """Returns everything in a page that looks like an address."""
    return set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"'<]*", html))


def coded(path: Path, lengths: Sequence[int]) -> Path:
    """Writes a file of two cameras in which every frame and row encodes its own position (see ``tests.recording``)."""
    places = [(episode, step) for episode, length in enumerate(lengths) for step in range(length)]
    dims = {"action": "goal", "state": "joint"}
    rows = {name: np.array([row_values(name, *place, 6) for place in places]) for name in dims}
    frames = {
        column: np.array([picture(camera, *place) for place in places])
        for camera, column in enumerate(("pixels", "pixels_top"))
    }
    files.write(path, lengths, height=8, width=8, codec="none", extra=rows)
    with h5py.File(path, "r+") as file:
        del file["pixels"]
        for column, values in frames.items():
            file.create_dataset(column, data=values, chunks=(1, *values.shape[1:]), fletcher32=True)
        file.attrs["fps"] = 30.0
        file.attrs["cameras"] = json.dumps(
            {c: f"observation.images.{n}" for c, n in zip(frames, ("front", "top"), strict=True)}
        )
        file.attrs["feature_names"] = json.dumps(
            {name: [f"{word}_{i}" for i in range(6)] for name, word in dims.items()}
        )
        file.attrs.update(image_height=96, image_width=128)
    return path


def hostile(path: Path) -> files.Written:
    """Writes a file whose texts are HTML; of its 12 episodes, 7 is odd and 9 is too short for a window."""
    lengths = [30, 31, 29, 30, 32, 30, 31, 29, 30, 6, 30, 31]
    written = files.write(path, lengths, cameras=("wrist",), height=48, width=64)
    found = {"severity": "error", "expected": EVIL, "found": EVIL, "remedy": EVIL, "handling": "kept"}
    with h5py.File(path, "r+") as file:
        action = file["action"][:]
        action[written.offsets[7] + 4] = 500.0
        file["action"][:] = action
        file["task_index"] = np.zeros(len(action), np.int64)
        file.attrs["feature_names"] = json.dumps({"action": [EVIL, "grip"], "state": ["a", EVIL, "grip"]})
        file.attrs["tasks"] = json.dumps({"0": EVIL})
        file.attrs["cameras"] = json.dumps({"pixels": EVIL, "pixels_wrist": "observation.images.wrist"})
        file.attrs["findings"] = json.dumps(
            [
                {"code": EVIL, "episode": 3, "step": 11, "file": EVIL, **found},
                {"code": "frames_black", "episode": 3, **found, "severity": "warning"},
                {"code": "tasks_missing", "episode": None, **found, "severity": "warning"},
            ]
        )
        sources = json.loads(file.attrs["sources"])
        sources[0]["repo_id"] = EVIL
        file.attrs["sources"] = json.dumps(sources)
    return written
