"""The nearest known word, for typing errors."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The one of `known` that is most like `word`, or None when none is near."""
    import difflib  # errors only

    words = {one.lower(): one for one in known}
    found = difflib.get_close_matches(word.lower(), words, n=1, cutoff=0.6)
    return words[found[0]] if found else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean "x"?`, else the words there are, else nothing: to be put behind a message."""
    words = sorted(known)
    found = nearest(word, words)
    if found is not None:
        return f'; did you mean "{found}"?'
    return f"; there are: {', '.join(words)}" if 0 < len(words) <= 12 else ""
