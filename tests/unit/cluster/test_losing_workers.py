"""What the client and a worker do while other processes do not answer; without Dask."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from provision.cluster import client, worker
from provision.cluster.client import ClusterRun
from provision.engine.assemble import Options
from provision.engine.play_graph import PlayEnded, PlayGraph
from provision.engine.run import HostPlay
from tests.support.report import RunReport
from tests.unit.engine.conftest import Engine, toy_task

OLD, OTHER = "tcp://10.0.0.1:1", "tcp://10.0.0.2:1"


def cluster_run(lines: list[str]) -> ClusterRun:
    """A run of two hosts on a cluster that is not there; `lines` gets what it prints."""
    play = HostPlay({name: (toy_task("t"),) for name in ("a", "b")})
    run = Engine.run({"a": Exception(), "b": Exception()}, play, report=RunReport())
    return ClusterRun(run, Options(("t",), ()), "tcp://127.0.0.1:1", lines.append)


def test_a_restarted_worker_is_sent_what_its_earlier_process_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the same address and knows nothing: hosts there would wait for a host that has ended before."""
    run, sent = cluster_run([]), []
    before, again = client._Worker(OLD), client._Worker(OLD)

    async def ask(one: Any, function: Any, reports: Sequence[PlayEnded], interrupts: int) -> bool:
        del function, interrupts
        sent.extend(reports)
        one.is_lost = True  # ends the loop
        return True

    monkeypatch.setattr(run, "_ask", ask)
    for number, (one, host) in enumerate([(before, "a"), (again, "b")]):
        run._tasks[number] = client._Task(number, OLD, {})
        run._receive(one, worker.Parcel(number, 0, (PlayEnded(host, None),)))
    asyncio.run(asyncio.wait_for(run._send(again), 5))
    assert sent == [PlayEnded("a", None)]


def test_ctrl_c_ends_the_wait_for_a_new_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is frozen; the others can be used, and the reason is printed."""
    lines: list[str] = []
    run = cluster_run(lines)
    run._prepared.add(OTHER)

    async def prepare(*_: object) -> None:
        await asyncio.Event().wait()

    async def addresses() -> list[str]:
        return [OLD, OTHER]

    async def ready() -> list[str]:
        asyncio.get_running_loop().call_later(0.1, lambda: setattr(run, "_interrupts", 1))
        found = await asyncio.wait_for(run._ready_workers(), 5)
        return [one.address for one in found]

    async def idle(_: object) -> None:
        """Neither fetches nor sends."""

    monkeypatch.setattr(run, "_fetch", idle)
    monkeypatch.setattr(run, "_send", idle)
    monkeypatch.setattr(run._scheduler, "prepare", prepare)
    monkeypatch.setattr(run._scheduler, "addresses", addresses)
    assert asyncio.run(ready()) == [OTHER]
    assert lines == [f"warning: not used: the worker {OLD} does not answer"]


def test_a_worker_answers_while_a_token_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read on a host is outdated by a change there. That waits for the reading, and the event loop does not."""
    reading, begun = threading.Event(), asyncio.Event()
    share = worker.WorkerRun(None, None, None, PlayGraph([]))  # type: ignore[arg-type]
    monkeypatch.setitem(worker._runs, "run", share)

    async def both() -> float:
        loop = asyncio.get_running_loop()

        def forget(_: object) -> None:
            loop.call_soon_threadsafe(begun.set)
            reading.wait(10)

        share.active[0] = SimpleNamespace(tokens=SimpleNamespace(forget=forget))  # type: ignore[assignment]
        started = time.monotonic()
        update = asyncio.create_task(worker.update("run", [PlayEnded("a", None, changed=True)], 0))
        await begun.wait()
        answered = time.monotonic() - started
        reading.set()
        assert await update
        return answered

    assert asyncio.run(both()) < 5
