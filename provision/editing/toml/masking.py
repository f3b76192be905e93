"""A unified diff of two config.toml texts with the secrets blanked inside the lines.

The lines are compared as they are and masked when shown, so a swapped token is seen to change. The scan knows
strings, comments and keys; it needs no valid TOML, since a broken file must not leak either.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from provision.secret import MASK

_SECRET_KEY = re.compile(
    r"token(?!_obtained_at|_expires_at)|passw|secret|access_?key|account_?key|private_?key|credential|auth_config|"
    r"sentry_dsn|sharedkey|^environment$",
    re.IGNORECASE,
)
_LOOSE = re.compile(
    r"""([\w-]*(?:token(?!_obtained_at|_expires_at)|passw|secret|access_?key|private_?key|auth_config)[\w-]*"""
    r"""\\?["']?[ \t]*[=:][ \t]*)(\\?"[^"\n]*"?|'[^'\n]*'?|[^\s"',}\]]+)""",
    re.IGNORECASE,
)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TOKEN = re.compile(r"\bgl[a-z]{1,6}-[\w.=-]{6,}|\bGR1348941[\w-]+")
_LEXEMES = re.compile(
    r'''(?P<comment>\#[^\n]*)|(?P<text>"""(?:\\.|[^\\])*?(?:"{3,5}|\Z)|\'\'\'.*?(?:'{3,5}|\Z)'''
    r"""|"(?:\\.|[^"\\\n])*(?:"|(?=\n)|\Z)|'[^'\n]*(?:'|(?=\n)|\Z))"""
    r"""|(?P<word>[A-Za-z0-9_+:-]+)|(?P<sign>[=\[\]{},.])|(?P<newline>\n)|(?P<rest>.)""",
    re.DOTALL,
)


def diff(before: str, after: str, path: str = "/etc/gitlab-runner/config.toml", context: int = 3) -> str:
    """A unified diff, "" when nothing differs. Values of token-like and password-like keys show as ***."""
    import difflib

    old, new = _lines(before), _lines(after)
    shown_old, shown_new = _lines(masked(before)), _lines(masked(after))
    out: list[str] = []
    for group in difflib.SequenceMatcher(None, old, new, autojunk=False).get_grouped_opcodes(context):
        (_, old_start, _, new_start, _), (_, _, old_end, _, new_end) = group[0], group[-1]
        out.append(f"@@ -{_span(old_start, old_end)} +{_span(new_start, new_end)} @@")
        for tag, i, j, k, m in group:
            if tag == "equal":
                out += [f" {line}" for line in shown_old[i:j]]
                continue
            out += [f"-{line}" for line in shown_old[i:j]] + [f"+{line}" for line in shown_new[k:m]]
    return "\n".join([f"--- {path}", f"+++ {path}", *out, ""]) if out else ""


def _lines(text: str) -> list[str]:
    *lines, rest = text.split("\n")
    return [*lines, f"{rest}\n\\ No newline at end of file"] if rest else lines


def _span(start: int, end: int) -> str:
    return f"{start + (end > start)},{end - start}"


def masked(text: str) -> str:
    """The text, line for line, with the values of secret keys and everything token-like as ***."""
    return _TOKEN.sub(MASK, "".join(_scan(text)))


def _scan(text: str) -> Iterator[str]:
    """The text piece by piece, secret values replaced. Newlines are kept, so lines stay where they are."""
    inherited = False  # the header's name, or an enclosing table's key, is a secret's
    secret = False  # so is the key whose value is being read
    reading_key, in_header = True, False
    name: list[str] = []  # the words of this line or of this pair
    outer: list[tuple[str, bool, bool]] = []  # open brackets: which, `inherited` and `secret` before
    for found in _LEXEMES.finditer(text):
        kind, part = found.lastgroup or "", found.group()
        if kind == "comment":
            yield _loosely(part)
        elif kind in ("text", "word"):
            name.append(part.strip("\"'"))
            shown = in_header or reading_key or not secret or part in ("true", "false")
            yield (_loosely(part) if kind == "text" else part) if shown else _hidden(part, kind)
        else:
            if part == "=" and not in_header:
                if not reading_key:
                    outer.clear()  # no TOML: an array was left open, and the next pair begins
                reading_key, secret = False, inherited or _is_secret(name)
            elif part == "[" and reading_key and not outer:
                in_header, name = True, []
            elif part in ("[", "{") and not in_header:
                outer.append((part, inherited, secret))
                if part == "{":
                    inherited, reading_key, name = secret, True, []
            elif part in ("]", "}") and outer and not in_header:
                _, inherited, secret = outer.pop()
                reading_key = False
            elif part == "," and outer and outer[-1][0] == "{":
                reading_key, name = True, []
            elif kind == "newline":
                if in_header:
                    in_header, inherited = False, _is_secret(name)
                if not outer:
                    reading_key = True
                name = []
            yield part


def _is_secret(name: list[str]) -> bool:
    return any(_SECRET_KEY.search(part) for part in name)


def _hidden(part: str, kind: str) -> str:
    """A value blanked, in its quotes; of `NAME=value` the name is left."""
    if kind == "word":
        return MASK
    quote = part[:3] if part[:3] in ('"""', "'''") else part[:1]
    closing = quote if len(part) >= 2 * len(quote) and part.endswith(quote) else ""
    inner = part[len(quote) : len(part) - len(closing)]
    head, equals, _ = inner.partition("=")
    kept = head + equals if equals and _VARIABLE.fullmatch(head) else ""
    return quote + kept + (MASK if inner else "") + "\n" * inner.count("\n") + closing


def _loosely(text: str) -> str:
    """`token = …` and `export PASSWORD=…` in comments and scripts."""
    return _LOOSE.sub(lambda found: found[1] + MASK, text)
