"""Serial plays: one host after the other, none after the first that fails."""

from __future__ import annotations

import threading
from typing import Any

from provision.engine.run import HostPlay
from provision.errors import Unreachable


def steps(task: Any, *hosts: str) -> list[HostPlay]:
    """The steps of a serial play of one task."""
    chain = object()
    return [HostPlay({host: (task,)}, chain) for host in hosts]


def test_one_after_the_other(engine: Any, toys: Any) -> None:
    """Two hosts never run the task at the same time; their order is the inventory's."""
    inside = threading.Lock()
    order: list[str] = []

    def host(name: str) -> Any:
        def work(_: str) -> None:
            assert inside.acquire(blocking=False)
            order.append(name)
            inside.release()

        return toys.Host(on_set=work)

    names = ["web1", "web2", "web3"]
    report = engine({name: host(name) for name in names}, *steps(toys.task("deploy", toys.Toy("app")), *names))
    assert order == names
    assert report.summary.changed == 3


def test_after_a_failure_the_later_hosts_are_skipped(engine: Any, toys: Any) -> None:
    """The second fails: the third is observed and not changed, the reason is reported, and its other plays run."""
    hosts = {name: toys.Host() for name in ("web1", "web3")} | {"web2": toys.Host(on_set=lambda _: 1)}
    report = engine(
        dict(sorted(hosts.items())),
        *steps(toys.task("deploy", toys.Toy("app")), "web1", "web2", "web3"),
        (["web3"], [toys.task("other", toys.Toy("b"))]),
    )
    assert report.statuses == ["web1 deploy changed", "web2 deploy failed", "web3 deploy skipped", "web3 other changed"]
    assert hosts["web3"].was_set == ["b"]
    assert report.messages == ["skipped: web2 failed earlier"]


def test_an_unreachable_host_ends_the_chain_too(engine: Any, toys: Any) -> None:
    """Its state is unknown; its status is unreachable."""
    sessions = {"web1": Unreachable("no route"), "web2": toys.Host(), "web3": Unreachable("no route")}
    report = engine(sessions, *steps(toys.task("deploy", toys.Toy("app")), *sessions))
    assert report.statuses == ["web1 deploy unreachable", "web2 deploy skipped", "web3 deploy unreachable"]
    assert sessions["web2"].was_set == []


def test_two_serial_plays_are_independent(engine: Any, toys: Any) -> None:
    """A failure ends only its own play's chain."""
    sessions = {"web1": toys.Host(on_set=lambda key: key == "a"), "web2": toys.Host()}
    report = engine(
        sessions,
        *steps(toys.task("one", toys.Toy("a")), "web1"),
        *steps(toys.task("two", toys.Toy("b")), "web2"),
    )
    assert report.statuses == ["web1 one failed", "web2 two changed"]


def test_check_mode_plans_all_hosts(engine: Any, toys: Any) -> None:
    """Nothing is applied, so nothing fails."""
    sessions = {name: toys.Host(on_set=lambda _: 1) for name in ("web1", "web2")}
    report = engine(sessions, *steps(toys.task("deploy", toys.Toy("app")), *sessions), check=True)
    assert report.changes == ["web1: ?set app to on", "web2: ?set app to on"]
