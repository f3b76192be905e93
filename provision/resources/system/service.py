"""A systemd unit runs and starts at boot.  Source: systemctl(1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from provision.errors import ProbeFailed
from provision.resources.base import Change, Note, Observation, Probe, Resource, Together
from provision.shell import Command, Result, sh


def properties(text: str) -> dict[str, str]:
    """`KEY=value` lines of `systemctl show`."""
    return dict(line.partition("=")[::2] for line in text.splitlines() if "=" in line)


@dataclass(frozen=True)
class AskUnit(Together):
    """A look at a unit; several units are one question to systemd."""

    unit: str = ""

    @classmethod
    def join(cls, questions: Sequence[AskUnit]) -> Command:
        """A block for each, in order."""
        return _ask([one.unit for one in questions])

    @classmethod
    def split(cls, questions: Sequence[AskUnit], result: Result) -> list[Result] | None:
        """Blocks are parted by empty lines."""
        blocks = result.stdout.split(b"\n\n")
        return [Result(block) for block in blocks] if result.code == 0 and len(blocks) == len(questions) else None


def _ask(units: list[str]) -> Command:
    return sh("systemctl show %s --property=LoadState,ActiveState,UnitFileState", units)


@dataclass(frozen=True)
class Service(Resource):
    """The unit is enabled and active. A masked unit is somebody's decision: it is refused by systemctl itself."""

    name: str
    running: bool = True
    enabled: bool = True

    @property
    def label(self) -> str:
        return f"Service {self.name}"

    def probe(self) -> Probe:
        return Probe.of(AskUnit(_ask([self.name]).script, unit=self.name))

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        unit = properties(seen.text)
        if "ActiveState" not in unit:
            raise ProbeFailed(
                f"systemctl does not answer for {self.name}: {seen.only.errors.strip()}",
                hint="the host must run systemd: look at `systemctl status`",
            )
        if self.enabled and unit.get("UnitFileState") not in ("enabled", "static", "enabled-runtime", "generated"):
            yield Change(f"enable {self.name} at boot", sh("systemctl enable -- %s", self.name))
        if self.running and unit["ActiveState"] not in ("active", "reloading"):
            # A unit that failed too often refuses to start until its counter is reset.
            start = sh("systemctl reset-failed -- %s 2>/dev/null; systemctl start -- %s", self.name, self.name)
            yield Change(f"start {self.name}", start, deadline=120)
