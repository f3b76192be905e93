"""The unified diff of two gitlab.rb texts that people may see."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from difflib import SequenceMatcher

from provision.resources.gitlab_rb.masking import MaskedLines
from provision.resources.gitlab_rb.syntax import parse
from provision.secret import Secret, reveal

_CONTEXT = 3  # lines around a change, as diff -u shows


def masked_diff(
    before: bytes, after: bytes, secrets: Collection[str | Secret] = (), path: str = "/etc/gitlab/gitlab.rb"
) -> str:
    """`diff -u` of the two, labelled `path`, with `***` for secrets on changed and context lines alike; "" when equal.

    A secret that changed shows as two lines that look alike: the comparison is made before the masking.
    """
    if before == after:
        return ""
    hidden = {reveal(secret) for secret in secrets}
    # Only the differing middle is compared: the rest of thousands of lines is common.
    old, new = before.split(b"\n"), after.split(b"\n")
    limit, head = min(len(old), len(new)), 0
    while head < limit and old[head] == new[head]:
        head += 1
    head = max(head - _CONTEXT, 0)
    shown_old, shown_new = MaskedLines(parse(before), hidden), MaskedLines(parse(after), hidden)
    matcher = SequenceMatcher(None, old[head:], new[head:])
    lines = [f"--- {path}", f"+++ {path}"]
    for group in matcher.get_grouped_opcodes(_CONTEXT):
        lines += _hunk(group, head, shown_old, shown_new)
    return "\n".join(lines) + "\n"


def _hunk(group: list[tuple[str, int, int, int, int]], head: int, old: MaskedLines, new: MaskedLines) -> Iterator[str]:
    first, last = group[0], group[-1]
    body: list[str] = []
    for tag, i1, i2, j1, j2 in group:
        if tag == "equal":
            body += [" " + line for line in _real(old, i1 + head, i2 + head)]
            continue
        body += ["-" + line for line in _real(old, i1 + head, i2 + head)]
        body += ["+" + line for line in _real(new, j1 + head, j2 + head)]
    yield f"@@ -{_range(first[1] + head, last[2] + head, old)} +{_range(first[3] + head, last[4] + head, new)} @@"
    yield from body


def _real(lines: MaskedLines, start: int, end: int) -> Iterator[str]:
    """Lines `start` to `end`; the empty piece after the final newline is none, and a missing one is told."""
    for number in range(start, end):
        if number < len(lines) - 1:
            yield lines[number]
        elif lines[number]:
            yield f"{lines[number]}\n\\ No newline at end of file"


def _range(start: int, end: int, lines: MaskedLines) -> str:
    if end == len(lines) and not lines[len(lines) - 1]:
        end = max(end - 1, start)
    count = end - start
    return f"{start + 1 if count else start},{count}" if count != 1 else f"{start + 1}"
