"""The masked diff: the shape of `diff -u`, and no secret."""

from __future__ import annotations

import pytest

from provision.editing.diff import masked_diff, settings_diff
from provision.secret import Secret


@pytest.mark.parametrize(
    ("before", "after", "lines"),
    [
        ("a\nb\nc\nd\ne\n", "a\nb\nc\nd\nE\nf\n", ["@@ -2,4 +2,5 @@", " b", " c", " d", "-e", "+E", "+f"]),
        ("a", "a\r\nb\r\n", ["@@ -1 +1,2 @@", "-a", "\\ No newline at end of file", "+a", "+b"]),
        ("", "a\n", ["@@ -0,0 +1 @@", "+a"]),
        ("a\n", "", ["@@ -1 +0,0 @@", "-a"]),
        (b"\xff\n", b"a\n", ["@@ -1 +1 @@", "-\ufffd", "+a"]),
    ],
    ids=["change", "newline at the end", "new file", "emptied file", "no text"],
)
def test_shape(before: str | bytes, after: str | bytes, lines: list[str]) -> None:
    """It is what diff -u prints, under the path of the file."""
    assert masked_diff("/etc/x", before, after).splitlines() == ["--- /etc/x (now)", "+++ /etc/x (wanted)", *lines]


def test_equal_contents_have_no_diff() -> None:
    """Nothing differs, nothing is printed."""
    assert masked_diff("x", "a\n", b"a\n") == ""


KEY = "-----BEGIN EC PRIVATE KEY-----\nhunter22\nhunter22==\n-----END EC PRIVATE KEY-----"
SECRETS = {
    "password in a URL": "redis://user:hunter22@host/",
    "token of GitLab": "image glrt-hunter22 x",
    "registration token": "GR1348941hunter22",
    "private key": KEY,
}


@pytest.mark.parametrize("text", SECRETS.values(), ids=SECRETS)
def test_secrets_of_every_format(text: str) -> None:
    """They are masked in a file of any format, and in the lines around a change."""
    printed = masked_diff("x", f"{text}\n", f"{text}\nnew\n")
    assert "hunter22" not in printed
    assert "***" in printed
    assert printed.endswith("+new")


def test_a_secret_of_several_lines_keeps_the_lines() -> None:
    """A known secret that spans lines is masked whole, and the lines below keep their places."""
    Secret("first canary line\nx\nlast")
    printed = masked_diff("x", "", "a\nfirst canary line\nx\nlast\nb\n")
    assert printed.splitlines()[3:] == ["+a", "+***", "+***", "+***", "+b"]


def test_a_changed_secret_is_two_lines_that_look_alike() -> None:
    """The comparison comes before the masking, and the last line explains it."""
    assert masked_diff("x", "glrt-one-token\n", "glrt-two-token\n").splitlines()[3:] == [
        *("-***", "+***", "(the lines differ in secrets or line endings)")
    ]


def test_settings_of_an_api() -> None:
    """Each wanted setting has its value now and the wanted one; lists are printed without brackets, secrets masked."""
    secret = Secret("the-secret-of-a-setting")
    text = settings_diff("runner r1", {"locked": None, "tag_list": ["a"]}, {"locked": True, "tag_list": ["a", "b"]})
    assert (
        text
        == "--- runner r1 (now)\n+++ runner r1 (wanted)\n-locked: None\n+locked: True\n-tag_list: a\n+tag_list: a, b"
    )
    assert secret.reveal() not in settings_diff("user u", {"bio": secret.reveal()}, {"bio": "x"})
