"""The desired state: each task function is called once for each host and run, on the hosts that it concerns."""

from __future__ import annotations

import gc
import tracemalloc
import weakref
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from provision.engine.assemble import Options, assemble
from provision.engine.desired_state import DesiredState, HostPlay, Owned
from provision.engine.events import Event, Summary
from provision.engine.observe import Observer
from provision.engine.run import Run
from provision.errors import UsageError
from provision.formats.build_context import Context
from provision.resources import Absent, Change, File, Note, Observation, Probe, Resource
from provision.resources.base import ApiQuery
from provision.resources.gitlab.s3_bucket import S3Bucket
from provision.secret import Secret
from provision.shell import sh
from provision.tasks.base import Host, Task
from provision.templating import use_templates_of
from provision.testing import FakeSession
from provision.url import Url
from tests.support.report import RunReport
from tests.unit.engine.conftest import host_of

INVENTORY = """
[hosts.gitlab]
groups = ["gitlab"]
[hosts."runner-[1:2]"]
groups = ["runners"]
[gitlab]
external_url = "https://gitlab.example.com"
api_token = "the-api-token"
[registry]
external_url = "https://gitlab.example.com:5555"
[registry.login]
username = "root"
password = "the-login-password"
image = "root/hello"
[[images]]
name = "root/hello"
context = "context"
[[apps]]
name = "hello"
on = "runner-2"
image = "root/hello"
"""


@pytest.fixture
def inventory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An inventory with settings for every kind of task; hosts are fake."""
    file = tmp_path / "inventory.toml"
    file.write_text(INVENTORY)
    file.chmod(0o600)
    (tmp_path / "context").mkdir()
    (tmp_path / "context/Dockerfile").write_text("FROM scratch\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("provision.ssh.connect", lambda *_, **__: FakeSession())
    yield file
    use_templates_of([])


@pytest.mark.parametrize("check", [True, False])
def test_each_task_function_is_called_once_for_each_host_and_run(
    inventory: Path, monkeypatch: pytest.MonkeyPatch, check: bool
) -> None:
    """In check mode and out of it, also where a task is named twice; a build context is hashed once."""
    calls: Counter[tuple[str, str]] = Counter()
    digests: list[str] = []
    resources, digest = Task.resources, Context.digest

    def counted(task: Task, host: Host) -> tuple[Resource, ...]:
        calls[task.name, host.name] += 1
        return resources(task, host)

    def hashed(context: Context) -> str:
        digests.append(str(context.folder))
        return digest(context)

    monkeypatch.setattr(Task, "resources", counted)
    monkeypatch.setattr(Context, "digest", hashed)
    run, _ = assemble(Options(("all", "docker", "prune"), (inventory,), check=check))
    run.execute()
    assert set(calls.values()) == {1}
    server = {(name, "gitlab") for name in ("gitlab", "certificates", "registry", "firewall")}
    runners = {(name, f"runner-{n}") for name in ("docker", "runner", "register", "verify") for n in (1, 2)}
    assert set(calls) >= server | runners | {("image", "runner-1"), ("deploy", "runner-2"), ("prune", "runner-1")}
    assert len(digests) == 1


PLAYBOOK = """
from provision.resources import File
from provision.tasks import play, task


@task(where=lambda host: host.name == "runner-2")
def picky(host):
    "Only one host."
    yield File("/etc/picky", "x")


@task()
def every(host):
    "Every host."
    yield File("/etc/every", "x")


PLAYS = [play("runners", {tasks})]
"""


class TestWhere:
    """`where=`, also for a task that stands in a play with others."""

    @staticmethod
    def reported(inventory: Path, tasks: str) -> list[tuple[str, str]]:
        """(host, task) of the tasks that are reported."""
        (inventory.parent / "playbooks").mkdir()
        (inventory.parent / "playbooks/mixed.py").write_text(PLAYBOOK.format(tasks=tasks))
        found: list[tuple[str, str]] = []

        class Listener:
            def on(self, event: Any) -> None:
                if type(event).__name__ == "TaskDone":
                    found.append((event.host, event.task))

            def close(self) -> None:
                """Nothing is open."""

        run, _ = assemble(Options(("mixed",), (inventory,), check=True))
        run.listeners = [Listener()]
        run.execute()
        return sorted(found)

    def test_a_task_in_a_play_with_others(self, inventory: Path) -> None:
        """It neither runs on hosts that it does not concern nor is reported for them."""
        assert self.reported(inventory, "picky, every") == [
            ("runner-1", "every"),
            ("runner-2", "every"),
            ("runner-2", "picky"),
        ]

    def test_a_host_without_any_task_is_not_contacted(self, inventory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nothing is left for it."""
        contacted: list[str] = []
        monkeypatch.setattr("provision.ssh.connect", lambda one, **_: contacted.append(one.name) or FakeSession())
        assert self.reported(inventory, "picky") == [("runner-2", "picky")]
        assert contacted == ["runner-2"]


