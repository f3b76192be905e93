"""What a resource refuses before the run changes anything: `Resource.refuse_early`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from provision.engine import host_run
from provision.errors import Refused
from provision.resources.base import Change, Note, Observation, Probe, Resource
from provision.shell import sh


@dataclass(frozen=True)
class Needs(Resource):
    """A value that no task sets."""

    key: str

    def probe(self) -> Probe:
        return Probe.of(sh("toy-get %s", self.key))

    def refuse_early(self, seen: Observation) -> None:
        if not seen.text:
            raise Refused(f"{self.key} is missing", hint="set it")

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        self.refuse_early(seen)
        yield from ()


def run(monkeypatch: pytest.MonkeyPatch, engine: Any, toys: Any, host: Any, *, own: bool = False, **more: Any) -> Any:
    """Two tasks, shipped or the user's own, and a third one in a later play that needs a certificate."""
    tasks = [toys.task("first", toys.Toy("a")), toys.task("second", toys.Toy("b"))]
    third = toys.task("third", Needs("certificate"))
    monkeypatch.setattr(host_run, "SHIPPED", () if own else (*tasks, third))
    return engine({"web1": host, "web2": toys.Host({"certificate": "yes"})}, tasks, [third], **more)


def test_nothing_is_changed(monkeypatch: pytest.MonkeyPatch, engine: Any, toys: Any) -> None:
    """The task that refuses has failed, the earlier ones are skipped, and other hosts go on."""
    host = toys.Host()
    report = run(monkeypatch, engine, toys, host)
    assert host.was_set == []
    mine = [one for one in report.statuses if one.startswith("web1")]
    assert mine == ["web1 first skipped", "web1 second skipped", "web1 third failed"]
    assert [one for one in report.statuses if one.startswith("web2")][-1] == "web2 third ok"
    (error,) = report.errors
    assert (error.host, error.task, error.resource) == ("web1", "third", "Needs certificate")
    assert (error.text, error.hint) == ("certificate is missing", "set it")
    assert report.summary.failed == 1
    assert (report.summary.hosts["web1"].failed, report.summary.hosts["web1"].skipped) == (1, 2)


def test_what_a_users_own_task_may_set_up_is_not_refused_early(
    monkeypatch: pytest.MonkeyPatch, engine: Any, toys: Any
) -> None:
    """A task before it is the user's own: it may put the certificate there, and its result counts."""
    host = toys.Host(on_set=lambda key: host.values.update(certificate="yes") if key == "b" else None)
    report = run(monkeypatch, engine, toys, host, own=True)
    assert report.errors == []
    assert host.was_set == ["a", "b"]


def test_check_mode_plans_the_other_tasks(monkeypatch: pytest.MonkeyPatch, engine: Any, toys: Any) -> None:
    """The refusal is that of its task."""
    report = run(monkeypatch, engine, toys, toys.Host(), check=True)
    mine = [one for one in report.statuses if one.startswith("web1")]
    assert mine == ["web1 first changed", "web1 second changed", "web1 third failed"]
