"""How many random windows per second reach a trainer: ours, the peers and the memory's own limit in one run.

Every contender lives in a process of its own, opens the same frames in its own format, and draws the same windows in
the same shuffled order. First each one's windows are compared with those that a plain h5py loop reads. Then they are
timed in interleaved rounds, each with its own warm-up; page cache warm. Ratios are taken round by round.

    python benchmarks/throughput.py            everything; the files are made at the first run (about 8 GB)
    python benchmarks/throughput.py --quick    small and short: to see that it works, not to believe its numbers
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from numpy.typing import NDArray

from benchmarks.contenders import CONTENDERS, Arrays, Settings, serve
from benchmarks.harness import Round, Spread, interleave, machine, markdown, ratios, versions
from benchmarks.prepared import Prepared, prepare
from lewm_data.schema import ACTION, DONE, PIXELS, STATE

HERE = Path(__file__).parent

LABELS: dict[str, tuple[str, str]] = {
    "limit_mmap": ("limit", "memory limit: only copy, mapped file"),
    "limit_ram": ("limit", "memory limit: only copy, RAM, huge pages"),
    "ram_thread": ("ours", "RAM cache, threads"),
    "ram_process": ("ours", "RAM cache, processes"),
    "none_thread": ("ours", "none, threads"),
    "lzf_thread": ("ours", "lzf, threads"),
    "lz4_thread": ("ours", "lz4, threads"),
    "zstd_thread": ("ours", "zstd, threads"),
    "blosc2_thread": ("ours", "blosc2, threads"),
    "lzf_process": ("ours", "lzf, processes"),
    "swm_hdf5": ("peer", "stable-worldmodel, its own HDF5"),
    "swm_lance": ("peer", "stable-worldmodel, Lance (JPEG)"),
    "swm_on_lzf": ("peer", "stable-worldmodel on our lzf file"),
    "swm_on_lzf_plain": ("peer", "stable-worldmodel on our lzf file, its defaults"),
    "lerobot_torchcodec": ("mp4", "LeRobotDataset, MP4, torchcodec"),
    "lerobot_pyav": ("mp4", "LeRobotDataset, MP4, pyav"),
}
"""Contender to its group and its words."""

GROUPS = {
    "limit": "memory limit",
    "ours": "lewm_data (codec of the file, or RAM cache)",
    "peer": "stable-worldmodel (PyPI)",
    "mp4": "LeRobotDataset, MP4 seek (PyPI)",
}

BEST_PEER = "the best of stable-worldmodel"
TARGETS: tuple[tuple[str, str, float], ...] = (
    ("ram_thread", "limit_mmap", 0.70),
    ("ram_thread", "limit_ram", 0.70),
    ("none_thread", "limit_mmap", 0.70),
    ("ram_thread", BEST_PEER, 20),
    ("none_thread", BEST_PEER, 20),
    ("lzf_thread", BEST_PEER, 3),
    ("lzf_thread", "swm_on_lzf", 12),
    ("ram_process", BEST_PEER, 8),
    ("ram_thread", "lerobot_torchcodec", 100),
    ("none_thread", "lerobot_torchcodec", 100),
)
"""Who shall be how many times as fast as whom."""

LEAST_PSNR_DB = {"swm_lance": 30.0, "lerobot_torchcodec": 31.0, "lerobot_pyav": 31.0}
"""Contenders whose frames cannot be equal, and how near they must come.

LeRobot's are reduced from RGB at native size here, and in one pass from YUV by the conversion: 38 dB at 224 pixels,
where the next frame of the same recording is 24 to 29 dB away.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """How a contender's windows compare with the reference.

    Attributes:
        windows: How many were compared.
        columns: Columns that are equal to the last bit.
        psnr_db: Of the frames; None where they are equal too.
    """

    windows: int
    columns: tuple[str, ...]
    psnr_db: float | None

    def __str__(self) -> str:
        return "equal" if self.psnr_db is None else f"{self.psnr_db:.1f} dB"


