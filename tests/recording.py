"""Records small LeRobot datasets with LeRobot's own writer. Every frame says which one it is.

A frame carries its (camera, episode, step) as a block of black and white cells, over a texture that moves
with each step. ``read_code`` reads it back from a decoded picture, at native size or after we resized it.

Only the functions that record import lerobot, which takes 12 s.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SIZE = (96, 128)
"""Height and width of a recorded frame in pixels, unless a test asks for another size."""

EPISODE_LENGTHS = (7, 12, 5, 21, 9)

LAYOUTS = (
    "recorded",
    "recorded_files",
    "recorded_hevc",
    "recorded_av1",
    "recorded_reencoded",
    "recorded_images",
    "recorded_v21",
    "recorded_v20",
)
"""Fixtures of conftest.py: a clean dataset for each layout, codec and way to store pictures."""

_FIELD_BITS = (3, 10, 13, 4)  # camera, episode, step, checksum
_GRID = (3, 10)
_DARK, _BRIGHT = 24, 232

_LEROBOT_CODECS = {"h264": "h264", "hevc": "hevc", "av1": "libsvtav1"}
_X264_TEST_OPTIONS = {
    "h264": ("x264-params", "b-adapt=0:log=-1"),
    "hevc": ("x265-params", "b-adapt=0:log-level=error"),
}
"""Without b-adapt=0, the encoders leave out B-frames whenever they judge P-frames cheaper."""


# ------------------------------------------------------------------------------------------------------------
# Frames and rows that say which one they are
# ------------------------------------------------------------------------------------------------------------


def _checksum(camera: int, episode: int, step: int) -> int:
    return (camera * 7 + episode * 5 + step * 3 + step // 16 + 9) % 16


def _cell(size: tuple[int, int]) -> tuple[int, int, int]:
    """Side of a cell and top left corner of the code block, in native pixels: inside the central square."""
    height, width = size
    square = min(height, width)
    side = square // 12
    return side, (height - square) // 2 + side, (width - square) // 2 + side


def picture(camera: int, episode: int, step: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """One frame.

    Args:
        camera: 0 to 7.
        episode: 0 to 1023.
        step: 0 to 8191.
        size: Height and width in pixels, each 48 or more for the code to survive compression.

    Returns:
        uint8 RGB of shape (height, width, 3).
    """
    height, width = size
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    y, x = y / height, x / width
    phase = 0.35 * step + 1.7 * episode + 2.3 * camera
    channels = [
        np.sin(6.3 * (fx * x + fy * y) + speed * phase)
        for fx, fy, speed in ((1.0, 0.5, 1.0), (0.4, 1.3 + 0.3 * camera, -0.8), (1.5, -1.1, 0.6))
    ]
    image = 128 + 70 * np.stack(channels, axis=-1)
    # A bright square moves, so that neighboring frames differ by an edge and not only by a shade.
    square = max(4, height // 8)
    top = int((0.6 + 0.25 * np.sin(0.4 * step + episode)) * (height - square))
    left = (int(0.055 * width * step) + 17 * episode + 29 * camera) % (width - square)
    image[top : top + square, left : left + square] = (240, 240 - 60 * camera % 200, 40)

    fields = (camera, episode, step, _checksum(camera, episode, step))
    bits = [field >> bit & 1 for field, count in zip(fields, _FIELD_BITS, strict=True) for bit in range(count)]
    block = np.kron(np.reshape(bits, _GRID), np.ones((side := _cell(size)[0], side)))
    _, top, left = _cell(size)
    image[top : top + block.shape[0], left : left + block.shape[1]] = np.where(block, _BRIGHT, _DARK)[..., None]
    return np.clip(image, 0, 255).astype(np.uint8)


def _read_fields(frame: np.ndarray, size: tuple[int, int], resize: str) -> tuple[int, int, int]:
    height, width = frame.shape[:2]
    scale_y, scale_x = height / size[0], width / size[1]
    if resize == "crop":
        scale_y = scale_x = max(scale_y, scale_x)
    elif resize == "pad":
        scale_y = scale_x = min(scale_y, scale_x)
    offset_y, offset_x = (height - size[0] * scale_y) / 2, (width - size[1] * scale_x) / 2
    side, top, left = _cell(size)
    bits = []
    for row in range(_GRID[0]):
        for column in range(_GRID[1]):
            y = offset_y + scale_y * (top + side * (row + 0.5))
            x = offset_x + scale_x * (left + side * (column + 0.5))
            ry, rx = max(0.5, 0.25 * side * scale_y), max(0.5, 0.25 * side * scale_x)
            patch = frame[int(y - ry) : int(np.ceil(y + ry)), int(x - rx) : int(np.ceil(x + rx))]
            bits.append(int(patch.mean() > (_DARK + _BRIGHT) / 2))
    fields, start = [], 0
    for count in _FIELD_BITS:
        fields.append(sum(bit << place for place, bit in enumerate(bits[start : start + count])))
        start += count
    camera, episode, step, checksum = fields
    if checksum != _checksum(camera, episode, step):
        raise ValueError(f"no frame code here: read camera {camera}, episode {episode}, step {step}, bad checksum")
    return camera, episode, step


def read_code(frame: np.ndarray, *, size: tuple[int, int] = SIZE, resize: str = "stretch") -> tuple[int, int]:
    """Reads which frame a picture is.

    Args:
        frame: uint8 RGB of shape (H, W, 3), at native size or resized to anything not much smaller.
        size: Native height and width of the recording.
        resize: How it was resized to (H, W): ``stretch``, ``crop`` or ``pad``.

    Returns:
        (episode, step).

    Raises:
        ValueError: The picture has no code: it is another picture, or a mixture of two.
    """
    return _read_fields(frame, size, resize)[1:]


def read_camera(frame: np.ndarray, *, size: tuple[int, int] = SIZE, resize: str = "stretch") -> int:
    """Which camera a frame is from, as its position in ``cameras``; arguments as for ``read_code``."""
    return _read_fields(frame, size, resize)[0]


def row_values(kind: str, episode: int, step: int, dim: int, *, seed: int = 0) -> np.ndarray:
    """The state or action that was recorded for one step.

    Args:
        kind: ``state`` or ``action``.
        episode: Which episode.
        step: Which step of it.
        dim: Dimensions.
        seed: Seed of the recording.

    Returns:
        float32 of shape (dim,), within [-1, 1] and different for every step.
    """
    phase = {"state": 0.0, "action": 1.0}[kind] + 0.13 * step + 0.7 * episode + 0.01 * seed
    return np.sin(phase * (1 + 0.1 * np.arange(dim))).astype(np.float32)


# ------------------------------------------------------------------------------------------------------------
# Recording
# ------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences LeRobot's recorder and its encoders."""
    import av

    os.environ.setdefault("SVT_LOG", "1")
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    av.logging.set_libav_level(av.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)


