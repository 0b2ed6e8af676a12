"""What a throughput result says: rows, tables and charts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.contenders.registry import CONTENDERS, GROUPS
from benchmarks.harness import Round, Spread, markdown
from benchmarks.words import circumstances, count, picture, spread

NAME = "throughput"
CHART = "throughput.png"
WORKERS_CHART = "throughput_workers.png"

BLOCKS = ("chart", "summary", "conditions", "table", "targets", "workers_chart", "workers", "cold")
"""Everything that ``blocks`` may write."""

NOT_CHARTED = ("cached_batch", "swm_on_lzf_plain")
"""The former would push all others together, the latter differs from its neighbour by a tenth."""


def summarize(name: str, rounds: Sequence[Round], *, num_steps: int, frame_bytes: int) -> dict[str, Any]:
    """The rounds of a contender as one row of the result."""
    rates = Spread.of([done.windows_per_second for done in rounds])
    return {
        "name": name,
        "group": CONTENDERS[name].group,
        "label": CONTENDERS[name].label,
        "windows_per_second": dataclasses.asdict(rates),
        "frames_per_second": rates.median * num_steps,
        "gb_per_second": rates.median * num_steps * frame_bytes / 1e9,
        "cpu_seconds_per_1000_windows": dataclasses.asdict(Spread.of([done.cpu_seconds_per_1000 for done in rounds])),
        "first_batch_seconds": dataclasses.asdict(Spread.of([done.first_batch_seconds for done in rounds])),
        "memory_bytes": max(done.memory_bytes for done in rounds),
        "frame_bytes": frame_bytes,
        "rounds": [dataclasses.asdict(done) for done in rounds],
    }


def blocks(result: Mapping[str, Any]) -> dict[str, str]:
    """The result as Markdown, piece by piece.

    Args:
        result: As ``throughput.py`` writes it.

    Returns:
        Name of a block to its text.
    """
    pieces = {
        "chart": picture("Windows per second of every contender, logarithmic", CHART),
        "summary": _summary(result),
        "conditions": _conditions(result),
        "table": _table(result),
        "targets": _targets(result),
    }
    if result.get("workers"):
        pieces["workers_chart"] = picture("Windows per second over the number of workers, logarithmic", WORKERS_CHART)
        pieces["workers"] = _workers(result)
    if "cold" in result:
        pieces["cold"] = _cold(result)
    return pieces


def _conditions(result: Mapping[str, Any]) -> str:
    settings = result["settings"]
    return (
        f"Shuffled windows of {settings['num_steps']} frames {settings['frameskip']} steps apart, batch "
        f"{settings['batch_size']} (MP4: {settings['mp4_batch_size']}), {settings['num_workers']} workers, page cache "
        f"warm; {result['source']}; medians of {settings['rounds']} interleaved rounds. {circumstances(result)}"
    )


def _summary(result: Mapping[str, Any]) -> str:
    """The claims of the first screen, each a ratio that was taken round by round; what was missed; and a fair word."""
    found = {(target["who"], target["against"]): target["ratio"] for target in result["targets"] if target["ratio"]}
    best = next((target["against"] for target in result["targets"] if target["is_best_peer"]), "")
    claims = (
        (("ram_thread", best), "**{} times** the best of {peer}, with the RAM cache"),
        (("lzf_thread", best), "**{} times** the same, from an LZF file without the cache"),
        (
            ("ram_thread", "lerobot_torchcodec"),
            "**{} times** seeking in MP4 through LeRobotDataset, with the RAM cache",
        ),
        (("ram_thread", "limit_ram"), "**{}** of what threads reach that only copy memory"),
    )
    said = [words.format(spread(found[pair]), peer=_best_of(best)) for pair, words in claims if pair in found]
    missed = [
        f"{_label(target['who'])} against {_label(target['against'])}: {spread(target['ratio'])}, our aim was "
        f"{target['target']:g}"
        for target in result["targets"]
        if target["outcome"] == "FAIL"
    ]
    if missed:
        said.append(f"missed: {'; '.join(missed)}")
    rows = {row["name"]: row for row in result["rows"]}
    if "swm_lance" in rows and "lzf_thread" in rows:
        lance, lzf = rows["swm_lance"], rows["lzf_thread"]
        said.append(
            f"where disk matters more than speed or exact pixels, Lance is the better choice: its JPEG takes "
            f"{count(lance['bytes_per_frame'] / lzf['bytes_per_frame'])} of the bytes of LZF "
            f"({lance['compared']['words']})"
        )
    listed = "\n".join(f"- {words}" for words in said)
    return "\n\n".join([*([listed] if said else []), _conditions(result)])


def _best_of(name: str) -> str:
    return f"stable-worldmodel's readers ({_label(name).removeprefix('stable-worldmodel, ')})"


def _label(name: str) -> str:
    return CONTENDERS[name].label if name in CONTENDERS else name


def _table(result: Mapping[str, Any]) -> str:
    header = (
        "who", "windows/s (min to max)", "of the limit", "frames/s", "GB/s",
        "cpu s per 1,000", "first batch s", "setup s", "memory MB", "disk KB/frame", "windows compared",
    )  # fmt: skip
    rows = []
    for row in result["rows"]:
        limit = row.get("of_limit")
        rows.append(
            (
                row["label"],
                spread(row["windows_per_second"]),
                count(limit["median"]) if limit else "",
                count(row["frames_per_second"]),
                count(row["gb_per_second"]),
                count(row["cpu_seconds_per_1000_windows"]["median"]),
                f"{row['first_batch_seconds']['median']:.2f}",
                f"{row['setup_seconds']:.1f}" if "setup_seconds" in row else "",
                f"{row['memory_bytes'] / 1e6:,.0f}",
                f"{row['bytes_per_frame'] / 1e3:,.1f}",
                row["compared"]["words"],
            )
        )
    left_out = [f"Left out: {name}: {why}" for name, why in result["left_out"].items()]
    return "\n\n".join([markdown(header, rows), *left_out])


def _targets(result: Mapping[str, Any]) -> str:
    rows = []
    for target in result["targets"]:
        rival = _label(target["against"])
        rows.append(
            (
                CONTENDERS[target["who"]].label,
                rival + (" (best of its readers)" if target["is_best_peer"] else ""),
                f"{target['target']:g}",
                spread(target["ratio"]) if target["ratio"] else "",
                target["outcome"],
            )
        )
    return markdown(("who", "against", "target", "measured (min to max)", ""), rows)


def _workers(result: Mapping[str, Any]) -> str:
    counts = sorted({row["num_workers"] for row in result["workers"]})
    rates = {(row["name"], row["num_workers"]): row["windows_per_second"] for row in result["workers"]}
    names = list(dict.fromkeys(row["name"] for row in result["workers"]))
    rows = [
        (CONTENDERS[name].label, *(spread(rates[name, number]) if (name, number) in rates else "" for number in counts))
        for name in names
    ]
    return markdown(
        ("windows/s (min to max)", *(f"{number} worker{'' if number == 1 else 's'}" for number in counts)), rows
    )


def _cold(result: Mapping[str, Any]) -> str:
    if not result["cold"]:
        return f"Not measured: {result['cold_refused']}."
    warm = {row["name"]: row["windows_per_second"]["median"] for row in result["rows"]}
    rows = [
        (
            row["label"],
            spread(row["windows_per_second"]),
            count(row["windows_per_second"]["median"] / warm[row["name"]]),
            f"{row['first_batch_seconds']['median']:.2f}",
            f"{100 * row['cached_share_before']:.0f}%",
        )
        for row in result["cold"]
    ]
    return markdown(("who", "windows/s, cold (min to max)", "of warm", "first batch s", "cached before"), rows)


def draw(result: Mapping[str, Any], folder: Path) -> None:
    """Draws the windows per second of all, and over the number of workers."""
    from benchmarks.charts import Bar, Line, Panel, draw_bars, draw_panels

    bars = [
        Bar(label=row["label"], group=row["group"], value=Spread(**row["windows_per_second"]))
        for row in sorted(result["rows"], key=lambda row: -row["windows_per_second"]["median"])
        if row["name"] not in NOT_CHARTED
    ]
    settings, where = result["settings"], result["machine"]
    note = f"{result['source']}; {where['cpus']} cores of {where['processor']}; page cache warm"
    draw_bars(
        folder / CHART,
        bars,
        title=f"Shuffled windows of {settings['num_steps']} frames, batch {settings['batch_size']}, "
        f"{settings['num_workers']} workers",
        axis="windows per second, log scale (line: slowest to fastest round)",
        groups={group: words for group, words in GROUPS.items() if any(bar.group == group for bar in bars)},
        note=note,
    )
    swept = result.get("workers", [])
    lines = []
    for name in dict.fromkeys(row["name"] for row in swept):
        points = sorted((row for row in swept if row["name"] == name), key=lambda row: row["num_workers"])
        rates = [Spread(**point["windows_per_second"]) for point in points]
        label = CONTENDERS[name].label
        lines.append(Line(label=label, x=[point["num_workers"] for point in points], y=rates))
    if lines:
        panel = Panel(
            title="",
            x_axis="workers (0: in the trainer's own thread)",
            y_axis="windows per second, log scale",
            lines=lines,
            log_x=False,
            ticks=sorted({row["num_workers"] for row in swept}),
        )
        draw_panels(folder / WORKERS_CHART, [panel], title="Windows per second over the number of workers", note=note)
