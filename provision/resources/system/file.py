"""Files, configuration fragments and directories with their owner and mode.  Sources: stat(1), install(1)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from provision.editing.diff import masked_diff
from provision.errors import ProbeFailed, Refused
from provision.host.files import BACKUP, replace
from provision.host.pending import Handler
from provision.host.scripts import script
from provision.resources.base import BatchQuery, Change, Note, Observation, Probe, Resource
from provision.secret import Secret
from provision.shell import Command, Result, sh

_MODE = re.compile(r"[0-7]{1,5}")


class FileSeen(NamedTuple):
    """A file as it was observed; `content` is None when it does not exist. `mode` has four digits."""

    content: bytes | None
    mode: str = ""
    owner: str = ""


@dataclass(frozen=True)
class AskFile(BatchQuery):
    """Asks for one file; the regular files of a host are read by two processes, whatever their number."""

    path: str = ""

    @classmethod
    def join(cls, questions: Sequence[AskFile]) -> Command:
        """One command that prints a word for each file, then stat's line for each that exists, then all contents."""
        return script("observe_files", [one.path for one in questions])

    @classmethod
    def split(cls, questions: Sequence[AskFile], result: Result) -> list[Result] | None:
        """Cuts the contents by their sizes; None for files that are not regular, or that changed while they were read."""
        *words, rest = result.stdout.split(b"\n", len(questions))
        if result.code != 0 or len(words) != len(questions) or b"other" in words:
            return None
        there = words.count(b"present")
        *heads, contents = rest.split(b"\n", there)
        numbers = [head.rpartition(b" ")[2] for head in heads]
        if len(heads) != there or not all(one.isdigit() and len(one) < 20 for one in numbers):
            return None
        sizes = [int(one) for one in numbers]
        if sum(sizes) != len(contents):
            return None
        answers = []
        for word in words:
            if word != b"present":
                answers.append(Result(b"absent\n"))
                continue
            head, size = heads.pop(0).rpartition(b" ")[0], sizes.pop(0)
            answers.append(Result(head + b"\n" + contents[:size]))
            contents = contents[size:]
        return answers


def ask_file(path: str) -> Command:
    """Asks for a file's mode, owner and content; a symlink is followed. `read_file` reads the answer."""
    alone = "if [ -e %s ]; then stat -L -c '%%04a %%U:%%G' -- %s && cat -- %s; else echo absent; fi"
    return AskFile(sh(alone, path, path, path).script, path=path)


def read_file(path: str, observation: Observation, name: str = Probe.ONLY) -> FileSeen:
    """Reads the answer to `ask_file`. Raises ProbeFailed when the file cannot be read."""
    result = observation[name]
    if result.code != 0:
        raise ProbeFailed(
            f"{path} cannot be read: {result.errors.strip()}", hint=f"check it on the host: ls -ld {path}"
        )
    head, _, content = result.stdout.partition(b"\n")
    if head == b"absent":
        return FileSeen(None)
    mode, _, owner = head.decode("utf-8", "replace").partition(" ")
    return FileSeen(content, read_mode(path, mode), owner)


def read_mode(path: str, mode: str) -> str:
    """A file's mode as stat printed it. Raises ProbeFailed for anything else."""
    if not _MODE.fullmatch(mode):
        raise ProbeFailed(f"{path}: stat printed {mode[:40]!r}", hint=f"check it on the host: stat {path}")
    return mode