def camera_key(camera: str) -> str:
    """LeRobot's feature key of a camera given by its short name; a whole key stays as it is."""
    return camera if camera.startswith("observation.") else f"observation.images.{camera}"


def record_v3(
    root: Path,
    *,
    episode_lengths: Sequence[int] = EPISODE_LENGTHS,
    cameras: Sequence[str] = ("front",),
    size: tuple[int, int] = SIZE,
    fps: int = 30,
    vcodec: str = "h264",
    bframes: int = 0,
    gop: int | None = None,
    crf: int = 20,
    use_videos: bool = True,
    state_dim: int = 6,
    action_dim: int = 6,
    done: bool = True,
    done_key: str = "next.done",
    tasks: Sequence[str] = ("push the block", "lift the block"),
    episodes_per_video_file: int | None = None,
    episodes_per_data_file: int | None = None,
    episodes_per_meta_file: int | None = None,
    extra_features: dict[str, tuple[dict[str, Any], Callable[[int, int], Any]]] | None = None,
    seed: int = 0,
) -> Path:
    """Records a LeRobot v3.0 dataset.

    Args:
        root: Folder to be created.
        episode_lengths: Steps of each episode.
        cameras: Short names, which get the prefix ``observation.images.``, or whole keys.
        size: Height and width in pixels, even numbers.
        fps: Steps per second.
        vcodec: ``h264``, ``hevc`` or ``av1``.
        bframes: Consecutive B-frames (h264 and hevc); each recorded episode still begins with a keyframe.
        gop: Frames from keyframe to keyframe; LeRobot's 2 without B-frames, 12 with them.
        crf: Quality of the encoder, lower is better.
        use_videos: False stores the frames as PNG in Parquet (``dtype: image``).
        state_dim: Dimensions of ``observation.state``; 0 leaves it out.
        action_dim: Dimensions of ``action``; 0 leaves it out.
        done: Whether to record done flags, True at each episode's last step.
        done_key: Key of the done flags.
        tasks: Task texts. Episode i has task i modulo their number.
        episodes_per_video_file: Start a new MP4 after this many episodes; None puts all into one.
        episodes_per_data_file: The same for Parquet files.
        episodes_per_meta_file: The same for ``meta/episodes``; works with ``episodes_per_data_file=1`` only.
        extra_features: Key to (LeRobot's feature specification, function of (episode, step) to the value).
        seed: Shifts states and actions.

    Returns:
        The dataset's folder.
    """
    with quiet():
        from lerobot.configs import RGBEncoderConfig
        from lerobot.datasets.io_utils import write_info
        from lerobot.datasets.lerobot_dataset import LeRobotDataset

        root = Path(root)
        height, width = size
        image = {
            "dtype": "video" if use_videos else "image",
            "shape": (height, width, 3),
            "names": ["height", "width", "channels"],
        }
        features: dict[str, dict[str, Any]] = {camera_key(camera): dict(image) for camera in cameras}
        for key, prefix, dim in (("observation.state", "joint", state_dim), ("action", "goal", action_dim)):
            if dim:
                names = [f"{prefix}_{i}" for i in range(dim)]
                features[key] = {"dtype": "float32", "shape": (dim,), "names": names}
        if done:
            features[done_key] = {"dtype": "bool", "shape": (1,), "names": None}
        for key, (specification, _) in (extra_features or {}).items():
            features[key] = dict(specification)

        extra_options: dict[str, Any] = {}
        if vcodec in _X264_TEST_OPTIONS:
            extra_options = {"bf": bframes, **dict([_X264_TEST_OPTIONS[vcodec]])}
        elif bframes:
            raise ValueError(f"bframes is {bframes}, but {vcodec} has no such option")
        dataset = LeRobotDataset.create(
            f"tests/{root.name}",
            fps,
            features,
            root=root,
            robot_type="test_arm",
            use_videos=use_videos,
            metadata_buffer_size=episodes_per_meta_file or 10,
            rgb_encoder=RGBEncoderConfig(
                vcodec=_LEROBOT_CODECS[vcodec],
                g=gop if gop is not None else (12 if bframes else 2),
                crf=crf,
                # SVT-AV1's preset 12, LeRobot's default, leaves some changed cells as they were before.
                preset=8 if vcodec == "av1" else "veryfast",
                extra_options=extra_options,
            ),
            encoder_threads=1,
        )
        info = dataset.meta.info
        roomy = (info.video_files_size_in_mb, info.data_files_size_in_mb)
        for episode, length in enumerate(episode_lengths):
            for step in range(length):
                frame: dict[str, Any] = {"task": tasks[episode % len(tasks)]}
                for number, camera in enumerate(cameras):
                    frame[camera_key(camera)] = picture(number, episode, step, size)
                if state_dim:
                    frame["observation.state"] = row_values("state", episode, step, state_dim, seed=seed)
                if action_dim:
                    frame["action"] = row_values("action", episode, step, action_dim, seed=seed)
                if done:
                    frame[done_key] = np.array([step == length - 1])
                for key, (_, value) in (extra_features or {}).items():
                    frame[key] = value(episode, step)
                dataset.add_frame(frame)
            # A tiny size limit makes LeRobot start a new file.
            for limit, count, default in (
                ("video_files_size_in_mb", episodes_per_video_file, roomy[0]),
                ("data_files_size_in_mb", episodes_per_data_file, roomy[1]),
            ):
                setattr(info, limit, 1e-9 if count and episode % count == 0 else default)
            dataset.save_episode(parallel_encoding=False)
        info.video_files_size_in_mb, info.data_files_size_in_mb = roomy
        write_info(info, root)
        dataset.finalize()
        shutil.rmtree(root / "images", ignore_errors=True)
    return root


