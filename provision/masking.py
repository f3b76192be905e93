"""Masking: every form in which a known secret may appear in text, and everything that looks like a secret, becomes `***`.

Untrusted text is also made printable here: `printable` removes what moves a terminal's cursor.

A secret is printed by programs as it is, or in the notation of a shell, JSON, HTML, a URL or Ruby, or in base64, alone
or as part of a longer text (`user:secret`). Its forms are in one index by their first four characters, so that a search
reads the text once, whatever the number of secrets; further secrets are added at any time without a cost for the text.

Not masked: a secret of fewer than SHORTEST characters; in a program's output also a line of fewer than SHORTEST_LINE
characters of a secret with several lines, unless it is a PEM file. Such texts appear in unrelated output all the time.
"""

from __future__ import annotations

import base64
import codecs
import json
import re
import string
import threading
from collections.abc import Callable, Iterable, Iterator
from itertools import product
from typing import AnyStr, Final, TypeAlias
from urllib.parse import quote, quote_plus

MASK: Final = "***"
SHORTEST: Final = 4  # characters of a secret that is masked
SHORTEST_LINE: Final = 8  # characters of a masked line of a secret with several lines
LONGEST_LINE: Final = 1 << 16  # characters of output after which an unfinished line is passed on
_LONGEST_ENCODED: Final = 1 << 16  # characters; of longer secrets only the text and its lines are known
_BASE64_WIDTHS: Final = (64, 76)  # columns at which openssl and base64 break lines

_LONG: Final = 8  # characters of a text that is found by a sample of its beginning
_SAMPLE: Final = 4  # characters of a sample
_STEP: Final = _LONG - _SAMPLE + 1
_NONE: Final[tuple[list[int], set[str]]] = ([], set())

Span: TypeAlias = tuple[int, int]
"""The offsets of a secret: of its first character, and of the character after its last one."""


class _Index:
    """The texts to find. One thread may add a text while others search.

    A long text is found by four characters at every fifth position of the searched text: one of these lies in the first
    eight characters of the text wherever it is. Short texts are alternatives of one pattern. A text that is `part`
    of base64 stands for the whole base64 text around it.
    """

    def __init__(self) -> None:
        self._samples: dict[str, set[int]] = {}  # four characters: their offsets in the beginnings of long texts
        self._long: dict[str, tuple[list[int], set[str]]] = {}  # by beginning: lengths, longest first, and texts
        self._short: set[str] = set()
        self._short_pattern: re.Pattern[str] | None = None
        self._parts: set[str] = set()
        self.longest = 0

    def add(self, text: str, *, part: bool = False) -> None:
        if len(text) < SHORTEST:
            return
        if part:
            self._parts.add(text)
        self.longest = max(self.longest, len(text))
        if len(text) < _LONG:
            self._short.add(text)
            self._short_pattern = _alternatives(self._short)
            return
        lengths, texts = self._long.get(text[:_LONG], ([], set()))
        texts.add(text)
        if len(text) not in lengths:
            self._long[text[:_LONG]] = (sorted([*lengths, len(text)], reverse=True), texts)
        for offset in range(_STEP):
            self._samples.setdefault(text[offset : offset + _SAMPLE], set()).add(offset)

    def find(self, text: str) -> Iterator[Span]:
        """The places of all texts, which may overlap; of those that begin together only the longest."""
        behind_base64 = 0
        for at, found in self._find(text):
            if found not in self._parts:
                yield at, at + len(found)
            elif at >= behind_base64:
                start, behind_base64 = _whole_base64(text, at, at + len(found), behind_base64)
                yield start, behind_base64

    def _find(self, text: str) -> Iterator[tuple[int, str]]:
        samples = self._samples
        positions = range(0, len(text) - _SAMPLE + 1, _STEP)
        for at in [at for at in positions if text[at : at + _SAMPLE] in samples]:
            for offset in tuple(samples[text[at : at + _SAMPLE]]):
                start = at - offset
                lengths, texts = self._long.get(text[start : start + _LONG], _NONE) if start >= 0 else _NONE
                for length in lengths:
                    if (found := text[start : start + length]) in texts:
                        yield start, found
                        break
        if self._short_pattern is not None:
            yield from ((found.start(), found[0]) for found in self._short_pattern.finditer(text))


