"""The masked diff of a file: secrets are printed as `***`.

The lines are compared as they are and masked when they are printed. Therefore a changed secret is visible as two equal
lines. Every diff masks what `provision.masking` finds: the secrets of this process, passwords in URLs, private keys in
PEM, and GitLab's tokens by their prefix. A format adds what its own `find_secrets` finds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import SequenceMatcher
from typing import Any, Final, TypeAlias

from provision.masking import MASK, mask

Span: TypeAlias = tuple[int, int]
"""The offsets of a secret: of its first byte, and of the byte after its last one."""
FindSecrets: TypeAlias = Callable[[bytes], Iterable[Span]]
"""Finds the secrets of one format in a content, valid or not, in any order; overlaps are allowed."""

_CONTEXT: Final = 3  # lines around a change, as `diff -u` prints
_LONGEST: Final = 400  # lines of a printed diff
_MANY_LINES: Final = 2000  # from here on difflib may ignore the most frequent lines


def no_secrets(_: bytes) -> Iterable[Span]:
    """For files of unknown format, where only the secrets that every diff masks are found."""
    return ()


def masked_diff(path: str, before: bytes | str, after: bytes | str, find_secrets: FindSecrets = no_secrets) -> str:
    """Return `diff -u` of two contents, at most 400 lines, without a newline at the end; "" when they are equal.

    The headers are `PATH (now)` and `PATH (wanted)`. A carriage return at the end of a line is not printed. When the
    two contents look alike after masking, the last line explains it.
    """
    old_content, new_content = _bytes(before), _bytes(after)
    if old_content == new_content:
        return ""
    old, new = old_content.split(b"\n"), new_content.split(b"\n")
    printed_old, printed_new = _masked(old_content, find_secrets), _masked(new_content, find_secrets)
    head = _common_head(old, new)
    matcher = SequenceMatcher(None, old[head:], new[head:], autojunk=len(new) - head > _MANY_LINES)
    lines = [f"--- {path} (now)", f"+++ {path} (wanted)"]
    for group in matcher.get_grouped_opcodes(_CONTEXT):
        moved = [(tag, i1 + head, i2 + head, j1 + head, j2 + head) for tag, i1, i2, j1, j2 in group]
        lines += _hunk(moved, printed_old, printed_new)
    if len(lines) > _LONGEST:
        lines = [*lines[:_LONGEST], f"… {len(lines) - _LONGEST} more lines"]
    if printed_old == printed_new:
        lines.append("(the lines differ in secrets or line endings)")
    return "\n".join(lines)


def settings_diff(name: str, now: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Return the diff of wanted settings that an API has otherwise: for each, the value now and the wanted one."""
    lines = [f"-{key}: {_setting(now.get(key))}\n+{key}: {_setting(value)}" for key, value in wanted.items()]
    return mask("\n".join([f"--- {name} (now)", f"+++ {name} (wanted)", *lines]))


def _setting(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def masked_text(content: bytes, find_secrets: FindSecrets = no_secrets) -> str:
    """Return a content with every secret in it replaced by `***`; the number of lines stays."""
    pieces, at = [], 0
    for start, end in sorted(find_secrets(content)):
        start = max(start, at)
        if start < end:
            hidden = b"\n".join([MASK.encode()] * (content.count(b"\n", start, end) + 1))
            pieces += [content[at:start], hidden]
            at = end
    text = b"".join([*pieces, content[at:]]).decode(errors="replace")
    return mask(text, keep_lines=True)


def _masked(content: bytes, find_secrets: FindSecrets) -> list[str]:
    return [line.removesuffix("\r") for line in masked_text(content, find_secrets).split("\n")]


def _bytes(content: bytes | str) -> bytes:
    return content.encode() if isinstance(content, str) else content


def _common_head(old: list[bytes], new: list[bytes]) -> int:
    """The number of equal lines at the beginning, minus the context. They need not be compared."""
    count = 0
    for one, other in zip(old, new, strict=False):
        if one != other:
            break
        count += 1
    return max(count - _CONTEXT, 0)


def _hunk(group: list[tuple[str, int, int, int, int]], old: list[str], new: list[str]) -> Iterator[str]:
    first, last = group[0], group[-1]
    yield f"@@ -{_range(first[1], last[2], old)} +{_range(first[3], last[4], new)} @@"
    for tag, i1, i2, j1, j2 in group:
        if tag == "equal":
            yield from _printed(" ", old, i1, i2)
        else:
            yield from _printed("-", old, i1, i2)
            yield from _printed("+", new, j1, j2)


def _printed(sign: str, lines: list[str], start: int, end: int) -> Iterator[str]:
    """Lines `start` to `end`. The empty text after the last newline is not a line; a missing newline is marked."""
    for number in range(start, end):
        if number < len(lines) - 1:
            yield sign + lines[number]
        elif lines[number]:
            yield sign + lines[number]
            yield "\\ No newline at end of file"


def _range(start: int, end: int, lines: list[str]) -> str:
    """Line numbers as `diff -u` prints them: `FIRST,COUNT`, or `FIRST` for one line."""
    if end == len(lines) and not lines[-1]:
        end = max(end - 1, start)
    count = end - start
    return f"{start + 1 if count else start},{count}" if count != 1 else f"{start + 1}"
