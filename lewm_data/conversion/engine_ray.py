"""Makes shards on a Ray cluster, one task a shard. All nodes must see the source and the output.

Tasks receive only the inspection. A task writes its shard and its heartbeat into the work folder. When a node or
process is lost, its task starts again elsewhere under another temporary name, so that a node that was only
disconnected cannot overwrite the new task's files.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lewm_data.conversion.inspect import Inspection
from lewm_data.conversion.shard import write_shard
from lewm_data.conversion.watchdog import Heartbeat, raise_if_interrupted
from lewm_data.errors import LewmDataError, ResourceError, StalledError, UsageError, error_for_status
from lewm_data.format.writer import replace_durably
from lewm_data.source.decode import DecodeJob

logger = logging.getLogger(__name__)

MAX_TRIES = 4
_CONNECT_SECONDS = 20.0
_POLL_SECONDS = 0.5
_GRACE_SECONDS = 60.0
"""How long to wait for Ray to report the end of a task, after the task's own watchdog."""


@dataclass(kw_only=True)
class ShardTask:
    """A shard to make.

    Attributes:
        number: The shard's number.
        path: The shard's file.
        episodes: The source's episode_index of each of its episodes.
        tries: Number of times the task was started.
        frames: Frames that the task has reported.
        heartbeat: The latest heartbeat; empty before the first.
        changed: When the heartbeat last changed, on this process's monotonic clock.
    """

    number: int
    path: Path
    episodes: Sequence[int]
    tries: int = 0
    frames: int = 0
    heartbeat: str = ""
    changed: float = field(default_factory=time.monotonic)


def write_shards(
    inspection: Inspection,
    tasks: Sequence[ShardTask],
    work: Path,
    *,
    is_final: bool,
    alive: Callable[[], None],
    wrote: Callable[[int, str, int], None],
) -> None:
    """Lets a Ray cluster make shards, and waits for them.

    Uses the cluster that this process is connected to, else the one at ``config.address``, else starts one here.

    Args:
        inspection: The source and the settings.
        tasks: The shards.
        work: Folder for heartbeats and unfinished files. All nodes must see it.
        is_final: Whether the only shard becomes the output itself (see ``write_shard``).
        alive: Called while the tasks make progress.
        wrote: Called after frames were written: episode, camera, how many.

    Raises:
        UsageError: Ray is not installed, or no cluster answers.
        DirtyDataError: Decoding found errors that the policy refuses.
        StalledError: A task made no progress for longer than the watchdog allows.
        ResourceError: Nodes ran out of memory ``MAX_TRIES`` times.
        LewmDataError: A shard was lost ``MAX_TRIES`` times.
    """
    with _cluster(inspection.config.address) as ray:
        config = inspection.config
        num_threads = config.decode_threads or 1
        options = {"num_cpus": num_threads, "max_retries": 0, "scheduling_strategy": "SPREAD"}
        remote = ray.remote(**options)(_make_shard)
        shared = ray.put(_with_absolute_root(inspection))
        running: dict[Any, ShardTask] = {}

        def start(task: ShardTask) -> None:
            task.tries += 1
            reference = remote.remote(
                shared, task.path, list(task.episodes), work / f"{task.path.stem}.try-{task.tries}", is_final=is_final
            )
            running[reference] = task

        try:
            for task in tasks:
                start(task)
            while running:
                raise_if_interrupted()
                finished, _ = ray.wait(list(running), timeout=_POLL_SECONDS)
                read_heartbeats(running.values(), work, wrote)
                patience = config.watchdog_seconds + _GRACE_SECONDS
                if any(not task.heartbeat or time.monotonic() - task.changed < patience for task in running.values()):
                    alive()
                for reference in finished:
                    task = running.pop(reference)
                    try:
                        outcome = ray.get(reference)
                    except ray.exceptions.RayTaskError as error:
                        raise error.cause from error
                    except ray.exceptions.RayError as error:
                        check_lost(ray, task, error, config.watchdog_seconds)
                        start(task)
                        continue
                    if outcome is not None:
                        raise error_for_status(**outcome)
        finally:
            for reference in running:
                with contextlib.suppress(ray.exceptions.RayError):
                    ray.cancel(reference, force=True)
            if running:  # wait until they end, because files that they still write would get in the way of the cleanup
                with contextlib.suppress(ray.exceptions.RayError):
                    ray.wait(list(running), num_returns=len(running), timeout=_GRACE_SECONDS)


def _with_absolute_root(inspection: Inspection) -> Inspection:
    """The same inspection for processes whose working folder is another one."""
    assert inspection.dataset is not None
    dataset = dataclasses.replace(inspection.dataset, root=inspection.dataset.root.absolute())
    return dataclasses.replace(inspection, dataset=dataset)