def _alternatives(texts: Iterable[str]) -> re.Pattern[str]:
    """A pattern for any of the texts. Those with the same first letter are together, so that few are tried."""
    by_letter: dict[str, list[str]] = {}
    for text in sorted(texts, key=len, reverse=True):
        by_letter.setdefault(text[0], []).append(re.escape(text[1:]))
    return re.compile("|".join(f"{re.escape(letter)}(?:{'|'.join(rest)})" for letter, rest in by_letter.items()))


_index = _Index()
_registered: set[str] = set()
_lock = threading.Lock()


def register(text: str) -> None:
    """Add a secret, in all its forms. Each text is added once."""
    with _lock:
        if text in _registered:
            return
        _registered.add(text)
        for form in _base64_parts(text):
            _index.add(form, part=True)
        for form in _forms(text):
            _index.add(form)


def _forms(text: str) -> set[str]:
    lines = [line.strip() for line in text.splitlines()]
    shortest = SHORTEST if any(line.startswith("-----BEGIN ") for line in lines) else SHORTEST_LINE
    lines = [line for line in lines if len(line) >= shortest and not line.startswith("-----")] if lines[1:] else []
    forms = {text, text.strip(), *lines}
    if len(text) <= _LONGEST_ENCODED:
        special = [one for one in forms if not _SAME_IN_ALL_NOTATIONS.fullmatch(one)]
        special = [one for one in special if one not in lines or not _KEY_LINE.fullmatch(one)]
        forms.update(form for one in special for notation in _NOTATIONS for form in notation(one))
    return forms


_SAME_IN_ALL_NOTATIONS = re.compile(r"[\w.-]*", re.ASCII)


def _json(text: str) -> Iterator[str]:
    """Python's and Ruby's JSON, that of Go and Rails (safe inside HTML), that of PHP (`\\/`); JSON inside JSON."""
    for ascii_only in (True, False):
        plain = json.dumps(text, ensure_ascii=ascii_only)[1:-1]
        safe = re.sub("[<>&]", lambda found: f"\\u{ord(found[0]):04x}", plain)
        for form in (plain, safe, plain.replace("/", "\\/")):
            yield form
            yield re.sub(r"\\u[0-9a-f]{4}", lambda found: "\\u" + found[0][2:].upper(), form)
            yield json.dumps(form, ensure_ascii=ascii_only)[1:-1]


# Characters besides letters, digits and `_.-~` that a program leaves as they are in a URL: Python and curl; Python in a path;
# JavaScript's encodeURIComponent; Go in a user's name or password, and in a path.
_SAFE_IN_URL: Final = ("", "/", "!'()*", "$&+,;=", "$&+:=@")


def _url(text: str) -> Iterator[str]:
    raw = text.encode("utf-8", "surrogatepass")
    for form in (quote_plus(raw), *(quote(raw, safe=safe) for safe in _SAFE_IN_URL)):
        yield form
        yield re.sub(r"%[0-9A-F]{2}", lambda found: found[0].lower(), form)


# What programs put a backslash before: bash's `printf %q`, Ruby's Shellwords, Perl; other letters as well or not.
_BACKSLASHED: Final = (r"[\s!\"$&'()*,;<>?\[\\\]^`{|}]", r"[^A-Za-z0-9_.,:+/@\n-]", r"\W")
_BACKSLASHED_IN_ASCII: Final = tuple(f"(?a:{one})|[^\\x00-\\x7f]" for one in _BACKSLASHED)


def _shell(text: str) -> Iterator[str]:
    """In single quotes, in double quotes, with backslashes (`printf %q`), and in `$'…'`."""
    yield text.replace("'", "'\"'\"'")
    yield text.replace("'", "'\\''")
    yield re.sub(r'([$`"\\])', r"\\\1", text)
    for special in (*_BACKSLASHED, *_BACKSLASHED_IN_ASCII):
        yield re.sub(f"({special})", r"\\\1", text)
    yield text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\t", "\\t")


