"""The text and tables that each benchmark's result fills.

A block is a piece of Markdown with a name, such as ``throughput.table``; ``benchmarks/report.py`` puts it into pages.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from benchmarks.assess_blocks import cost_blocks, faults_blocks, prediction_blocks
from benchmarks.remote_table import remote_blocks
from benchmarks.tables import Columns, Result, chart, conditions, count, decibels, load, spread, spread_of, table
from benchmarks.throughput_blocks import throughput_blocks
from benchmarks.training_variants import VARIANTS

CAMERA, DRAWN = "camera-like", "drawn"


def chunk_name(chunk_frames: int) -> str:
    """What tables and charts call a chunk size; 0 is our writer."""
    return f"chunks of {chunk_frames}, through HDF5" if chunk_frames else "chunks of 1, written directly (ours)"


def _conversion(result: Result) -> Iterator[tuple[str, str]]:
    yield (
        "conditions",
        (
            f"Resized to {result['image_size']}x{result['image_size']}; {result['source']}; medians of "
            f"{result['repeats']} interleaved runs (source codecs, micro-batches and stable-worldmodel: one fewer). "
            f"{conditions(result)}"
        ),
    )
    charts = {
        "rows": ("chart", "Frames per second of conversions and of decoding alone", "conversion.png"),
        "sources": ("sources_chart", "Speed and memory of a conversion by rows of a frame", "conversion_sources.png"),
        "chunks": ("chunks_chart", "Frames written per second by micro-batch and chunk", "conversion_chunks.png"),
    }
    for key, (name, alt, file) in charts.items():
        if result.get(key):
            yield name, chart(alt, file)
    first: Mapping[str, Columns] = {
        "rows": {"codec": lambda row: row["compression"]},
        "sources": {"source": lambda row: f"{row['codec']} {row['width']}x{row['height']}"},
        "micro_batches": {"micro-batch": lambda row: str(row["micro_batch"])},
    }
    rates: Columns = {
        "decode only, frames/s": lambda row: count(statistics.median(row["decode_fps"])),
        "convert, f/s": lambda row: count(statistics.median(row["convert_fps"])),
        "ratio (min to max)": lambda row: spread_of(row["ratios"]),
        "with inspection": lambda row: count(statistics.median(row["whole_fps"])),
        "KB/frame": lambda row: f"{row['bytes_per_frame'] / 1000:,.1f}",
        "peak MB": lambda row: f"{row['peak_memory_bytes'] / 1e6:,.0f}",
    }
    for key, column in first.items():
        if result.get(key):
            yield "codecs" if key == "rows" else key, table(result[key], {**column, **rates})
    if peer := result.get("peer"):
        columns: Columns = {
            "converter": lambda row: row["label"],
            "frames/s (min to max)": lambda row: spread_of(row["fps"]),
            "times theirs": lambda row: spread_of(row["ratios_to_theirs"]),
            "peak MB": lambda row: f"{row['peak_memory_bytes'] / 1e6:,.0f}",
        }
        yield (
            "peer",
            (
                f"{peer['frames']:,} frames ({peer['source']}) in episodes of {peer['episode_steps']}; their frames "
                f"compared with ours at native size: {decibels(peer['psnr_db'])}.\n\n{table(peer['rows'], columns)}"
            ),
        )
    if chunks := result.get("chunks"):
        fps = {(row["chunk_frames"], row["micro_batch"]): statistics.median(row["fps"]) for row in chunks}
        columns = {"frames/s written in micro-batches of": chunk_name} | {
            str(batch): lambda chunk, batch=batch: count(fps[chunk, batch])  # type: ignore[misc]
            for batch in dict.fromkeys(batch for _, batch in fps)
        }
        yield "chunks", table(list(dict.fromkeys(chunk for chunk, _ in fps)), columns)


def _codecs(result: Result) -> Iterator[tuple[str, str]]:
    yield "chart", chart("Size of a frame, and speed of decoding and encoding, for every codec", "codecs.png")
    yield (
        "conditions",
        (
            f"{result['side']}x{result['side']}, one thread; camera-like frames from {result['source']}, drawn ones "
            f"of flat colors; medians of {result['repeats']} interleaved rounds. {conditions(result)}"
        ),
    )
    columns: Columns = {
        "frames": lambda row: row["content"],
        "codec": lambda row: row["codec"],
        "KB/frame": lambda row: f"{row['bytes_per_frame'] / 1000:,.1f}",
        "of raw": lambda row: f"{row['bytes_per_frame'] / row['raw_bytes']:.2f}",
        "encode, f/s (min to max)": lambda row: spread_of(row["encode_fps"]),
        "decode, f/s (min to max)": lambda row: spread_of(row["decode_fps"]),
        "decoded": lambda row: decibels(row["psnr_db"]),
        "worst frame": lambda row: decibels(row["worst_psnr_db"]) if "worst_psnr_db" in row else "",
    }
    yield "table", table(result["rows"], columns)


def _opening_mb(point: Any) -> float:
    """Peak memory of a process that opens a file with an existing index, without its libraries."""
    later = point["later_openings"]
    return float(later["peak_mb"]["median"] - later["imports_mb"]["median"])


RATE = "windows/s"
CURVES: tuple[tuple[str, Callable[[Any], float]], ...] = (
    ("first opening, s", lambda point: point["first_opening"]["seconds"]),
    ("later openings, s", lambda point: point["later_openings"]["seconds"]["median"]),
    ("memory of opening, MB", _opening_mb),
    (RATE, lambda point: statistics.median(point["epochs"]["windows_per_second"])),
)
"""What scaling follows over frames and over episodes."""


def _scaling(result: Result) -> Iterator[tuple[str, str]]:
    columns: Columns = {
        "what": lambda row: row[0],
        "measured": lambda row: f"{row[1]:,.3g}",
        "target": lambda row: f"< {row[2]:g}",
        "": lambda row: row[3],
    }
    resident, rates = (
        ", ".join(f"{value:,.0f}" for value in result["epochs"][key])
        for key in ("resident_mb_after_epochs", "windows_per_second")
    )
    yield (
        "largest",
        (
            f"{result['num_frames']:,} frames in {result['num_episodes']:,} episodes, {result['file_bytes'] / 1e9:.2f} "
            f"GB and an index of {result['index_bytes'] / 1e6:,.0f} MB. {conditions(result)}\n\n"
            f"{table(result['targets'], columns)}\n\n"
            f"Resident MB after each epoch of {result['steps_per_epoch']:,} batches (torch and all columns included): "
            f"{resident}; windows/s in it: {rates}."
        ),
    )
    yield "chart", chart("Opening, memory and windows per second over frames and episodes", "scaling.png")
    for key in ("frames", "episodes"):
        columns = {key: lambda point, key=key: f"{point[f'num_{key}']:,}"}  # type: ignore[misc]
        for what, value in CURVES:
            columns[what] = lambda point, value=value: count(value(point))  # type: ignore[misc]
        yield key, table(result[key], columns)
    columns = {
        "frames converted": lambda point: f"{point['num_frames']:,}",
        "peak MB": lambda point: f"{point['peak_mb']:,.0f}",
    }
    yield "conversion", table(result["conversion"], columns)
    columns = {
        "curve": lambda row: f"{row['what']}, over {row['over']}",
        "exponent b of size^b": lambda row: f"{row['exponent']:.2f}",
        "cost of further ones": lambda row: (
            "" if row["what"] == RATE else f"{count(row['adds'])} ({row['step']:,} {row['over']})"
        ),
    }
    yield "slopes", table(result["slopes"], columns)


def loaders(result: Result) -> list[dict[str, Any]]:
    """Rows of the last throughput result, if it comes from the same machine and frames as a training result."""
    throughput, size = load("throughput"), f"{result['side']}x{result['side']}"
    if throughput is None or any(throughput["machine"][key] != result["machine"][key] for key in ("processor", "cpus")):
        return []
    shown = ("ram_thread", "lzf_thread", "swm_lance", "swm_hdf5", "lerobot_torchcodec")
    rows = {row["name"]: row for row in throughput["rows"] if size in throughput["source"]}
    return [rows[name] for name in shown if name in rows]


def _training(result: Result) -> Iterator[tuple[str, str]]:
    consumed = result["windows_per_second"]
    yield "chart", chart("Windows per second that LeWM consumes and this machine's loaders deliver", "training.png")
    yield (
        "summary",
        (
            f"LeWM ({result['num_parameters'] / 1e6:.1f} million parameters, {result['side']}x{result['side']}, batch "
            f"{result['batch_size']}) consumes {spread(consumed)} windows/s on {result['device']} "
            f"({result['device_type']}). {conditions(result)}"
        ),
    )
    columns: Columns = {
        "": lambda row: row["label"],
        "windows/s (min to max)": lambda row: spread(row["windows_per_second"]),
        "times what LeWM consumes": lambda row: count(row["windows_per_second"]["median"] / consumed["median"]),
    }
    delivered = [{**row, "label": f"{row['label']}, delivers"} for row in loaders(result)]
    yield "table", table([{"label": "LeWM, consumes", "windows_per_second": consumed}, *delivered], columns)
    yield "variants", _variants(result)


def _variants(result: Result) -> str:
    """How fast each variant of the step is, how exact, and whether the fastest learns the same."""
    if "variants" not in result:
        return "*The variants are not measured yet: run `python -m benchmarks.training`.*"
    rows = {row["name"]: row for row in result["variants"]}
    base = rows["eager"]["windows_per_second"]["median"] if "eager" in rows else None
    labels = {name: VARIANTS[name].label for name in result["gradient_errors"]}
    columns: Columns = {
        "step": lambda name: labels[name],
        "windows/s (min to max)": lambda name: spread(rows[name]["windows_per_second"]) if name in rows else "",
        "times eager": lambda name: (
            f"{rows[name]['windows_per_second']['median'] / base:.2f}" if name in rows and base else ""
        ),
        "first step s": lambda name: f"{rows[name]['first_step_seconds']:.1f}" if name in rows else "",
        "error of gradients, float32": lambda name: f"{result['gradient_errors'][name]['float32']:.1e}",
        "bfloat16": lambda name: f"{result['gradient_errors'][name]['bfloat16']:.1e}",
    }
    words = [table(list(labels), columns)]
    if check := result.get("loss_check"):
        words.append(
            f"Training loss after {check['num_steps']} steps, three seeds: eager "
            f"{', '.join(f'{loss:.4f}' for loss in check['eager'])} (spread {check['spread']:.4f}); "
            f"{labels[check['variant']]} {', '.join(f'{loss:.4f}' for loss in check['losses'])}. The means differ by "
            f"{check['difference']:.4f}: {'within' if check['is_same'] else '**beyond**'} the spread."
        )
    return "\n\n".join(words)


def _chroma(result: Result) -> Iterator[tuple[str, str]]:
    columns: Columns = {"codec": lambda row: row["codec"], "pixel format": lambda row: row["pixel_format"]}
    for name in result["errors"][0]["errors"]:
        columns = {
            **columns,
            f"{name}, mean / max error": lambda row, name=name: (  # type: ignore[misc]
                f"{row['errors'][name]['mean']:.2f} / {row['errors'][name]['max']:.0f}"
            ),
        }
    yield "errors", table(result["errors"], columns)
    columns = {
        "codec": lambda row: row["codec"],
        "": lambda row: row["contender"],
        "frames/s": lambda row: f"{statistics.median(row['fps']):,.0f}",
        "share of decode-only speed": lambda row: f"{row['share_of_decode_speed']:.2f}",
        "by processor time": lambda row: f"{row['share_of_decode_cpu']:.2f}",
    }
    yield "speed", table(result["speed"], columns)


def _inspection(result: Result) -> Iterator[tuple[str, str]]:
    yield (
        "summary",
        (
            f"`lewm-data inspect` of {result['episodes']:,} episodes ({result['steps']:,} Parquet rows, "
            f"{result['parquet_bytes'] / 1e6:,.0f} MB) took {result['inspection_seconds']:g} s "
            f"({result['cpu_seconds']:g} s of one processor) and {result['peak_memory_bytes'] / 1e6:,.0f} MB. "
            f"{conditions(result)}"
        ),
    )


_BENCHMARKS: Mapping[str, Callable[[Result], Iterator[tuple[str, str]]]] = {
    "throughput": throughput_blocks,
    "conversion": _conversion,
    "codecs": _codecs,
    "chroma": _chroma,
    "scaling": _scaling,
    "training": _training,
    "inspection": _inspection,
    "assess_faults": faults_blocks,
    "assess_prediction": prediction_blocks,
    "assess_cost": cost_blocks,
    "remote": remote_blocks,
}


def blocks(name: str, result: Result) -> dict[str, str]:
    """All blocks of a benchmark's result, by name. Parts that were not measured have none."""
    return dict(_BENCHMARKS[name](result))