def reference_windows(path: Path, num_windows: int, settings: Settings) -> Arrays:
    """The first windows of the order, by a plain h5py loop over the definition of a window.

    Args:
        path: Our uncompressed file.
        num_windows: How many.
        settings: What a window is.

    Returns:
        Column to array.
    """
    import h5py

    from lewm_data.loading.sampler import WindowOrder

    span, skip = settings.num_steps * settings.frameskip, settings.frameskip
    read: dict[str, list[NDArray[Any]]] = {PIXELS: [], ACTION: [], STATE: [], DONE: []}
    with h5py.File(path) as file:
        starts = [
            offset + start
            for length, offset in zip(file["ep_len"][:].tolist(), file["ep_offset"][:].tolist(), strict=True)
            for start in range(length - span + 1)
        ]
        order = WindowOrder(num_windows=len(starts), batch_size=num_windows, seed=settings.seed)
        for window in order.batch(0, 0):
            rows = slice(starts[window], starts[window] + span)
            read[PIXELS].append(file[PIXELS][rows][::skip])
            read[STATE].append(file[STATE][rows][::skip])
            read[ACTION].append(file[ACTION][rows].reshape(settings.num_steps, -1))
            read[DONE].append(file[DONE][rows].reshape(settings.num_steps, skip).any(1))
    return {name: np.stack(values) for name, values in read.items()}


def compare(reference: Arrays, given: Arrays, *, least_psnr_db: float | None = None) -> Comparison:
    """Compares the windows of a contender with the reference.

    Args:
        reference: Column to array (B, ...).
        given: The same, of as many windows or fewer, and of as many columns or fewer. Larger frames are first
            reduced to the reference's size by averaging areas, as the conversion does it.
        least_psnr_db: None asks for equal frames; a number for frames at least so near.

    Returns:
        What was found.

    Raises:
        ValueError: They are not the same windows.
    """
    num_windows = len(given[PIXELS])
    for name, values in given.items():
        if name != PIXELS and not np.array_equal(values, reference[name][:num_windows]):
            raise ValueError(f"column {name!r} is not that of the reference")
    columns = tuple(name for name in given if name != PIXELS)
    wanted = reference[PIXELS][:num_windows]
    if least_psnr_db is None:
        if not np.array_equal(given[PIXELS], wanted):
            raise ValueError("the frames are not equal to those of the reference")
        return Comparison(windows=num_windows, columns=(PIXELS, *columns), psnr_db=None)
    pixels = _reduce(given[PIXELS], wanted.shape[2])
    error = float(np.mean((pixels.astype(np.float64) - wanted) ** 2))
    psnr_db = 10 * np.log10(255**2 / max(error, 1e-9))
    if psnr_db < least_psnr_db:
        raise ValueError(f"the frames are {psnr_db:.1f} dB from those of the reference, less than {least_psnr_db} dB")
    return Comparison(windows=num_windows, columns=columns, psnr_db=round(float(psnr_db), 2))


def _reduce(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """(B, T, H, W, 3) to (B, T, side, side, 3), through libswscale's AREA."""
    if pixels.shape[2:4] == (side, side):
        return pixels
    import av

    frames = [
        av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), "rgb24").to_ndarray(
            format="rgb24", width=side, height=side, interpolation="AREA"
        )
        for frame in pixels.reshape(-1, *pixels.shape[2:])
    ]
    return np.stack(frames).reshape(*pixels.shape[:2], side, side, 3)


