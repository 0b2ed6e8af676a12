"""What the tables of ``assess`` count."""

from typing import Any

from benchmarks.assess_blocks import faults_blocks

HEAD: dict[str, Any] = {
    "machine": {"processor": "P", "cpus": 2, "memory_gb": 8.0, "load_at_start": 0.0, "date": "2026-01-01 00:00 UTC"},
    "load_at_end": 0.0,
    "form": "bench",
}


def row(fault: str | None, recording: str = "arm", **counts: Any) -> dict[str, Any]:
    return {"recording": recording, "fault": fault, "seeds": 20, "false_alarms": 0, "undecided": 0, "lags": []} | counts


def test_a_shift_that_got_cannot_tell_is_neither_right_nor_wrong() -> None:
    rows = [
        row(None, codes={}, lags=[0.1], scores=[0.5]),
        row("camera late by +1 frame", found=17, undecided=2),
        row("camera late by +2 frames", found=20),
        row("a black camera", found=19, false_alarms=1),
    ]
    blocks = dict(faults_blocks({**HEAD, "rows": rows}))
    assert "| camera late by +1 frame | 17 of 20, 2 cannot tell | 0 of 20 |" in blocks["table"]
    assert "| a black camera | 19 of 20 | 1 of 20 |" in blocks["table"]
    assert (
        "arm: of 40 shifts, 37 were measured within 0.3 frames (92%), 1 was off by more, and 2 got" in blocks["shifts"]
    )


def test_each_recording_has_its_own_line_about_shifts() -> None:
    rows = [row("camera late by +1 frame", name, found=found) for name, found in (("arm", 20), ("robot", 10))]
    lines = dict(faults_blocks({**HEAD, "rows": rows}))["shifts"].splitlines()
    assert [line.split(":")[0] for line in lines[:2]] == ["- arm", "- robot"]
