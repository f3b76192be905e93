"""`UploadedPair`, `ServedCertificate`, `AcmeCertificate`: bare, half done, converged, broken."""

from __future__ import annotations

import datetime
from dataclasses import replace
from pathlib import Path

import pytest

from provision.errors import Refused
from provision.formats.x509 import check_pair
from provision.host.scripts import NOTHING_CHANGED
from provision.resources import AcmeCertificate, CertificatePair, Result, ServedCertificate, UploadedPair
from provision.secret import Secret
from provision.shell import Command
from provision.testing import NO_FILE, LocalSession, file_is, notes, observe, observe_on, planned
from provision_lab.certificates import Authority, Pair

HOST = "registry.example.com"
CHAIN, KEY = "/etc/gitlab/ssl/r.crt", "/etc/gitlab/ssl/r.key"
CA = Authority("a CA")
OLD, NEW = CA.issue([HOST], []), CA.issue([HOST], [])
LIVE = {"served": OLD.fullchain, "configured": "yes\n"}
IDLE = {"served": "", "configured": ""}


def uploaded(pair: Pair = NEW, **fields: object) -> UploadedPair:
    """That pair, to be put in place."""
    days = datetime.timedelta(days=90)
    plain = UploadedPair(CHAIN, KEY, pair.fullchain.encode(), Secret(pair.key), days, HOST, 5555)
    return replace(plain, **fields)  # type: ignore[arg-type]


def there(pair: Pair, mode: str = "0600") -> dict[str, Result]:
    """Both files, as `ask_file` prints them."""
    return {"fullchain": file_is(pair.fullchain), "key": file_is(pair.key, mode)}


class TestUploadedPair:
    """Both files, or neither."""

    def test_bare(self) -> None:
        """One change, without a handler where nothing is served."""
        (change,) = planned(uploaded(), observe(uploaded(), {"fullchain": NO_FILE, "key": NO_FILE, **IDLE}))
        assert (change.summary, change.action) == (f"write {CHAIN} and {KEY}", "create")
        assert change.notify == ()

    def test_new_content_owes_a_hup_and_no_reconfigure(self) -> None:
        """Where GitLab serves from this file."""
        (change,) = planned(uploaded(), observe(uploaded(), {**there(OLD), **LIVE}))
        assert [one.name for one in change.notify] == ["hup-certificates"]
        assert change.notify == uploaded().handlers

    def test_no_handler_where_gitlab_serves_another_file(self) -> None:
        """gitlab.rb is to change: its reconfigure reads the file."""
        (change,) = planned(uploaded(), observe(uploaded(), {**there(OLD), **LIVE, "configured": ""}))
        assert change.notify == ()

    def test_the_key_alone_counts(self) -> None:
        """A certificate with another key is half done."""
        half = {"fullchain": file_is(NEW.fullchain), "key": file_is(OLD.key, "0600"), **LIVE}
        assert [one.action for one in planned(uploaded(), observe(uploaded(), half))] == ["update"]

    def test_modes(self) -> None:
        """A key that others can read is closed, without a handler."""
        (change,) = planned(uploaded(), observe(uploaded(), {**there(NEW, "0644"), **LIVE}))
        assert change.summary == f"set {KEY} to 0600 root:root (was 0644 root:root)"
        assert change.notify == ()

    def test_converged(self) -> None:
        """No change and no note."""
        seen = observe(uploaded(), {**there(NEW), **LIVE})
        assert (planned(uploaded(), seen), notes(uploaded(), seen)) == ([], [])

    def test_notes(self) -> None:
        """A short life, and a CA that did not sign."""
        short = uploaded(left=datetime.timedelta(days=5), ca=Authority("another").certificate.encode())
        found = notes(short, observe(short, {**there(NEW), **LIVE}))
        assert found[0] == f"the certificate for {CHAIN} expires in 5 days"
        assert "it is signed by CN=a CA, which is not in registry.certificate.ca" in found[1]
        vouched = uploaded(ca=(Authority("another").certificate + CA.certificate).encode())
        assert notes(vouched, observe(vouched, {**there(NEW), **LIVE})) == []

    def test_the_key_is_in_no_diff_and_no_script(self) -> None:
        """It travels on standard input."""
        (change,) = planned(uploaded(), observe(uploaded(), {**there(OLD), **LIVE}))
        assert isinstance(change.run, Command)
        secret = NEW.key.splitlines()[1]
        assert secret not in change.diff
        assert change.diff.endswith("\n(a secret: not shown)")  # no hash either
        assert secret not in change.run.script
        assert change.run.stdin == NEW.key.encode()


@pytest.fixture
def host(tmp_path: Path) -> LocalSession:
    """This machine, with its folders elsewhere; `openssl s_client` finds no server."""
    (tmp_path / "etc").mkdir()
    return LocalSession({"/var/lib/provision": tmp_path / "home", "/etc": tmp_path / "etc"})


@pytest.mark.root
def test_carried_out_both_are_there(host: LocalSession, tmp_path: Path) -> None:
    """Written, replaced, converged; modes as wanted, backups kept, no other files."""
    for pair in (OLD, NEW):
        wanted = replace(uploaded(pair), port=9)
        (change,) = planned(wanted, observe_on(host, wanted))
        assert isinstance(change.run, Command)
        assert host.run(change.run, deadline=10).code == 0
        assert planned(wanted, observe_on(host, wanted)) == []
    ssl = tmp_path / "etc/gitlab/ssl"
    assert sorted(one.name for one in ssl.iterdir()) == ["r.crt", "r.key"]
    assert (ssl / "r.key").stat().st_mode & 0o777 == 0o600
    kept = {one.read_text() for one in (tmp_path / "home/backup").iterdir()}
    assert kept == {OLD.fullchain, OLD.key}


