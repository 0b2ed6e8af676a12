"""What to type after a judgment: the commands, with the corrections and the camera that it calls for."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from lewm_data.config import AssessConfig
from lewm_data.findings import DirtyEpisodePolicy
from lewm_data.notation import output_name
from lewm_data.quality.assess.answers import Answers
from lewm_data.quality.assess.assessment import LAG_FRAMES, Assessment, Level, NextStep

LAPTOP_SIZE = 96
"""Height and width of the frames that ``configs/laptop.yaml`` trains on."""

GPU_SIZE = 224
"""Height and width of the frames that ``configs/so101.yaml`` trains on."""

_UNKNOWN_SOURCE = "DATASET"
_OUTPUT = "OUTPUT.h5"
_MAX_LAPTOP_SIZE = 128
"""Larger frames train slowly without a GPU."""


def shifts(answers: Answers) -> dict[str, int]:
    """The whole frames by which each camera is late beyond doubt."""
    late = {}
    for name, camera in answers.cameras.items():
        lag = camera.lag
        if lag.frames is None or lag.low is None or lag.high is None or abs(lag.frames) < LAG_FRAMES:
            continue
        if lag.low > 0.5 or lag.high < -0.5:
            late[name] = round(lag.frames)
    return late


def next_steps(
    answers: Answers,
    codes: set[str],
    source: str,
    verdict: Level,
    policy: DirtyEpisodePolicy | None,
    frame_height: int | None,
) -> Iterator[NextStep]:
    """Up to three commands to paste, in this order."""
    quoted = shlex.quote(source)
    if verdict == "record_again":
        yield NextStep(f"lewm-data preview {quoted} preview.html", "look at the recording")
        return
    seeing = {name: camera.visibility.score or 0.0 for name, camera in answers.cameras.items()}
    flags = [] if policy is None else ["--dirty_episode_policy", policy]
    best = max(seeing, key=lambda name: seeing[name], default="")
    if len(seeing) > 1:
        flags.append(f"--camera {shlex.quote(best)}")
    corrections = []
    if (shift := shifts(answers).get(best)) is not None:
        corrections.append(f"--shift {shlex.quote(f'{best}={shift:+d}')}")
    if codes & {"idle_head", "idle_tail"}:
        corrections.append("--trim_idle")
    flags += corrections
    if not source.endswith((".h5", ".hdf5")):
        small, full = (shlex.quote(output_name(source, suffix)) for suffix in (f"-{LAPTOP_SIZE}.h5", ".h5"))
        convert = ["lewm-data convert", quoted]
        yield NextStep(
            " ".join([*convert, small, f"--image_size {LAPTOP_SIZE}", *flags]), "convert it with small frames"
        )
        yield _training(small, answers, LAPTOP_SIZE)
        yield NextStep(" ".join([*convert, full, *flags]), "convert it for a GPU, if the small model learns")
    elif corrections:
        size = [] if frame_height in (None, GPU_SIZE) else [f"--image_size {frame_height}"]
        yield NextStep(
            " ".join([f"lewm-data convert {_UNKNOWN_SOURCE} {_OUTPUT}", *size, *flags]),
            "convert its dataset again, with the settings of this file and these",
        )
        yield _training(_OUTPUT, answers, frame_height)
    else:
        step = _training(quoted, answers, frame_height)
        cameras = " --model.cameras all" if len(seeing) > 1 else ""  # the first one may not be the one that sees most
        yield step._replace(line=step.line + cameras)


def _training(data: str, answers: Answers, frame_height: int | None) -> NextStep:
    skip = answers.frameskip.recommended
    on_laptop = frame_height is not None and frame_height <= _MAX_LAPTOP_SIZE
    name, purpose = ("laptop", "try a small model on a laptop") if on_laptop else ("so101", "train on a GPU")
    line = f"python train.py --config configs/{name}.yaml --data.h5_path {data}"
    if frame_height not in (None, LAPTOP_SIZE if on_laptop else GPU_SIZE):
        line += " --data.image_size native"
    return NextStep(line + (f" --data.frameskip {skip}" if skip else ""), purpose)


def settle(assessment: Assessment, config: AssessConfig, *, source: str, shifts: Mapping[str, int]) -> Assessment:
    """The judgment with commands that fit its settings and what was judged.

    Args:
        assessment: The judgment.
        config: Its settings.
        source: What a converted file was made from; see ``source_of_file``.
        shifts: Camera to the shift that a file was converted with.
    """
    settled = replace(assessment, next_steps=with_settings(assessment.next_steps, config, source=source))
    return add_to_shifts(settled, shifts)


def source_of_file(names: Sequence[str]) -> str:
    """What to convert again, as far as a converted file knows: a repo id, or the name of a folder somewhere."""
    if len(set(names)) != 1:
        return _UNKNOWN_SOURCE
    return names[0] if "/" in names[0] else f"path/to/{names[0]}"


def with_settings(
    steps: Iterable[NextStep], config: AssessConfig, *, source: str = _UNKNOWN_SOURCE
) -> tuple[NextStep, ...]:
    """The same commands, with the columns, episodes, camera and frameskip that the recording was judged with.

    Args:
        steps: The commands.
        config: The settings of the judgment.
        source: What a converted file was made from; see ``source_of_file``.
    """
    names = ("camera", "episodes", "action", "state", "revision")
    convert = {f"--{name}": value for name in names if (value := getattr(config, name)) is not None}
    train = {"--data.frameskip": str(config.frameskip)} if config.frameskip != AssessConfig().frameskip else {}
    settled = []
    for line, purpose in steps:
        flags = convert if line.startswith("lewm-data convert ") else train if line.startswith("python ") else {}
        line = line.replace(f" {_UNKNOWN_SOURCE} ", f" {shlex.quote(source)} ")
        more = [f"{flag} {shlex.quote(value)}" for flag, value in flags.items() if f" {flag} " not in line]
        settled.append(NextStep(" ".join([line, *more]), purpose))
    return tuple(settled)


def add_to_shifts(assessment: Assessment, recorded: Mapping[str, int]) -> Assessment:
    """The judgment of a converted file, whose advice adds to the shifts that it was converted with.

    Args:
        assessment: The judgment of what the file holds.
        recorded: Camera to the shift of the file's conversion.
    """
    steps, findings = list(assessment.next_steps), list(assessment.findings)
    for name, late in shifts(assessment.answers).items():
        before = recorded.get(name, 0)
        if not before:
            continue
        after = before + late
        flag, wanted = (f" --shift {shlex.quote(f'{name}={shift:+d}')}" for shift in (late, after))
        steps = [step._replace(line=step.line.replace(flag, wanted if after else "")) for step in steps]
        remedy = f"The file was converted with --shift {name}={before:+d}. Convert again "
        remedy += f"with --shift {name}={after:+d}." if after else "without it."
        findings = [
            replace(found, remedy=remedy) if (found.code, found.camera) == ("camera_lag", name) else found
            for found in findings
        ]
    return replace(assessment, next_steps=tuple(steps), findings=tuple(findings))
