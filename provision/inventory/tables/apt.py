"""[apt]: mirrors of the package repositories."""

from pathlib import Path
from typing import Annotated

from pydantic import field_validator

from provision.inventory.tables.base import Table
from provision.url import Url, UrlField


class Mirror(Table):
    """A mirror of one publisher's package repository."""

    url: Annotated[Url, UrlField("https://mirror.example.com/docker")]
    """The repository's address: what stands behind `URIs:`."""
    key: Path | None = None
    """The repository's public key, a local file. Default: the publisher's own, fetched by the host."""
    suite: str | None = None
    """What stands behind `Suites:`. Default: the host's release, such as noble."""

    @field_validator("suite")
    @classmethod
    def _suite(cls, text: str | None) -> str | None:
        if text is not None and (not text or any(letter.isspace() for letter in text)):
            raise ValueError(f"expected one suite such as 'noble', got {text!r}")
        return text


class Apt(Table):
    """Mirrors, for sites without internet. Absent: the publishers' own repositories."""

    docker: Mirror | None = None
    """Instead of download.docker.com."""
    gitlab: Mirror | None = None
    """Instead of packages.gitlab.com's repository of gitlab-ce or gitlab-ee."""
    runner: Mirror | None = None
    """Instead of packages.gitlab.com's repository of gitlab-runner."""
