"""`Service`, `Unit` and `AbsentUnit`: bare, half done, converged, broken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from provision.errors import ProbeFailed, UsageError
from provision.host.scripts import script
from provision.resources import AbsentUnit, Handler, Result, Service, Unit
from provision.shell import Command, sh
from provision.templating import use_templates_of
from provision.testing import NO_FILE, file_is, observe, planned

DOCKER = Service("docker")
START = sh("systemctl reset-failed -- docker 2>/dev/null; systemctl start -- docker")


def unit(active: str, file: str, load: str = "loaded") -> str:
    """The output of `systemctl show`, whose order is not ours."""
    return f"UnitFileState={file}\nLoadState={load}\nActiveState={active}\n"


@pytest.mark.parametrize(
    ("active", "file", "summaries"),
    [
        ("active", "enabled", []),
        ("reloading", "static", []),
        ("active", "generated", []),
        ("active", "enabled-runtime", []),
        ("active", "disabled", ["enable docker at boot"]),
        ("active", "masked", ["enable docker at boot"]),
        ("inactive", "enabled", ["start docker"]),
        ("failed", "enabled", ["start docker"]),
        ("activating", "enabled", ["start docker"]),
        ("inactive", "disabled", ["enable docker at boot", "start docker"]),
        ("inactive", "", ["enable docker at boot", "start docker"]),
    ],
)
def test_service(active: str, file: str, summaries: list[str]) -> None:
    """Each state of a unit, and the changes that it needs."""
    changes = planned(DOCKER, observe(DOCKER, unit(active, file)))
    assert [one.summary for one in changes] == summaries
    commands = {"enable docker at boot": sh("systemctl enable -- docker"), "start docker": START}
    assert [one.run for one in changes] == [commands[one] for one in summaries]


@pytest.mark.parametrize(
    ("service", "summaries"),
    [
        (Service("docker", running=False), ["enable docker at boot"]),
        (Service("docker", enabled=False), ["start docker"]),
        (Service("docker", running=False, enabled=False), []),
    ],
)
def test_only_what_is_wanted(service: Service, summaries: list[str]) -> None:
    """Running, and starting at boot."""
    assert [one.summary for one in planned(service, observe(service, unit("inactive", "disabled")))] == summaries


def test_no_systemd() -> None:
    """Broken: no answer does not mean that the unit is stopped."""
    seen = observe(DOCKER, Result(b"", b"System has not been booted with systemd\n", 1))
    with pytest.raises(ProbeFailed, match="does not answer for docker: System has not been booted"):
        planned(DOCKER, seen)


def test_a_unit_that_looks_like_an_option_is_an_argument() -> None:
    """Names are quoted, and come after `--`."""
    odd = Service("-x; reboot")
    (change,) = planned(odd, observe(odd, unit("active", "disabled")))
    assert change.run == sh("systemctl enable -- %s", "-x; reboot")


UNIT_TEXT = "[Unit]\nDescription=Exporter\n\n[Service]\nExecStart=/usr/local/bin/exporter\n"
EXPORTER = Unit("exporter", content=UNIT_TEXT, notify=Handler.reload("prometheus"))
PATH = "/etc/systemd/system/exporter.service"
RESTART = Handler.restart("exporter")


@pytest.mark.parametrize(
    ("file", "state", "summaries"),
    [
        (
            NO_FILE,
            unit("inactive", "", "not-found"),
            [f"create {PATH}", "enable exporter.service at boot", "start exporter.service"],
        ),
        (
            file_is(UNIT_TEXT),
            unit("inactive", "disabled"),
            ["enable exporter.service at boot", "start exporter.service"],
        ),
        (file_is("[Unit]\n"), unit("active", "enabled"), [f"update {PATH}"]),
        (file_is("[Unit]\n"), unit("failed", "enabled"), [f"update {PATH}", "start exporter.service"]),
        (
            file_is(UNIT_TEXT),
            unit("active", "enabled") + "NeedDaemonReload=yes\n",
            [f"reload {PATH}, which changed on disk"],
        ),
        (file_is(UNIT_TEXT), unit("active", "enabled") + "NeedDaemonReload=no\n", []),
    ],
)
def test_unit(file: Result, state: str, summaries: list[str]) -> None:
    """Bare, half done, changed, converged. A unit that runs is restarted for a new file; one that does not is started."""
    changes = planned(EXPORTER, observe(EXPORTER, {"file": file, "unit": state}))
    assert [one.summary for one in changes] == summaries
    for change in changes:
        if PATH in change.summary:
            running = "ActiveState=active" in state
            assert change.notify == ((RESTART,) if running else ()) + (Handler.reload("prometheus"),)
            assert isinstance(change.run, Command)
            assert "systemctl daemon-reload" in change.run.script
        else:
            assert change.notify == ()
    assert EXPORTER.handlers == (RESTART, Handler.reload("prometheus"))


def test_a_timer_and_its_service() -> None:
    """The service is neither started nor enabled: its timer does that."""
    service = Unit("backup", content="[Service]\nType=oneshot\n", enabled=False, running=False)
    timer = Unit("backup.timer", content="[Timer]\nOnCalendar=daily\n")
    assert (service.label, timer.label) == ("Unit backup.service", "Unit backup.timer")
    bare = {"file": NO_FILE, "unit": unit("inactive", "", "not-found")}
    assert [one.summary for one in planned(service, observe(service, bare))] == [
        "create /etc/systemd/system/backup.service"
    ]
    assert len(planned(timer, observe(timer, bare))) == 3
    assert service.handlers == ()
    # A job under way is not ended because its file changed.
    running = {"file": file_is("old\n"), "unit": unit("active", "static")}
    assert [one.notify for one in planned(service, observe(service, running))] == [()]


def test_a_unit_from_a_template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its values are the further keyword arguments; a missing one is an error before anything is contacted."""
    (tmp_path / "x.service.j2").write_text("[Service]\nExecStart=/usr/bin/x --listen {{ listen }}\n")
    use_templates_of([tmp_path])
    monkeypatch.setattr("provision.templating._folders", [tmp_path])
    assert Unit("x", "x.service.j2", listen=9100).content == "[Service]\nExecStart=/usr/bin/x --listen 9100\n"
    with pytest.raises(UsageError, match="'listen' is undefined"):
        Unit("x", template="x.service.j2")
    use_templates_of([])


