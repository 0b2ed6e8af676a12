"""Does ``assess`` find what is wrong, and nothing else? Faults made on purpose in recordings whose truth is known.

Every seed makes another recording: of a drawn arm, with other paths, noise and numbers of episodes; or from a recorded
dataset, with other episodes, cut at both ends, under another light, with more noise in the pictures. A fault is found
if it is named; a shift, if it is measured within 0.3 frames. "Cannot tell" is counted by itself. A false alarm is a
finding that neither the fault nor the unspoiled recording of the same seed explains.

    python -m benchmarks.assess_faults                            the arm, 20 seeds: an hour of one core
    python -m benchmarks.assess_faults --recordings FOLDER ...    datasets, too
    python -m benchmarks.assess_faults --quick                    shows that it works
"""

from __future__ import annotations

import argparse
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.arm import Arm, make_arm
from benchmarks.faults import Fault, codes, faults, joint_faults, lag_of, tracked, varied
from benchmarks.harness import log
from benchmarks.runner import Benchmark, Option
from lewm_data.config import ConvertConfig
from lewm_data.conversion.inspect import inspect_source
from lewm_data.quality.assess.answers import answer
from lewm_data.quality.assess.assessment import Assessment
from lewm_data.quality.assess.footage import Footage
from lewm_data.quality.assess.judge import judge
from lewm_data.quality.assess.reading import read_dataset

ARM = "drawn arm"
FRAMESKIP = 5

