"""A JSON file whose top-level keys have several owners: `/etc/docker/daemon.json`. Source: dockerd(8), RFC 8259.

Values are replaced, added and removed member by member. The order of keys, the indentation and all other members stay.
An empty file counts as an empty object, as in dockerd. Of a repeated key, the last value counts; a repeated key with an
object is refused, since dockerd may combine the objects, member by member. Source: Go's encoding/json, Unmarshal.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from provision.editing.diff import Span, masked_diff
from provision.editing.document import Document, Splice, check_read_back, same
from provision.errors import ProbeFailed, Refused
from provision.secret import is_secret_name, revealed, secret_values


@dataclass(frozen=True)
class EditedJson:
    """An edited file: its new bytes with secrets in clear, and the top-level keys whose value changed.

    `content` is the input itself when nothing had to change.
    """

    content: bytes = field(repr=False)
    changed: frozenset[str] = frozenset()


def edit(content: bytes, wanted: Mapping[str, Any], remove: Collection[str] = (), *, name: str) -> EditedJson:
    """Return the file with the keys of `wanted` set, and the keys of `remove` deleted unless they are wanted.

    content  the bytes of the file; b"" when there is none
    wanted   top-level keys and their values; `Secret` values are revealed
    name     the path, for messages

    Raises ProbeFailed for a file that is not UTF-8, and Refused for one that holds no JSON object or repeats a key with one.
    """
    document = Document(content)
    now = _object(document, name)
    planned = {key: value for key, value in now.items() if key in wanted or key not in remove}
    planned |= revealed(wanted)
    changed = frozenset(key for key in {*now, *planned} if not _same_member(now, planned, key))
    if not changed:
        return EditedJson(content)
    new = document.splice(_splices(document, now, planned, changed))
    check_read_back(
        name, new, lambda result: _object(Document(result), name), planned, "write the file as one plain JSON object"
    )
    return EditedJson(new, changed)


def diff(before: bytes, after: bytes, path: str) -> str:
    """Return the masked diff of two JSON files; the values of secret-looking keys are `***`, nested ones too."""
    return masked_diff(path, before, after, find_secrets)


_TOKEN = re.compile(
    r'(?P<string>"(?:\\.|[^"\\\n])*(?:"|(?=\n)|\Z))(?P<colon>\s*:)?|(?P<sign>[\[\]{},])|[^\s"\[\]{},:]+'
)


def find_secrets(content: bytes) -> Iterator[Span]:
    """Find the values of secret-looking keys, also in JSON that is not valid, and secrets inside strings.

    These are the values of `NAME=value`, and users and passwords in URLs that are written with escapes, and in proxies
    that are written without a scheme. `masked_diff` finds those in other URLs.
    """
    text = content.decode("latin-1")  # one letter for each byte, so that offsets are those of the content
    inherited = secret = False  # whether the key of the enclosing value, and the key of this value, names a secret
    outer: list[bool] = []
    name = ""  # the last key
    for token in _TOKEN.finditer(text):
        if token["colon"]:
            name = _key(token["string"])
            secret = inherited or is_secret_name(name)
        elif token["sign"] in ("{", "["):
            outer.append(inherited)
            inherited = secret
        elif token["sign"]:
            if token["sign"] != "," and outer:
                inherited = outer.pop()
            secret = inherited
        elif token["string"]:
            start, end = token.start() + 1, token.end() - token["string"][1:].endswith('"')
            if secret or _is_url_with_escapes(token["string"]):
                yield start, end
            elif name.lower().endswith("proxy") and "://" not in text[start:end] and "@" in text[start:end]:
                yield start, text.rindex("@", start, end)
            else:
                yield from ((start + first, start + last) for first, last in secret_values(text[start:end]))
        elif secret and token.group() not in ("true", "false", "null"):
            yield token.span()


def _is_url_with_escapes(source: str) -> bool:
    """Whether a string has a user or a password in a URL, and a backslash, so that they end elsewhere than they seem to."""
    return "\\" in source and "@" in source and "://" in _key(source)


def _key(source: str) -> str:
    try:
        return str(json.loads(source))
    except (ValueError, RecursionError):
        return source.strip('"')


def _object(document: Document, name: str) -> dict[str, Any]:
    """The data of the file. Raises ProbeFailed and Refused as `edit` does."""
    kept = "it is not overwritten"
    hint = f"fix the file by hand first; {kept}"
    content = document.content[document.start :]
    if not content.strip():
        return {}
    repeated: list[str] = []

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        objects = {key for key, value in pairs if isinstance(value, dict)}
        names = [key for key, _ in pairs]
        repeated.extend(key for key in dict.fromkeys(names) if key in objects and names.count(key) > 1)
        return dict(pairs)

    try:
        value = json.loads(content.decode(), object_pairs_hook=members)
    except UnicodeDecodeError as error:
        raise ProbeFailed(f"{name} is not UTF-8: {error}", hint=hint) from error
    except json.JSONDecodeError as error:
        raise Refused(f"{name} line {error.lineno}: not JSON: {error.msg}", hint=hint) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, values nested too deeply
        raise Refused(f"{name} cannot be read: {error}", hint=hint) from error
    if not isinstance(value, dict):
        raise Refused(f"{name} holds no JSON object", hint=hint)
    if repeated:
        raise Refused(
            f"{name} has the key {json.dumps(repeated[0])} twice, with an object: dockerd combines both",
            hint=f"join the two by hand first; {kept}",
        )
    return value


def _same_member(one: Mapping[str, Any], other: Mapping[str, Any], key: str) -> bool:
    return key in one and key in other and same(one[key], other[key])


class _Member(NamedTuple):
    """A `"key": value` of the top-level object, as offsets of bytes."""

    key: str
    start: int
    value: int
    end: int


def _members(document: Document) -> list[_Member]:
    """The members of a valid object, in order."""
    text = document.content[document.start :].decode()
    decoder = json.JSONDecoder()

    def skip(at: int, signs: str = "") -> int:
        while at < len(text) and text[at] in " \t\r\n" + signs:
            at += 1
        return at

    measured, size = 0, document.start

    def offset(at: int) -> int:  # of the byte at `at`; the calls come with rising values
        nonlocal measured, size
        size += len(text[measured:at].encode())
        measured = at
        return size

    members: list[_Member] = []
    at = skip(0, "{")
    while text[at] != "}":
        key, behind = decoder.raw_decode(text, at)
        value = skip(behind, ":")
        _, end = decoder.raw_decode(text, value)
        members.append(_Member(key, offset(at), offset(value), offset(end)))
        at = skip(end, ",")
    return members


def _splices(
    document: Document, now: Mapping[str, Any], planned: Mapping[str, Any], changed: Collection[str]
) -> list[Splice]:
    members = _members(document) if now else []
    last = {member.key: member for member in members}
    kept = [
        member
        for member in members
        if member.key not in changed or (member.key in planned and member is last[member.key])
    ]
    if not kept:
        new = json.dumps(planned, indent=2, ensure_ascii=False) + "\n"
        return [Splice(document.start, len(document.content), document.encode(new))]
    stay = set(kept)
    splices = [
        Splice(member.value, member.end, _value(document, member, planned[member.key]))
        for member in kept
        if member.key in changed
    ]
    for before, member, after in zip([None, *members], members, [*members[1:], None], strict=False):
        if member in stay:
            continue
        if member.start < kept[-1].start:
            assert after is not None
            splices.append(Splice(member.start, after.start))
        else:
            assert before is not None
            splices.append(Splice(before.end, member.end))
    end = kept[-1].end
    for key in planned:
        if key not in now:
            splices.append(Splice(end, end, _member(document, kept[-1], key, planned[key])))
    return splices


def _on_own_line(document: Document, member: _Member) -> bool:
    return (
        document.indentation(member.start)
        == document.content[document.line_start(member.start) : member.start].decode()
    )


def _value(document: Document, member: _Member, value: Any) -> bytes:
    """A value as JSON: indented like the file if the member begins a line, otherwise on one line."""
    if not _on_own_line(document, member):
        return json.dumps(value, ensure_ascii=False).encode()
    indentation = document.indentation(member.start)
    text = json.dumps(value, indent=indentation or 2, ensure_ascii=False)
    return document.encode(text.replace("\n", "\n" + indentation))


def _member(document: Document, sibling: _Member, key: str, value: Any) -> bytes:
    """A new member with the comma before it, laid out like its sibling."""
    newline = "\n" + document.indentation(sibling.start) if _on_own_line(document, sibling) else " "
    return document.encode(f",{newline}{json.dumps(key, ensure_ascii=False)}: ") + _value(document, sibling, value)
