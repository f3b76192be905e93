"""The files `pending` and `state.json` on a host, written with a real sh."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from provision.host.pending import ASK_PENDING, Handler, add_pending, clear_pending, read_pending
from provision.host.state import ASK_STATE, HostState
from provision.shell import sh
from provision.testing import LocalSession
from tests.support.local import Local, text_of

RELOAD = Handler("reload", "reload it", sh("true"))
DETACHED = Handler("reconfigure", "reconfigure GitLab", sh("true"), detached=True)


def mode(path: Path) -> int:
    """Permission bits."""
    return stat.S_IMODE(path.stat().st_mode)


class TestPending:
    """`pending`: handlers that have not run yet, written before the change that notifies them."""

    def test_a_handler_is_written_once(self, host: LocalSession) -> None:
        """Two changes that notify the same handler leave one line."""
        for _ in range(2):
            assert text_of(host, add_pending((RELOAD, RELOAD))).code == 0
        assert read_pending(text_of(host, ASK_PENDING.script).text) == {"reload": "reload it"}
        assert text_of(host, ASK_PENDING.script).text == "reload\treload it\n"

    def test_without_handlers_nothing_is_written(self, host: LocalSession, home: Path) -> None:
        """No shell text at all."""
        assert add_pending(()) == ""
        assert text_of(host, ASK_PENDING.script).stdout == b""
        assert not home.exists()

    def test_a_name_inside_another_is_another_handler(self, host: LocalSession) -> None:
        """`docker` is added although `restart-docker` is pending, and removing the one leaves the other."""
        restart, docker = (Handler(name, f"{name}!", sh("true")) for name in ("restart-docker", "docker"))
        text_of(host, add_pending((restart,)))
        text_of(host, add_pending((docker,)))
        assert list(read_pending(text_of(host, ASK_PENDING.script).text)) == ["restart-docker", "docker"]
        text_of(host, clear_pending(docker.name))
        assert list(read_pending(text_of(host, ASK_PENDING.script).text)) == ["restart-docker"]

    def test_a_handler_is_removed(self, host: LocalSession, home: Path) -> None:
        """With the last handler, the file is removed."""
        text_of(host, add_pending((RELOAD, DETACHED)))
        assert text_of(host, clear_pending(RELOAD.name)).code == 0
        assert list(read_pending(text_of(host, ASK_PENDING.script).text)) == ["reconfigure"]
        assert text_of(host, clear_pending(DETACHED.name)).code == 0
        assert list(home.iterdir()) == []

    def test_removing_a_handler_that_is_not_pending_is_no_fault(self, host: LocalSession, home: Path) -> None:
        """A rollback may have removed it already."""
        home.mkdir()
        assert text_of(host, clear_pending(RELOAD.name)).code == 0
        assert list(home.iterdir()) == []

    def test_a_job_of_before_the_change_is_marked_stale(self, host: LocalSession, home: Path) -> None:
        """Its result does not cover the new change."""
        job = home / "job" / "reconfigure"
        job.mkdir(parents=True)
        text_of(host, add_pending((DETACHED,)))
        assert (job / "stale").exists()

    def test_without_such_a_job_nothing_is_marked(self, host: LocalSession, home: Path) -> None:
        """Only `pending` is written."""
        text_of(host, add_pending((DETACHED,)))
        assert [one.name for one in home.iterdir()] == ["pending"]

    @pytest.mark.root
    def test_a_handler_that_cannot_be_written_stops_the_change(self, small_disk: Path, local: Local) -> None:
        """With `set -e`, as the engine runs it, the change does not run."""
        (small_disk / "filler").write_bytes(b"x" * 65536)
        host = local({"/var/lib/provision": small_disk / "home"})
        result = text_of(host, f"set -e\n{add_pending((RELOAD,))}\necho changed")
        assert result.code != 0
        assert b"changed" not in result.stdout

    @pytest.mark.root
    def test_handlers_survive_a_full_disk(self, small_disk: Path, local: Local) -> None:
        """Removing one on a full disk fails, and the file is unchanged."""
        host = local({"/var/lib/provision": small_disk})
        text_of(host, add_pending((RELOAD, DETACHED)))
        (small_disk / "filler").write_bytes(b"x" * (65536 - 4096))
        assert text_of(host, clear_pending(RELOAD.name)).code != 0
        assert list(read_pending(text_of(host, ASK_PENDING.script).text)) == ["reload", "reconfigure"]


class TestState:
    """`state.json`: what tasks recorded on the host."""

    def test_what_is_recorded_is_read_back(self, host: LocalSession, home: Path) -> None:
        """Quotes, percent signs, newlines and other alphabets survive; only root may read it."""
        state = HostState().updated("docker", {"daemon.json": ["it's", '"50%"', "a\nb", "ü\\n"]})
        assert text_of(host, state.write()).code == 0
        assert HostState.parse(text_of(host, ASK_STATE.script).text) == state
        assert mode(home / "state.json") == 0o600
        assert [one.name for one in home.iterdir()] == ["state.json"]

    def test_a_new_host_has_no_records(self, host: LocalSession) -> None:
        """No file is an empty state, and no failure."""
        result = text_of(host, ASK_STATE.script)
        assert (result.code, HostState.parse(result.text)) == (0, HostState())

    def test_the_file_is_readable_json(self, host: LocalSession, home: Path) -> None:
        """Keys in order, so that two hosts' records can be compared."""
        text_of(host, HostState().updated("firewall", {"b": 1, "a": 2}).write())
        found = json.loads((home / "state.json").read_text())
        assert found == {"version": 2, "owners": {"firewall": {"a": 2, "b": 1}}, "shared": {}}
        assert list(found["owners"]["firewall"]) == ["a", "b"]
