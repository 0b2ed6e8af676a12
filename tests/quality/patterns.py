"""Patterns of real recordings: each makes a private copy of a clean recording look as other people's do.

``docs/recordings.md`` has a row for each. Every one converts whole, with the frames and rows of the clean recording.
"""

from __future__ import annotations

import codecs
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.quality.dirt import FRONT, META, Spoil, both, feature, info, no_features
from tests.recording import EPISODE_LENGTHS, edit_info, edit_parquet, set_column

TOP = "observation.images.top"
MAC_SIDECAR = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        " + bytes(64)


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """One way in which real recordings differ from LeRobot's own.

    Attributes:
        name: As the row of ``docs/recordings.md`` begins.
        make: Makes the recording in a folder look like that.
        datasets: Fixtures to change a copy of.
        codes: Codes of the findings that are recorded in the file, all of them warnings.
        settings: Settings that the conversion needs; most need none.
        has_state: Whether the file has the state.
        done_source: Of the file.
    """

    name: str
    make: Spoil
    datasets: tuple[str, ...] = ("recorded",)
    codes: frozenset[str] = frozenset()
    settings: dict[str, Any] = field(default_factory=dict)
    has_state: bool = True
    done_source: str = "next.done"


V2 = ("recorded_v20", "recorded_v21")
ALL_LAYOUTS = ("recorded", *V2)


def each_data_file(fn: Callable[[pa.Table], pa.Table]) -> Spoil:
    """Replaces the table of each data file."""

    def spoil(root: Path) -> None:
        for path in sorted((root / "data").rglob("*.parquet")):
            edit_parquet(path, fn)

    return spoil


def drop(*names: str) -> Spoil:
    return each_data_file(lambda table: table.drop_columns(list(names)))


def column(name: str, fn: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Spoil:
    """Replaces a column by what a function makes of each row's episode and step."""

    def edit(table: pa.Table) -> pa.Table:
        episode = np.array(table["episode_index"].to_pylist())
        lengths = np.array(EPISODE_LENGTHS)
        step = np.array(table["index"].to_pylist()) - (np.cumsum(lengths) - lengths)[episode]
        return set_column(table, name, fn(episode, step))

    return each_data_file(edit)


def end_flags(run: int) -> Spoil:
    """``next.done`` on the last ``run`` steps of each episode, or on all of a shorter one."""
    lengths = np.array(EPISODE_LENGTHS)
    return column("next.done", lambda episode, step: step >= lengths[episode] - run)


def rename_features(names: dict[str, str]) -> Spoil:
    """Gives features other names, in ``info.json`` and in the rows."""

    def edit(content: dict[str, Any]) -> None:
        content["features"] = {names.get(key, key): value for key, value in content["features"].items()}

    return both(
        lambda root: edit_info(root, edit),
        each_data_file(lambda table: table.rename_columns([names.get(name, name) for name in table.column_names])),
    )


def split_feature(key: str, parts: dict[str, slice]) -> Spoil:
    """Stores a vector as several columns."""

    def edit_features(content: dict[str, Any]) -> None:
        spec = content["features"].pop(key)
        for name, part in parts.items():
            names = spec["names"][part] if isinstance(spec["names"], list) else None
            width = len(range(*part.indices(6)))
            content["features"][name] = {"dtype": "float32", "shape": [width], "names": names if width > 1 else None}

    def edit_rows(table: pa.Table) -> pa.Table:
        values = np.array(table[key].to_pylist(), np.float32)
        for name, part in parts.items():
            piece = values[:, part]
            kind = pa.list_(pa.float32()) if piece.shape[1] > 1 else pa.float32()
            table = table.append_column(name, pa.array((piece if piece.shape[1] > 1 else piece[:, 0]).tolist(), kind))
        return table.drop_columns([key])

    return both(lambda root: edit_info(root, edit_features), each_data_file(edit_rows))


def repeat_columns(*names: str) -> Spoil:
    """Parquet files with two columns of the same name."""

    def spoil(root: Path) -> None:
        for path in sorted((root / "data").rglob("*.parquet")):
            table = pq.read_table(path).replace_schema_metadata(None)
            for name in names:
                table = table.append_column(name, table.column(table.column_names.index(name)))
            pq.write_table(table, path)

    return spoil


def meta_column(name: str, fn: Callable[[list[Any]], list[Any]]) -> Spoil:
    """Changes a column of each file of ``meta/episodes``."""

    def spoil(root: Path) -> None:
        for path in sorted((root / "meta/episodes").rglob("*.parquet")):
            edit_parquet(path, lambda table: set_column(table, name, fn(table[name].to_pylist())))

    return spoil


def short_stops(root: Path) -> None:
    for camera in (FRONT, TOP):
        name = f"videos/{camera}/to_timestamp"
        meta_column(name, lambda values: [value - 1 / 30 for value in values])(root)


def mac_sidecars(root: Path) -> None:
    for path in [path for path in root.rglob("*") if path.is_file()]:
        path.with_name("._" + path.name).write_bytes(MAC_SIDECAR)


def notebook_copies(root: Path) -> None:
    for path in [path for path in root.rglob("*") if path.is_file()]:
        folder = path.parent / ".ipynb_checkpoints"
        folder.mkdir(exist_ok=True)
        shutil.copy(path, folder / f"{path.stem}-checkpoint{path.suffix}")


def browser_copies(root: Path) -> None:
    for path in [path for path in root.rglob("*") if path.is_file()]:
        shutil.copy(path, path.with_name(f"{path.stem} (1){path.suffix}"))


def copies_one_level_up(root: Path) -> None:
    for path in [path for path in root.rglob("*") if path.is_file() and path.parent.name != "meta"]:
        shutil.copy(path, path.parent.parent / path.name)


def byte_order_marks(root: Path) -> None:
    for path in [*(root / "meta").glob("*.json"), *(root / "meta").glob("*.jsonl")]:
        path.write_bytes(codecs.BOM_UTF8 + path.read_bytes())


def windows_line_ends(root: Path) -> None:
    for path in [*(root / "meta").glob("*.json"), *(root / "meta").glob("*.jsonl")]:
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))