def reencode(root: Path, codec: str = "h264", *, bframes: int = 3, gop: int = 30, crf: int = 18) -> Path:
    """Encodes every MP4 of a dataset again, in place, with the same presentation times.

    The encoder then chooses the keyframes, so most episodes do not begin with one.

    Args:
        root: Dataset folder of any layout.
        codec: ``h264`` or ``hevc``.
        bframes: Consecutive B-frames.
        gop: Frames from keyframe to keyframe.
        crf: Quality of the encoder, lower is better.

    Returns:
        ``root``.
    """
    import av

    for path in sorted((root / "videos").rglob("*.mp4")):
        scratch = path.with_suffix(".reencoded.mp4")
        with av.open(str(path)) as source, av.open(str(scratch), "w") as output:
            stream = source.streams.video[0]
            name, params = _X264_TEST_OPTIONS[codec]
            options = {"crf": str(crf), "preset": "veryfast", "bf": str(bframes), "g": str(gop), name: params}
            encoder = output.add_stream({"h264": "libx264", "hevc": "libx265"}[codec], options=options)
            encoder.width, encoder.height, encoder.pix_fmt = stream.width, stream.height, "yuv420p"
            encoder.time_base = encoder.codec_context.time_base = stream.time_base
            encoder.codec_context.framerate = stream.average_rate
            for frame in source.decode(stream):
                frame.pict_type = 0
                output.mux(encoder.encode(frame))
            output.mux(encoder.encode(None))
        scratch.replace(path)
    edit_info(
        root,
        lambda info: [
            block.update({"video.codec": codec})
            for feature in info["features"].values()
            for block in (feature.get("info"), feature.get("video_info"))
            if feature["dtype"] == "video" and block
        ],
    )
    return root