def _html(text: str) -> Iterator[str]:
    from html import escape  # few secrets have a notation of their own in HTML

    plain = escape(text, quote=False)
    if '"' not in text and "'" not in text:
        yield plain
        return
    for double, single in product(('"', "&quot;", "&#34;"), ("'", "&#39;", "&#x27;", "&#039;", "&apos;")):
        yield plain.replace('"', double).replace("'", single)


_RUBY_CONTROL: Final = {7: "a", 8: "b", 9: "t", 10: "n", 11: "v", 12: "f", 13: "r", 27: "e"}


def _ruby(text: str) -> Iterator[str]:
    """In single quotes; and `inspect`, with other letters as they are or as escapes. YAML's single quotes."""
    yield text.replace("\\", "\\\\").replace("'", "\\'")
    yield text.replace("'", "\\'")
    yield text.replace("'", "''")
    for ascii_only in (False, True):
        yield "".join(_inspected(one, text[at + 1 : at + 2], ascii_only=ascii_only) for at, one in enumerate(text))


def _inspected(one: str, following: str, *, ascii_only: bool) -> str:
    code = ord(one)
    if one in '"\\' or (one == "#" and following and following in "{$@"):
        return f"\\{one}"
    if code in _RUBY_CONTROL:
        return f"\\{_RUBY_CONTROL[code]}"
    if code < 32 or code == 127:
        return f"\\x{code:02X}"
    if one.isascii() or not ascii_only:
        return one
    return f"\\u{code:04X}" if code < 0x10000 else f"\\u{{{code:X}}}"


def _python(text: str) -> Iterator[str]:
    yield repr(text)[1:-1]
    yield repr(text.encode("utf-8", "surrogatepass"))[2:-1]


_NOTATIONS: Final[tuple[Callable[[str], Iterable[str]], ...]] = (_json, _url, _shell, _html, _ruby, _python)


def _base64_parts(text: str) -> Iterator[str]:
    """What base64 of any text that contains the secret contains: one part for each position modulo three.

    Letters at the ends that depend on what stands around the secret are left out. Also the lines of broken base64.
    """
    raw = text.encode("utf-8", "surrogatepass")
    if not SHORTEST <= len(raw) <= _LONGEST_ENCODED:
        return
    for before in range(3):
        coded = base64.b64encode(b"\0" * before + raw).decode()
        known = coded[(before * 8 + 5) // 6 : (before + len(raw)) * 8 // 6]
        for part in (known, *(known[at : at + 64] for at in range(0, len(known), 64) if len(known) > 64)):
            yield part
            yield part.translate(_URL_SAFE)
    coded = base64.b64encode(raw).decode()
    for width in _BASE64_WIDTHS:
        if len(coded) > width:
            yield from (coded[at : at + width] for at in range(0, len(coded), width))


_URL_SAFE: Final = str.maketrans("+/", "-_")
_BASE64_LETTERS: Final = frozenset(string.ascii_letters + string.digits + "+/-_")
_BASE64_END = re.compile(r"[A-Za-z0-9+/_-]*+(?:=|%3[dD]){0,2}")


def _whole_base64(text: str, start: int, end: int, after: int) -> Span:
    """The base64 text around a part of it; it begins at `after` or later."""
    while start > after and text[start - 1] in _BASE64_LETTERS:
        start -= 1
    rest = _BASE64_END.match(text, end)
    return start, rest.end() if rest else end


# What looks like a secret, whether we know it or not.
_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]{0,20})?:(?:\\?/){2}")
_USER = re.compile(r"(?!\[)[^\s\"'<>@/:\\]*+:(?!\d{1,5}[/?#])")
_TOKEN_AS_USER = re.compile(r"[^\s\"'<>@/:\\?#]++(?=@)")
_END_OF_URL: Final = {'"': re.compile(r'[\s"]'), "'": re.compile(r"[\s']"), "": re.compile(r"[\s\"'<>]")}
# Source: GitLab's documentation, "Token overview", token prefixes; GR1348941 is the registration token's.
_GITLAB_TOKEN = re.compile(r"gl(?:agent|cbt|dt|ffct|ft|imt|oas|pat|ptt|rtr?|soat|wt)-[\w.=-]{6,}")
_REGISTRATION_TOKEN = re.compile(r"GR1348941[\w-]{6,}")
_KEY_BEGINS = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----")
_KEY_LINE = re.compile(r"[ \t]*(?:[A-Za-z0-9+/=]*|[A-Z][A-Za-z-]*: .*)[ \t]*\r?")
_LONGEST_KEY: Final = 20_000  # characters
_BEFORE_END: Final = " \t\r\n+-"  # what may stand before the end's own line; `\r` and `\n` in a string as well


