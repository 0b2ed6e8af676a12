"""Each contender in a process of its own, doing what it is told."""

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

from benchmarks.contenders.base import Arrays, Contender, Settings
from benchmarks.contenders.registry import CONTENDERS
from benchmarks.harness import Round, measure_cold, measure_round
from benchmarks.pagecache import cached_share, drop, warm
from benchmarks.prepared import Prepared


class First(NamedTuple):
    """What a contender shows before it is timed.

    Attributes:
        arrays: The first windows of the order, through all that is timed later.
        bytes_per_frame: What a frame takes on the disk.
        setup_seconds: What it took to open it.
    """

    arrays: Arrays
    bytes_per_frame: float
    setup_seconds: float


class Cold(NamedTuple):
    """A round whose file was not in the page cache.

    Attributes:
        round: The round.
        cached_share: How much of the file was in the page cache all the same, when it began: 0 to 1.
    """

    round: Round
    cached_share: float


def first_batch(contender: Contender, num_windows: int, num_workers: int) -> First:
    """The first windows of the order."""
    iterator = contender.batches(num_windows, num_workers)
    try:
        batch = next(iterator)
        arrays = {name: values.copy() for name, values in contender.arrays(batch).items()}
        return First(arrays, contender.bytes_per_frame, contender.setup_seconds)
    finally:
        iterator.close()  # type: ignore[attr-defined]


def time_warm(contender: Contender, *, num_workers: int, seconds: float, warmup_seconds: float) -> Round:
    """One round with a warm page cache."""
    if contender.path is not None:
        warm(contender.path)
    multiple = contender.num_in_work(num_workers)
    return _timed(
        contender,
        num_workers,
        lambda batches: measure_round(batches, seconds=seconds, warmup_seconds=warmup_seconds, multiple=multiple),
    )


def time_cold(contender: Contender, *, num_workers: int) -> Cold:
    """One round with a cold one; the contender has just been opened, and has looked at no frame yet.

    Raises:
        OSError: This system's page cache cannot be emptied.
    """
    if contender.path is None:
        raise ValueError("it reads no file while it is timed")
    drop(contender.path)
    share = cached_share(contender.path)
    multiple = contender.num_in_work(num_workers)
    return Cold(_timed(contender, num_workers, lambda batches: measure_cold(batches, multiple=multiple)), share)


def _timed(contender: Contender, num_workers: int, measure: Callable[[Callable[[], Iterator[int]]], Round]) -> Round:
    opened: list[Any] = []

    def batches() -> Iterator[int]:
        opened.append(contender.batches(contender.batch_size, num_workers))
        for batch in opened[0]:
            count = contender.count(batch)
            del batch
            yield count

    try:
        return measure(batches)
    finally:
        opened[0].close()


def _serve(connection: Connection, name: str, data: Prepared, settings: Settings) -> None:
    """Runs one contender in this process, as the parent tells it to.

    Args:
        connection: To the parent. It hears None when all is imported; then it sends a command and its keywords, and
            each answer is ``("ok", value)`` or ``("error", traceback)``.
        name: A key of ``CONTENDERS``.
        data: The files.
        settings: What to read.
    """
    # Python's default on Linux before 3.14, which a program has that was not itself spawned; LanceDataset changes it.
    multiprocessing.set_start_method("fork", force=True)
    warnings.simplefilter("ignore")
    os.environ["PYTHONWARNINGS"] = "ignore"  # for workers that are spawned
    commands: dict[str, Callable[..., Any]] = {"first": first_batch, "warm": time_warm, "cold": time_cold}
    contender: Contender | None = None
    module = CONTENDERS[name].imports
    if module is not None:
        with contextlib.suppress(ImportError):  # said when it is opened
            importlib.import_module(module)
    connection.send(None)
    while True:
        command, keywords = connection.recv()
        if command == "stop":
            return
        try:
            if command == "cold":  # what it has mapped could not be forgotten
                contender = None
                gc.collect()
            contender = contender or CONTENDERS[name].open(data, settings)
            connection.send(("ok", commands[command](contender, **keywords)))
        except Exception:
            connection.send(("error", traceback.format_exc()))


class Stage:
    """The contenders' processes."""

    def __init__(self, names: Sequence[str], data: Prepared, settings: Settings) -> None:
        """Starts them, and waits until they have imported what they need; files are opened at the first question."""
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
            with contextlib.suppress(EOFError):  # said when it is asked
                connection.recv()

    def ask(self, name: str, command: str, **keywords: Any) -> Any:
        """Has a contender do something.

        Args:
            name: The contender.
            command: ``first``, ``warm`` or ``cold``.
            keywords: Those of ``first_batch``, ``time_warm`` or ``time_cold``.

        Raises:
            RuntimeError: It could not; with its traceback.
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
            try:
                connection.send(("stop", {}))
            except OSError:
                continue
        for process in self._processes:
            process.join(20)
            if process.is_alive():
                process.terminate()
