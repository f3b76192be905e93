"""Code blocks of the documentation, so that tests run what a reader types."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Final

DOCS: Final = Path(__file__).resolve().parents[2] / "docs"


def block(page: str, before: str) -> str:
    """The indented block that follows a paragraph of the page which contains `before`."""
    paragraphs = (DOCS / page).read_text("utf-8").split("\n\n")
    start = next(number for number, text in enumerate(paragraphs) if before in text) + 1
    lines = []
    for text in paragraphs[start:]:
        if not text.strip("\n").startswith("    "):
            break
        lines.append(text.strip("\n"))
    return textwrap.dedent("\n\n".join(lines)) + "\n"
