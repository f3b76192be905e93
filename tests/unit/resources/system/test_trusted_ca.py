"""`TrustedCa`: bare, half done, converged, broken; carried out with a real sh."""

from __future__ import annotations

from pathlib import Path

import pytest

from provision.resources import TrustedCa
from provision.shell import Command
from provision.testing import LocalSession, look, planned
from provision_lab.certificates import Authority

CA = Authority("a CA")


@pytest.fixture
def trusting(tmp_path: Path) -> LocalSession:
    """This machine with an `update-ca-certificates` that does what the real one does to the bundle."""
    folder, bundle = tmp_path / "ca", tmp_path / "certs"
    bundle.mkdir()
    tools = tmp_path / "bin"
    tools.mkdir()
    update = tools / "update-ca-certificates"
    update.write_text(f"#!/bin/sh\ncat {folder}/*.crt > {bundle}/ca-certificates.crt 2>/dev/null || : > {bundle}/x\n")
    update.chmod(0o755)
    return LocalSession(
        {"/usr/local/share/ca-certificates": folder, "/etc/ssl/certs": bundle},
        {"PATH": f"{tools}:/usr/sbin:/usr/bin:/sbin:/bin"},
    )


class TestTrustedCa:
    """What the host's programs trust."""

    def settle(self, host: LocalSession, tmp_path: Path, *authorities: Authority) -> tuple[list[str], list[str], str]:
        """The change that these authorities need, the files after it, the bundle after it; nothing is left to do."""
        wanted = TrustedCa("registry", "".join(one.certificate for one in authorities).encode())
        changes = planned(wanted, look(wanted, host))
        for change in changes:
            assert isinstance(change.run, Command)
            result = host.run(change.run, deadline=10)
            assert result.code == 0, result.errors
        assert planned(wanted, look(wanted, host)) == []
        files = sorted(one.name for one in (tmp_path / "ca").iterdir())
        return [one.summary for one in changes], files, (tmp_path / "certs/ca-certificates.crt").read_text()

    def test_from_bare_to_none(self, trusting: LocalSession, tmp_path: Path) -> None:
        """One, another in its place, both, one again, none: the files and the bundle follow."""
        other = Authority("another")
        summaries, files, bundle = self.settle(trusting, tmp_path, CA)
        assert summaries == ["trust the authority registry on this host"]
        assert (files, bundle) == (["provision-registry.crt"], CA.certificate)
        summaries, files, bundle = self.settle(trusting, tmp_path, other)
        assert summaries == ["replace the authority registry on this host"]
        assert (files, bundle) == (["provision-registry.crt"], other.certificate)
        _, files, bundle = self.settle(trusting, tmp_path, other, CA)
        assert files == ["provision-registry-1.crt", "provision-registry-2.crt"]
        assert bundle == other.certificate + CA.certificate
        _, files, bundle = self.settle(trusting, tmp_path, CA)
        assert (files, bundle) == (["provision-registry.crt"], CA.certificate)

    def test_no_longer(self, trusting: LocalSession, tmp_path: Path) -> None:
        """A CA that the inventory dropped is trusted no longer; others' stay."""
        self.settle(trusting, tmp_path, CA)
        theirs = tmp_path / "ca/theirs.crt"
        theirs.write_text("theirs\n")
        summaries, files, bundle = self.settle(trusting, tmp_path)
        assert summaries == ["trust no longer the authority registry on this host"]
        assert (files, bundle) == (["theirs.crt"], "theirs\n")

    def test_killed_before_the_bundle_was_made(self, trusting: LocalSession, tmp_path: Path) -> None:
        """The file is there and is not trusted yet: the next run sees it."""
        self.settle(trusting, tmp_path, CA)
        (tmp_path / "certs/ca-certificates.crt").write_text("")
        summaries, _, bundle = self.settle(trusting, tmp_path, CA)
        assert summaries == ["replace the authority registry on this host"]
        assert bundle == CA.certificate

    def test_killed_while_one_was_taken_out(self, trusting: LocalSession, tmp_path: Path) -> None:
        """The file that was moved aside tells that the bundle may still hold it."""
        self.settle(trusting, tmp_path, CA)
        old = tmp_path / "ca/provision-registry.crt"
        old.rename(f"{old}.gone")
        summaries, files, _ = self.settle(trusting, tmp_path)
        assert (summaries, files) == (["trust no longer the authority registry on this host"], [])

    def test_nothing_is_asked_of_hosts_without(self, trusting: LocalSession) -> None:
        """No CA, no file of ours: nothing to do, also where ca-certificates is not installed."""
        none = TrustedCa("registry", b"")
        assert planned(none, look(none, trusting)) == []
