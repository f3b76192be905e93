"""Untrusted text is made printable: escape sequences, redrawn lines, cut output, secrets, diffs."""

from __future__ import annotations

import pytest

from provision.engine.events import Message, Output
from provision.masking import printable, printable_lines
from provision.report.text import LineAssembler, diff_lines, mask_event, safe_text
from provision.secret import Secret


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain – text", "plain – text"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("a\tb", "a       b"),
        ("bell\x07", "bell\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("hidden\u202e", "hidden\\u202e"),
        ("byte \udcff", "byte \\udcff"),
    ],
)
def test_nothing_is_left_that_a_terminal_would_obey(text: str, shown: str) -> None:
    """Neither escape sequences nor characters that change the order of letters."""
    assert printable(text) == shown
    assert printable(text).isprintable()


def test_redrawn_lines_keep_their_last_version() -> None:
    """Progress bars redraw a line with carriage returns; \\r\\n ends a line."""
    assert printable_lines("0%\r50%\r100%\r\ndone\n") == ["100%", "done"]


def test_output_is_joined_to_whole_lines_per_host() -> None:
    """Escapes are removed after joining; what has no newline at the end comes with `flush`."""
    assembler = LineAssembler()
    assert assembler.add("a", "Get:1 \x1b[3") == []
    assert assembler.add("b", "other\n\n") == ["other"]
    assert assembler.add("a", "1mdocker\nUnpack") == ["Get:1 docker"]
    assert assembler.flush() == [("a", "Unpack")]
    assert assembler.flush() == []


def test_a_line_without_end_is_shown_in_parts() -> None:
    """What is kept for each host is bounded."""
    assembler = LineAssembler()
    shown = [line for _ in range(100) for line in assembler.add("a", "x" * 10_000)]
    assert 100_000 <= len("".join(shown)) < 1_000_000
    assert "".join([*shown, *(line for _, line in assembler.flush())]) == "x" * 1_000_000


def test_a_text_of_several_lines_is_safe() -> None:
    """For errors and tracebacks: every line stays, without escapes and secrets."""
    Secret("canary-5511")
    assert safe_text("one\x1b[2J\r\n\n canary-5511\n") == "one\n\n ***\n"


def test_secrets_in_output_are_masked() -> None:
    """An event without a secret is returned unchanged."""
    canary = Secret("canary-5511").reveal()
    assert mask_event(Output("h", "t", f"x {canary}")) == Output("h", "t", "x ***")
    event = Message("h", "t", "x")
    assert mask_event(event) is event


def test_diff_headers_are_told_from_removed_lines_with_dashes() -> None:
    """`--- gone` inside a hunk is the removed line `-- gone`."""
    diff = "--- a\n+++ a\n@@ -1,3 +1,2 @@\n ---\n--- gone\n-x\n+++ more\n \n"
    kinds = [kind for kind, _ in diff_lines(diff)]
    assert kinds == ["header", "header", "hunk", "context", "removed", "removed", "added", "context"]
    assert diff_lines("") == []