def floats_for_counts(root: Path) -> None:
    path = root / "meta/episodes.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        line["length"] = float(line["length"])
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    edit_info(root, lambda content: content.update(total_frames=float(content["total_frames"])))


def cut_tasks(root: Path) -> None:
    path = next((root / "meta").glob("tasks.*"))
    path.write_bytes(path.read_bytes()[:-12])


def declare_camera(root: Path) -> None:
    """A camera that comes first in ``info.json`` and has no files."""

    def edit(content: dict[str, Any]) -> None:
        content["features"] = {"observation.images.egoview": content["features"][FRONT], **content["features"]}

    edit_info(root, edit)


def one_file_in_metadata(root: Path) -> None:
    """All rows are said to be in the first data file."""
    meta_column("data/file_index", lambda values: [0] * len(values))(root)


def renumbered_files(root: Path) -> None:
    """The metadata names data files and chunks that are not there."""
    meta_column("data/file_index", lambda values: [value + 40 for value in values])(root)
    meta_column("data/chunk_index", lambda values: [7] * len(values))(root)


def no_data_columns(root: Path) -> None:
    def edit(table: pa.Table) -> pa.Table:
        return table.drop_columns(["data/chunk_index", "data/file_index", "dataset_from_index", "dataset_to_index"])

    edit_parquet(root / META, edit)