class Stage:
    """The contenders' processes."""

    def __init__(self, names: Sequence[str], data: Prepared, settings: Settings) -> None:
        """Starts them; each opens its files when it is first asked for something."""
        context = multiprocessing.get_context("spawn")
        self._connections = {}
        self._processes = []
        for name in names:
            ours, theirs = context.Pipe()
            process = context.Process(target=serve, args=(theirs, name, data, settings), name=name)
            process.start()
            theirs.close()
            self._connections[name] = ours
            self._processes.append(process)

    def ask(self, name: str, command: str, argument: Any) -> Any:
        """Has a contender do something.

        Raises:
            RuntimeError: It could not; with its traceback.
        """
        self._connections[name].send((command, argument))
        try:
            status, answer = self._connections[name].recv()
        except EOFError:
            status, answer = "error", "its process died"
        if status == "error":
            raise RuntimeError(f"{name}: {answer}")
        return answer

    def close(self) -> None:
        """Ends the processes."""
        for connection in self._connections.values():
            try:
                connection.send(("stop", None))
            except OSError:
                continue
        for process in self._processes:
            process.join(20)
            if process.is_alive():
                process.terminate()


def summarize(name: str, rounds: Sequence[Round], *, num_steps: int, frame_bytes: int) -> dict[str, Any]:
    """The rounds of a contender as one row of the result."""
    rates = Spread.of([done.windows_per_second for done in rounds])
    group, label = LABELS[name]
    return {
        "name": name,
        "group": group,
        "label": label,
        "windows_per_second": dataclasses.asdict(rates),
        "frames_per_second": rates.median * num_steps,
        "gb_per_second": rates.median * num_steps * frame_bytes / 1e9,
        "cpu_seconds_per_1000_windows": dataclasses.asdict(Spread.of([done.cpu_seconds_per_1000 for done in rounds])),
        "first_batch_seconds": dataclasses.asdict(Spread.of([done.first_batch_seconds for done in rounds])),
        "memory_bytes": max(done.memory_bytes for done in rounds),
        "frame_bytes": frame_bytes,
        "rounds": [dataclasses.asdict(done) for done in rounds],
    }


