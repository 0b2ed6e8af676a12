"""The work folder next to an output: the next run recognizes it, however the last one ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from lewm_data.config import ConvertConfig
from lewm_data.conversion.pipeline import convert
from lewm_data.errors import InterruptedConversionError, OutputError


@pytest.mark.parametrize("number", range(6))
def test_a_run_killed_while_it_cleans_up_leaves_nothing_behind(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    config = ConvertConfig(camera="front", image_size=16, shard_bytes=10_000)
    output, left = tmp_path / "out.h5", [number]
    unlink = Path.unlink

    def dying(path: Path, missing_ok: bool = False) -> None:
        if path.parent.name == "out.h5.partial" and output.exists():
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", dying)
    try:
        convert(str(recorded), output, config)
    except InterruptedConversionError:
        assert (tmp_path / "out.h5.partial" / "state.json").exists()
    monkeypatch.undo()
    with pytest.raises(OutputError, match="exists already"):
        convert(str(recorded), output, config)
    assert [path.name for path in tmp_path.iterdir()] == ["out.h5"]
