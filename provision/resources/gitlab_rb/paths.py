"""A setting's path, and how it is spelled in Ruby."""

from __future__ import annotations

import re
from typing import TypeAlias

from provision.errors import Refused

Path: TypeAlias = tuple[str, ...]

_ROOT = re.compile(r"[a-z_][A-Za-z0-9_]*\Z")


def covers(outer: Path, inner: Path) -> bool:
    """`outer` is `inner` or holds it."""
    return inner[: len(outer)] == outer


def related(one: Path, other: Path) -> bool:
    """Setting one of them bears on the other."""
    return covers(one, other) or covers(other, one)


def name(path: Path) -> str:
    """The path as Ruby reads it: `registry['nginx']['enable']`. Raises Refused for what cannot be a setting's name."""
    from provision.resources.gitlab_rb.render import render_string

    if not path or not _ROOT.match(path[0]):
        raise Refused(
            f"{'.'.join(path) or '(nothing)'} is no name of a gitlab.rb setting",
            hint="the first part must be a Ruby method's name, like gitlab_rails",
        )
    return path[0] + "".join(f"[{render_string(key)}]" for key in path[1:])


def spell(path: Path, value: str) -> str:
    """The statement that sets `path` to the Ruby source `value`: a call for one part, else an assignment."""
    if len(path) > 1:
        return f"{name(path)} = {value}"
    # Without parentheses Ruby takes a brace for a block and may take a minus for a subtraction.
    return f"{name(path)}({value})" if value[:1] in ("{", "-") else f"{name(path)} {value}"


def nginx_path(version: str) -> Path:
    """Where the registry's NGINX settings live in GitLab `version` ("19.3.0", "19.3.0-ce.0", "v19.3.0+ce.0").

    From 19.2 `registry['nginx']`; before that the new form is silently ignored and `registry_nginx` counts.
    Raises Refused when the text starts with no version.
    """
    found = re.match(r"v?(\d+)\.(\d+)", version.strip())
    if not found:
        raise Refused(f"{version!r} is no GitLab version", hint="expected something like 19.3.0 or 19.3.0-ce.0")
    return ("registry", "nginx") if (int(found[1]), int(found[2])) >= (19, 2) else ("registry_nginx",)