class Asking(Resource):
    """Reports whether its verification is due, and what it was asked."""

    label = "Asking"

    def probe(self) -> Probe:
        query = ApiQuery("key", lambda seen: seen.due)
        return Probe({"api": query, "plain": sh("plain")}, when_due={"more": sh("more")})

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        yield Note(f"due {seen.due}, asked {sorted(seen)}, api {seen.data('api')}")


DUE = "due True, asked ['api', 'more', 'plain'], api True"
NOT_DUE = "due False, asked ['api', 'plain'], api False"


class TestDue:
    """When a verification is due, and which questions are asked then."""

    def test_not_in_a_run_that_changes_nothing(self, engine: Any, toys: Any) -> None:
        """One batch."""
        host = toys.Host({"a": "on"})
        report = engine({"web1": host}, [toys.task("a", toys.Toy("a"))], [toys.task("asking", Asking())])
        assert report.messages == [NOT_DUE]
        assert len(host.batches) == 1

    def test_when_the_task_was_named(self, engine: Any, toys: Any) -> None:
        """Known from the start: one batch."""
        host = toys.Host()
        report = engine({"web1": host}, [toys.task("toys", Asking())])  # the tests' runs name `toys`
        assert report.messages == [DUE]
        assert len(host.batches) == 1

    @pytest.mark.parametrize("check", [True, False])
    def test_after_a_change_in_an_earlier_play(self, engine: Any, toys: Any, check: bool) -> None:
        """On any host."""
        sessions = {"web1": toys.Host(), "web2": toys.Host()}
        plays = ((["web1"], [toys.task("a", toys.Toy("a"))]), (["web2"], [toys.task("asking", Asking())]))
        assert engine(sessions, *plays, check=check).messages == [DUE]

    def test_after_a_change_by_an_earlier_task_of_the_same_host(self, engine: Any, toys: Any) -> None:
        """Also in the same play."""
        report = engine({"web1": toys.Host()}, [toys.task("a", toys.Toy("a")), toys.task("asking", Asking())])
        assert report.messages == [DUE]

    def test_not_after_a_change_of_its_own(self, engine: Any, toys: Any) -> None:
        """What the task itself changed is observed again as it is."""
        report = engine({"web1": toys.Host()}, [toys.task("asking", toys.Toy("a"), Asking())])
        assert report.messages == [NOT_DUE]


def test_input_of_a_named_task_is_validated_before_any_host_is_contacted(engine: Any, toys: Any) -> None:
    """Only then: it costs too much in every run."""

    class Costly(toys.Toy):  # type: ignore[misc]
        def validate(self) -> None:
            raise UsageError("bad template")

    host = toys.Host({"a": "on"})
    assert engine({"web1": host}, [toys.task("other", Costly("a"))]).errors == []
    host.batches.clear()
    with pytest.raises(UsageError, match="bad template"):
        engine({"web1": host}, [toys.task("toys", Costly("a"))])
    assert host.batches == []


@dataclass(frozen=True)
class Counted(Resource):
    """Counts how often it is made and asked; `remark` is not compared."""

    name: str
    size: object = 0
    remark: str = field(default="", compare=False)

    calls: ClassVar[Counter[str]] = Counter()

    def claims(self) -> dict[str, Hashable]:
        self.calls["claims"] += 1
        return {self.name: 1}

    def probe(self) -> Probe:
        self.calls["probe"] += 1
        return Probe.of(sh("true"))

    def validate(self) -> None:
        self.calls["validate"] += 1

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        del seen
        self.calls["plan"] += 1
        yield from ()


@dataclass(frozen=True)
class WithoutHash(Resource):
    """A resource of a user's own with a field that has no hash."""

    names: list[str]

    def probe(self) -> Probe:
        return Probe()

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        del seen
        yield from ()


