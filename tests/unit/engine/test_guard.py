"""Changes that could lock us out: the timer before them, the confirmation, the rollback."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from provision.engine.apply import Applier
from provision.engine.desired_state import Owned
from provision.engine.plan import Planned
from provision.errors import ChangeFailed, ConnectionLost, Unreachable
from provision.host.state import HostState
from provision.resources import Firewall
from provision.resources.base import Change, Guard
from provision.shell import Result, sh
from provision.ssh.session import Session
from provision.testing import FakeSession
from tests.unit.engine.conftest import Steps

GUARDED = Change("switch ufw on", sh("ufw --force enable"), guard=Guard(sh("ufw --force disable"), seconds=40))
DISARM = "systemctl stop provision-guard.timer"


def apply(session: FakeSession, login: Callable[[], Session], change: Change = GUARDED) -> Applier:
    """Applies the change."""
    applier = Applier(session, HostState().updated("firewall", {"ufw": ["old"]}), login)
    applier.apply([Planned(Owned("firewall", Firewall(())), change)], Steps())
    return applier


def unreachable() -> Session:
    """A login that times out."""
    raise Unreachable("timed out")


def test_confirmed_by_a_fresh_login() -> None:
    """The timer is started first, and stopped through the new connection, which is closed."""
    session, fresh = FakeSession(), FakeSession()
    apply(session, lambda: fresh)
    (ran,) = session.ran
    assert ran.script.index("systemd-run") < ran.script.index("\nufw --force enable")
    assert "set -- provision-guard 40 'ufw --force disable'\n" in ran.script
    assert [one.script for one in fresh.ran] == [DISARM]
    assert fresh.closed


def test_without_a_fresh_login_it_is_rolled_back_at_once() -> None:
    """Through the connection that is still open; then logins are tried again."""
    session = FakeSession()
    logins = [unreachable, FakeSession]
    with pytest.raises(
        ChangeFailed, match=r"a fresh login failed after it \(timed out\); it was rolled back, and logins"
    ):
        apply(session, lambda: logins.pop(0)())
    assert session.ran[-1].script == f"ufw --force disable\n{DISARM}"


def test_the_timer_rolls_back_when_the_old_connection_is_dead_too() -> None:
    """The error names the time that it takes."""
    session = FakeSession({"ufw --force disable\n": ConnectionLost("gone")})
    with pytest.raises(ChangeFailed, match=r"the host rolls it back within 40 s \(gone\)"):
        apply(session, unreachable)


def test_rolled_back_and_still_no_login() -> None:
    """The cause is another one; the error names it."""
    with pytest.raises(ChangeFailed, match=r"\(timed out\)"):
        apply(FakeSession(), unreachable)


def test_the_rollback_fails() -> None:
    """The timer tries again."""
    session = FakeSession({"ufw --force disable\n": Result(b"", b"ufw is locked\n", 1)})
    with pytest.raises(ChangeFailed, match="the rollback failed too, and is tried again within 40 s: ufw is locked"):
        apply(session, unreachable)


def test_a_timer_that_cannot_be_stopped_is_no_confirmation() -> None:
    """It would undo the change later."""
    fresh = FakeSession({DISARM: Result(b"", b"no bus\n", 1)})
    with pytest.raises(ChangeFailed, match=r"a fresh login failed after it \(no bus\)"):
        apply(FakeSession(), lambda: fresh)
    assert fresh.closed


def test_a_record_is_removed_after_the_confirmation() -> None:
    """A rule that was restored is still ours."""
    drop = Change("drop", sh("ufw delete"), record=[], guard=GUARDED.guard)
    session = FakeSession()
    with pytest.raises(ChangeFailed):
        apply(session, unreachable, drop)
    assert not any('"ufw": []' in one.script for one in session.ran)
    session = FakeSession()
    applier = apply(session, FakeSession, drop)
    assert applier.state.records("firewall") == {"ufw": []}
    assert '"ufw": []' in session.ran[-1].script