def judge(rates: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    """Holds the rates against ``TARGETS``.

    Args:
        rates: Contender to its windows per second, round by round.

    Returns:
        For each target who against whom, the ratio and its spread, and PASS or FAIL; or that it was not
        measured.
    """
    peers = [name for name in ("swm_hdf5", "swm_lance", "swm_on_lzf") if name in rates]
    best = max(peers, key=lambda name: Spread.of(rates[name]).median, default="")
    results = []
    for above, below, least in TARGETS:
        rival = best if below == BEST_PEER else below
        result: dict[str, Any] = {
            "who": above,
            "against": rival or below,
            "target": least,
            "is_best_peer": rival != below,
        }
        if above in rates and rival in rates:
            ratio = ratios(rates[above], rates[rival])
            result |= {"ratio": dataclasses.asdict(ratio), "outcome": "PASS" if ratio.median >= least else "FAIL"}
        else:
            result |= {"ratio": None, "outcome": "not measured"}
        results.append(result)
    return results


def table(result: Mapping[str, Any]) -> str:
    """The result as Markdown: a table of contenders and one of targets."""
    header = (
        "who", "windows/s (min to max)", "of the limit", "frames/s", "GB/s",
        "cpu s per 1,000", "first batch s", "memory MB", "disk KB/frame", "windows compared",
    )  # fmt: skip
    rows = []
    for row in result["rows"]:
        rate, limit = row["windows_per_second"], row.get("of_limit")
        rows.append(
            (
                row["label"],
                f"{rate['median']:,.0f} ({rate['min']:,.0f} to {rate['max']:,.0f})",
                f"{limit['median']:.3f}" if limit else "",
                f"{row['frames_per_second']:,.0f}",
                f"{row['gb_per_second']:.2f}",
                f"{row['cpu_seconds_per_1000_windows']['median']:.2f}",
                f"{row['first_batch_seconds']['median']:.2f}",
                f"{row['memory_bytes'] / 1e6:,.0f}",
                f"{row['bytes_per_frame'] / 1e3:,.1f}",
                row["compared"]["words"],
            )
        )
    targets = []
    for target in result["targets"]:
        ratio = target["ratio"]
        measured = f"{ratio['median']:,.2f} ({ratio['min']:,.2f} to {ratio['max']:,.2f})" if ratio else ""
        rival = LABELS[target["against"]][1] if target["against"] in LABELS else target["against"]
        best = " (best of its readers)" if target["is_best_peer"] else ""
        targets.append(
            (LABELS[target["who"]][1], rival + best, f"{target['target']:g}", measured, target["outcome"])
        )  # fmt: skip
    left_out = [f"Left out: {name}: {why}" for name, why in result["left_out"].items()]
    second = markdown(("who", "against", "target", "measured (min to max)", ""), targets)
    return "\n\n".join([markdown(header, rows), second, *left_out])


def chart(result: Mapping[str, Any], path: Path) -> None:
    """Draws the windows per second."""
    from benchmarks.charts import Bar, draw_bars

    bars = [
        Bar(label=row["label"], group=row["group"], value=Spread(**row["windows_per_second"]))
        for row in sorted(result["rows"], key=lambda row: -row["windows_per_second"]["median"])
        if row["name"] != "swm_on_lzf_plain"
    ]
    settings, where = result["settings"], result["machine"]
    draw_bars(
        path,
        bars,
        title=f"Shuffled windows of {settings['num_steps']} frames, batch {settings['batch_size']}, "
        f"{settings['num_workers']} workers",
        axis="windows per second, log scale (line: slowest to fastest round)",
        groups={group: words for group, words in GROUPS.items() if any(bar.group == group for bar in bars)},
        note=f"{result['source']}; {where['cpus']} cores of {where['processor']}; page cache warm",
    )


def run(
    data: Prepared,
    settings: Settings,
    names: Sequence[str],
    *,
    num_rounds: int,
    num_checked: int,
    timing: dict[str, float],
) -> dict[str, Any]:
    """Compares, times and judges.

    Args:
        data: The files.
        settings: What to read.
        names: Contenders.
        num_rounds: Rounds.
        num_checked: Windows to compare; of the MP4 readers a quarter.
        timing: ``seconds`` and ``warmup_seconds`` of a round.

    Returns:
        Rows, targets and who was left out.
    """
    reference = reference_windows(data.ours("none"), num_checked, settings)
    left_out: dict[str, str] = {}
    rows: dict[str, dict[str, Any]] = {}
    frame_bytes: dict[str, int] = {}
    rounds: dict[str, list[Round]] = {name: [] for name in names}
    stage = Stage(names, data, settings)
    try:
        for name in names:
            group = LABELS[name][0]
            try:
                arrays, bytes_per_frame = stage.ask(name, "first", num_checked // 4 if group == "mp4" else num_checked)
            except RuntimeError as error:
                if group in ("limit", "ours"):
                    raise
                left_out[name] = str(error).strip().splitlines()[-1]
                _log(f"{name}: left out: {error}")
                continue
            try:
                found = compare(reference, arrays, least_psnr_db=LEAST_PSNR_DB.get(name))
            except ValueError as error:
                raise SystemExit(f"{name} does not return the same windows: {error}") from error
            _log(f"{name}: {found.windows} windows compared: {found}")
            rows[name] = {
                "bytes_per_frame": bytes_per_frame,
                "compared": {**dataclasses.asdict(found), "words": str(found)},
            }
            frame_bytes[name] = int(np.prod(arrays[PIXELS].shape[2:]))
        present = [name for name in names if name in rows]
        for number, order in enumerate(interleave(present, num_rounds)):
            for name in order:
                done: Round = stage.ask(name, "round", timing)
                rounds[name].append(done)
                _log(f"round {number + 1} of {num_rounds}, {name}: {done.windows_per_second:,.0f} windows/s")
    finally:
        stage.close()
    rates = {name: [done.windows_per_second for done in rounds[name]] for name in present}
    for name in present:
        rows[name] |= summarize(name, rounds[name], num_steps=settings.num_steps, frame_bytes=frame_bytes[name])
        if "limit_mmap" in rates:
            rows[name]["of_limit"] = dataclasses.asdict(ratios(rates[name], rates["limit_mmap"]))
    return {"rows": [rows[name] for name in present], "targets": judge(rates), "left_out": left_out}


def _log(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="64 pixels, 1,000 frames, batch 32, two short rounds")
    parser.add_argument("--source", type=Path, default=Path("../shared/data/so101-sim"), help="LeRobot v3.0 dataset")
    parser.add_argument("--camera", default="front", help="the one camera to use")
    parser.add_argument("--data", type=Path, default=HERE / "data", help="folder that keeps the prepared files")
    parser.add_argument("--frames", type=int, help="least frames; the recording is laid out so often (10000)")
    parser.add_argument("--image_size", type=int, help="side of the converted frames, in pixels (224)")
    parser.add_argument("--batch_size", type=int, help="windows per batch (256)")
    parser.add_argument("--num_workers", type=int, default=2, help="threads or processes that load")
    parser.add_argument("--num_steps", type=int, default=4, help="frames that a window keeps")
    parser.add_argument("--frameskip", type=int, default=5, help="steps from one kept frame to the next")
    parser.add_argument("--rounds", type=int, help="rounds of each (5)")
    parser.add_argument("--seconds", type=float, help="counted seconds of a round, at least (2)")
    parser.add_argument("--warmup_seconds", type=float, help="seconds before them, at least (1)")
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS), choices=CONTENDERS, metavar="NAME",
                        help="only these: " + ", ".join(CONTENDERS))  # fmt: skip
    parser.add_argument("--output", type=Path, help="JSON to write; the chart lies beside it "
                        "(benchmarks/results/throughput.json; with --quick benchmarks/data/quick/)")  # fmt: skip
    options = parser.parse_args(arguments)
    quick = {"frames": 1000, "image_size": 64, "batch_size": 32, "rounds": 2, "seconds": 0.2, "warmup_seconds": 0.1}
    full = {"frames": 10_000, "image_size": 224, "batch_size": 256, "rounds": 5, "seconds": 2.0, "warmup_seconds": 1.0}
    for name, value in (quick if options.quick else full).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    options.output = options.output or HERE / ("data/quick" if options.quick else "results") / "throughput.json"
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints the tables, and writes JSON and chart."""
    options = _options(arguments)
    settings = Settings(
        batch_size=options.batch_size,
        mp4_batch_size=min(8, options.batch_size),
        num_workers=options.num_workers,
        num_steps=options.num_steps,
        frameskip=options.frameskip,
    )
    circumstances = machine()
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as other:  # the peers' writers stay out of here
        keywords = {"camera": options.camera, "num_frames": options.frames, "image_size": options.image_size}
        data = other.submit(prepare, options.source, options.data, **keywords).result()
    began = time.perf_counter()
    timing = {"seconds": options.seconds, "warmup_seconds": options.warmup_seconds}
    num_checked = min(32, options.batch_size)
    result = {
        "benchmark": "throughput",
        "source": f"{options.source.name}, camera {options.camera}, {data.num_frames:,} frames at "
        f"{data.image_size}x{data.image_size}",
        "machine": circumstances,
        "versions": versions(
            "lewm_data", "torch", "numpy", "h5py", "imagecodecs", "blosc2", "stable-worldmodel", "lancedb", "pylance",
            "lerobot", "torchcodec", "av",
        ),
        "settings": {**dataclasses.asdict(settings), **timing, "rounds": options.rounds},
        **run(data, settings, options.contenders, num_rounds=options.rounds, num_checked=num_checked, timing=timing),
    }  # fmt: skip
    result["seconds"] = round(time.perf_counter() - began, 1)
    result["load_at_end"] = round(os.getloadavg()[0], 2)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=2) + "\n")
    chart(result, options.output.with_suffix(".png"))
    print(table(result))


if __name__ == "__main__":
    main()
