"""Who shall be how many times as fast as whom, and whether they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.harness import Spread, ratios

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
"""Above, below, and the least ratio."""


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
