"""An iterator run in a thread of its own, a bounded number of bytes ahead of its consumer."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def read_ahead[T](items: Iterable[T], *, max_bytes: int, size_of: Callable[[T], int]) -> Iterator[Iterator[T]]:
    """Runs an iterator ahead in a thread.

    Args:
        items: Consumed in the thread, in order; its exception reaches the consumer after the items before it.
        max_bytes: The thread waits while this much is in flight; a single larger item passes alone.
        size_of: Bytes that an item holds on to.

    Yields:
        An iterator over the same items. When the context ends, early or not, the thread has ended too.
    """
    queue: deque[tuple[T | None, int, bool]] = deque()  # (item, bytes, whether it is an item)
    changed = threading.Condition()
    state: dict[str, Any] = {"bytes": 0, "stop": False, "error": None}

    def produce() -> None:
        try:
            for item in items:
                size = size_of(item)
                with changed:
                    while queue and state["bytes"] + size > max_bytes and not state["stop"]:
                        changed.wait()
                    if state["stop"]:
                        return
                    queue.append((item, size, True))
                    state["bytes"] += size
                    changed.notify_all()
        except BaseException as error:  # handed over, whatever it is
            state["error"] = error
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()
            with changed:
                queue.append((None, 0, False))
                changed.notify_all()

    def consume() -> Iterator[T]:
        while True:
            with changed:
                while not queue:
                    changed.wait()
                item, size, more = queue.popleft()
                state["bytes"] -= size
                changed.notify_all()
            if not more:
                if state["error"] is not None:
                    raise state["error"]
                return
            yield item  # type: ignore[misc]
            del item

    thread = threading.Thread(target=produce, name="decode", daemon=True)
    thread.start()
    try:
        yield consume()
    finally:
        with changed:
            state["stop"] = True
            changed.notify_all()
        thread.join()
