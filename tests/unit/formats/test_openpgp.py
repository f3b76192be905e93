"""When keys expire, compared with gpg."""

import datetime
import os
import subprocess
from pathlib import Path

import pytest

from provision.formats.openpgp import NotAKey, expires


@pytest.fixture
def gnupg(tmp_path: Path) -> dict[str, str]:
    """An environment with a keyring of its own."""
    home = tmp_path / "gnupg"
    home.mkdir(mode=0o700)
    return {**os.environ, "GNUPGHOME": str(home)}


def make(gnupg: dict[str, str], algorithm: str, lifetime: str, *, armour: bool = True) -> bytes:
    """A new key, exported."""
    base = ["gpg", "--batch", "--quiet", "--passphrase", ""]
    subprocess.run([*base, "--quick-gen-key", "Repository", algorithm, "sign", lifetime], env=gnupg, check=True)
    form = ["--armor"] if armour else []
    exported = subprocess.run([*base, *form, "--export"], env=gnupg, check=True, capture_output=True).stdout
    subprocess.run(["gpgconf", "--kill", "all"], env=gnupg, check=True)
    return exported


def expiry_by_gpg(gnupg: dict[str, str], key: bytes) -> str:
    """The time of expiry that gpg prints, in seconds since 1970; "" for none."""
    show = ["gpg", "--show-keys", "--with-colons"]
    text = subprocess.run(show, input=key, env=gnupg, check=True, capture_output=True).stdout.decode()
    return next(line.split(":")[6] for line in text.splitlines() if line.startswith("pub:"))


@pytest.mark.parametrize("armour", [True, False])
@pytest.mark.parametrize("algorithm", ["ed25519", "rsa2048"])
def test_the_expiry_is_the_one_of_gpg(gnupg: dict[str, str], algorithm: str, armour: bool) -> None:
    """To the second, for both kinds of key and file."""
    key = make(gnupg, algorithm, "30d", armour=armour)
    found = expires(key)
    assert found is not None
    assert int(found.timestamp()) == int(expiry_by_gpg(gnupg, key))
    assert datetime.timedelta(days=29) < found - datetime.datetime.now(datetime.UTC) <= datetime.timedelta(days=30)


def test_a_key_that_never_expires(gnupg: dict[str, str]) -> None:
    """No expiry is no date."""
    key = make(gnupg, "ed25519", "never")
    assert expiry_by_gpg(gnupg, key) == ""
    assert expires(key) is None


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"<html>not found</html>",
        b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n!!!!\n-----END PGP PUBLIC KEY BLOCK-----",
    ],
    ids=["empty", "a web page", "damaged armour"],
)
def test_what_is_not_a_key_is_refused(text: bytes) -> None:
    """A mirror may send something else."""
    with pytest.raises(NotAKey):
        expires(text)


def test_a_key_that_is_cut_short_is_refused(gnupg: dict[str, str]) -> None:
    """Part of a download."""
    with pytest.raises(NotAKey):
        expires(make(gnupg, "ed25519", "30d", armour=False)[:-20])
