"""Patterns of .dockerignore, files, and those that stay: for tests of our own rules and of Docker's."""

from __future__ import annotations

FILES = (
    ".env",
    "README.md",
    "app.py",
    "app.pyc",
    "docs/README.md",
    "docs/a/deep.md",
    "docs/image.png",
    "node_modules/x/index.js",
    "src/app.py",
    "src/app.pyc",
    "src/node_modules/y.js",
    "src/temp-1.txt",
    "tempa",
    "temp1",
)


def without(*names: str) -> tuple[str, ...]:
    """All files but these."""
    assert set(names) <= set(FILES)
    return tuple(name for name in FILES if name not in names)


# the file's text, the files there are, those that stay
CASES = [
    ("", FILES, FILES),
    ("# a comment\n\n   \n", FILES, FILES),
    (".env\n", FILES, without(".env")),
    ("/.env\n", FILES, without(".env")),
    ("  .env  \n", FILES, without(".env")),
    ("\ufeff.env\n", FILES, without(".env")),
    (".env\r\napp.py\r\n", FILES, without(".env", "app.py")),
    ("*.md\n", FILES, without("README.md")),
    ("*/*.md\n", FILES, without("docs/README.md")),
    ("**/*.md\n", FILES, without("README.md", "docs/README.md", "docs/a/deep.md")),
    ("docs\n", FILES, without("docs/README.md", "docs/a/deep.md", "docs/image.png")),
    ("docs/\n", FILES, without("docs/README.md", "docs/a/deep.md", "docs/image.png")),
    ("./docs/../docs/a\n", FILES, without("docs/a/deep.md")),
    ("docs/**\n", FILES, without("docs/README.md", "docs/a/deep.md", "docs/image.png")),
    ("docs/*\n", FILES, without("docs/README.md", "docs/a/deep.md", "docs/image.png")),
    ("**/node_modules\n", FILES, without("node_modules/x/index.js", "src/node_modules/y.js")),
    ("node_modules\n", FILES, without("node_modules/x/index.js")),
    ("temp?\n", FILES, without("tempa", "temp1")),
    ("temp[0-9]\n", FILES, without("temp1")),
    ("temp[^0-9]\n", FILES, without("tempa")),
    ("*/temp*\n", FILES, without("src/temp-1.txt")),
    ("*.md\n!README.md\n", FILES, FILES),
    ("!README.md\n*.md\n", FILES, without("README.md")),
    ("docs\n!docs/README.md\n", FILES, without("docs/a/deep.md", "docs/image.png")),
    ("**/*.md\n!docs/a\n", FILES, without("README.md", "docs/README.md")),
    ("*\n!src\nsrc/*.pyc\n", FILES, ("src/app.py", "src/node_modules/y.js", "src/temp-1.txt")),
    ("*\n!app.py\n", FILES, ("app.py",)),
    ("app\\.pyc\n", FILES, without("app.pyc")),
    ("#.env\n", FILES, FILES),
    ("app.+\n", FILES, FILES),
]

# Docker up to 20.10 took these for regular expressions.
LATER_CASES = [("(app).py\n", FILES, FILES), ("app.py\\c\n", FILES, without("app.pyc"))]
