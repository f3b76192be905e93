"""A file that the host fetches from a web server.  Sources: curl(1), sha256sum(1), tar(1)."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import urlsplit

from provision.errors import ProbeFailed, Refused, UsageError
from provision.host.pending import Handler
from provision.host.scripts import script
from provision.host.state import mapping
from provision.inventory import Settings
from provision.inventory.tables.apt import LOCK_SECONDS
from provision.resources.base import Change, Note, Observation, Probe, Resource
from provision.resources.system.file import set_access
from provision.resources.system.packages import SLOW_DOWNLOAD, STALL_SECONDS, download_settings, install_tools
from provision.secret import Secret, reveal

_SHA256: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Download(Resource):
    """A file fetched by the host itself, and only ever replaced by one with the given checksum.

    url      https://…, which no redirect turns into http; or http://…
    path     where the file is put
    sha256   the checksum of what the URL serves, 64 hexadecimal digits
    extract  a member of the archive that the URL serves ("node_exporter-1.9.1/node_exporter"): it alone is put at
             `path`, and both checksums are recorded. tar reads .tar.gz, and .tar.xz where xz is installed
    notify   handlers that run because the file was replaced

    A host without curl gets it from its package sources. Raises UsageError for a URL or checksum that is neither, and
    Refused for a path that is no regular file.
    """

    url: str
    path: str
    sha256: str
    mode: str = "0755"
    owner: str = "root:root"
    extract: str = ""
    notify: Handler | tuple[Handler, ...] = ()
    lock_timeout: int = LOCK_SECONDS
    proxy: str | Secret = ""

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("https", "http") or not parts.hostname:
            raise UsageError(f"{self.label}: {self.url!r} is no URL to fetch", hint="give https://HOST/PATH")
        if parts.username is not None:
            raise UsageError(
                f"{self.label}: the URL holds a login", hint="processes of the host can see it: use a URL without one"
            )
        if not _SHA256.fullmatch(self.sha256):
            raise UsageError(
                f"{self.label}: sha256 {self.sha256!r} is not a checksum",
                hint="give the 64 hexadecimal digits, in small letters, that the publisher's list of checksums has",
            )

    def with_settings(self, settings: Settings) -> Download:
        return replace(self, **download_settings(settings, urlsplit(self.url).scheme))

    @property
    def label(self) -> str:
        return f"Download {self.path}"

    @property
    def record_key(self) -> str:
        return f"download {self.path}" if self.extract else ""

    def claims(self) -> Mapping[str, Hashable]:
        return {self.path: ("download", self.sha256, self.extract, self.mode, self.owner)}

    def probe(self) -> Probe:
        return Probe.of(script("observe_download", self.path))

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        lines = seen.text.splitlines()
        if seen.code != 0 or not lines:
            raise ProbeFailed(
                f"{self.path} cannot be read: {seen.only.errors.strip()}",
                hint=f"check it on the host: ls -ld {self.path}",
            )
        if lines[0] == "other":
            raise Refused(f"{self.path} is not a regular file", hint="move it away on the host, or use another path")
        exists = lines[0] == "file"
        if exists and len(lines) < 3:
            raise ProbeFailed(f"{self.path}: its checksum is missing", hint=f"try on the host: sha256sum {self.path}")
        access, digest = (lines[1], lines[2].partition(" ")[0]) if exists else ("", "")
        wanted = self._extracted(seen.record) if self.extract else self.sha256
        if digest and digest == wanted:
            mode, _, owner = access.partition(" ")
            yield from set_access(self.path, self.mode, self.owner, mode, owner)
            return
        missing = [line.removeprefix("missing ") for line in lines if line.startswith("missing ")]
        needed = [one for one in missing if one == "curl" or self._is_https]
        if needed:
            yield install_tools(needed, self.lock_timeout)
        protocols = "https" if self._is_https else "http,https"
        yield Change(
            f"{'replace' if exists else 'fetch'} {self.path} {'by' if exists else 'from'} {self.url}",
            script(
                "download",
                self.url,
                self.path,
                self.sha256,
                self.mode,
                self.owner,
                self.extract,
                protocols,
                STALL_SECONDS,
            ).reading(reveal(self.proxy)),
            "update" if exists else "create",
            notify=self.handlers,
            record_from=self._record if self.extract else None,
            deadline=SLOW_DOWNLOAD,
        )

    def _record(self, output: str) -> dict[str, str]:
        """What is recorded of an archive: its checksum, and that of the extracted file, which the script prints."""
        found = output.split()[-1:]
        if not found or not _SHA256.fullmatch(found[0]):
            raise ProbeFailed(
                f"{self.path}: the host printed no checksum of the extracted file",
                hint=f"try on the host: sha256sum {self.path}",
            )
        return {"archive": self.sha256, "file": found[0]}

    def _extracted(self, record: Mapping[str, str] | None) -> str:
        """The checksum that the extracted file has as long as it is the archive's; "" when this is not known."""
        known = mapping(record)
        return str(known.get("file", "")) if known.get("archive") == self.sha256 else ""

    @property
    def _is_https(self) -> bool:
        return urlsplit(self.url).scheme == "https"
