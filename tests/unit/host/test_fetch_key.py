"""fetch_key.sh: keys made by a real gpg, served over HTTPS to a real curl, and checked by gpg and apt's gpgv."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from provision.formats.openpgp import fingerprints
from provision.host.scripts import script
from provision.shell import Result
from provision_lab.certificates import Authority
from tests.support.apt import apt_config
from tests.support.local import Local, one_shell
from tests.support.web import Reply, Request, Web, tls


class Gpg:
    """A keyring with its own keys."""

    def __init__(self, home: Path) -> None:
        home.mkdir(mode=0o700)
        self.environment = {**os.environ, "GNUPGHOME": str(home)}

    def __call__(self, *arguments: str, given: bytes = b"") -> bytes:
        argv = ["gpg", "--batch", "--quiet", "--passphrase", "", *arguments]
        return subprocess.run(argv, env=self.environment, input=given, check=True, capture_output=True).stdout

    def make(self, name: str, algorithm: str = "ed25519") -> str:
        """A new key; its fingerprint."""
        self("--quick-gen-key", name, algorithm, "sign", "never")
        (found,) = fingerprints(self("--export", name))
        return found

    def close(self) -> None:
        """Ends its agent."""
        subprocess.run(["gpgconf", "--kill", "all"], env=self.environment, check=True)


@pytest.fixture(scope="module")
def gpg(tmp_path_factory: pytest.TempPathFactory) -> Gpg:
    """A keyring; its agent ends with the tests."""
    keyring = Gpg(tmp_path_factory.mktemp("gpg") / "home")
    yield keyring
    keyring.close()


@pytest.fixture(scope="module")
def known(gpg: Gpg) -> str:
    """The fingerprint of the publisher's key, an RSA key with a subkey as Docker's is."""
    found = gpg.make("Publisher", "rsa2048")
    gpg("--quick-add-key", found, "rsa2048", "sign", "never")
    return found


@pytest.fixture(scope="module")
def stranger(gpg: Gpg) -> str:
    """The fingerprint of another key."""
    return gpg.make("Stranger")


class Publisher:
    """A web server with TLS; `keys` is what it serves."""

    def __init__(self, serve: Callable[..., Web], folder: Path) -> None:
        authority = Authority("Test CA")
        (folder / "ca.pem").write_text(authority.certificate)
        self.ca = str(folder / "ca.pem")
        self.keys = b""
        self.redirect = ""
        self.web = serve(self._answer, tls(authority.issue(["localhost"], ["127.0.0.1"]), folder))
        self.plain = serve(lambda _: Reply(200, self.keys))

    def _answer(self, _: Request) -> Reply:
        return Reply(302, headers={"Location": self.redirect}) if self.redirect else Reply(200, self.keys)


@pytest.fixture
def publisher(serve: Callable[..., Web], tmp_path: Path) -> Publisher:
    """The server."""
    return Publisher(serve, tmp_path)


@pytest.fixture
def fetch(publisher: Publisher, local: Local, tmp_path: Path) -> Callable[..., Result]:
    """Fetches the key to tmp_path/keyrings/x.asc, with the expected fingerprints."""
    (tmp_path / "keyrings").mkdir()

    def run(*expected: str, url: str = "") -> Result:
        session = local({"/etc/apt/keyrings": tmp_path / "keyrings"}, {"CURL_CA_BUNDLE": publisher.ca})
        command = script("fetch_key", url or f"{publisher.web.url}/gpg", "/etc/apt/keyrings/x.asc", list(expected))
        return session.run(command, deadline=60)

    return run


def trusted(gpg: Gpg, tmp_path: Path) -> list[str]:
    """The keys in the file, as gpg reads it."""
    text = gpg("--show-keys", "--with-colons", str(tmp_path / "keyrings/x.asc")).decode()
    lines = [line.split(":") for line in text.splitlines()]
    return [after[9] for before, after in pairwise(lines) if (before[0], after[0]) == ("pub", "fpr")]


def test_the_expected_key(
    fetch: Callable[..., Result], publisher: Publisher, gpg: Gpg, known: str, stranger: str, tmp_path: Path
) -> None:
    """It is put in place with its subkeys, readable for apt; gpg reads the same packets."""
    publisher.keys = gpg("--armor", "--export", known)
    result = fetch(known, stranger)
    assert (result.code, result.text, result.errors) == (0, "", "")
    path = tmp_path / "keyrings/x.asc"
    assert gpg("--dearmor", given=path.read_bytes()) == gpg("--export", known)
    assert oct(path.stat().st_mode & 0o777) == "0o644"
    assert [one.name for one in path.parent.iterdir()] == ["x.asc"]
    assert fingerprints(path.read_bytes()) == [known]


def test_another_key_is_refused(
    fetch: Callable[..., Result], publisher: Publisher, gpg: Gpg, known: str, stranger: str, tmp_path: Path
) -> None:
    """On the first fetch too. The old file stays, and the message names both keys."""
    publisher.keys = gpg("--armor", "--export", stranger)
    result = fetch(known)
    assert result.code == 1
    assert f"/gpg serves the key {stranger}, expected {known}: nothing was replaced" in result.errors
    assert list((tmp_path / "keyrings").iterdir()) == []
    (tmp_path / "keyrings/x.asc").write_text("old")
    assert fetch(known).code == 1
    assert (tmp_path / "keyrings/x.asc").read_text() == "old"


@one_shell
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_second_key_is_left_out(
    fetch: Callable[..., Result], publisher: Publisher, gpg: Gpg, known: str, stranger: str, tmp_path: Path,
    order: tuple[int, int],
) -> None:  # fmt: skip
    """apt would trust both. It is reported."""
    both = [gpg("--export", name) for name in (known, stranger)]
    publisher.keys = gpg("--enarmor", given=b"".join(both[at] for at in order))
    publisher.keys = publisher.keys.replace(b"ARMORED FILE", b"PUBLIC KEY BLOCK")
    result = fetch(known)
    assert (result.code, result.errors) == (0, "")
    assert f"also serves the key {stranger}, which is not expected: it was left out" in result.text
    assert trusted(gpg, tmp_path) == [known]


@one_shell
def test_a_second_armoured_block_is_left_out(
    fetch: Callable[..., Result], publisher: Publisher, gpg: Gpg, known: str, stranger: str, tmp_path: Path
) -> None:
    """Some programs read all blocks of a file."""
    publisher.keys = gpg("--armor", "--export", known) + gpg("--armor", "--export", stranger)
    assert fetch(known).code == 0
    assert trusted(gpg, tmp_path) == [known]


@one_shell
def test_apt_accepts_what_the_key_signs(
    fetch: Callable[..., Result], publisher: Publisher, gpg: Gpg, known: str, tmp_path: Path
) -> None:
    """A repository signed by the key, read by a real apt with the file as its keyring."""
    publisher.keys = gpg("--armor", "--export", known).replace(b"\n", b"\r\n")
    assert fetch(known).code == 0
    repository = tmp_path / "repository"
    repository.mkdir()
    (repository / "Packages").touch()
    release = subprocess.run(["apt-ftparchive", "release", "."], cwd=repository, check=True, capture_output=True).stdout
    (repository / "InRelease").write_bytes(gpg("--clearsign", "--local-user", known, given=release))
    config = apt_config(tmp_path, f"deb [signed-by={tmp_path}/keyrings/x.asc] file://{repository} ./")
    environment = {**os.environ, "APT_CONFIG": str(config)}
    done = subprocess.run(["apt-get", "update"], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, "NO_PUBKEY" in done.stderr, "W:" in done.stderr) == (0, False, False), done.stderr


@one_shell
@pytest.mark.parametrize(
    ("served", "problem"),
    [
        (b"<html>moved</html>", "serves no OpenPGP key"),
        (
            b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n!!!!\n-----END PGP PUBLIC KEY BLOCK-----\n",
            "serves no OpenPGP key",
        ),
        (b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmP8=\n-----END PGP PUBLIC KEY BLOCK-----\n", "cannot be read"),
        (b"x" * 300000, ""),
    ],
    ids=["a page", "damaged armour", "a packet cut short", "too large"],
)
def test_something_else(
    fetch: Callable[..., Result], publisher: Publisher, known: str, tmp_path: Path, served: bytes, problem: str
) -> None:
    """It is refused before the old file is touched."""
    publisher.keys = served
    result = fetch(known)
    assert result.code != 0
    assert problem in result.errors
    assert list((tmp_path / "keyrings").iterdir()) == []


@one_shell
def test_only_https(fetch: Callable[..., Result], publisher: Publisher, gpg: Gpg, known: str, tmp_path: Path) -> None:
    """Neither the URL nor a redirect may leave it; nothing is asked for over plain HTTP."""
    publisher.keys = gpg("--armor", "--export", known)
    assert fetch(known, url=f"{publisher.plain.url}/gpg").code == 1
    for target in (f"{publisher.plain.url}/gpg", "file:///etc/hostname"):
        publisher.redirect = target
        assert fetch(known).code == 1
    assert publisher.plain.asked == []
    assert list((tmp_path / "keyrings").iterdir()) == []
