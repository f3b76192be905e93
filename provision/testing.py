"""Helpers for tests of tasks and resources: scripted answers, and two sessions that do not use SSH.

A resource is tested by what it plans, given what was observed:

    seen = observe(Service("docker"), "LoadState=loaded\\nActiveState=inactive\\nUnitFileState=enabled\\n")
    assert [one.summary for one in planned(Service("docker"), seen)] == ["start docker"]

`FakeSession` gives scripted answers and keeps the commands that it received. `LocalSession` runs every command with
this machine's `sh`, with folders of your choice in place of the host's. The engine can use both like a host's session.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, Final

from provision.errors import ConnectionLost, DeadlineExceeded, ProvisionError
from provision.host.state import ASK_STATE, HostState
from provision.resources.base import Change, Known, Note, Observation, Probe, Resource
from provision.shell import Command, Result
from provision.ssh.session import Report, Step, Traffic

# A text or bytes: stdout. A number: the exit code. An error is raised. A function is called with the command.
Answer = Result | str | bytes | int | ProvisionError | Callable[[Command], "Result | str | bytes | int"]

NO_FILE: Final = Result(b"absent\n")  # the answer of `ask_file` for a file that does not exist


def file_is(content: str | bytes, mode: str = "0644", owner: str = "root:root") -> Result:
    """The answer of `ask_file` for a file."""
    data = content.encode() if isinstance(content, str) else content
    return Result(f"{mode} {owner}\n".encode() + data)


def packages_are(versions: Mapping[str, str], held: Iterable[str] = ()) -> Result:
    """The answer of `ASK_PACKAGES`: installed packages by name, with their versions."""
    holds = set(held)
    lines = [f"{name}\t{version}\t{'h' if name in holds else 'i'}i \n" for name, version in versions.items()]
    return Result("".join(lines).encode())


def state_is(owners: Mapping[str, Mapping[str, Any]]) -> Result:
    """What `ASK_STATE` answers: the records on the host, by task and record key. For sessions."""
    return Result(HostState({"owners": owners}).text().encode())


def observe(
    resource: Resource,
    answers: Answer | Mapping[str, Any],
    *,
    record: Any = None,
    records: Mapping[str, Any] | None = None,
    others: Mapping[str, Any] | None = None,
    claimed: Set[str] = frozenset(),
    due: bool = False,
    fingerprint_key: str = "00" * 32,
) -> Observation:
    """Builds an observation of the resource. `answers`: one answer for a probe with one question, else answers by name.

    The answer to an `ApiQuery` is the data that it returns. A question without an answer gets an empty output and code 0.
    The other arguments are the properties of the same name of `Observation`.
    Raises ValueError for a name that is not one of the probe's.
    """
    given = answers if isinstance(answers, Mapping) else {"": answers}
    probe = resource.probe().questions(due)
    if not set(given) <= set(probe):
        raise ValueError(
            f"the questions of {resource.label} are {sorted(probe)}, but answers are given for {sorted(given)}"
        )
    own = {resource.record_key: record} if record is not None else {}
    known = Known(record, others or {}, {**own, **(records or {})}, claimed, due, lambda: fingerprint_key)
    return Observation(
        {
            name: _result(given.get(name, 0), one) if isinstance(one, Command) else given.get(name)
            for name, one in probe.items()
        },
        known,
    )


def planned(resource: Resource, seen: Observation) -> list[Change]:
    """The changes that a resource plans, in order. Raises the errors of `plan`."""
    return [one for one in resource.plan(seen) if isinstance(one, Change)]


def notes(resource: Resource, seen: Observation) -> list[str]:
    """The texts of a resource's notes, in order."""
    return [one.text for one in resource.plan(seen) if isinstance(one, Note)]


def observe_on(
    session: FakeSession | LocalSession, resource: Resource, *, owner: str = "test", due: bool = False
) -> Observation:
    """Observes a resource of the task `owner` through a session: all questions in one batch, and the owner's records."""
    probe = resource.probe().questions(due)
    commands = [one if isinstance(one, Command) else one.needs for one in probe.values()]
    asked = [*dict.fromkeys(one for one in commands if one is not None), ASK_STATE]
    answers = dict(zip(asked, session.ask(asked, deadline=60), strict=True))
    state = HostState.parse(answers[ASK_STATE].text)
    key = resource.record_key
    known = Known(
        state.record(owner, key) if key else None,
        state.others(owner, key) if key else {},
        state.records(owner),
        due=due,
        fingerprint_key=lambda: state.fingerprint_key,
    )
    return Observation(
        {
            name: answers[one]
            if isinstance(one, Command)
            else one.call(Observation({Probe.ONLY: answers[one.needs]} if one.needs else {}, known))
            for name, one in probe.items()
        },
        known,
    )


