"""Unified diffs of whole files, secrets masked inside them."""

from __future__ import annotations

import difflib

from provision.secret import mask

_LONGEST = 400  # lines; a diff beyond is a wall that nobody reads


def unified(path: str, before: str, after: str) -> str:
    """`diff -u` of two texts under one path, every known secret as `***`; "" when they are equal."""
    lines = difflib.unified_diff(
        mask(before).splitlines(), mask(after).splitlines(), f"{path} (now)", f"{path} (wanted)", lineterm=""
    )
    shown = list(lines)
    if before != after and not shown:
        shown = [f"--- {path} (now)", f"+++ {path} (wanted)", "(they differ in secrets or line ends)"]
    if len(shown) > _LONGEST:
        shown = [*shown[:_LONGEST], f"… {len(shown) - _LONGEST} more lines"]
    return "\n".join(shown)