EXTRA = frozenset({"files_ignored"})
PATTERNS = [
    *(
        Pattern(
            name="`next.done` on several last steps",
            make=end_flags(run),
            datasets=("recorded",) if run != 2 else ALL_LAYOUTS,
            codes=frozenset({"done_run"}),
            done_source="run",
        )
        for run in (2, 3, 5, 100)
    ),
    Pattern(
        name="`next.done` declared, not stored",
        make=drop("next.done"),
        datasets=ALL_LAYOUTS,
        codes=frozenset({"column_derived"}),
    ),
    Pattern(
        name="No `frame_index`",
        make=drop("frame_index"),
        datasets=ALL_LAYOUTS,
        codes=frozenset({"column_derived"}),
    ),
    Pattern(
        name="No `index` or `task_index`",
        make=drop("index", "task_index"),
        datasets=ALL_LAYOUTS,
        codes=frozenset({"column_derived"}),
    ),
    Pattern(
        name="No `episode_index`",
        make=drop("episode_index"),
        datasets=V2,
        codes=frozenset({"column_derived"}),
    ),
    Pattern(
        name="No `timestamp`",
        make=drop("timestamp"),
        datasets=ALL_LAYOUTS,
        codes=frozenset({"column_derived"}),
    ),
    Pattern(
        name="No index column at all",
        make=drop("episode_index", "frame_index", "timestamp", "index", "task_index"),
        datasets=V2,
        codes=frozenset({"column_derived"}),
    ),
    Pattern(
        name="An index column twice",
        make=repeat_columns("index", "frame_index"),
        datasets=ALL_LAYOUTS,
        codes=frozenset({"column_derived"}),
    ),
    *(
        Pattern(
            name="`frame_index` that does not begin at 0",
            make=column("frame_index", fn),
            datasets=ALL_LAYOUTS,
            codes=frozenset({"column_derived"}),
        )
        for fn in (
            lambda episode, step: step + 1,
            lambda episode, step: step * 0,
            lambda episode, step: 100 * episode + step + 3,
        )
    ),
    *(
        Pattern(
            name="Timestamps that begin later",
            make=column("timestamp", lambda episode, step, frames=frames: (step + frames) / 30),
            datasets=("recorded", "recorded_images") if frames != 1 else (*ALL_LAYOUTS, "recorded_images"),
            codes=frozenset({"timestamps_offset"}),
        )
        for frames in (1, 2, 17, 90_000)
    ),
    Pattern(
        name="Timestamps that run on over the dataset",
        make=column("timestamp", lambda episode, step: (100 * episode + step + 1) / 30),
        datasets=ALL_LAYOUTS,
        codes=frozenset({"timestamps_offset"}),
    ),
    Pattern(
        name="Wall-clock timestamps, pictures in the rows",
        make=column("timestamp", lambda episode, step: step * 1.13 / 30 + 0.004 * np.sin(step)),
        datasets=("recorded_images",),
        codes=frozenset({"timestamps_wall_clock", "timestamps_jitter"}),
    ),
    Pattern(
        name="`to_timestamp` is the last frame's time",
        make=short_stops,
        codes=frozenset({"span_stop_short"}),
    ),
    Pattern(
        name="Stale `data/file_index` or `data/chunk_index`",
        make=one_file_in_metadata,
        datasets=("recorded_files",),
        codes=frozenset({"rows_relocated"}),
    ),
    Pattern(
        name="Stale `data/file_index` or `data/chunk_index`",
        make=renumbered_files,
        datasets=("recorded", "recorded_files"),
        codes=frozenset({"rows_relocated"}),
    ),
    Pattern(
        name="No `data/...` columns in `meta/episodes`",
        make=no_data_columns,
        codes=frozenset({"rows_relocated"}),
    ),
    *(
        Pattern(name=name, make=make, datasets=ALL_LAYOUTS, codes=EXTRA)
        for name, make in (
            ("`._*` files of a Mac", mac_sidecars),
            ("`.ipynb_checkpoints`", notebook_copies),
            ("Copies such as `file-000 (1).parquet`", browser_copies),
            ("A copy one folder up", copies_one_level_up),
        )
    ),
    Pattern(
        name="A camera without files",
        make=declare_camera,
        datasets=ALL_LAYOUTS,
        codes=frozenset({"camera_absent"}),
    ),
    Pattern(
        name="No state",
        make=both(no_features("observation.state"), drop("observation.state")),
        datasets=ALL_LAYOUTS,
        codes=frozenset({"state_absent"}),
        has_state=False,
    ),
    Pattern(
        name="`actions` and `state`",
        make=rename_features({"action": "actions", "observation.state": "state"}),
        datasets=(*ALL_LAYOUTS, "recorded_images"),
    ),
    Pattern(
        name="Action and state in parts",
        make=both(
            split_feature("action", {"action.joint_position": slice(0, 5), "action.gripper": slice(5, 6)}),
            split_feature(
                "observation.state",
                {"observation.state.joint_position": slice(0, 4), "observation.state.gripper": slice(4, 6)},
            ),
        ),
        datasets=ALL_LAYOUTS,
        settings={
            "action": "action.joint_position,action.gripper",
            "state": "observation.state.joint_position,observation.state.gripper",
        },
    ),
    Pattern(
        name="One column per joint",
        make=both(
            split_feature("action", {f"action.joint_{number}": slice(number, number + 1) for number in range(6)}),
            split_feature("observation.state", {f"joint_{n}.pos": slice(n, n + 1) for n in range(6)}),
        ),
        datasets=("recorded", "recorded_v21"),
        settings={"action": "action.*", "state": "joint_*"},
    ),
    Pattern(
        name="`observation.environment_state`",
        make=rename_features({"observation.state": "observation.environment_state"}),
        settings={"state": "observation.environment_state"},
    ),
    Pattern(
        name="A byte order mark",
        make=byte_order_marks,
        datasets=ALL_LAYOUTS,
    ),
    Pattern(
        name="Windows line ends",
        make=windows_line_ends,
        datasets=ALL_LAYOUTS,
    ),
    Pattern(
        name="Counts as floats",
        make=floats_for_counts,
        datasets=V2,
    ),
    Pattern(
        name="Damaged task texts",
        make=cut_tasks,
        datasets=ALL_LAYOUTS,
        codes=frozenset({"tasks_missing"}),
    ),
    Pattern(
        name="A size other than the declared one",
        make=both(info(total_videos=99), feature(FRONT, shape=[3, 480, 640])),
        datasets=ALL_LAYOUTS,
        codes=frozenset({"video_size"}),
    ),
]
