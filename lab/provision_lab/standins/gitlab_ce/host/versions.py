"""The installed version, and what depends on it."""

from __future__ import annotations

from pathlib import Path

Version = tuple[int, int, int]


def parse_version(text: str) -> Version:
    """`19.3.0`, or the package's `19.3.0-ce.0`, as numbers."""
    major, minor, patch = text.split("-")[0].split(".")
    return int(major), int(minor), int(patch)


def installed(opt: Path) -> str:
    """The version that the package laid, such as `19.3.0`."""
    first = (opt / "version-manifest.txt").read_text().splitlines()[0]  # "gitlab-ce 19.3.0"
    return first.split()[1]


def nested_nginx(version: Version) -> bool:
    """`registry['nginx']` and `gitlab_rails['nginx']` are read; before, they are silently ignored."""
    return version >= (19, 2, 0)


def registry_v2_driver(version: Version) -> bool:
    """`s3` and `s3aws` are aliases of `s3_v2`, whose `regionendpoint` must be a full URI."""
    return version >= (19, 0, 0)
