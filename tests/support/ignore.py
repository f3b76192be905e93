"""Patterns of .dockerignore, files, and those that are sent: for tests of our own rules and of Docker's."""

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


NODE_MODULES = ("node_modules/x/index.js", "src/node_modules/y.js")


def without(*names: str) -> tuple[str, ...]:
    """Return all files but these."""
    assert set(names) <= set(FILES)
    return tuple(name for name in FILES if name not in names)


# the text of the file, all files, those that are sent
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
    ("*\n!src\nsrc/*.pyc\n", FILES, ("src/app.py", "src/node_modules/y.js", "src/temp-1.txt")),
    ("*\n!app.py\n", FILES, ("app.py",)),
    ("app\\.pyc\n", FILES, without("app.pyc")),
    ("#.env\n", FILES, FILES),
    ("app.+\n", FILES, FILES),
]

# Docker up to 20.10 decides these otherwise: it took patterns for regular expressions, and a `!` line included
# everything below a folder that no line had excluded.
LATER_CASES = [
    ("(app).py\n", FILES, FILES),
    ("**/*.md\n!docs/a\n", FILES, without("README.md", "docs/README.md", "docs/a/deep.md")),
    ("**/*.pyc\n**/node_modules\n!src\n", FILES, without("app.pyc", "src/app.pyc", *NODE_MODULES)),
    ("docs\n**/*.md\n!docs\n", FILES, FILES[:1] + FILES[2:]),
]