@pytest.mark.parametrize(
    "make",
    [
        lambda: Unit("x"),
        lambda: Unit("x", "x.j2", content="y"),
        lambda: Unit("x", content="y", port=1),
        lambda: Unit("../x", content="y"),
        lambda: Unit("", content="y"),
    ],
)
def test_units_that_cannot_work(make: Callable[[], Unit]) -> None:
    """The error has a hint."""
    with pytest.raises(UsageError) as caught:
        make()
    assert caught.value.hint


def test_equal_units_are_equal() -> None:
    """A unit is a value."""
    assert Unit("x", content="y") == Unit("x.service", content="y\n")
    assert hash(Unit("x", content="y")) == hash(Unit("x", content="y"))
    assert Unit("x", content="y", running=False) != Unit("x", content="y")


def test_absent_unit() -> None:
    """It is stopped and disabled before its file is deleted."""
    gone = AbsentUnit("backup.timer")
    assert planned(gone, observe(gone, 0)) == []
    (change,) = planned(gone, observe(gone, 1))
    assert (change.summary, change.action) == ("remove the unit backup.timer", "delete")
    assert change.run == script("remove_unit", "backup.timer", "/etc/systemd/system/backup.timer")


@pytest.mark.parametrize(
    ("handler", "name", "summary", "script"),
    [
        (
            Handler.restart("app.service"),
            "restart-app",
            "restart app",
            "systemctl reset-failed -- app 2>/dev/null; systemctl restart -- app",
        ),
        (Handler.restart("b.timer"), "restart-b.timer", "restart b.timer", None),
        (Handler.reload("nginx"), "reload-nginx", "reload nginx", "systemctl try-reload-or-restart -- nginx"),
    ],
)
def test_handlers(handler: Handler, name: str, summary: str, script: str | None) -> None:
    """One name for `app` and `app.service`, so that it restarts once."""
    assert (handler.name, handler.summary) == (name, summary)
    if script is not None:
        assert handler.run == sh(script)
