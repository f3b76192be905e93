"""What tests of tasks and resources need: answers as values, and two sessions that are no SSH.

A resource is tested by what it plans, given what was seen:

    seen = observe(Service("docker"), "LoadState=loaded\\nActiveState=inactive\\nUnitFileState=enabled\\n")
    assert [one.summary for one in planned(Service("docker"), seen)] == ["start docker"]

`FakeSession` gives scripted answers and keeps what it was told to do; `LocalSession` really runs everything with this
machine's `sh`, with folders of your choice in the place of the host's. The engine cannot tell either from a host.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from provision.errors import ConnectionLost, DeadlineExceeded, ProvisionError
from provision.resources.base import Ask, Change, Note, Observation, Resource
from provision.shell import Command, Result
from provision.ssh.session import Traffic

# A text or bytes: stdout. A number: the exit code. An error is raised; a function is given the command.
Answer = Result | str | bytes | int | ProvisionError | Callable[[Command], "Result | str | bytes | int"]

NO_FILE: Final = Result(b"absent\n")  # what `ask_file` says of a file that is not there


def file_is(content: str | bytes, mode: str = "0644", owner: str = "root:root") -> Result:
    """What `ask_file` says of a file."""
    data = content.encode() if isinstance(content, str) else content
    return Result(f"{mode} {owner}\n".encode() + data)


def packages_are(versions: Mapping[str, str], held: Iterable[str] = ()) -> Result:
    """What `ASK_PACKAGES` says: installed packages by name, with their versions."""
    holds = set(held)
    lines = [f"{name}\t{version}\t{'h' if name in holds else 'i'}i \n" for name, version in versions.items()]
    return Result("".join(lines).encode())


def state_is(state: Mapping[str, Any]) -> Result:
    """What `ASK_STATE` says: our own record on the host."""
    return Result(json.dumps(state).encode())


def observe(resource: Resource, answers: Answer | Mapping[str, Answer]) -> Observation:
    """What the resource would see: one answer for a probe of one question, else answers by the questions' names.

    A question without an answer is answered with nothing, and code 0. Raises ValueError for a name that is not
    one of the probe's.
    """
    given = answers if isinstance(answers, Mapping) else {"": answers}
    probe = resource.probe()
    if not set(given) <= set(probe):
        raise ValueError(f"{resource.label} asks {sorted(probe)}, and was answered {sorted(given)}")
    commands = {name: one if isinstance(one, Command) else Command("") for name, one in probe.items()}
    return Observation({name: _result(given.get(name, 0), commands[name]) for name in probe})


def planned(resource: Resource, seen: Observation) -> list[Change]:
    """The changes that a resource wants, in order. Raises what `plan` raises."""
    return [one for one in resource.plan(seen) if isinstance(one, Change)]


def notes(resource: Resource, seen: Observation) -> list[str]:
    """The texts of a resource's notes, in order."""
    return [one.text for one in resource.plan(seen) if isinstance(one, Note)]


def look(resource: Resource, session: FakeSession | LocalSession) -> Observation:
    """Asks a resource's questions, the host's in one batch."""
    probe = resource.probe()
    needs = [one.needs if isinstance(one, Ask) else one for one in probe.values()]
    commands = list(dict.fromkeys(one for one in needs if one is not None))
    answers = dict(zip(commands, session.ask(commands, deadline=60), strict=True))
    return Observation(
        {
            name: one.call(answers[one.needs] if one.needs else None) if isinstance(one, Ask) else answers[one]
            for name, one in probe.items()
        }
    )


