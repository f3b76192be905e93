"""[apt]: mirrors of the package repositories."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, NamedTuple

from pydantic import Field, field_validator

from provision.errors import UsageError
from provision.inventory.tables.base import Table, local_file
from provision.url import Url, UrlField

LOCK_SECONDS: Final = 900  # unattended-upgrades of a new Ubuntu host takes ten minutes


class Mirror(Table):
    """A mirror of one publisher's package repository."""

    url: Annotated[Url, UrlField("https://mirror.example.com/docker")]
    """The repository's address: the value of `URIs:`."""
    key: Path | None = None
    """The repository's public key, a local file. Default: the publisher's own, fetched by the host and compared with its known fingerprint."""
    suite: str | None = None
    """The value of `Suites:`. Default: the host's release, such as noble."""

    @field_validator("suite")
    @classmethod
    def _suite(cls, text: str | None) -> str | None:
        if text is not None and (not text or any(letter.isspace() for letter in text)):
            raise ValueError(f"expected one suite such as 'noble', got {text!r}")
        return text


class Apt(Table):
    """Mirrors, for sites without internet, and how to wait. Without a mirror: the publishers' own repositories."""

    docker: Mirror | None = None
    """Instead of download.docker.com."""
    gitlab: Mirror | None = None
    """Instead of packages.gitlab.com's repository of gitlab-ce or gitlab-ee."""
    runner: Mirror | None = None
    """Instead of packages.gitlab.com's repository of gitlab-runner."""
    lock_timeout: Annotated[int, Field(ge=0)] = LOCK_SECONDS
    """Seconds to wait for another package manager, such as unattended-upgrades; it is named meanwhile."""


class PublishedKey(NamedTuple):
    """Where a publisher's key is fetched, and the fingerprints that it may have."""

    url: str
    fingerprints: tuple[str, ...]


# Source: docs.docker.com/engine/install, of older editions that ask to compare it; the key is from 2017.
DOCKER_KEY: Final = PublishedKey(
    "https://download.docker.com/linux/{id}/gpg", ("9DC858229FC7DD38854AE2D88D81803C0EBFCD88",)
)
# Source: docs.gitlab.com/omnibus/update/package_signatures, "Current repository signing key": since 2020, until 2028-02-06.
# GitLab has extended the same key several times. The key before it expired in 2020.
GITLAB_KEY: Final = PublishedKey(
    "https://packages.gitlab.com/gpgkey/gpg.key", ("F6403F6544A38863DAA0B6E03F01618A51312F3F",)
)


class Repository(NamedTuple):
    """A package repository as apt's sources have it; `{id}` and `{codename}` stand for the host's release.

    key  the armoured public key; "": the publisher's
    """

    uri: str
    suite: str
    key: str


def package_servers(apt: Apt) -> list[str]:
    """The hosts of the mirrors in [apt]."""
    return [one.url.host for one in (apt.docker, apt.gitlab, apt.runner) if one is not None]


def repository(mirror: Mirror | None, publisher: str) -> Repository:
    """The mirror's repository, or the one at the publisher's address. Raises UsageError for an unreadable key."""
    if mirror is None:
        return Repository(publisher, "{codename}", "")
    return Repository(str(mirror.url), mirror.suite or "{codename}", _key(mirror.key) if mirror.key else "")


def _key(path: Path) -> str:
    try:
        return local_file(path, "apt").decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"apt: {path}: {error}", hint="name a file with the armoured key of the mirror") from error
