"""A file with its content, owner and mode.  Sources: stat(1), install(1)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from provision.editing.diff import unified
from provision.errors import ProbeFailed
from provision.host.files import replace
from provision.host.pending import Handler
from provision.resources.base import Change, Note, Observation, Probe, Resource, Together
from provision.secret import Secret
from provision.shell import Command, Result, sh


@dataclass(frozen=True)
class FileSeen:
    """A file as it was found; `content` is None when there is none."""

    content: bytes | None
    mode: str = ""
    owner: str = ""


@dataclass(frozen=True)
class AskFile(Together):
    """A look at a file, for two processes whatever the number of files; only plain files are looked at together."""

    path: str = ""

    @classmethod
    def join(cls, questions: Sequence[AskFile]) -> Command:
        """First a word for each, then a line of stat for each that is there, then all contents."""
        return sh(_ASK_FILES, [one.path for one in questions])

    @classmethod
    def split(cls, questions: Sequence[AskFile], result: Result) -> list[Result] | None:
        """Cut by the sizes that stat told; None when something was odd, or changed between the two."""
        *words, rest = result.stdout.split(b"\n", len(questions))
        if result.code != 0 or len(words) != len(questions) or b"odd" in words:
            return None
        there = words.count(b"there")
        *heads, contents = rest.split(b"\n", there)
        sizes = [int(head.rpartition(b" ")[2]) for head in heads]
        if sum(sizes) != len(contents):
            return None
        answers = []
        for word in words:
            if word != b"there":
                answers.append(Result(b"absent\n"))
                continue
            head, size = heads.pop(0).rpartition(b" ")[0], sizes.pop(0)
            answers.append(Result(head + b"\n" + contents[:size]))
            contents = contents[size:]
        return answers


_ASK_FILES = """
set --
for file in %s; do
  if [ -f "$file" ]; then set -- "$@" "$file"; echo there; elif [ -e "$file" ]; then echo odd; else echo absent; fi
done
[ $# = 0 ] || { stat -L -c '%%04a %%U:%%G %%s' -- "$@" && cat -- "$@"; }
"""


def ask_file(path: str) -> Command:
    """A look at a file: mode, owner and content; a symlink is followed."""
    alone = "if [ -e %s ]; then stat -L -c '%%04a %%U:%%G' -- %s && cat -- %s; else echo absent; fi"
    return AskFile(sh(alone, path, path, path).script, path=path)


def read_file(path: str, observation: Observation, name: str = Probe.ONLY) -> FileSeen:
    """The answer to `ask_file`. Raises ProbeFailed when it could not be read."""
    result = observation[name]
    if result.code != 0:
        raise ProbeFailed(
            f"{path} cannot be read: {result.errors.strip()}", hint=f"look at it on the host: ls -ld {path}"
        )
    head, _, content = result.stdout.partition(b"\n")
    if head == b"absent":
        return FileSeen(None)
    mode, _, owner = head.decode().partition(" ")
    return FileSeen(content, mode, owner)


@dataclass(frozen=True)
class File(Resource):
    """A file holds exactly this.

    check   shell text that judges the new file, named `$new`, before it takes the old one's place
    notify  what is owed when the content changed; owner and mode owe nothing
    """

    path: str
    content: str | bytes | Secret
    mode: str = "0644"
    owner: str = "root:root"
    check: str = ""
    notify: tuple[Handler, ...] = ()

    @property
    def label(self) -> str:
        return f"File {self.path}"

    def probe(self) -> Probe:
        return Probe.of(ask_file(self.path))

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        found = read_file(self.path, seen)
        content = self._bytes()
        if found.content != content:
            yield Change(
                f"{'create' if found.content is None else 'update'} {self.path}",
                replace(self.path, content, mode=self.mode, owner=self.owner, check=self.check),
                "create" if found.content is None else "update",
                self._diff(found.content or b"", content),
                self.notify,
            )
        elif (found.mode, found.owner) != (self.mode, self.owner):
            yield Change(
                f"set {self.path} to {self.mode} {self.owner} (was {found.mode} {found.owner})",
                sh("chown -- %s %s && chmod -- %s %s", self.owner, self.path, self.mode, self.path),
            )

    def _bytes(self) -> bytes:
        if isinstance(self.content, Secret):
            return self.content.reveal().encode()
        return self.content.encode() if isinstance(self.content, str) else self.content

    def _diff(self, before: bytes, after: bytes) -> str:
        if isinstance(self.content, Secret):
            digest = hashlib.sha256(after).hexdigest()[:8]
            return f"--- {self.path} (now)\n+++ {self.path} (wanted)\n(a secret, sha256 {digest}…: not shown)"
        # Bytes that are no text are shown by number: two that differ must not look alike.
        return unified(self.path, before.decode("utf-8", "backslashreplace"), after.decode("utf-8", "backslashreplace"))


@dataclass(frozen=True)
class Absent(Resource):
    """A file is not there."""

    path: str
    notify: tuple[Handler, ...] = ()

    @property
    def label(self) -> str:
        return f"File {self.path}"

    def probe(self) -> Probe:
        return Probe.of(sh("test ! -e %s && test ! -L %s", self.path, self.path))

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        if seen.code != 0:
            yield Change(f"delete {self.path}", sh("rm -f -- %s", self.path), "delete", notify=self.notify)
