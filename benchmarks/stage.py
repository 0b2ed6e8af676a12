"""Run each contender in a process of its own."""

from __future__ import annotations

import contextlib
import gc
import importlib
import multiprocessing
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
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


def first_batch(contender: Contender, *, batch_size: int, num_workers: int) -> First:
    """The first windows of the order."""
    with contextlib.closing(contender.batches(batch_size, num_workers)) as iterator:  # type: ignore[type-var]
        arrays = {name: values.copy() for name, values in contender.arrays(next(iterator)).items()}
    return First(arrays, contender.bytes_per_frame, contender.setup_seconds)


def time_warm(
    contender: Contender, *, batch_size: int, num_workers: int, seconds: float, warmup_seconds: float
) -> Round:
    """One round with a warm page cache."""
    if contender.path is not None:
        warm(contender.path)
    timing: dict[str, Any] = {"seconds": seconds, "warmup_seconds": warmup_seconds}
    if contender.is_slow:  # its batches do not pile up, so one for each worker warms up
        timing |= {"warmup_seconds": 0, "skip": max(1, num_workers)}
    return _timed(contender, batch_size, num_workers, timing)


def time_cold(contender: Contender, *, batch_size: int, num_workers: int) -> Cold:
    """One round with a cold page cache, of a contender that was just opened and has read no frame yet.

    Raises:
        OSError: This system's page cache cannot be emptied.
    """
    if contender.path is None:
        raise ValueError("this contender reads no file while it is timed")
    drop(contender.path)
    share = cached_share(contender.path)
    return Cold(_timed(contender, batch_size, num_workers, {"seconds": 0, "warmup_seconds": 0, "skip": 1}), share)


def _timed(contender: Contender, batch_size: int, num_workers: int, timing: dict[str, Any]) -> Round:
    with contextlib.ExitStack() as stack:

        def batches() -> Iterator[int]:
            opened: Any = contender.batches(batch_size, num_workers)
            stack.enter_context(contextlib.closing(opened))
            for batch in opened:
                count = contender.count(batch)
                del batch
                yield count

        return measure_round(batches, multiple=contender.num_in_work(num_workers), **timing)


class _Actor:
    """The contender of this process."""

    def __init__(self, name: str, data: Prepared, settings: Settings) -> None:
        # LanceDataset changes the start method; "fork" is Python's default on Linux before 3.14.
        multiprocessing.set_start_method("fork", force=True)
        warnings.simplefilter("ignore")
        os.environ["PYTHONWARNINGS"] = "ignore"  # for spawned workers
        with contextlib.suppress(ImportError):  # opening the contender reports it
            importlib.import_module(CONTENDERS[name].imports)
        self._open: Callable[[], Contender] = lambda: CONTENDERS[name].open(data, settings)
        self._contender: Contender | None = None

    def act(self, function: Callable[..., Any], keywords: dict[str, Any]) -> Any:
        """Calls a function with the contender, which is opened for the first call, and again for a cold round."""
        if function is time_cold:  # mapped pages would stay in the page cache
            self._contender = None
            gc.collect()
        self._contender = self._contender or self._open()
        return function(self._contender, **keywords)


_actor: _Actor | None = None


def _start(*arguments: Any) -> None:
    global _actor
    _actor = _Actor(*arguments)


def _act(function: Callable[..., Any] | None, keywords: dict[str, Any]) -> Any:
    assert _actor is not None
    return None if function is None else _actor.act(function, keywords)


class Stage:
    """The contenders' processes."""

    def __init__(self, names: Sequence[str], data: Prepared, settings: Settings) -> None:
        """Starts them, and waits for their imports."""
        context = multiprocessing.get_context("spawn")
        self._pools = {
            name: ProcessPoolExecutor(1, context, initializer=_start, initargs=(name, data, settings)) for name in names
        }
        for started in [pool.submit(_act, None, {}) for pool in self._pools.values()]:
            with contextlib.suppress(Exception):  # the first question reports it
                started.result()

    def ask[R](self, name: str, function: Callable[..., R], **keywords: Any) -> R:
        """Calls ``first_batch``, ``time_warm`` or ``time_cold`` with a contender, in its process."""
        answer: R = self._pools[name].submit(_act, function, keywords).result()
        return answer

    def close(self) -> None:
        """Ends the processes."""
        for pool in self._pools.values():
            pool.shutdown(wait=True, cancel_futures=True)
