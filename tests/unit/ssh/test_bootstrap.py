"""What sudo prints when it gives no root shell: the hint says what helps."""

from __future__ import annotations

import pytest

from provision.errors import BecomeError
from provision.ssh.bootstrap import Handshake

NO_PASSWORD_HELPS = [
    (b"sudo: sorry, you must have a tty to run sudo\n", 1, "requiretty", "!requiretty"),
    (b"ops is not in the sudoers file.  This incident will be reported.\n", 1, "sudoers", "ops ALL=(ALL) ALL"),
    (b"ops is not in the sudoers file.\n", 1, "sudoers", "ops ALL=(ALL) ALL"),
    (b"Sorry, user ops may not run sudo on web1.\n", 1, "may not run", "ops ALL=(ALL) ALL"),
    (b"Sorry, user ops is not allowed to execute '/bin/sh -c x' as root on web1.\n", 1, "not allowed", "ops ALL=(ALL)"),
    (b"sudo: I'm sorry ops. I'm afraid I can't do that\n", 1, "afraid", "ops ALL=(ALL) ALL"),
    (b"sh: 1: sudo: not found\n", 127, "sudo is not installed", "install sudo"),
    (b"bash: line 1: sudo: command not found\n", 127, "sudo is not installed", "install sudo"),
    (b"zsh:1: command not found: sudo\n", None, "sudo is not installed", "install sudo"),
    (b"fish: Unknown command: sudo\n", 127, "sudo is not installed", "install sudo"),
    (
        b'sudo: The "no new privileges" flag is set, which prevents sudo from running as root.\n',
        1,
        "",
        "NoNewPrivileges",
    ),
]


def handshake(printed: bytes, *, password: bool) -> Handshake:
    """A bootstrap whose sudo has printed this on stderr and ended."""
    made = Handshake("web1", "ops", "nonce", sudo=True, password=password)
    made.add_output(1, printed)
    return made


@pytest.mark.parametrize("password", [True, False])
@pytest.mark.parametrize(("printed", "code", "reason", "hint"), NO_PASSWORD_HELPS)
def test_a_refusal_that_no_password_helps(
    printed: bytes, code: int | None, reason: str, hint: str, password: bool
) -> None:
    """requiretty, sudoers, a missing sudo: its own hint, with and without -K, and none about the password."""
    made = handshake(printed, password=password)
    errors = [made.exited(code), *([made.password_refused(code)] if password else [])]
    for error in errors:
        assert isinstance(error, BecomeError)
        assert reason in str(error)
        assert hint in error.hint
        assert "password" not in str(error)


@pytest.mark.parametrize(
    ("printed", "password", "text", "hint"),
    [
        (b"sudo: a password is required\n", False, "without a password", "-K"),
        (b"sudo: interactive authentication is required\n", False, "without a password", "-K"),
        (b"Sorry, try again.\nsudo: 1 incorrect password attempt\n", True, "refused the password", "correct password"),
        (b"sudo-rs: Authentication failed, try again.\n", True, "refused the password", "correct password"),
        (b"sudo: falsches Kennwort\n", True, "refused the password", "correct password"),
    ],
)
def test_a_refusal_that_a_password_helps(printed: bytes, password: bool, text: str, hint: str) -> None:
    """The password is missing or wrong."""
    error = handshake(printed, password=password).exited(1)
    assert text in str(error)
    assert hint in str(error)
