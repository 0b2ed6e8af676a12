from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.loading import ddp_draws_script, files


@pytest.mark.slow
def test_goals_and_augmentation_of_two_processes_are_those_of_one_and_repeat_on_resume(tmp_path):
    written = files.write(tmp_path / "a.h5", [30, 25, 7, 40, 33, 28], cameras=["wrist"])
    script = Path(ddp_draws_script.__file__)
    environment = os.environ | {"PYTHONPATH": str(script.parents[2])}
    command = [sys.executable, str(script), str(tmp_path), "ddp", str(written.path)]
    subprocess.run(command, check=True, env=environment, timeout=600)
    whole, rest = ([torch.load(tmp_path / f"{name}-{rank}.pt") for rank in range(2)] for name in ("whole", "rest"))

    for rank in range(2):
        assert len(rest[rank]) == len(whole[rank]) - ddp_draws_script.STOP > 0
        for got, wanted in zip(rest[rank], whole[rank][ddp_draws_script.STOP :], strict=True):
            assert set(got) == set(wanted) >= {"goal_pixels_wrist", "goal_steps", "noise"}
            assert all(torch.equal(got[key], wanted[key]) for key in wanted)

    ddp_draws_script.fit(tmp_path, "alone", str(written.path), batch_size=8, devices=1)
    alone = torch.load(tmp_path / "alone-0.pt")
    for left, right, both in zip(*whole, alone, strict=True):
        assert not torch.equal(left["noise"], right["noise"])
        for key in set(both) - {"noise"}:
            together = torch.stack([left[key], right[key]], dim=1).flatten(0, 1)
            torch.testing.assert_close(together, both[key], atol=1e-4, rtol=0)