class FakeSession:
    """A `provision.ssh.session.Session` with scripted answers.

    answers    by a part of the script (a text) or a pattern that is searched for in it; the first that fits. A list
               is given out one by one, its last again and again
    otherwise  what every other command answers

    `looks` holds the batches that were asked, `ran` the commands that were run, in order.
    """

    def __init__(
        self,
        answers: Mapping[str | re.Pattern[str], Answer | list[Answer]] | None = None,
        *,
        otherwise: Answer = 0,
    ) -> None:
        self.answers = dict(answers or {})
        self.otherwise = otherwise
        self.looks: list[list[Command]] = []
        self.ran: list[Command] = []
        self.closed = False
        self.aborted = False
        self.traffic = Traffic()

    def ask(self, commands: Sequence[Command], *, deadline: float) -> list[Result]:
        """Answers a batch."""
        del deadline
        self.looks.append(list(commands))
        return self._answer(commands)

    def run(self, command: Command, *, deadline: float, on_output: Callable[[bytes], None] | None = None) -> Result:
        """Answers one command, handing its outputs on."""
        del deadline
        self.ran.append(command)
        (result,) = self._answer([command])
        if on_output is not None:
            for piece in filter(None, (result.stdout, result.stderr)):
                on_output(piece)
        return result

    def close(self) -> None:
        """Notes that the session was ended."""
        self.closed = True

    def abort(self) -> None:
        """From now on every command finds the connection broken."""
        self.aborted = True

    def _answer(self, commands: Sequence[Command]) -> list[Result]:
        self.traffic.round_trips += 1
        results = []
        for command in commands:
            if self.aborted:
                raise ConnectionLost("the connection was closed by this run")
            result = _result(self._find(command), command)
            self.traffic.bytes_sent += len(command.script.encode()) + len(command.stdin)
            self.traffic.bytes_received += len(result.stdout) + len(result.stderr)
            results.append(result)
        return results

    def _find(self, command: Command) -> Answer:
        for key, answer in self.answers.items():
            fits = key in command.script if isinstance(key, str) else key.search(command.script)
            if fits:
                if isinstance(answer, list):
                    return answer.pop(0) if len(answer) > 1 else answer[0]
                return answer
        return self.otherwise


class LocalSession:
    """A `provision.ssh.session.Session` that runs commands here, with `/bin/sh`, as whoever runs the tests.

    folders      stand in for the host's: `{"/var/lib/provision": tmp_path}` makes every script use that folder instead
    environment  besides PATH, HOME and LC_ALL
    shell        the command line of the shell that runs the scripts
    """

    def __init__(
        self,
        folders: Mapping[str, Path],
        environment: Mapping[str, str] | None = None,
        *,
        shell: Sequence[str] = ("/bin/sh",),
    ) -> None:
        self._shell = tuple(shell)
        self._folders = {old: str(new) for old, new in folders.items()}
        self._environment = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/nonexistent",
            "LC_ALL": "C.UTF-8",
            **(environment or {}),
        }
        self.looks: list[list[Command]] = []
        self.ran: list[Command] = []
        self.traffic = Traffic()

    def ask(self, commands: Sequence[Command], *, deadline: float) -> list[Result]:
        """Runs all, one after the other."""
        self.looks.append(list(commands))
        self.traffic.round_trips += 1
        return [self._run(command, deadline) for command in commands]

    def run(self, command: Command, *, deadline: float, on_output: Callable[[bytes], None] | None = None) -> Result:
        """Runs one; its outputs are handed on when it has ended. Raises DeadlineExceeded."""
        self.ran.append(command)
        self.traffic.round_trips += 1
        result = self._run(command, deadline)
        if on_output is not None:
            for piece in filter(None, (result.stdout, result.stderr)):
                on_output(piece)
        return result

    def close(self) -> None:
        """Nothing is open between two commands."""

    def abort(self) -> None:
        """Nothing is open between two commands."""

    def here(self, script: str) -> str:
        """The script with the folders of this session in it."""
        for old, new in self._folders.items():
            script = re.sub(rf"(?<![\w/.]){re.escape(old)}(?![\w-])", new.replace("\\", r"\\"), script)
        return script

    def _run(self, command: Command, deadline: float) -> Result:
        # As on a host: `eval` in a subshell, so that traps and `exit` end the command and nothing else.
        process = subprocess.Popen(
            [*self._shell, "-c", '(eval "$1")', "sh", self.here(command.script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self._environment,
            start_new_session=True,
        )
        try:
            stdout, stderr = process.communicate(command.stdin, timeout=deadline)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise DeadlineExceeded(f"stopped after {deadline:g} s: {command.script.strip()[:80]}") from None
        return Result(stdout, stderr, process.returncode)


def _result(answer: Answer, command: Command) -> Result:
    if isinstance(answer, ProvisionError):
        raise answer
    if callable(answer):
        answer = answer(command)
    if isinstance(answer, Result):
        return answer
    if isinstance(answer, int):
        return Result(code=answer)
    return Result(answer.encode() if isinstance(answer, str) else answer)
