"""Progress in plain lines, by a clock that the test moves."""

from __future__ import annotations

import io

from provision.engine.events import ErrorSeen, Event, Message, Output, Start, Step, TaskDone
from provision.report.layout import Out
from provision.report.live import PlainProgress

HOSTS = ("runner-1", "runner-2", "runner-3")


class Bench:
    """A progress with its stream and a clock that stands until it is moved."""

    def __init__(self, *, verbose: int = 0, check: bool = False) -> None:
        self.now = 0.0
        self.stream = io.StringIO()
        self.progress = PlainProgress(Out(self.stream), verbose=verbose, clock=lambda: self.now, ticking=False)
        self.progress.on(Start(("docker",), HOSTS, check))

    def after(self, seconds: float, *events: Event) -> list[str]:
        """The lines said when these events came and so many seconds went by."""
        for event in events:
            self.progress.on(event)
        self.now += seconds
        self.progress.tick()
        said = self.stream.getvalue().splitlines()
        self.stream.seek(0)
        self.stream.truncate()
        return said


def test_what_ended_is_folded() -> None:
    """Tasks that ended alike between two looks share a line; those that changed nothing have none."""
    done: list[Event] = [TaskDone(host, "docker", "changed", 3.0 + index, 4) for index, host in enumerate(HOSTS)]
    bench = Bench()
    assert bench.after(2, *done, TaskDone("runner-1", "runner", "ok", 0.1)) == [
        "runner-[1:3]: docker: 4 changes, 5.0 s"
    ]
    assert bench.after(2) == []


def test_check_mode_says_pending() -> None:
    """In check mode nothing was changed, and nothing says so."""
    assert Bench(check=True).after(2, TaskDone("runner-1", "docker", "changed", 0.5, 1)) == [
        "runner-1: docker: 1 change pending, 0.5 s"
    ]


def test_errors_are_said_soon() -> None:
    """An error's first line comes with the next look, not only at the end."""
    error = ErrorSeen("runner-2", "docker", "", "LoginRefused", "refused\nmore", "hint")
    assert Bench().after(2, error) == ["runner-2: docker: UNREACHABLE: refused"]


def test_long_steps_are_named_and_named_again() -> None:
    """A step is named after ten seconds, then once a minute, so that no pipeline thinks us dead."""
    bench = Bench()
    steps = [Step(host, "docker", "install docker-ce") for host in HOSTS[:2]]
    assert bench.after(9, *steps) == []
    assert bench.after(2) == ["runner-[1:2]: docker: install docker-ce … 11.0 s so far"]
    assert bench.after(50) == []
    assert bench.after(10) == ["runner-[1:2]: docker: install docker-ce … 1 min 11 s so far"]


def test_waiting_for_others_is_no_work() -> None:
    """A host that waits at a barrier is not reported as busy."""
    assert Bench().after(100, Step("runner-1", "", "waiting for the hosts before")) == []


def test_verbose_says_steps_and_whole_lines() -> None:
    """With -v steps come at once, and output when a line is whole, its escapes taken out."""
    bench = Bench(verbose=1)
    said = bench.after(
        0,
        Step("runner-1", "docker", "install docker-ce"),
        Output("runner-1", "docker", "Get:1 \x1b[31mdoc"),
        Output("runner-2", "docker", "other\n"),
        Output("runner-1", "docker", "ker-ce\nUnpack"),
    )
    assert said == [
        "runner-1: docker: install docker-ce …",
        "runner-2: | other",
        "runner-1: | Get:1 docker-ce",
    ]
    bench.progress.close()
    assert bench.stream.getvalue() == "runner-1: | Unpack\n"


def test_routine_steps_need_more_verbosity() -> None:
    """A host that connects and looks is news with -vv alone."""
    steps = (Step("runner-1", "", "connecting"), Step("runner-1", "docker", "looking again"))
    assert Bench(verbose=1).after(0, *steps) == []
    assert Bench(verbose=2).after(0, *steps) == ["runner-1: connecting …", "runner-1: docker: looking again …"]


def test_ctrl_c_is_answered_at_once() -> None:
    """Whoever pressed Ctrl-C sees at once what is being finished."""
    bench = Bench()
    bench.progress.on(Message("runner-1", "docker", "stopping after: install docker-ce (Ctrl-C again abandons it)"))
    assert bench.stream.getvalue().startswith("runner-1: stopping after: install docker-ce")


def test_a_step_that_waits_says_for_what() -> None:
    """The host's own words, once it has said that it waits."""
    waiting = "waiting for the CI jobs on this host to end: container build-1"
    bench = Bench()
    step, said = Step("runner-1", "docker", "restart docker"), Output("runner-1", "docker", f"{waiting}\n")
    assert bench.after(10, step, said) == [f"runner-1: docker: restart docker ({waiting}) … 10.0 s so far"]
