"""Which version this is: the package says it in a file beside this one."""

from __future__ import annotations

import os
from pathlib import Path

_FILE = Path(__file__).with_name("VERSION")
VERSION = _FILE.read_text().strip() if _FILE.exists() else "19.3.0"
REVISION = "1abd57a0"
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)


def at_least(major: int, minor: int) -> bool:
    """This version is that one or newer."""
    own = VERSION.split(".")
    return (int(own[0]), int(own[1])) >= (major, minor)


def text() -> str:
    """What `--version` prints."""
    branch = "-".join(VERSION.split(".")[:2]) + "-stable"
    return (
        f"Version:      {VERSION}\n"
        f"Git revision: {REVISION}\n"
        f"Git branch:   {branch}\n"
        "GO version:   go1.25.8\n"
        "Built:        2026-08-20T10:12:44Z\n"
        f"OS/Arch:      linux/{ARCHITECTURE}\n"
    )