def _make_shard(inspection: Inspection, path: Path, episodes: list[int], base: Path, *, is_final: bool) -> Any:
    """The task. Returns None if the shard is complete, else the arguments for ``error_for_status``."""
    facts: dict[str, Any] = {"frames": 0}
    temporary = base.with_name(base.name + ".h5")

    with Heartbeat(_beat_path(base), watchdog_seconds=inspection.config.watchdog_seconds) as heartbeat:

        def wrote(job: DecodeJob, count: int) -> None:
            facts.update(episode=job.episode, camera=job.camera, frames=facts["frames"] + count)

        heartbeat.beat(facts, force=True)
        try:
            write_shard(
                inspection,
                temporary,
                episodes,
                is_final=is_final,
                threads=1,
                beat=lambda: heartbeat.beat(facts),
                wrote=wrote,
            )
        except LewmDataError as error:
            return {
                "status": error.exit_status,
                "message": str(error),
                "findings": list(getattr(error, "findings", ())),
            }
        heartbeat.beat(facts, force=True)
        replace_durably(temporary, path)
    return None


def _beat_path(base: Path) -> Path:
    return base.with_name(base.name + ".heartbeat.json")


def read_heartbeats(tasks: Any, work: Path, wrote: Callable[[int, str, int], None]) -> None:
    """Reads the tasks' heartbeats."""
    present = {path.name: path for path in work.glob("*.heartbeat.json")}
    for task in tasks:
        path = present.get(_beat_path(work / f"{task.path.stem}.try-{task.tries}").name)
        if path is None:
            continue
        try:
            text = path.read_text()
            facts = json.loads(text)
        except (FileNotFoundError, ValueError):  # the task is just replacing it
            continue
        if text != task.heartbeat:
            task.heartbeat, task.changed = text, time.monotonic()
        if facts["frames"] > task.frames:  # a restarted task counts only beyond the point that the first one reached
            wrote(facts["episode"], facts["camera"], facts["frames"] - task.frames)
            task.frames = facts["frames"]


def check_lost(ray: Any, task: ShardTask, error: Exception, watchdog_seconds: float) -> None:
    """Decides whether a task whose process or node is gone may start again.

    Raises:
        LewmDataError: It must not.
    """
    silent_seconds = time.monotonic() - task.changed
    if watchdog_seconds and task.heartbeat and silent_seconds >= watchdog_seconds:
        raise StalledError(
            f"shard {task.number} (episodes {task.episodes[0]} to {task.episodes[-1]}) made no progress for "
            f"{watchdog_seconds:g} s, and its watchdog ended it. The stacks are in Ray's log of that worker; finished "
            "shards are kept. Run the same command again to resume."
        )
    words = str(error).splitlines()[0]
    if task.tries >= MAX_TRIES:
        kind = ResourceError if isinstance(error, ray.exceptions.OutOfMemoryError) else LewmDataError
        raise kind(
            f"shard {task.number} (episodes {task.episodes[0]} to {task.episodes[-1]}) was lost {task.tries} times "
            f"({words}). Finished shards are kept. Run the same command again to resume."
        )
    task.heartbeat, task.changed = "", time.monotonic()
    logger.warning("shard %d was lost and starts again (%s)", task.number, words)


def _check_reachable(address: str | None) -> None:
    """Connects to a cluster's address once: Ray itself would try for minutes, until the watchdog ends it.

    Raises:
        UsageError: Nothing answers there.
    """
    place = re.fullmatch(r"(?:ray://)?\[?(.+?)\]?:(\d+)", address or "")
    if place is None:  # "auto", "local" and the like
        return
    try:
        socket.create_connection((place[1], int(place[2])), timeout=_CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise UsageError(f"address is {address!r}, but no Ray cluster answers there ({error}).") from error


@contextlib.contextmanager
def _cluster(address: str | None) -> Iterator[Any]:
    try:
        import ray
    except ImportError as error:
        raise UsageError("engine is ray, but Ray is not installed. Install it: pip install 'lewm_data[ray]'") from error
    if ray.is_initialized():
        yield ray
        return
    _check_reachable(address)
    is_main = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        ray.init(address=address or "local", include_dashboard=None if address else False, log_to_driver=False)
    except (ConnectionError, ValueError) as error:
        raise UsageError(f"address is {address!r}, but no Ray cluster answers there ({error}).") from error
    try:
        if is_main:
            for number, handler in before.items():  # Ray's own handlers would drop our message
                signal.signal(number, handler)
        yield ray
    finally:
        ray.shutdown()
