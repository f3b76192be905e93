"""Ctrl-C: stops between two steps; a second one abandons the running step."""

from __future__ import annotations

import os
import signal
from typing import Any

from provision.host.pending import Handler
from provision.shell import sh

RELOAD = Handler("reload", "reload it", sh("toy-set reloaded yes"))


class TestInterrupt:
    """Ctrl-C: stops between two steps; a second one abandons the running step."""

    def test_it_stops_after_the_running_step(self, engine: Any, toys: Any) -> None:
        """The step ends, its task is skipped, and the pending handlers are named."""

        def on_set(key: str) -> None:
            if key == "b":
                os.kill(os.getpid(), signal.SIGINT)
                assert stopped.wait(30)

        import threading

        stopped = threading.Event()

        class Watch:
            def on(self, event: Any) -> None:
                if getattr(event, "text", "").startswith("stopping after"):
                    stopped.set()

            def close(self) -> None:
                """Nothing."""

        host = toys.Host(on_set=on_set)
        tasks = [
            toys.task("1", toys.Toy("a")),
            toys.task("2", toys.Toy("b", notify=(RELOAD,)), toys.Toy("c")),
            toys.task("3"),
        ]
        report = engine({"web1": host}, tasks, run=lambda run: run.listeners.append(Watch()))
        assert host.was_set == ["a", "b"]
        assert report.statuses == ["web1 1 changed", "web1 2 skipped", "web1 3 skipped"]
        assert report.summary.interrupted
        assert report.messages == [
            "stopping after: set b to on (Ctrl-C again abandons it)",
            "stopped between two steps; the last was: set b to on; pending until the next run: reload",
        ]
        assert report.summary.changed == 2
        assert host.closed

    def test_the_second_one_abandons(self, engine: Any, toys: Any) -> None:
        """The session is aborted; the host counts as unreachable."""
        import threading

        from provision.errors import ConnectionLost

        aborted = threading.Event()

        def on_set(_: str) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            assert stopping.wait(30)
            os.kill(os.getpid(), signal.SIGINT)
            assert aborted.wait(30)
            raise ConnectionLost("the connection was closed by this run")

        stopping = threading.Event()

        class Watch:
            def on(self, event: Any) -> None:
                if getattr(event, "text", "").startswith("stopping after"):
                    stopping.set()

            def close(self) -> None:
                """Nothing."""

        host = toys.Host(on_set=on_set)
        host.abort = aborted.set
        report = engine({"web1": host}, [toys.task("1", toys.Toy("a"))], run=lambda run: run.listeners.append(Watch()))
        assert report.messages == [
            "stopping after: set a to on (Ctrl-C again abandons it)",
            "abandoned during: set a to on",
        ]
        assert report.statuses == ["web1 1 unreachable"]
        assert report.summary.interrupted
