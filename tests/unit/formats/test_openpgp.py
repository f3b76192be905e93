"""When keys expire, compared with gpg."""

import contextlib
import datetime
import os
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision.formats.openpgp import NotAKey, expires, fingerprints


@pytest.fixture
def gnupg(tmp_path: Path) -> dict[str, str]:
    """An environment with a keyring of its own."""
    home = tmp_path / "gnupg"
    home.mkdir(mode=0o700)
    return {**os.environ, "GNUPGHOME": str(home)}


def make(
    gnupg: dict[str, str], algorithm: str, lifetime: str, *, armour: bool = True, name: str = "Repository"
) -> bytes:
    """A new key, exported with all others."""
    base = ["gpg", "--batch", "--quiet", "--passphrase", ""]
    subprocess.run([*base, "--quick-gen-key", name, algorithm, "sign", lifetime], env=gnupg, check=True)
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


def fingerprints_by_gpg(gnupg: dict[str, str], keys: bytes) -> list[str]:
    """The fingerprints that gpg prints for the keys, without those of subkeys."""
    show = ["gpg", "--show-keys", "--with-colons"]
    text = subprocess.run(show, input=keys, env=gnupg, check=True, capture_output=True).stdout.decode()
    lines = [line.split(":") for line in text.splitlines()]
    return [after[9] for before, after in pairwise(lines) if (before[0], after[0]) == ("pub", "fpr")]


@pytest.mark.parametrize("armour", [True, False])
def test_fingerprints_are_those_of_gpg(gnupg: dict[str, str], armour: bool) -> None:
    """Of every key in the file: apt trusts each of them."""
    first = make(gnupg, "rsa2048", "30d", armour=armour)
    assert fingerprints(first) == fingerprints_by_gpg(gnupg, first)
    both = make(gnupg, "ed25519", "never", armour=armour, name="Second")
    assert fingerprints(both) == fingerprints_by_gpg(gnupg, both)
    assert len(fingerprints(both)) == 2


def test_text_beside_the_armour_is_refused(gnupg: dict[str, str]) -> None:
    """Another program may find a second key there."""
    key = make(gnupg, "ed25519", "never")
    assert fingerprints(b"\n" + key + b"\n") == fingerprints(key)
    for text in (key + key, b"x\n" + key, key + b"x"):
        with pytest.raises(NotAKey, match="beside the armoured key"):
            fingerprints(text)


@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda rest: b"\x99\x00\x20\x04" + rest))
def test_any_bytes(text: bytes) -> None:
    """Fingerprints, or an error of our own."""
    for read in (expires, fingerprints):
        with contextlib.suppress(NotAKey):
            read(text)
