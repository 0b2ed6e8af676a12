"""The text and tables that a result of the throughput benchmark fills (see ``benchmarks/blocks.py``)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from benchmarks.tables import Columns, Result, chart, conditions, count, spread, table


def throughput_blocks(result: Result) -> Iterator[tuple[str, str]]:
    """Names and texts of the blocks."""
    settings, labels = result["settings"], {row["name"]: row["label"] for row in result["rows"]}
    yield "chart", chart("Windows per second of every contender, logarithmic", "throughput.png")
    mp4_batch = settings.get("mp4_batch_size", settings["batch_size"])
    measured = (
        f"Shuffled windows of {settings['num_steps']} frames {settings['frameskip']} steps apart, batch "
        f"{settings['batch_size']}{f' (MP4: {mp4_batch})' if mp4_batch != settings['batch_size'] else ''}, "
        f"{settings['num_workers']} workers, page cache warm; {result['source']}; medians of {settings['rounds']} "
        f"interleaved rounds. {conditions(result)}"
    )
    yield "conditions", measured
    yield "summary", "\n\n".join([*_claims(result, labels), measured])
    columns: Columns = {
        "contender": lambda row: row["label"],
        "windows/s (min to max)": lambda row: spread(row["windows_per_second"]),
        "of the limit": lambda row: count(row["of_limit"]["median"]) if "of_limit" in row else "",
        "frames/s": lambda row: count(row["frames_per_second"]),
        "GB/s": lambda row: count(row["gb_per_second"]),
        "cpu s per 1,000": lambda row: count(row["cpu_seconds_per_1000_windows"]["median"]),
        "first batch s": lambda row: f"{row['first_batch_seconds']['median']:.2f}",
        "setup s": lambda row: f"{row['setup_seconds']:.1f}",
        "memory MB": lambda row: f"{row['memory_bytes'] / 1e6:,.0f}",
        "disk KB/frame": lambda row: f"{row['bytes_per_frame'] / 1e3:,.1f}",
        "windows compared": lambda row: row["compared"]["words"],
    }
    left_out = [f"Left out: {name}: {why}" for name, why in result["left_out"].items()]
    yield "table", "\n\n".join([table(result["rows"], columns), *left_out])
    columns = {
        "contender": lambda target: labels.get(target["who"], target["who"]),
        "compared with": lambda target: (
            labels.get(target["against"], target["against"]) + (" (its best reader)" if target["is_best_peer"] else "")
        ),
        "target": lambda target: f"{target['target']:g}",
        "measured (min to max)": lambda target: spread(target["ratio"]) if target["ratio"] else "",
        "": lambda target: target["outcome"],
    }
    yield "targets", table(result["targets"], columns)
    missed = [
        f"- {labels.get(target['who'])}, compared with {labels.get(target['against'])}: "
        f"{spread(target['ratio'])} times; the target is {target['target']:g}."
        for target in result["targets"]
        if target["outcome"] == "FAIL"
    ]
    yield "missed", "\n".join(missed or ["None."])
    if result.get("workers"):
        yield "workers_chart", chart("Windows per second by number of workers, logarithmic", "throughput_workers.png")
        rates = {(row["label"], row["num_workers"]): row["windows_per_second"] for row in result["workers"]}
        columns = {"windows/s (min to max)": str} | {
            f"{number} worker{'' if number == 1 else 's'}": lambda label, number=number: (  # type: ignore[misc]
                spread(rates[label, number]) if (label, number) in rates else ""
            )
            for number in sorted({number for _, number in rates})
        }
        yield "workers", table(list(dict.fromkeys(label for label, _ in rates)), columns)
    if result.get("cold"):
        warm = {row["name"]: row["windows_per_second"]["median"] for row in result["rows"]}
        columns = {
            "contender": lambda row: row["label"],
            "windows/s, cold (min to max)": lambda row: spread(row["windows_per_second"]),
            "of warm": lambda row: count(row["windows_per_second"]["median"] / warm[row["name"]]),
            "first batch s": lambda row: f"{row['first_batch_seconds']['median']:.2f}",
            "cached before": lambda row: f"{row['cached_share_before']:.0%}",
        }
        yield "cold", table(result["cold"], columns)
    else:
        yield "cold", f"Not measured: {result.get('cold_refused') or 'no rounds'}."


def _claims(result: Result, labels: Mapping[str, str]) -> list[str]:
    """The ratios of the first screen, what was missed, and where a peer is better."""
    found = {(target["who"], target["against"]): target["ratio"] for target in result["targets"] if target["ratio"]}
    best = next((target["against"] for target in result["targets"] if target["is_best_peer"]), "")
    peer = f"stable-worldmodel's best reader ({labels.get(best, best).removeprefix('stable-worldmodel, ')})"
    claims = {
        ("ram_thread", best): f"**{{}} times** {peer}, with the RAM cache",
        ("lzf_thread", best): "**{} times** the same reader, from an LZF file without the cache",
        ("ram_thread", "lerobot_torchcodec"): "**{} times** LeRobotDataset seeking in MP4, with the RAM cache",
        ("ram_thread", "limit_ram"): "**{}** of the rate of threads that only copy memory",
    }
    said = [words.format(spread(found[pair])) for pair, words in claims.items() if pair in found]
    rows = {row["name"]: row for row in result["rows"]}
    if ("jpeg_thread", "swm_lance") in found:
        lance, jpeg = rows["swm_lance"], rows["jpeg_thread"]
        said.append(
            "if disk space matters more than exact pixels, `--compression jpeg` (lossy) takes "
            f"{count(jpeg['bytes_per_frame'] / lance['bytes_per_frame'])} of the bytes of Lance "
            f"({jpeg['compared']['words']}; Lance's JPEG: {lance['compared']['words']}), at "
            f"{spread(found['jpeg_thread', 'swm_lance'])} times its speed"
        )
    elif "swm_lance" in rows and "lzf_thread" in rows:
        lance, lzf = rows["swm_lance"], rows["lzf_thread"]
        said.append(
            "if disk space matters more than speed or exact pixels, choose Lance: its JPEG takes "
            f"{count(lance['bytes_per_frame'] / lzf['bytes_per_frame'])} of the bytes of LZF "
            f"({lance['compared']['words']})"
        )
    return ["\n".join(f"- {words}" for words in said)] if said else []
