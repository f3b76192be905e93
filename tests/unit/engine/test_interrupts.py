"""Ctrl-C becomes a value that the main thread reads; it interrupts nothing."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import Future

from provision.engine.run import Interrupts


def press() -> None:
    """Ctrl-C."""
    os.kill(os.getpid(), signal.SIGINT)


def ended() -> Future[int]:
    """A job that is over."""
    job: Future[int] = Future()
    job.set_result(1)
    return job


def test_each_is_answered_while_the_jobs_go_on() -> None:
    """Ctrl-C ends no wait: what follows the jobs hears of it, and goes on following."""
    job: Future[str] = Future()
    answered = 0
    with Interrupts() as interrupts:
        threading.Timer(0.01, press).start()
        for _ in interrupts.during([job]):
            answered += 1
            if answered == 3:
                job.set_result("done")
            else:
                press()
    assert answered == 3


def test_one_that_comes_early_is_kept() -> None:
    """Work between two waits is not cut in two; each Ctrl-C counts once."""
    job: Future[str] = Future()
    reached: list[str] = []
    with Interrupts() as interrupts:
        press()
        press()
        reached.append("work")
        for _ in interrupts.during([job]):
            reached.append("pressed")
            if len(reached) == 3:
                job.set_result("done")
    assert reached == ["work", "pressed", "pressed"]


def test_it_is_heard_where_an_exception_would_be_lost() -> None:
    """Code that may not fail, such as a finalizer, swallows what is raised in it."""

    class Finalized:
        def __del__(self) -> None:
            press()

    job: Future[str] = Future()
    with Interrupts() as interrupts:
        thing = Finalized()
        del thing
        for _ in interrupts.during([job]):
            job.set_result("heard")
    assert job.result() == "heard"


def test_ended_jobs_are_not_waited_for() -> None:
    """The end is reached by itself, whatever the number of jobs."""
    jobs: list[Future[int]] = [Future() for _ in range(3)]
    for job in jobs:
        job.set_result(1)
    with Interrupts() as interrupts:
        assert list(interrupts.during(jobs)) == []
        assert list(interrupts.during([])) == []


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
            assert list(interrupts.during([ended()])) == []
    finally:
        signal.signal(signal.SIGINT, previous)


def test_a_thread_waits_without_it() -> None:
    """Signals are the main thread's."""
    waited: list[list[None]] = []

    def work() -> None:
        with Interrupts() as interrupts:
            waited.append(list(interrupts.during([ended()])))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert waited == [[]]
