"""Serial plays: one host after the other, none after the first that fails."""

from __future__ import annotations

import threading
from typing import Any

from provision.engine.run import HostPlay
from provision.errors import Unreachable


def steps(task: Any, *hosts: str) -> list[HostPlay]:
    """A serial play of one task, as it is taken apart."""
    chain = object()
    return [HostPlay({host: (task,)}, chain) for host in hosts]


def test_one_after_the_other(engine: Any, toys: Any) -> None:
    """Two hosts are never inside the task together, and their order is the inventory's."""
    inside = threading.Lock()
    order: list[str] = []

    def host(name: str) -> Any:
        def work(_: str) -> None:
            assert inside.acquire(blocking=False)
            order.append(name)
            inside.release()

        return toys.Host(on_set=work)

    names = ["web1", "web2", "web3"]
    told = engine({name: host(name) for name in names}, *steps(toys.task("deploy", toys.Toy("app")), *names))
    assert order == names
    assert told.summary.changed == 3


def test_after_a_failure_the_rest_are_left_alone(engine: Any, toys: Any) -> None:
    """The second fails: the third is observed and not changed, the reason is reported, and its other plays run."""
    hosts = {name: toys.Host() for name in ("web1", "web3")} | {"web2": toys.Host(on_set=lambda _: 1)}
    told = engine(
        dict(sorted(hosts.items())),
        *steps(toys.task("deploy", toys.Toy("app")), "web1", "web2", "web3"),
        (["web3"], [toys.task("other", toys.Toy("b"))]),
    )
    assert told.statuses == ["web1 deploy changed", "web2 deploy failed", "web3 deploy skipped", "web3 other changed"]
    assert hosts["web3"].was_set == ["b"]
    assert told.texts == ["skipped: web2 failed earlier"]


def test_a_host_that_is_not_reached_counts_as_one_that_fails(engine: Any, toys: Any) -> None:
    """Nobody knows how it is there; the status stays its own."""
    sessions = {"web1": Unreachable("no route"), "web2": toys.Host(), "web3": Unreachable("no route")}
    told = engine(sessions, *steps(toys.task("deploy", toys.Toy("app")), *sessions))
    assert told.statuses == ["web1 deploy unreachable", "web2 deploy skipped", "web3 deploy unreachable"]
    assert sessions["web2"].was_set == []


def test_two_serial_plays_do_not_mix(engine: Any, toys: Any) -> None:
    """A failure ends its own play's chain."""
    sessions = {"web1": toys.Host(on_set=lambda key: key == "a"), "web2": toys.Host()}
    told = engine(
        sessions,
        *steps(toys.task("one", toys.Toy("a")), "web1"),
        *steps(toys.task("two", toys.Toy("b")), "web2"),
    )
    assert told.statuses == ["web1 one failed", "web2 two changed"]


def test_check_mode_goes_through_all(engine: Any, toys: Any) -> None:
    """Nothing fails where nothing is done."""
    sessions = {name: toys.Host(on_set=lambda _: 1) for name in ("web1", "web2")}
    told = engine(sessions, *steps(toys.task("deploy", toys.Toy("app")), *sessions), check=True)
    assert told.changes == ["web1: ?set app to on", "web2: ?set app to on"]