class TestHostsShareWhatIsEqual:
    """A thousand hosts with the same desired state need the memory of one."""

    @staticmethod
    def run_of(function: Callable[[Host], Iterator[Resource]], hosts: int) -> tuple[Run, RunReport]:
        """A run of one task on so many hosts."""
        names = [f"web{number}" for number in range(hosts)]
        task = Task("own", "all", function)
        report = RunReport()
        play = HostPlay(dict.fromkeys(names, (task,)))
        run = Run(("own",), [host_of(one) for one in names], [play], lambda _: FakeSession(), [report])
        return run, report

    @classmethod
    def states_of(cls, *of_hosts: Resource) -> list[tuple[Owned, ...]]:
        """What a task that yields one resource for each host yields, by host."""
        run, _ = cls.run_of(lambda host: iter([of_hosts[int(host.name[3:])]]), len(of_hosts))
        desired = DesiredState(run.hosts, run.plays)
        return [one for host in run.hosts for one in desired[host.name].tasks.values()]

    def test_equal_resources_are_one_object_whose_questions_and_claims_are_computed_once(self) -> None:
        """Planning needs the host's answers, so it is done for each host."""
        Counted.calls.clear()
        made = [Counted("a"), Counted("b")]
        run, report = self.run_of(lambda _: iter([replace(one) for one in made]), 40)
        summary = run.execute()
        assert summary.failed == 0
        assert len(report.statuses) == 40
        assert Counted.calls == {"claims": 2, "probe": 2, "validate": 2, "plan": 80}

    def test_questions_are_made_again_after_a_minute(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A signed request in them expires. The answers of a host are to the questions that it was asked."""
        now = [1000.0]
        monkeypatch.setattr("provision.engine.desired_state.time", SimpleNamespace(monotonic=lambda: now[0]))
        bucket = S3Bucket("b", "r", Url.parse("https://s3.example.com"), "id", Secret("the-secret-key"))
        item, session = Owned("registry", bucket), FakeSession()
        observer = Observer(session)
        observer.observe([item])
        first = item.probe
        now[0] += 59
        assert item.probe is first
        now[0] += 2
        observer.observation(item)
        assert item.probe is not first
        assert len(session.batches) == 1
        observer.forget()
        observer.observe([item])
        assert len(session.batches) == 2

    def test_hosts_with_the_same_desired_state_share_one(self) -> None:
        """It differs where one resource differs."""
        run, _ = self.run_of(lambda host: iter([Counted("a"), Counted(host.name[-1])]), 30)
        desired = DesiredState(run.hosts, run.plays)
        assert len({id(desired[host.name]) for host in run.hosts}) == 10
        owned = {id(one): one for host in run.hosts for items in desired[host.name].tasks.values() for one in items}
        assert sorted(one.resource.name for one in owned.values() if isinstance(one.resource, Counted)) == [
            *"0123456789",
            "a",
        ]

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            (Counted("a", 1), Counted("a", True)),
            (Counted("a", (1,)), Counted("a", (1.0,))),
            (Counted("a", remark="x"), Counted("a", remark="y")),
            (WithoutHash(["a"]), WithoutHash(["b"])),
        ],
    )
    def test_resources_that_differ_in_any_part_are_not_shared(self, one: Resource, other: Resource) -> None:
        """`==` is true for 1 and True, and leaves out fields that are not compared."""
        ((first,), (second,)) = self.states_of(one, other)
        assert first.resource is one
        assert second.resource is other

    def test_a_claim_that_conflicts_is_reported_for_each_host(self) -> None:
        """Although both hosts have the same resources."""

        def two(host: Host) -> Iterator[Resource]:
            yield File("/etc/x", host.name[:3])
            yield Absent("/etc/x")

        run, _ = self.run_of(two, 2)
        with pytest.raises(UsageError, match=r"(?s)web0: the task own wants .*web1: the task own wants"):
            run.execute()

    def test_of_a_host_that_has_finished_only_the_counts_are_kept(self) -> None:
        """Its session, its answers and its plans are freed before the run ends."""
        sessions: list[weakref.ref[FakeSession]] = []
        alive: list[int] = []

        def connect(_: Host) -> FakeSession:
            session = FakeSession()
            sessions.append(weakref.ref(session))
            return session

        class AtEnd:
            def on(self, event: Event) -> None:
                if isinstance(event, Summary):
                    gc.collect()
                    alive.append(sum(one() is not None for one in sessions))

            def close(self) -> None:
                """Nothing is open."""

        run, _ = self.run_of(lambda _: iter([Counted("a")]), 20)
        run.connect, run.listeners = connect, [AtEnd()]
        summary = run.execute()
        assert len(sessions) == 20
        assert alive == [0]
        assert {one.round_trips for one in summary.hosts.values()} == {1}

    @pytest.mark.slow
    def test_a_further_host_needs_little_memory(self) -> None:
        """With ten files on each; neither the session over SSH nor the report is included.

        It is 6 KB, and on a busy machine, where more hosts are at work at the same time, 10; 34 if each host had its own
        resources.
        """

        def ten(_: Host) -> Iterator[Resource]:
            for number in range(10):
                yield File(f"/etc/ten/{number}", f"value = {number}\n" * 50)

        def peak(hosts: int) -> int:
            run, _ = self.run_of(ten, hosts)
            run.connect, run.listeners, run.check = lambda _: FakeSession({"/etc/ten": "absent\n"}), [], True
            tracemalloc.start()
            try:
                assert run.execute().failed == 0
                return tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()

        peak(10)  # what is imported and cached
        assert (peak(250) - peak(50)) / 200 < 20 * 1024
