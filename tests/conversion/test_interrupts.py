"""Signals become one KeyboardInterrupt each, and none is left over for the next command."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from lewm_data.conversion import interrupts


@pytest.fixture(autouse=True)
def _own_signal_handlers() -> Iterator[None]:
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_interrupts_at_once_and_is_remembered_for_the_next_check(number: signal.Signals) -> None:
    interrupts.install()
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), number)
    with pytest.raises(KeyboardInterrupt):  # Python may have dropped the first, in a weak reference's callback
        interrupts.check()
    interrupts.check()


def test_installing_again_forgets_what_an_earlier_command_was_asked() -> None:
    interrupts.install()
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    interrupts.install()
    interrupts.check()
