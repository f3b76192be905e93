"""The resource: a pipeline is in a file on this machine, for whoever commits it by hand."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from provision.errors import ChangeFailed
from provision.resources.base import Ask, Call, Change, Json, Note, Observation, Probe, Resource, Result
from provision.resources.diffs import unified
from provision.shell import Command, sh
from provision.values import dataclass


@dataclass(frozen=True)
class LocalPipeline(Resource):
    """The file `path` on this machine holds `text`; it is replaced whole, or not at all."""

    path: Path
    text: str

    @property
    def label(self) -> str:
        return f"LocalPipeline {self.path}"

    def probe(self) -> Probe:
        return Probe.of(Ask(("local pipeline", self.path), self._read))

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        there = seen.code == 0
        if there and seen.text == self.text:
            return
        yield Change(
            f"write {self.path} on this machine",
            Call(self._write, "a local file"),
            "update" if there else "create",
            diff=unified(str(self.path), seen.text if there else "", self.text),
        )

    def _read(self, _: Result | None) -> Result:
        try:
            return Result(self.path.read_bytes())
        except OSError:  # missing, or not to be read: writing says why
            return Result(code=1)

    def _write(self) -> tuple[Command, Mapping[str, Json]]:
        name, path = "", Path(os.path.realpath(self.path))  # a link goes on pointing to it
        try:
            mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
            with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, delete=False) as file:
                name = file.name
                file.write(self.text)
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(mode)
            Path(name).replace(path)
        except OSError as error:
            if name:
                Path(name).unlink(missing_ok=True)
            text = f"{self.path} on this machine cannot be written: {error.strerror or error}"
            raise ChangeFailed(text, hint="make its folder, or name another path in the project's pipeline") from error
        return sh(":"), {}
