"""What processes use."""

from __future__ import annotations

import subprocess
import sys
import time

from benchmarks.processes import tree_cpu_seconds, tree_memory_bytes


def test_memory_of_processes_below_is_counted() -> None:
    before = tree_memory_bytes()
    assert before > 1 << 20
    code = "held = bytearray(50 << 20); print('ready', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as below:
        assert below.stdin is not None
        assert below.stdout is not None
        below.stdout.readline()
        assert tree_memory_bytes() - before > 45 << 20
        below.stdin.close()


def test_processor_time_of_this_process_is_counted() -> None:
    before, began = tree_cpu_seconds(), time.process_time()
    while time.process_time() - began < 0.1:
        pass
    assert tree_cpu_seconds() - before > 0.05
