"""The verdict of an inspection, and the commands that it suggests: these tests run them."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from lewm_data.cli import commands as cli
from lewm_data.config import ConvertConfig
from lewm_data.conversion.inspect import Inspection, inspect_source
from lewm_data.report import Command, next_commands, setting_flags, size, verdict
from tests.quality import dirt


def inspected(root: Path, **settings: object) -> Inspection:
    return inspect_source(str(root), ConvertConfig(**settings), any_camera=True)  # type: ignore[arg-type]


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Command], int]]:
    """Runs a suggested command in an empty folder and returns its exit status."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.chdir(tmp_path)

    def typed(command: Command) -> int:
        program, *arguments = shlex.split(command.line)
        assert program == "lewm-data"
        with pytest.raises(SystemExit) as done:
            cli.main(arguments)
        return int(done.value.code or 0)

    yield typed
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_a_clean_dataset_is_converted_and_compared_by_the_commands(
    recorded: Path, typed: Callable[[Command], int]
) -> None:
    inspection = inspected(recorded, camera="front", image_size="24x32", min_episode_steps=1)
    assert verdict(inspection)[:2] == ("good", "Clean, and ready to convert.")
    commands = next_commands(inspection)
    assert [shlex.split(command.line)[1] for command in commands] == ["assess", "convert", "verify"]
    assert [typed(command) for command in commands] == [0, 0, 0]


def test_warnings_do_not_stop_a_conversion(recorded: Path) -> None:
    inspection = inspected(recorded, camera="front")
    judged = verdict(inspection)
    assert judged[:2] == ("good", "Ready to convert; 4 warnings will be recorded in the file.")
    typed = [shlex.split(command.line)[1] for command in next_commands(inspection)]
    assert typed == ["assess", "preview", "convert", "verify"]


def test_several_cameras_are_offered_one_by_one_and_together(recorded: Path, typed: Callable[[Command], int]) -> None:
    inspection = inspected(recorded, image_size=16)
    assert verdict(inspection)[:2] == ("fair", "Choose a camera: front or top could each be 'pixels'.")
    commands = next_commands(inspection)
    assert [command.purpose for command in commands] == [
        "see whether a world model can learn from it",
        "front alone",
        "top alone",
        "front as 'pixels', with the others",
    ]
    assert typed(commands[-1]) == 0


def test_a_refused_dataset_gets_the_policies_that_let_it_pass(
    recorded: Path, copy_of: Callable[[Path], Path], tmp_path: Path, typed: Callable[[Command], int]
) -> None:
    root = copy_of(recorded)
    dirt.values("action", lambda values: np.full_like(values, np.nan))(root)
    dirt.span(3, 1.0, 0.5)(root)
    inspection = inspected(root, camera="front", image_size=16)
    judged = verdict(inspection)
    assert judged.level == "bad"
    assert judged.sentence.startswith("Refused: 2 errors in 2 of 5 episodes.")
    skip, keep, look, every = next_commands(inspection)
    assert (skip.purpose, keep.purpose) == (
        "drop the 2 episodes with errors",
        "keep and mark what can be aligned, drop 1 episode",
    )
    assert typed(skip) == 0
    (tmp_path / "recorded.h5").unlink()
    assert typed(keep) == 0
    assert typed(look) == 0
    assert (tmp_path / "recorded.html").is_file()
    assert shlex.split(every.line)[-3:] == ["--json", ">", "findings.json"]
    skipped = inspected(root, camera="front", dirty_episode_policy="skip")
    assert verdict(skipped)[:2] == ("fair", "Ready to convert without 2 of 5 episodes.")


def test_a_dataset_that_no_policy_helps_gets_no_conversion(recorded: Path, copy_of: Callable[[Path], Path]) -> None:
    root = copy_of(recorded)
    dirt.no_features("action")(root)
    inspection = inspected(root, camera="front")
    assert verdict(inspection).sentence.startswith("Refused: 1 error of the dataset as a whole.")
    assert [command.line for command in next_commands(inspection)] == [
        shlex.join(["lewm-data", "preview", str(root), f"{root.name}.html"]),
        shlex.join(["lewm-data", "inspect", str(root), "--camera", "front", "--json"]) + " > findings.json",
    ]


def test_unreadable_metadata_is_a_verdict_too(recorded: Path, copy_of: Callable[[Path], Path]) -> None:
    root = copy_of(recorded)
    (root / dirt.INFO).write_text("{")
    inspection = inspected(root)
    assert verdict(inspection).level == "bad"
    assert len(next_commands(inspection)) == 1


def test_a_conversion_that_does_not_fit_is_not_offered(recorded: Path) -> None:
    inspection = inspected(recorded, camera="front")
    assert verdict(inspection, ["memory: 9 GB are needed"])[:2] == ("bad", "Does not fit: memory: 9 GB are needed")
    assert next_commands(inspection, fits=False) == []


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"camera": "my camera's", "image_size": "native", "watchdog_seconds": 3.5},
        {"extra_columns": ("task_index", "observation.force"), "overwrite": True, "episodes": "0:3,5"},
        {"extra_columns": ("odd,name",)},
    ],
    ids=str,
)
def test_flags_parse_back_to_the_same_settings(settings: dict[str, object]) -> None:
    from lewm_data.cli.commands import _config
    from lewm_data.cli.parser import parse

    config = ConvertConfig(**settings)  # type: ignore[arg-type]
    line = shlex.join(["convert", "source", "out.h5", *setting_flags(config)])
    parsed = parse(shlex.split(line))
    assert _config(ConvertConfig, parsed.convert) == config


def test_sizes_have_a_suitable_unit() -> None:
    assert [size(n * 10**6) for n in (0, 5, 9999, 29_300)] == ["0 MB", "5 MB", "9,999 MB", "29.3 GB"]
