"""Run each contender in a process of its own."""

from __future__ import annotations

import contextlib
import gc
import importlib
import multiprocessing
import os
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from benchmarks.contenders import CONTENDERS
from benchmarks.contenders.base import Arrays, Contender, Settings
from benchmarks.harness import Round, measure_round
from benchmarks.pagecache import cached_share, drop, warm
from benchmarks.prepared import Prepared


class First(NamedTuple):
    """What a contender shows before it is timed: the first windows of the order, bytes per frame, seconds to open."""

    arrays: Arrays
    bytes_per_frame: float
    setup_seconds: float


class Cold(NamedTuple):
    """A round with a cold page cache, and the share of the file (0 to 1) that it held nevertheless."""

    round: Round
    cached_share: float


def first_batch(contender: Contender, num_windows: int, num_workers: int) -> First:
    """The first windows of the order."""
    with contextlib.closing(contender.batches(num_windows, num_workers)) as iterator:  # type: ignore[type-var]
        arrays = {name: values.copy() for name, values in contender.arrays(next(iterator)).items()}
    return First(arrays, contender.bytes_per_frame, contender.setup_seconds)


def time_warm(
    contender: Contender, *, batch_size: int, num_workers: int, seconds: float, warmup_seconds: float
) -> Round:
    """One round with a warm page cache."""
    if contender.path is not None:
        warm(contender.path)
    if contender.is_slow:  # a consumer that never waits lets no batch pile up: one for each worker warms up
        timing = {"seconds": seconds, "warmup_seconds": 0, "skip": max(1, num_workers)}
        return _timed(contender, batch_size, num_workers, **timing)
    return _timed(contender, batch_size, num_workers, seconds=seconds, warmup_seconds=warmup_seconds)


def time_cold(contender: Contender, *, batch_size: int, num_workers: int) -> Cold:
    """One round with a cold page cache, of a contender that was just opened and has read no frame yet.

    Raises:
        OSError: This system's page cache cannot be emptied.
    """
    if contender.path is None:
        raise ValueError("this contender reads no file while it is timed")
    drop(contender.path)
    share = cached_share(contender.path)
    return Cold(_timed(contender, batch_size, num_workers, seconds=0, warmup_seconds=0, skip=1), share)


def _timed(contender: Contender, batch_size: int, num_workers: int, **timing: Any) -> Round:
    with contextlib.ExitStack() as stack:

        def batches() -> Iterator[int]:
            opened: Any = stack.enter_context(
                contextlib.closing(contender.batches(batch_size, num_workers))  # type: ignore[type-var]
            )
            for batch in opened:
                count = contender.count(batch)
                del batch
                yield count

        return measure_round(batches, multiple=contender.num_in_work(num_workers), **timing)


def _serve(connection: Connection, name: str, data: Prepared, settings: Settings) -> None:
    """Runs one contender: sends None after its imports, then answers commands with a status and a value."""
    # LanceDataset changes the start method; "fork" is Python's default on Linux before 3.14.
    multiprocessing.set_start_method("fork", force=True)
    warnings.simplefilter("ignore")
    os.environ["PYTHONWARNINGS"] = "ignore"  # for spawned workers
    commands: dict[str, Callable[..., Any]] = {"first": first_batch, "warm": time_warm, "cold": time_cold}
    contender: Contender | None = None
    with contextlib.suppress(ImportError):  # opening the contender reports it
        importlib.import_module(CONTENDERS[name].imports)
    connection.send(None)
    while True:
        command, keywords = connection.recv()
        if command == "stop":
            return
        try:
            if command == "cold":  # mapped pages would stay in the page cache
                contender = None
                gc.collect()
            contender = contender or CONTENDERS[name].open(data, settings)
            connection.send(("ok", commands[command](contender, **keywords)))
        except Exception:
            connection.send(("error", traceback.format_exc()))


class Stage:
    """The contenders' processes."""

    def __init__(self, names: Sequence[str], data: Prepared, settings: Settings) -> None:
        """Starts them, and waits for their imports; files are opened by the first command."""
        context = multiprocessing.get_context("spawn")
        self._connections = {}
        self._processes = []
        for name in names:
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, name, data, settings), name=name)
            process.start()
            theirs.close()
            self._connections[name] = ours
            self._processes.append(process)
        for connection in self._connections.values():
            with contextlib.suppress(EOFError):  # the first command reports it
                connection.recv()

    def ask(self, name: str, command: str, **keywords: Any) -> Any:
        """Sends a contender a command: ``first``, ``warm`` or ``cold``, with the keywords of that function.

        Raises:
            RuntimeError: The command failed; with its traceback.
        """
        self._connections[name].send((command, keywords))
        try:
            status, answer = self._connections[name].recv()
        except EOFError:
            status, answer = "error", "its process died"
        if status == "error":
            raise RuntimeError(f"{name}: {answer}")
        return answer

    def close(self) -> None:
        """Ends the processes."""
        for connection in self._connections.values():
            with contextlib.suppress(OSError):
                connection.send(("stop", {}))
        for process in self._processes:
            process.join(20)
            if process.is_alive():
                process.terminate()