@pytest.mark.root
@pytest.mark.parametrize("before", [OLD, None], ids=["over an old pair", "over nothing"])
def test_a_key_that_cannot_be_written_leaves_the_old_pair(
    host: LocalSession, tmp_path: Path, before: Pair | None
) -> None:
    """Old or new, never between: the certificate goes back."""
    ssl = tmp_path / "etc/gitlab/ssl"
    ssl.mkdir(parents=True)
    if before:
        (ssl / "r.crt").write_text(before.fullchain)
    wanted = replace(uploaded(), port=9)
    (change,) = planned(wanted, observe_on(host, wanted))
    (ssl / "r.key").mkdir()  # no file can be put there
    assert isinstance(change.run, Command)
    assert host.run(change.run, deadline=10).code == NOTHING_CHANGED
    certificates = [one.read_text() for one in ssl.iterdir() if one.is_file()]
    assert certificates == ([before.fullchain] if before else [])


class TestJudge:
    """The files on this machine."""

    def test_fit(self) -> None:
        """The time that is left."""
        assert check_pair(NEW.fullchain.encode(), Secret(NEW.key), HOST).days == 89

    @pytest.mark.parametrize(
        "text", ["", "no key, but words", CA.certificate], ids=["nothing", "prose", "a certificate"]
    )
    def test_no_key(self, text: str) -> None:
        """Named as what it is not."""
        with pytest.raises(Refused, match="the key is not a private key in PEM"):
            check_pair(NEW.fullchain.encode(), Secret(text), HOST)

    def test_pair_of_two(self) -> None:
        """Two halves of two pairs."""
        with pytest.raises(Refused, match="does not belong to the certificate"):
            check_pair(NEW.fullchain.encode(), Secret(OLD.key), HOST)


class TestServedCertificate:
    """What the port serves against what the file holds."""

    resource = ServedCertificate(CHAIN, HOST, 5555)

    @pytest.mark.parametrize(
        ("file", "served", "configured", "due"),
        [
            (NEW.fullchain, OLD.fullchain, "yes\n", True),
            (OLD.fullchain, OLD.fullchain, "yes\n", False),
            (OLD.fullchain.replace("\n", "\r\n"), OLD.fullchain, "yes\n", False),
            (f"Bag attributes\n{OLD.fullchain}", OLD.fullchain, "yes\n", False),
            (OLD.fullchain.removesuffix(CA.certificate), OLD.fullchain, "yes\n", False),
            (OLD.fullchain, OLD.fullchain.removesuffix(CA.certificate), "yes\n", True),
            (NEW.fullchain, OLD.fullchain, "", False),
            (NEW.fullchain, "", "yes\n", False),
            (None, OLD.fullchain, "yes\n", False),
        ],
        ids=[
            *("renewed", "same", "other line ends", "with prose", "a root is added", "the chain grew"),
            *("served from another file", "nothing is served", "no file"),
        ],
    )
    def test_due(self, file: str | None, served: str, configured: str, due: bool) -> None:
        """A HUP is notified exactly where GitLab serves this file with another content."""
        found = NO_FILE if file is None else file_is(file)
        seen = observe(self.resource, {"fullchain": found, "served": served, "configured": configured})
        assert [[one.name for one in change.notify] for change in planned(self.resource, seen)] == (
            [["hup-certificates"]] if due else []
        )


class TestAcmeCertificate:
    """certbot's certificate."""

    resource = AcmeCertificate(HOST, "ops@example.com", "https://acme/dir", CertificatePair(CHAIN, KEY, HOST), 5555)
    conf = "version = 2.1.0\n[renewalparams]\nserver = https://acme/dir\nauthenticator = standalone\n"

    def plan(self, pair: Pair | None, conf: str) -> list[str]:
        """What is planned when that is there."""
        public = self._public(pair) if pair else "absent\n"
        chain = file_is(pair.fullchain) if pair else NO_FILE
        seen = observe(self.resource, {"fullchain": chain, "key": public, "renewal": conf, **LIVE})
        return [one.summary for one in planned(self.resource, seen)]

    def _public(self, pair: Pair) -> str:
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

        public = load_pem_private_key(pair.key.encode(), None).public_key()
        return f"0600 root:root\n{public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()}"

    def test_bare(self) -> None:
        """There is none: it is got."""
        assert self.plan(None, "") == [f"get a certificate for {HOST} from https://acme/dir: there is none"]

    def test_converged(self) -> None:
        """It is checked like any other."""
        assert self.plan(NEW, self.conf) == []

    def test_another_authority(self) -> None:
        """What staging gave is no good in production."""
        (summary,) = self.plan(NEW, self.conf.replace("https://acme/dir", "https://staging/dir"))
        assert summary.endswith("the existing one is from https://staging/dir")

    @pytest.mark.parametrize(("days", "start", "due"), [(90, -60, False), (90, -80, True), (90, -91, True)])
    def test_late(self, days: int, start: int, due: bool) -> None:
        """certbot renews when a third is left; below a fifth something is wrong, and it is done here."""
        summaries = self.plan(CA.issue([HOST], [], days=days, start=start), self.conf)
        assert ["not renewed in time" in one for one in summaries] == [True] * due

    def test_files_of_somebody_else(self) -> None:
        """certbot would refuse; we do so first."""
        with pytest.raises(Refused, match="certbot has no renewal configuration for it"):
            self.plan(NEW, "")

    def test_what_it_got_may_be_unfit(self) -> None:
        """For another host: refused."""
        with pytest.raises(Refused, match=f"is not for {HOST}"):
            self.plan(CA.issue(["other.example.com"], []), self.conf)