OPTIONS = {
    "seeds": Option("seeds of the drawn arm", 1, 20, 20),
    "recorded_seeds": Option("seeds of each dataset", 1, 20, 20),
    "first_seed": Option("the first of them", 0),
    "recordings": Option("dataset folders", (), (), (), type=str),
    "all_cameras": Option("1: through each camera; 0: through the first one of each dataset", 0),
    "only": Option("faults whose name holds this", ""),
    "processes": Option("recordings assessed at the same time", 1),
}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Spoils and assesses every recording."""
    recorded = {Path(folder).name: _read(folder) for folder in options.recordings}
    seeds = range(options.first_seed, options.first_seed + options.recorded_seeds)
    jobs: list[tuple[str, str | None, int]] = [
        (name, camera, seed)
        for name, footage in recorded.items()
        for camera in list(footage.cameras)[: None if options.all_cameras else 1]
        for seed in seeds
    ]
    jobs += [(ARM, None, seed) for seed in range(options.first_seed, options.first_seed + options.seeds)]
    context = multiprocessing.get_context("forkserver")
    with context.Pool(options.processes, initializer=_share, initargs=(recorded, options.only)) as pool:
        judged = []
        for (name, _, seed), one in zip(jobs, pool.imap(_judge_job, jobs), strict=True):
            log(
                f"{name}, seed {seed}: "
                + ", ".join(row["fault"] for row in one[1:] if not row["found"] or row["alarm"])
            )
            judged.append(one)
    rows: list[dict[str, Any]] = []
    titles = [ARM if camera is None else f"{name}, {camera}" for name, camera, _ in jobs]
    for title in sorted(set(titles), key=lambda title: (title != ARM, titles.index(title))):
        rows += _rows(title, [one for own, one in zip(titles, judged, strict=True) if own == title])
    return {"first_seed": options.first_seed, "rows": rows}


_shared: dict[str, Any] = {}


def _share(recorded: dict[str, Footage], only: str) -> None:
    """Gives a process what its jobs have in common."""
    _shared.update(recorded=recorded, only=only)


def _judge_job(job: tuple[str, str | None, int]) -> list[dict[str, Any]]:
    """Assesses one recording without a fault, and with each."""
    name, camera, seed = job
    recorded: dict[str, Footage] = _shared["recorded"]
    other = next((tracked(f, next(iter(f.cameras))) for n, f in recorded.items() if n != name), None)
    if camera is None:
        clean, found = _arm(seed), [*faults(other, is_in_step=True), *joint_faults(), *_arm_faults()]
    else:
        clean = varied(tracked(recorded[name], camera), np.random.default_rng(seed))
        found = faults(other, is_in_step=False)
    before = _assess(clean)
    results: list[dict[str, Any]] = [
        {"fault": None, "codes": sorted(codes(before)), "lag": lag_of(before), "score": before.score}
    ]
    for fault in found:
        if _shared["only"] not in fault.name:
            continue
        judged = _assess(fault.spoil(clean, np.random.default_rng([seed, 2])))
        is_found = fault.is_found(judged, before)
        results.append(
            {
                "fault": fault.name,
                "found": is_found,
                "undecided": not is_found and fault.is_undecided(judged),
                "lag": lag_of(judged),
                "alarm": sorted(codes(judged) - codes(before) - fault.allowed),
            }
        )
    return results


def _rows(title: str, judged: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """One row for the unspoiled recordings, and one for each fault."""
    clean = [one[0] for one in judged]
    listed = sorted({code for one in clean for code in one["codes"]})
    rows: list[dict[str, Any]] = [
        {
            "recording": title,
            "fault": None,
            "seeds": len(clean),
            "codes": {code: sum(code in one["codes"] for one in clean) for code in listed},
            "lags": [one["lag"] for one in clean],
            "scores": [one["score"] for one in clean],
        }
    ]
    for of_fault in zip(*(one[1:] for one in judged), strict=True):
        alarms = [one["alarm"] for one in of_fault]
        rows.append(
            {
                "recording": title,
                "fault": of_fault[0]["fault"],
                "seeds": len(of_fault),
                "found": sum(one["found"] for one in of_fault),
                "undecided": sum(one["undecided"] for one in of_fault),
                "alarms": alarms,
                "lags": [one["lag"] for one in of_fault],
                "false_alarms": sum(bool(alarm) for alarm in alarms),
            }
        )
    return rows


def _arm(seed: int) -> Footage:
    """An arm with other paths, noise, lengths and response for each seed."""
    random = np.random.default_rng([seed, 1])
    return make_arm(
        Arm(
            seed=seed,
            num_episodes=int(random.integers(6, 9)),
            length=int(random.integers(100, 140)),
            response_steps=int(random.integers(1, 4)),
            sensor_noise=float(random.uniform(1, 4)),
        )
    )


def _arm_faults() -> list[Fault]:
    """Faults that only a recording that was made for them can have."""
    return [
        Fault(
            name="one habit repeated",
            spoil=lambda footage, random: make_arm(Arm(seed=int(random.integers(1 << 30)), habit=True, length=120)),
            is_found=lambda judged, _: "actions_predictable" in codes(judged),
            allowed=frozenset({"actions_predictable", "episodes_alike", "episodes_too_few"}),
        ),
        Fault(
            name="motion below the noise of the pictures",
            spoil=lambda footage, random: make_arm(
                Arm(
                    seed=int(random.integers(1 << 30)),
                    length=120,
                    contrast=0.02,
                    sensor_noise=float(random.uniform(12, 25)),
                )
            ),
            is_found=lambda judged, _: bool({"change_below_noise", "camera_blind"} & codes(judged)),
            allowed=frozenset({"change_below_noise", "camera_blind", "episodes_too_few"}),
        ),
    ]


def _assess(footage: Footage) -> Assessment:
    return judge(footage, answer(footage), source="recording", frameskip=FRAMESKIP)


def _read(folder: str) -> Footage:
    """Decodes a dataset, small."""
    inspection = inspect_source(folder, ConvertConfig(dirty_episode_policy="keep"), any_camera=True)
    assert inspection.dataset is not None
    return read_dataset(
        inspection.dataset,
        inspection.report,
        source=folder,
        cameras=tuple(inspection.dataset.cameras),
        skip=inspection.decision.dropped,
    )


BENCHMARK = Benchmark(name="assess_faults", doc=__doc__, options=OPTIONS, measure=measure)
main = BENCHMARK.main

if __name__ == "__main__":
    main()
