"""Hosts on one real sshd, each with its own state."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from benchmarks.thousand import simulation
from provision.cli import exit_code_of
from tests.support.waiting import wait_for

# Unlike in the benchmarks, all sessions of a host have one /var/lib/provision, as on a real host: its address selects it.
_SESSION = """\
#!/bin/sh
set -- $SSH_CONNECTION
mkdir -p -m 700 {folder}/state/$3
exec unshare --mount --propagation private /bin/sh -c '
mount --bind "$0" /var/lib/provision && exec /bin/sh -c "$SSH_ORIGINAL_COMMAND"' {folder}/state/$3
"""

# A step writes when it begins and when it ends. It fails if the same host runs another step at the same time.
PLAYBOOK = '''\
"""Steps that take time and record when they ran."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from provision import Change, Host, Observation, Probe, Resource, SecretSource, Table, play, sh, task

OUT = Path({out!r})
RUN = """
set -e
exec 9>"$1.lock"
flock -n 9 || {{ echo "$1 runs twice at once" >&2; exit 1; }}
echo "begin $2" >> "$1.log"
[ -e "$1.end" ] || mkfifo "$1.end"
timeout "$3" cat "$1.end" || :
echo "end $2" >> "$1.log"
echo "$(date +%s.%N) $2 $1" >> {out}/order
touch "$1.$2"
"""


@dataclass(frozen=True)
class Step(Resource):
    """One step of a host."""

    host: str
    name: str
    seconds: float

    @property
    def label(self) -> str:
        return f"step {{self.name}}"

    def probe(self) -> Probe:
        return Probe({{"done": sh("[ -e %s ]", f"{{OUT}}/{{self.host}}.{{self.name}}")}})

    def plan(self, seen: Observation) -> Iterator[Change]:
        if seen["done"].code:
            command = sh("sh -c %s sh %s %s %s", RUN, f"{{OUT}}/{{self.host}}", self.name, str(self.seconds))
            yield Change(f"run the step {{self.name}}", command)


class Steps(Table):
    """[steps]: how long the steps take."""

    first: float = 0.05
    """Seconds of the first step."""
    second: float = 0.05
    """Seconds of the second step."""


class Code(Table):
    """[code]: a secret."""

    word: SecretSource
    """The word."""


@dataclass(frozen=True)
class Word(Resource):
    """A file with the secret."""

    host: str
    word: object

    @property
    def label(self) -> str:
        return "the word"

    def probe(self) -> Probe:
        return Probe({{"done": sh("[ -s %s ]", f"{{OUT}}/{{self.host}}.word")}})

    def plan(self, seen: Observation) -> Iterator[Change]:
        if seen["done"].code:
            yield Change("write the word", sh("cat > %s", f"{{OUT}}/{{self.host}}.word").reading(self.word))


@task(settings=Steps)
def first(host: Host, wanted: Steps) -> Iterator[Resource]:
    """Run the first step."""
    yield Step(host.name, "first", wanted.first)


@task(settings=Steps)
def second(host: Host, wanted: Steps) -> Iterator[Resource]:
    """Run the second step."""
    yield Step(host.name, "second", wanted.second)


@task(settings=Steps)
def third(host: Host, wanted: Steps) -> Iterator[Resource]:
    """Run the third step."""
    yield Step(host.name, "third", 0.05)


@task(settings=Code)
def word(host: Host, wanted: Code) -> Iterator[Resource]:
    """Write the word."""
    yield Word(host.name, wanted.word.resolve())


PLAYS = [play("all", first, second), play("even", third)]
'''


@dataclass
class Estate:
    """Simulated hosts h0000, h0001, … and the playbook `steps`. Hosts with an even number are in the group `even`."""

    folder: Path
    names: list[str]

    @property
    def inventory(self) -> Path:
        """Its file."""
        return self.folder / "inventory.toml"

    def log(self, host: str) -> list[str]:
        """The lines that the steps of a host have recorded, such as `begin first` and `end first`."""
        file = self.folder / "out" / f"{host}.log"
        return file.read_text().splitlines() if file.exists() else []

    def end_steps(self) -> None:
        """Ends the abandoned steps. Until then they hold the locks of their hosts."""
        for file in (self.folder / "out").glob("*.end"):
            file.write_text("")  # the step that reads it gets the end of the file
        wait_for(lambda: all(self.log(one)[-1].startswith("end") for one in self.names), "all steps have ended")

    def reset(self) -> None:
        """Removes everything that runs have left on the hosts."""
        for file in (self.folder / "out").iterdir():
            file.unlink()


@pytest.fixture(scope="module")
def estate() -> Iterator[Estate]:
    """Eight hosts."""
    with simulation(8) as made:
        folder = made.folder
        (folder / "session").write_text(_SESSION.format(folder=folder))
        (folder / "out").mkdir()
        (folder / "playbooks" / "thousand.py").unlink()
        (folder / "playbooks" / "steps.py").write_text(PLAYBOOK.format(out=str(folder / "out")))
        text = (folder / "inventory.toml").read_text()
        for number in range(0, 8, 2):
            text = text.replace(f"[hosts.h{number:04}]\n", f'[hosts.h{number:04}]\ngroups = ["even"]\n')
        (folder / "inventory.toml").write_text(text)
        yield Estate(folder, [f"h{number:04}" for number in range(8)])


@dataclass(frozen=True)
class Ended:
    """A run of the command line, with its events."""

    code: int
    events: list[dict[str, Any]]
    errors: str

    def of(self, host: str, *types: str) -> list[dict[str, Any]]:
        """The events of a host, of these types."""
        return [one for one in self.events if one.get("host") == host and (not types or one["type"] in types)]

    @property
    def summary(self) -> dict[str, Any]:
        """The last event."""
        return self.events[-1]


@pytest.fixture
def provision(
    capfd: pytest.CaptureFixture[str], estate: Estate, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Ended]:
    """`provision("steps", "--dask", address)` with --json."""
    monkeypatch.chdir(estate.folder)
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)

    def call(*arguments: str) -> Ended:
        code = exit_code_of([*arguments, "-i", str(estate.inventory), "--json"])
        printed = capfd.readouterr()
        return Ended(code, [json.loads(line) for line in printed.out.splitlines()], printed.err)

    return call