def _find_in_urls(text: str) -> Iterator[Span]:
    """Passwords, and users without a password (a token, a DSN's key), in URLs.

    A password ends at the last `@` before a blank or a quote, since `/` and `@` are often written without an escape.
    `host:443/…@…` has no password.
    """
    url_end, last_at = 0, -1
    for start in _URL.finditer(text):
        at = start.end()
        if at > url_end:
            before = text[start.start() - 1 : start.start()] if start.start() else ""
            end = _END_OF_URL[before if before in ("'", '"') else ""].search(text, at)
            url_end = end.start() if end else len(text)
            last_at = text.rfind("@", at, url_end)
        if at > last_at:
            continue
        if user := _USER.match(text, at):
            yield user.end(), max(last_at, user.end())
            last_at = -1
        elif (start["scheme"] or "").lower() in ("http", "https") and (token := _TOKEN_AS_USER.match(text, at)):
            yield token.span()


def _find_keys(text: str) -> Iterator[Span]:
    """Private keys in PEM, also in a string with `\\n` for the line breaks, up to an end or to an empty line."""
    begins = list(_KEY_BEGINS.finditer(text))
    for begin, following in zip(begins, [*begins[1:], None], strict=False):
        start = begin.end()
        limit = min(start + _LONGEST_KEY, following.start() if following else len(text))
        end = text.find("-----END ", start, limit)
        if end < 0:
            end = min((at for mark in ("\n\n", "\n\r\n") if (at := text.find(mark, start, limit)) >= 0), default=limit)
        body = text[start:end]
        left = len(body) - len(body.removeprefix("\\r").removeprefix("\\n").lstrip("\r\n"))
        right = len(body.rstrip(_BEFORE_END).removesuffix("\\n").removesuffix("\\r"))
        if left < right:
            yield start + left, start + right


def _find_recognisable(text: str) -> Iterator[Span]:
    if "@" in text:
        yield from _find_in_urls(text)
    if "gl" in text:
        yield from (found.span() for found in _GITLAB_TOKEN.finditer(text))
    if "GR1348941" in text:
        yield from (found.span() for found in _REGISTRATION_TOKEN.finditer(text))
    if "PRIVATE KEY-----" in text:
        yield from _find_keys(text)


def secret_spans(text: str) -> list[Span]:
    """The parts of a text that must not be printed: in order, without overlaps."""
    found = sorted([*_index.find(text), *_find_recognisable(text)])
    joined: list[Span] = []
    for start, end in found:
        if joined and start < joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        elif start < end:
            joined.append((start, end))
    return joined


def mask(text: str, *, keep_lines: bool = False) -> str:
    """Return `text` with every secret replaced by `***`: known ones in any form, and what looks like one.

    With `keep_lines`, a secret of several lines becomes one `***` per line, so that the number of lines stays.
    """
    return _replaced(text, secret_spans(text), keep_lines=keep_lines)


def _replaced(text: str, spans: Iterable[Span], *, keep_lines: bool = False) -> str:
    pieces, at = [], 0
    for start, end in spans:
        if keep_lines and text[end - 1] == "\n":  # the line break after a secret
            end -= 1
        lines = text.count("\n", start, end) + 1 if keep_lines else 1
        pieces += [text[at:start], "\n".join([MASK] * lines)]
        at = end
    return "".join([*pieces, text[at:]]) if pieces else text


def last_lines(text: str, count: int) -> str:
    """The last lines of a program's output, masked before the rest is cut off: no part of a secret is left."""
    return "\n".join(mask(text[-LONGEST_LINE:], keep_lines=True).splitlines()[-count:])


