"""`TrustedCa`: bare, half done, converged, broken; applied with real shells."""

from __future__ import annotations

from pathlib import Path

import pytest

from provision.resources import TrustedCa
from provision.shell import Command
from provision.testing import LocalSession, observe_on, planned
from provision_lab.certificates import Authority
from tests.support.local import Local

CA = Authority("a CA")


@pytest.fixture
def trusting(tmp_path: Path, local: Local) -> LocalSession:
    """This machine with an `update-ca-certificates` that does what the real one does to the bundle."""
    folder, bundle = tmp_path / "ca", tmp_path / "certs"
    bundle.mkdir()
    tools = tmp_path / "bin"
    tools.mkdir()
    update = tools / "update-ca-certificates"
    update.write_text(f"#!/bin/sh\ncat {folder}/*.crt > {bundle}/ca-certificates.crt 2>/dev/null || : > {bundle}/x\n")
    update.chmod(0o755)
    return local(
        {"/usr/local/share/ca-certificates": folder, "/etc/ssl/certs": bundle},
        {"PATH": f"{tools}:/usr/sbin:/usr/bin:/sbin:/bin"},
    )


class TestTrustedCa:
    """The trust store, from state to state."""

    def converge(self, host: LocalSession, tmp_path: Path, *authorities: Authority) -> tuple[list[str], list[str], str]:
        """The changes for these CAs, the files and the trust store after them; then nothing is left to do."""
        wanted = TrustedCa("registry", "".join(one.certificate for one in authorities).encode())
        changes = planned(wanted, observe_on(host, wanted))
        for change in changes:
            assert isinstance(change.run, Command)
            result = host.run(change.run, deadline=10)
            assert result.code == 0, result.errors
        assert planned(wanted, observe_on(host, wanted)) == []
        files = sorted(one.name for one in (tmp_path / "ca").iterdir())
        return [one.summary for one in changes], files, (tmp_path / "certs/ca-certificates.crt").read_text()

    def test_from_bare_to_none(self, trusting: LocalSession, tmp_path: Path) -> None:
        """One CA, another instead, both, one again: the files and the trust store follow."""
        other = Authority("another")
        summaries, files, bundle = self.converge(trusting, tmp_path, CA)
        assert summaries == ["add CA registry to the trust store"]
        assert (files, bundle) == (["provision-registry.crt"], CA.certificate)
        summaries, files, bundle = self.converge(trusting, tmp_path, other)
        assert summaries == ["replace CA registry in the trust store"]
        assert (files, bundle) == (["provision-registry.crt"], other.certificate)
        _, files, bundle = self.converge(trusting, tmp_path, other, CA)
        assert files == ["provision-registry-1.crt", "provision-registry-2.crt"]
        assert bundle == other.certificate + CA.certificate
        _, files, bundle = self.converge(trusting, tmp_path, CA)
        assert (files, bundle) == (["provision-registry.crt"], CA.certificate)

    def test_removed_from_the_inventory(self, trusting: LocalSession, tmp_path: Path) -> None:
        """The trust store no longer has it; other programs' CAs stay."""
        self.converge(trusting, tmp_path, CA)
        theirs = tmp_path / "ca/theirs.crt"
        theirs.write_text("theirs\n")
        summaries, files, bundle = self.converge(trusting, tmp_path)
        assert summaries == ["remove CA registry from the trust store"]
        assert (files, bundle) == (["theirs.crt"], "theirs\n")

    def test_killed_before_the_trust_store_was_renewed(self, trusting: LocalSession, tmp_path: Path) -> None:
        """The file exists and is not trusted yet: the next run completes it."""
        self.converge(trusting, tmp_path, CA)
        (tmp_path / "certs/ca-certificates.crt").write_text("")
        summaries, _, bundle = self.converge(trusting, tmp_path, CA)
        assert summaries == ["replace CA registry in the trust store"]
        assert bundle == CA.certificate

    def test_killed_during_a_removal(self, trusting: LocalSession, tmp_path: Path) -> None:
        """The renamed file shows that the trust store may still have the CA."""
        self.converge(trusting, tmp_path, CA)
        old = tmp_path / "ca/provision-registry.crt"
        old.rename(f"{old}.gone")
        summaries, files, _ = self.converge(trusting, tmp_path)
        assert (summaries, files) == (["remove CA registry from the trust store"], [])

    def test_none_wanted_and_none_installed(self, trusting: LocalSession) -> None:
        """Nothing to do, also where ca-certificates is not installed."""
        none = TrustedCa("registry", b"")
        assert planned(none, observe_on(trusting, none)) == []