# ------------------------------------------------------------------------------------------------------------
# The layouts of LeRobot v2.1 and v2.0
# ------------------------------------------------------------------------------------------------------------


def to_v21(v3_root: Path, out_root: Path) -> Path:
    """Lays a v3.0 recording out as v2.1: one Parquet file and one MP4 per episode, JSON lines as metadata.

    Args:
        v3_root: A dataset of ``record_v3``, not re-encoded since: packets are copied from keyframe to keyframe.
        out_root: Folder to be created.

    Returns:
        ``out_root``.
    """
    return _to_v2(v3_root, out_root, "v2.1")


def to_v20(v3_root: Path, out_root: Path) -> Path:
    """Lays a v3.0 recording out as v2.0; as ``to_v21``, with ``meta/stats.json`` for the whole dataset.

    Vector names are nested (``{"motors": [...]}``) and video details are under ``video_info``, as in the
    datasets that LeRobot itself converted from v1.6 to v2.0.
    """
    return _to_v2(v3_root, out_root, "v2.0")


def _to_v2(v3_root: Path, out_root: Path, version: str) -> Path:
    chunks_size = 1000
    info = json.loads((v3_root / "meta" / "info.json").read_text())
    rows = pa.concat_tables([pq.read_table(path) for path in sorted((v3_root / "data").rglob("*.parquet"))])
    episodes = read_episodes(v3_root)
    video_keys = [key for key, feature in info["features"].items() if feature["dtype"] == "video"]
    data_path = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
    video_path = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
    (out_root / "meta").mkdir(parents=True)

    for episode in episodes:
        index = episode["episode_index"]
        place = {"episode_chunk": index // chunks_size, "episode_index": index}
        path = out_root / data_path.format(**place)
        path.parent.mkdir(parents=True, exist_ok=True)
        mask = pa.compute.equal(rows["episode_index"], index)
        pq.write_table(rows.filter(mask), path)
    for key in video_keys:
        _split_videos(
            v3_root,
            key,
            episodes,
            lambda index, key=key: (
                out_root / video_path.format(episode_chunk=index // chunks_size, video_key=key, episode_index=index)
            ),
        )

    with (out_root / "meta" / "episodes.jsonl").open("w") as file:
        for episode in episodes:
            line = {key: episode[key] for key in ("episode_index", "tasks", "length")}
            file.write(json.dumps(line) + "\n")
    tasks = pq.read_table(v3_root / "meta" / "tasks.parquet").to_pylist()
    with (out_root / "meta" / "tasks.jsonl").open("w") as file:
        for task in sorted(tasks, key=lambda task: task["task_index"]):
            line = {"task_index": task["task_index"], "task": task.get("task", task.get("__index_level_0__"))}
            file.write(json.dumps(line) + "\n")
    old_statistics = ("min", "max", "mean", "std", "count") if version == "v2.1" else ("min", "max", "mean", "std")
    if version == "v2.1":
        with (out_root / "meta" / "episodes_stats.jsonl").open("w") as file:
            for episode in episodes:
                stats: dict[str, dict[str, Any]] = {}
                for name, value in episode.items():
                    if name.startswith("stats/"):
                        key, statistic = name.removeprefix("stats/").rsplit("/", 1)
                        if statistic in old_statistics:
                            stats.setdefault(key, {})[statistic] = value
                file.write(json.dumps({"episode_index": episode["episode_index"], "stats": stats}) + "\n")
    else:
        stats = json.loads((v3_root / "meta" / "stats.json").read_text())
        kept = {key: {name: block[name] for name in old_statistics} for key, block in stats.items()}
        (out_root / "meta" / "stats.json").write_text(json.dumps(kept, indent=4))

    features = {}
    for key, feature in info["features"].items():
        old = {name: feature[name] for name in ("dtype", "shape", "names")}
        if feature["dtype"] == "video":
            block = feature["info"]
            details = {
                "video.fps": float(info["fps"]),
                "video.codec": block["video.codec"],
                "video.pix_fmt": block["video.pix_fmt"],
                "video.is_depth_map": False,
                "has_audio": False,
            }
            if version == "v2.1":
                sizes = {"video.height": feature["shape"][0], "video.width": feature["shape"][1]}
                old["info"] = {**sizes, **details, "video.channels": 3}
            else:
                old["names"] = ["height", "width", "channel"]
                old["video_info"] = details
        elif version == "v2.0" and key in ("observation.state", "action"):
            old["names"] = {"motors": [f"motor_{i}" for i in range(feature["shape"][0])]}
        features[key] = old
    num_episodes = len(episodes)
    old_info = {
        "codebase_version": version,
        "robot_type": info["robot_type"],
        "total_episodes": num_episodes,
        "total_frames": info["total_frames"],
        "total_tasks": info["total_tasks"],
        "total_videos": num_episodes * len(video_keys),
        "total_chunks": -(-num_episodes // chunks_size),
        "chunks_size": chunks_size,
        "fps": info["fps"] if version == "v2.1" else float(info["fps"]),
        "splits": {"train": f"0:{num_episodes}"},
        "data_path": data_path,
        "video_path": video_path if video_keys else None,
        "features": features,
    }
    (out_root / "meta" / "info.json").write_text(json.dumps(old_info, indent=4))
    return out_root


def _split_videos(v3_root: Path, key: str, episodes: list[dict[str, Any]], path_of: Callable[[int], Path]) -> None:
    """Copies the packets of each episode into an MP4 of its own that begins at 0.0.

    LeRobot encodes each episode alone and then joins the packets. So an episode's packets are consecutive, even though
    B-frames make the decoding order differ from the presentation order.
    """
    import av

    files: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for episode in episodes:
        place = (episode[f"videos/{key}/chunk_index"], episode[f"videos/{key}/file_index"])
        files.setdefault(place, []).append(episode)
    for (chunk, number), members in files.items():
        source_path = v3_root / "videos" / key / f"chunk-{chunk:03d}" / f"file-{number:03d}.mp4"
        with av.open(str(source_path)) as source:
            stream = source.streams.video[0]
            packets = (packet for packet in source.demux(stream) if packet.dts is not None)
            for episode in sorted(members, key=lambda item: item[f"videos/{key}/from_timestamp"]):
                path = path_of(episode["episode_index"])
                path.parent.mkdir(parents=True, exist_ok=True)
                mine = [next(packets) for _ in range(episode["length"])]
                if not mine[0].is_keyframe:
                    raise ValueError(
                        f"{source_path}: episode {episode['episode_index']} begins without a keyframe; "
                        "lay the dataset out as v2 before it is re-encoded"
                    )
                start = min(packet.pts for packet in mine)
                with av.open(str(path), "w") as output:
                    copy = output.add_stream_from_template(stream, opaque=True)
                    copy.time_base = stream.time_base
                    for packet in mine:
                        packet.pts -= start
                        packet.dts -= start
                        packet.stream = copy
                        output.mux(packet)
            if next(packets, None) is not None:
                raise ValueError(f"{source_path}: more packets than its episodes have steps")


# ------------------------------------------------------------------------------------------------------------
# Reading a dataset, and changing it in place
# ------------------------------------------------------------------------------------------------------------


def read_episodes(v3_root: Path) -> list[dict[str, Any]]:
    """Every row of ``meta/episodes`` of a v3.0 dataset, in file order."""
    paths = sorted((v3_root / "meta" / "episodes").rglob("*.parquet"))
    return [row for path in paths for row in pq.read_table(path).to_pylist()]


def frame_types(path: Path) -> str:
    """Picture types of an MP4 in presentation order, such as ``IBBPI``."""
    import av

    with av.open(str(path)) as source:
        return "".join(av.video.frame.PictureType(frame.pict_type).name for frame in source.decode(video=0))


def frame_times(path: Path) -> list[Fraction]:
    """Exact presentation times of an MP4's frames, in seconds."""
    import av

    with av.open(str(path)) as source:
        stream = source.streams.video[0]
        return [frame.pts * stream.time_base for frame in source.decode(stream)]


def edit_parquet(path: Path, fn: Callable[[pa.Table], pa.Table]) -> None:
    """Replaces the table of a Parquet file by the result of a function.

    Args:
        path: The file.
        fn: Takes the table, returns the new one; the schema's metadata is kept when columns stay the same.
    """
    table = pq.read_table(path)
    edited = fn(table)
    if edited.schema.names == table.schema.names:
        edited = edited.replace_schema_metadata(table.schema.metadata)
    pq.write_table(edited, path)


def set_column(table: pa.Table, name: str, values: Any) -> pa.Table:
    """Replaces the values of a column; its type stays.

    Args:
        table: The table.
        name: The column.
        values: As many values as rows: a list, a NumPy array (rows of vectors included) or an Arrow array.
    """
    if isinstance(values, np.ndarray):
        values = values.tolist()
    position = table.schema.get_field_index(name)
    field = table.schema.field(position)
    return table.set_column(position, field, pa.chunked_array([pa.array(values, type=field.type)]))


def store_pictures_beside(root: Path, camera: str = "front") -> Path:
    """Moves the pictures in rows (``use_videos=False``) to files, ``pictures/N.png``, which the rows then name."""
    key = camera_key(camera)
    (root / "pictures").mkdir()

    def move_out(table: pa.Table) -> pa.Table:
        cells = table[key].to_pylist()
        for number, cell in enumerate(cells):
            (root / "pictures" / f"{number}.png").write_bytes(cell["bytes"])
        moved = [{"bytes": None, "path": f"pictures/{number}.png"} for number in range(len(cells))]
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        return table.set_column(table.column_names.index(key), pa.field(key, kind), pa.array(moved, kind))

    edit_parquet(next((root / "data").rglob("*.parquet")), move_out)
    return root


def edit_info(root: Path, fn: Callable[[dict[str, Any]], Any]) -> None:
    """Changes ``meta/info.json`` in place.

    Args:
        root: Dataset folder.
        fn: Changes its argument, or returns another dictionary.
    """
    path = root / "meta" / "info.json"
    info = json.loads(path.read_text())
    result = fn(info)
    path.write_text(json.dumps(result if isinstance(result, dict) else info, indent=4))


def edit_jsonl(path: Path, fn: Callable[[list[dict[str, Any]]], list[dict[str, Any]] | None]) -> None:
    """Changes a JSON-lines file (v2 metadata) in place: ``fn`` changes the rows, or returns others."""
    rows = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    edited = fn(rows)
    path.write_text("".join(json.dumps(row) + "\n" for row in (rows if edited is None else edited)))
