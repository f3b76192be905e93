"""Ctrl-C reaches the wait and nothing else."""

from __future__ import annotations

import os
import signal
import threading

from provision.engine.interrupts import Interrupts


def press() -> None:
    """Ctrl-C."""
    os.kill(os.getpid(), signal.SIGINT)


def test_it_cuts_a_wait_short() -> None:
    """The next wait is a new one."""
    reached: list[str] = []

    def until() -> None:
        press()
        threading.Event().wait(5)
        reached.append("the end")

    with Interrupts() as interrupts:
        assert not interrupts.wait(until)
        assert interrupts.wait(lambda: None)
    assert reached == []


def test_one_that_comes_early_is_kept() -> None:
    """Work between two waits is not cut in two; each Ctrl-C counts once."""
    reached: list[str] = []
    with Interrupts() as interrupts:
        press()
        press()
        reached.append("work")
        assert not interrupts.wait(lambda: reached.append("never"))
        assert not interrupts.wait(lambda: reached.append("never"))
        assert interrupts.wait(lambda: reached.append("waited"))
    assert reached == ["work", "waited"]


def test_outside_it_is_what_it_was() -> None:
    """The previous handler is back."""
    with Interrupts():
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_who_ignores_it_goes_on_ignoring_it() -> None:
    """As under nohup."""
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interrupts() as interrupts:
            press()
            assert interrupts.wait(lambda: None)
    finally:
        signal.signal(signal.SIGINT, previous)


def test_a_thread_waits_without_it() -> None:
    """Signals are the main thread's."""
    waited: list[bool] = []

    def work() -> None:
        with Interrupts() as interrupts:
            waited.append(interrupts.wait(lambda: None))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert waited == [True]
