"""Does ``assess`` find what is wrong, and nothing else? Faults made on purpose in recordings whose truth is known.

Every seed makes another recording: of a drawn arm, with other paths, noise and numbers of episodes; or from a recorded
dataset, with other episodes, cut at both ends, under another light, with more noise in the pictures. A fault is found
if it is named; a shift, if it is measured within 0.3 frames. "Cannot tell" is counted by itself. A false alarm is a
finding that neither the fault nor the unspoiled recording of the same seed explains.

    python -m benchmarks.assess_faults                            the arm, 20 seeds
    python -m benchmarks.assess_faults --recordings FOLDER ...    datasets, too
    python -m benchmarks.assess_faults --quick                    shows that it works
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.arm import Arm, make_arm
from benchmarks.faults import Fault, codes, faults, joint_faults, lag_of, tracked, varied
from benchmarks.harness import log
from benchmarks.runner import Benchmark, Option
from lewm_data.config import ConvertConfig
from lewm_data.conversion.inspect import inspect_source
from lewm_data.quality.assess.answers import answer, look_through, still_dimensions
from lewm_data.quality.assess.assessment import Assessment
from lewm_data.quality.assess.excitation import find_excitation, near_duplicates
from lewm_data.quality.assess.footage import Footage
from lewm_data.quality.assess.idle import find_idle
from lewm_data.quality.assess.judge import judge
from lewm_data.quality.assess.lag import find_lag
from lewm_data.quality.assess.reading import read_dataset
from lewm_data.quality.assess.response import find_response
from lewm_data.quality.assess.visibility import look

ARM = "drawn arm"

OPTIONS = {
    "seeds": Option("seeds of the drawn arm", 1, 20, 20),
    "recorded_seeds": Option("seeds of each dataset", 1, 20, 20),
    "first_seed": Option("the first of them", 0),
    "recordings": Option("dataset folders", (), (), (), type=str),
    "all_cameras": Option("1: through each camera; 0: through the first one of each dataset", 0),
    "only": Option("faults whose name holds this", ""),
}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Spoils and assesses every recording."""
    rows: list[dict[str, Any]] = []
    arm_seeds, seeds = (
        range(options.first_seed, options.first_seed + number) for number in (options.seeds, options.recorded_seeds)
    )
    recorded = {Path(folder).name: _read(folder) for folder in options.recordings}
    other = next((tracked(footage, next(iter(footage.cameras))) for footage in recorded.values()), None)
    made_for_it = [*faults(other, is_in_step=True), *joint_faults(), *_arm_faults()]
    if arm_seeds:
        rows += _measured(ARM, [_arm(seed) for seed in arm_seeds], made_for_it, options)
    for name, footage in recorded.items():
        for camera in list(footage.cameras)[: None if options.all_cameras else 1]:
            one = tracked(footage, camera)
            made = [varied(one, np.random.default_rng(seed)) for seed in seeds]
            others = next((tracked(f, next(iter(f.cameras))) for n, f in recorded.items() if n != name), None)
            rows += _measured(f"{name}, {camera}", made, faults(others, is_in_step=False), options)
    return {"first_seed": options.first_seed, "rows": rows}


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
            touches=frozenset({"rows", "pictures"}),
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
            touches=frozenset({"rows", "pictures"}),
        ),
    ]


def _measured(
    name: str, clean: list[Footage], found: list[Fault], options: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """One row for the unspoiled recordings, and one for each fault."""
    own = [_assess(footage) for footage in clean]
    known = [codes(judged) for judged in own]
    listed = sorted({code for one in known for code in one})
    yield {
        "recording": name,
        "fault": None,
        "seeds": len(clean),
        "codes": {code: sum(code in one for one in known) for code in listed},
        "lags": [lag_of(judged) for judged in own],
        "scores": [judged.score for judged in own],
    }
    for fault in found:
        if options.only not in fault.name:
            continue
        row: dict[str, Any] = {"recording": name, "fault": fault.name, "seeds": len(clean), "found": 0}
        row |= {"undecided": 0, "alarms": [], "lags": []}
        for seed, (footage, before) in enumerate(zip(clean, own, strict=True), options.first_seed):
            judged = _assess(fault.spoil(footage, np.random.default_rng([seed, 2])), before, fault.touches)
            is_found = fault.is_found(judged, before)
            row["found"] += is_found
            row["undecided"] += not is_found and fault.is_undecided(judged)
            row["lags"].append(lag_of(judged))
            row["alarms"].append(sorted(codes(judged) - codes(before) - fault.allowed))
        row["false_alarms"] = sum(bool(alarm) for alarm in row["alarms"])
        alarms = [alarm for alarm in row["alarms"] if alarm]
        log(f"{name}: {fault.name}: {row['found']} of {len(clean)}, {row['undecided']} undecided, alarms {alarms}")
        yield row


def _assess(footage: Footage, before: Assessment | None = None, touches: frozenset[Any] = frozenset()) -> Assessment:
    """Assesses a recording; of a spoiled one, only what its fault touches."""
    if before is None:
        answers = answer(footage)
    else:
        answers = before.answers
        [(name, track)] = footage.cameras.items()
        camera = answers.cameras[name]
        if "rows" in touches:
            answers = replace(
                answers,
                idle=find_idle(footage),
                response=find_response(footage),
                excitation=find_excitation(footage),
                still_dimensions=still_dimensions(footage),
                near_duplicates=tuple(near_duplicates(footage)),
            )
        if "pictures" in touches:
            camera = look_through(footage, track, look(footage, track), is_idle=answers.idle.is_idle)
        elif "lag" in touches:
            camera = replace(camera, lag=find_lag(footage, track))
        answers = replace(answers, cameras={name: camera})
    return judge(footage, answers, source="recording", frameskip=5)


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
