"""A file of ours in a folder that a program reads as part of its configuration: /etc/sudoers.d, /etc/nginx/conf.d."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass

from provision.editing.diff import masked_diff
from provision.host.files import BACKUP, replace
from provision.host.pending import Handler
from provision.host.scripts import script
from provision.resources.base import Change, Note, Observation, Probe, Resource
from provision.resources.system.file import ask_file, digest, read_file, set_access
from provision.shell import Command


@dataclass(frozen=True)
class ConfigFragment(Resource):
    """A configuration fragment has this content, and the program that reads it has accepted it.

    check    shell text that tests it. With `$new` in it (`visudo -cf "$new"`) it tests the new file before that
             replaces the old one. Without (`nginx -t`) it tests the whole configuration with the new file in place;
             when it fails the old file is restored, or the new one deleted
    notify   handlers that have the program read it: `Handler.reload("nginx")`
    """

    path: str
    content: str
    check: str = ""
    notify: Handler | tuple[Handler, ...] = ()
    mode: str = "0644"
    owner: str = "root:root"

    def claims(self) -> Mapping[str, Hashable]:
        return {self.path: (digest(self._text), self.mode, self.owner)}

    def probe(self) -> Probe:
        return Probe.of(ask_file(self.path))

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        found = read_file(self.path, seen)
        wanted = self._text
        if found.content == wanted.encode():
            yield from set_access(self.path, self.mode, self.owner, found.mode, found.owner)
            return
        verb = "create" if found.content is None else "update"
        before = (found.content or b"").decode("utf-8", "backslashreplace")
        yield Change(
            f"{verb} {self.path}",
            self._write(wanted),
            "create" if found.content is None else "update",
            masked_diff(self.path, before, wanted),
            self.handlers,
        )

    @property
    def _text(self) -> str:
        return self.content if self.content.endswith("\n") else f"{self.content}\n"

    def _write(self, content: str) -> Command:
        if "$new" in self.check or "${new}" in self.check or not self.check:
            return replace(self.path, content, mode=self.mode, owner=self.owner, check=self.check)
        return script("write_fragment", self.path, self.mode, self.owner, self.check, BACKUP).reading(content)
