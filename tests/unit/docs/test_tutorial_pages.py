"""The tutorial's two languages show the same files and commands, so what is run for one holds for both."""

from __future__ import annotations

import re
from dataclasses import replace

from tests.support.tutorial import DOCS, steps


def test_both_languages_show_the_same() -> None:
    """Block by block; comments at the end of a line are translated."""
    english, portuguese = (
        [replace(one, text=re.sub(r" +# .*$", "", one.text, flags=re.MULTILINE)) for one in steps(page)]
        for page in ("tutorial.md", "tutorial.pt-BR.md")
    )
    assert english == portuguese
    assert sum(len(one.commands) for one in english) >= 15


def test_both_have_the_same_sections() -> None:
    """As many headings, and as many rows in the list of what was done by hand."""
    counts = [
        (len(re.findall(r"^## ", text, re.MULTILINE)), len(re.findall(r"^\|", text, re.MULTILINE)))
        for text in ((DOCS / name).read_text("utf-8") for name in ("tutorial.md", "tutorial.pt-BR.md"))
    ]
    assert counts[0] == counts[1]