@dataclass(frozen=True)
class File(Resource):
    """A file has exactly this content, mode and owner.

    content  text, bytes, or a Secret, which is not shown in diffs
    mode     octal digits: "0644"
    owner    "user:group"
    check    shell text that tests the new file, named `$new`, before it replaces the old one
    notify   handlers that run because the content changed; a change of mode or owner notifies none
    """

    path: str
    content: str | bytes | Secret
    mode: str = "0644"
    owner: str = "root:root"
    check: str = ""
    notify: Handler | tuple[Handler, ...] = ()

    def claims(self) -> Mapping[str, Hashable]:
        return {self.path: (digest(self._bytes()), self.mode, self.owner)}

    def probe(self) -> Probe:
        return Probe.of(ask_file(self.path))

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        found = read_file(self.path, seen)
        content = self._bytes()
        if found.content != content:
            verb = "create" if found.content is None else "update"
            yield Change(
                f"{verb} {self.path}",
                replace(self.path, content, mode=self.mode, owner=self.owner, check=self.check),
                "create" if found.content is None else "update",
                self._diff(found.content or b"", content),
                self.handlers,
            )
        else:
            yield from set_access(self.path, self.mode, self.owner, found.mode, found.owner)

    def _bytes(self) -> bytes:
        if isinstance(self.content, Secret):
            return self.content.reveal().encode()
        return self.content.encode() if isinstance(self.content, str) else self.content

    def _diff(self, before: bytes, after: bytes) -> str:
        if isinstance(self.content, Secret):
            return secret_diff(self.path)
        # Bytes that are no text are shown by number: two that differ must not look alike.
        return masked_diff(
            self.path, before.decode("utf-8", "backslashreplace"), after.decode("utf-8", "backslashreplace")
        )


def secret_diff(path: str) -> str:
    """The diff of a file that is a secret: not even a hash is shown, from which a short secret could be guessed."""
    return f"--- {path} (now)\n+++ {path} (wanted)\n(a secret: not shown)"


def digest(content: str | bytes) -> str:
    """The SHA-256 of a file's content, in hex."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def set_access(path: str, mode: str, owner: str, found_mode: str, found_owner: str) -> Iterator[Change]:
    """The change that sets mode ("0755") and owner ("user:group", or "user") of an existing path, where they differ."""
    same_owner = found_owner == owner or (":" not in owner and found_owner.partition(":")[0] == owner)
    if not same_owner or found_mode != mode.zfill(4):
        yield Change(
            f"set {path} to {mode} {owner} (was {found_mode} {found_owner})",
            script("set_access", path, mode, owner),
        )


@dataclass(frozen=True)
class Absent(Resource):
    """A file or an empty directory does not exist. A directory that is not empty is not deleted: the change fails."""

    path: str
    notify: Handler | tuple[Handler, ...] = ()

    @property
    def label(self) -> str:
        return f"File {self.path}"

    def claims(self) -> Mapping[str, Hashable]:
        return {self.path: "absent"}

    def probe(self) -> Probe:
        return Probe.of(sh("test ! -e %s && test ! -L %s", self.path, self.path))

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        if seen.code != 0:
            yield Change(f"delete {self.path}", sh("rm -df -- %s", self.path), "delete", notify=self.handlers)


@dataclass(frozen=True)
class Directory(Resource):
    """A directory exists with this mode ("0755") and owner ("user:group"). Missing parents are root's, with 0755.

    A symlink to a directory counts. Raises Refused for a path that is something else.
    """

    path: str
    mode: str = "0755"
    owner: str = "root:root"
    notify: Handler | tuple[Handler, ...] = ()

    def claims(self) -> Mapping[str, Hashable]:
        return {self.path: ("directory", self.mode, self.owner)}

    def probe(self) -> Probe:
        path = self.path
        return Probe.of(
            sh(
                "if [ -d %s ]; then stat -L -c '%%04a %%U:%%G' -- %s; "
                "elif [ -e %s ] || [ -L %s ]; then stat -c '- %%F' -- %s; fi",
                path, path, path, path, path,
            )
        )  # fmt: skip

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        if seen.code != 0:
            raise ProbeFailed(
                f"{self.path} cannot be read: {seen.only.errors.strip()}",
                hint=f"check it on the host: ls -ld {self.path}",
            )
        mode, _, owner = seen.text.strip().partition(" ")
        if mode == "-":
            raise Refused(
                f"{self.path} is a {owner}, not a directory", hint="move it away on the host, or use another path"
            )
        if mode:
            yield from set_access(self.path, self.mode, self.owner, mode, owner)
            return
        create = script("make_directory", self.path, self.mode, self.owner)
        yield Change(f"create the directory {self.path}", create, "create", notify=self.handlers)


@dataclass(frozen=True)
class ConfigFragment(Resource):
    """A file in a folder that a program reads as part of its configuration, such as /etc/sudoers.d, has this content.

    The program has accepted it.

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