class _InTurn:
    """Implements `run_steps` for sessions without a connection. It runs one command after the other."""

    traffic: Traffic

    def ask(self, commands: Sequence[Command], *, deadline: float) -> list[Result]:
        """See `Session`."""
        raise NotImplementedError

    def run(self, command: Command, *, deadline: float, on_output: Callable[[bytes], None] | None = None) -> Result:
        """See `Session`."""
        raise NotImplementedError

    def run_steps(
        self,
        steps: Sequence[Step],
        then: Sequence[Command],
        *,
        deadline: float,
        report: Report,
        stopping: Callable[[], bool] = lambda: False,
    ) -> tuple[list[Result], list[Result]]:
        """Runs the steps with `run` until one fails or `stopping` returns True. Then asks `then`. Counts one round trip."""
        results: list[Result] = []
        trips = self.traffic.round_trips
        try:
            for step in steps:
                if results and stopping():
                    return results, []
                results.append(self.run(step.command, deadline=step.deadline, on_output=report.output))
                report.result(results[-1])
                if results[-1].code != 0:
                    return results, []
            return results, self.ask(then, deadline=deadline) if then and not stopping() else []
        finally:
            self.traffic.round_trips = trips + 1


class FakeSession(_InTurn):
    """A `provision.ssh.session.Session` with scripted answers.

    answers    by a text that the script contains, or a pattern that matches in it; the first match counts. The
               answers of a list are used in order, and the last one is repeated
    otherwise  the answer to every other command

    `batches` holds the batches of questions, and `ran` the commands that were run, in order.
    """

    def __init__(
        self,
        answers: Mapping[str | re.Pattern[str], Answer | list[Answer]] | None = None,
        *,
        otherwise: Answer = 0,
    ) -> None:
        self.answers = dict(answers or {})
        self.otherwise = otherwise
        self.batches: list[list[Command]] = []
        self.ran: list[Command] = []
        self.closed = False
        self.aborted = False
        self.traffic = Traffic()

    def ask(self, commands: Sequence[Command], *, deadline: float) -> list[Result]:
        """Answers a batch."""
        del deadline
        self.batches.append(list(commands))
        return self._answer(commands)

    def run(self, command: Command, *, deadline: float, on_output: Callable[[bytes], None] | None = None) -> Result:
        """Answers one command, and passes its output to `on_output`."""
        del deadline
        self.ran.append(command)
        (result,) = self._answer([command])
        return _passed_on(result, on_output)

    def close(self) -> None:
        """Sets `closed`."""
        self.closed = True

    def abort(self) -> None:
        """From now on every command raises ConnectionLost."""
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


class LocalSession(_InTurn):
    """A `provision.ssh.session.Session` that runs commands on this machine, with `/bin/sh`, as the user of the tests.

    folders      replace the host's: `{"/var/lib/provision": tmp_path}` makes every script use that folder instead
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
        self.batches: list[list[Command]] = []
        self.ran: list[Command] = []
        self.traffic = Traffic()

    def ask(self, commands: Sequence[Command], *, deadline: float) -> list[Result]:
        """Runs all, one after the other."""
        self.batches.append(list(commands))
        self.traffic.round_trips += 1
        return [self._run(command, deadline) for command in commands]

    def run(self, command: Command, *, deadline: float, on_output: Callable[[bytes], None] | None = None) -> Result:
        """Runs one; `on_output` gets its output when it has ended. Raises DeadlineExceeded."""
        self.ran.append(command)
        self.traffic.round_trips += 1
        result = self._run(command, deadline)
        return _passed_on(result, on_output)

    def close(self) -> None:
        """Does nothing: no connection is open between two commands."""

    def abort(self) -> None:
        """Does nothing: no connection is open between two commands."""

    def here(self, script: str) -> str:
        """The script with this session's folders."""
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


def _passed_on(result: Result, on_output: Callable[[bytes], None] | None) -> Result:
    if on_output is not None:
        for piece in filter(None, (result.stdout, result.stderr)):
            on_output(piece)
    return result