def _end_of_lines(text: AnyStr, newline: AnyStr, redrawn: AnyStr) -> int:
    """The offset after the last whole line. A final `\\r` ends none: it may be the first half of `\\r\\n`."""
    return max(text.rfind(newline), text.rfind(redrawn, 0, max(len(text) - 1, 0))) + 1


_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor movements
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?"  # OSC: window titles, links
    r"|\x1b[@-Z\\-_]?"
)


def printable(line: str) -> str:
    """One line without escape sequences: tabs are expanded, other unprintable characters are shown as `\\x07`.

    Programs' output and files' contents are untrusted: they must not move the cursor or hide what follows.
    """
    if line.isprintable():
        return line
    line = _ESCAPES.sub("", line).expandtabs(8)
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in line)


def printable_lines(text: str) -> list[str]:
    """The lines of a text, each printable; of a line redrawn with carriage returns, only the last version."""
    lines = text.replace("\r\n", "\n").strip("\n").split("\n")
    return [printable(line.rstrip("\r").rpartition("\r")[2]) for line in lines]


class LineJoiner:
    """Joins pieces of one stream into whole lines. A line is also passed on after 64 KiB, or when it is redrawn (`\\r`)."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, piece: bytes) -> bytes:
        """Add a piece; return the lines that it completes, b"" for none."""
        end = _end_of_lines(piece, b"\n", b"\r")
        if not end and self._size + len(piece) > LONGEST_LINE:
            end = len(piece)
        if not end:
            self._parts.append(piece)
            self._size += len(piece)
            return b""
        whole = b"".join([*self._parts, piece[:end]])
        self._parts, self._size = [piece[end:]], len(piece) - end
        return whole

    def end(self) -> bytes:
        """Return the rest, which has no line break."""
        rest = b"".join(self._parts)
        self._parts, self._size = [], 0
        return rest


class OutputMasker:
    """Masks a program's output, which arrives in arbitrary pieces: whole lines, after joining.

    A line that does not end is passed on in parts of 64 Ki characters; none of them ends inside a secret. The lines of a
    private key are masked one by one until its end.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._parts: list[str] = []
        self._size = 0
        self._in_key = False

    def add(self, piece: bytes) -> str:
        """Add a piece; return what may be printed now: whole lines, masked, with their line breaks."""
        text = self._decoder.decode(piece)
        end = _end_of_lines(text, "\n", "\r")
        if not end and self._size + len(text) <= LONGEST_LINE:
            self._parts.append(text)
            self._size += len(text)
            return ""
        text, before = "".join([*self._parts, text]), self._size
        if end:
            ready, rest = self._masked(text[: before + end]), text[before + end :]
            if len(rest) > LONGEST_LINE:
                more, rest = self._cut(rest)
                ready += more
        else:
            ready, rest = self._cut(text)
        self._parts, self._size = [rest], len(rest)
        return ready

    def end(self) -> str:
        """Return the rest, masked."""
        text = "".join([*self._parts, self._decoder.decode(b"", final=True)])
        self._parts, self._size = [], 0
        return self._masked(text)

    def _cut(self, text: str) -> tuple[str, str]:
        """The beginning of a long line, masked, and the rest, in which a secret may have begun."""
        spans = secret_spans(text)
        cut = len(text) - min(_index.longest, LONGEST_LINE // 2)
        for start, end in spans:
            if start < cut < end:
                cut = start if end == len(text) and start > 0 else end
        return _replaced(text[:cut], [span for span in spans if span[1] <= cut]), text[cut:]

    def _masked(self, text: str) -> str:
        if not self._in_key and "PRIVATE KEY-----" not in text:
            return mask(text, keep_lines=True)
        lines = []
        for line in text.split("\n"):
            inside = self._in_key and _KEY_LINE.fullmatch(line) is not None
            self._in_key = inside or (_KEY_BEGINS.search(line) is not None and "-----END " not in line)
            lines.append(MASK if inside and line.strip() else mask(line))
        return "\n".join(lines)
