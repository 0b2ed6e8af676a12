"""Signals become one KeyboardInterrupt each, and none is left over for what the program does next."""

from __future__ import annotations

import os
import signal

import pytest

from lewm_data.conversion import interrupts


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_interrupts_at_once_and_is_remembered_for_the_next_check(number: signal.Signals) -> None:
    with interrupts.listening():
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
        with pytest.raises(KeyboardInterrupt):  # Python may have dropped the first, in a weak reference's callback
            interrupts.check()
        interrupts.check()


def test_afterwards_the_program_has_its_own_handlers_and_nothing_is_left_over() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt), interrupts.listening():
        os.kill(os.getpid(), signal.SIGINT)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    interrupts.check()
