"""The frame protocol against a real /bin/sh that runs the real bootstrap script: every byte sent is returned."""

from __future__ import annotations

import os
import selectors
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from provision.shell import Command, Result, sh
from provision.ssh.bootstrap import GREETING, SCRIPT, first_line
from provision.ssh.frame import STOP_REQUEST, Answers, Marker, Part, Splitter, encode, new_nonce

pytestmark = pytest.mark.root


class LocalShell:
    """The bootstrap script in a local process, connected by pipes."""

    def __init__(self, shell: str) -> None:
        self.program = shell
        self.nonce = new_nonce()
        self.greetings: list[Marker] = []
        self._batch = 0
        self._answers: Answers | None = None
        self._process = subprocess.Popen(
            [shell, "-c", SCRIPT, "provision", ""],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
        assert self._process.stdin is not None
        self._process.stdin.write(
            b"a password that sudo did not read\n" + first_line(self.nonce, lock=False, holder="test")
        )
        self._splitters = [
            Splitter(self.nonce.encode(), partial(self._receive_output, stream), partial(self._receive_marker, stream))
            for stream in (0, 1)
        ]

    def ask(self, commands: Sequence[Command], *, gather: bool, deadline: float = 20) -> list[Result]:
        """Send one batch while draining both outputs, as the pump does. `gather`: add commands until outputs are gathered."""
        filled = [*commands, *[Command(":")] * (5 if gather else 0)]
        return self.send([Part(filled, deadline)])[: len(commands)]

    def send(self, parts: Sequence[Part], more: bytes = b"") -> list[Result]:
        """Send a batch of several parts, then `more`."""
        self._batch += 1
        answers = self._answers = Answers(self._batch, sum(len(one.commands) for one in parts))
        deadline = sum(one.deadline for one in parts)
        data = memoryview(encode(self._batch, parts, self.nonce) + more)
        stdin, stdout, stderr = self._process.stdin, self._process.stdout, self._process.stderr
        assert stdin is not None
        assert stdout is not None
        assert stderr is not None
        os.set_blocking(stdin.fileno(), False)
        give_up = time.monotonic() + deadline + 10
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ, 0)
            selector.register(stderr, selectors.EVENT_READ, 1)
            selector.register(stdin, selectors.EVENT_WRITE)
            while not answers.done:
                assert time.monotonic() < give_up, f"no result after {answers.results!r}"
                for key, _ in selector.select(1):
                    if key.fileobj is stdin:
                        data = data[os.write(stdin.fileno(), data[:65536]) :]
                        if not data:
                            selector.unregister(stdin)
                    else:
                        piece = os.read(key.fd, 65536)
                        assert piece, "the shell ended"
                        self._splitters[key.data].feed(piece)
        return answers.results

    def start(self, parts: Sequence[Part]) -> None:
        """Send a batch, and read no answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(encode(1, parts, self.nonce))

    def end_input(self) -> None:
        """End the input, as a broken connection does."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def close(self) -> int:
        """End the input and return the shell's exit code."""
        self.end_input()
        return self._process.wait(10)

    def _receive_output(self, stream: int, piece: bytes) -> None:
        if self._answers is not None and len(self.greetings) == 2:
            self._answers.add_output(stream, piece)

    def _receive_marker(self, stream: int, marker: Marker) -> None:
        if marker.key == GREETING:
            self.greetings.append(marker)
        elif self._answers is not None:
            self._answers.add_marker(stream, marker)


@pytest.fixture(scope="module", params=["dash", "bash"])
def shell(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalShell]:
    """One shell for all examples of a test: an example that breaks the framing fails the next one."""
    program = shutil.which(request.param)
    if program is None:
        pytest.skip(f"{request.param} is not installed")
    link = tmp_path_factory.mktemp("shell") / "sh"
    link.symlink_to(program)
    running = LocalShell(str(link))
    running.ask([Command("exit 0")], gather=False)
    yield running
    assert running.close() == 0


def any_bytes(nonce: str) -> st.SearchStrategy[bytes]:
    """Any bytes, including beginnings of the nonce."""
    beginning = st.integers(1, 32).map(lambda size: nonce[:size].encode())
    return st.lists(st.one_of(st.binary(max_size=200), beginning, st.just(b"\n"), st.just(b"'"), st.just(b"\0"))).map(
        b"".join
    )


TRICKS = [
    (Command("echo out; echo err >&2; exit 3"), Result(b"out\n", b"err\n", 3)),
    (Command("exec >&-; exit 4"), Result(b"", b"", 4)),
    (Command("exec >&- 2>&-; echo lost; exit 5"), Result(b"", b"", 5)),
    (Command("printf 'no newline'"), Result(b"no newline", b"", 0)),
    (Command("exit 6", b"never read\n" * 30_000), Result(b"", b"", 6)),
    (Command("head -c 3", b"abcdef" * 50_000), Result(b"abc", b"", 0)),
    (Command('read -r line; echo "$line"', b"first\nsecond\n"), Result(b"first\n", b"", 0)),
    (Command("cat"), Result(b"", b"", 0)),
    (Command("set -e; false; echo not reached"), Result(b"", b"", 1)),
    (Command("x=leak; trap 'echo bye' EXIT; cd /tmp"), Result(b"bye\n", b"", 0)),
    (Command('echo "${x-unset} $(pwd)"'), Result(b"unset /\n", b"", 0)),
    (Command("head -c 300000 /dev/zero; head -c 300000 /dev/zero >&2"), Result(b"\0" * 300_000, b"\0" * 300_000, 0)),
    (Command("m() { echo mine; }; m; n=1; s=2; exit 0"), Result(b"mine\n", b"", 0)),
    (Command("# only a comment"), Result(b"", b"", 0)),
    (Command(""), Result(b"", b"", 0)),
    (Command("cat <<EOF\nheredoc $((1 + 1))\nEOF"), Result(b"heredoc 2\n", b"", 0)),
    (sh("printf %%s %s", "é 'quoted' \"twice\" \\ $HOME `id`"), Result("é 'quoted' \"twice\" \\ $HOME `id`".encode())),
]


@given(data=st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_byte_is_returned(shell: LocalShell, data: st.DataObject) -> None:
    """Any bytes on stdin are returned on stdout or stderr, between commands that do unusual things."""
    commands: list[Command] = []
    expected: list[Result] = []
    for _ in range(data.draw(st.integers(1, 7))):
        if data.draw(st.booleans()):
            command, result = data.draw(st.sampled_from(TRICKS))
        else:
            text, code = data.draw(any_bytes(shell.nonce)), data.draw(st.integers(0, 255))
            on_stderr = data.draw(st.booleans())
            command = Command(f"cat {'>&2' if on_stderr else ''}; exit {code}", text)
            result = Result(b"" if on_stderr else text, text if on_stderr else b"", code)
        commands.append(command)
        expected.append(result)
    assert shell.ask(commands, gather=data.draw(st.booleans())) == expected


@given(text=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), code=st.integers(0, 255))
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
def test_quoted_arguments_arrive_unchanged(shell: LocalShell, text: str, code: int) -> None:
    """An argument of `sh()` reaches the program unchanged, whatever characters it contains."""
    command = sh("printf '%%s' %s; exit %s", text, code)
    assert shell.ask([command], gather=False) == [Result(text.encode(), b"", code)]


@given(text=st.text(st.sampled_from("'\"\\()`$;&|<>\n #{}aif")))
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_syntax_error_does_not_affect_other_commands(shell: LocalShell, text: str) -> None:
    """A script with open quotes or brackets fails alone; the commands before and after it run."""
    guarded = Command(f"exit 9\n{text}")
    results = shell.ask([sh("echo before"), guarded, sh("echo after")], gather=False)
    assert (results[0], results[2]) == (Result(b"before\n"), Result(b"after\n"))
    assert results[1].code in (9, 2), "it ends at our exit, or sh reports a syntax error"


def test_a_background_process_does_not_delay_the_result(shell: LocalShell) -> None:
    """A command ends when its main process does, although a background process keeps its outputs open."""
    started = time.monotonic()
    results = shell.ask([Command("sleep 5 & echo started; exit 0")], gather=False)
    assert results == [Result(b"started\n")]
    assert time.monotonic() - started < 4


def test_the_nonce_is_in_no_variable(shell: LocalShell) -> None:
    """Neither a shell variable nor the environment nor an argv contains the nonce."""
    script = "set; env; for p in /proc/[0-9]*; do cat $p/cmdline $p/environ; done 2>/dev/null; exit 0"
    (result,) = shell.ask([Command(script)], gather=False)
    assert b"PATH=" in result.stdout
    assert shell.nonce.encode() not in result.stdout + result.stderr


def test_the_deadline_ends_the_process_group_and_not_the_session(shell: LocalShell) -> None:
    """A command that exceeds the deadline is stopped with its children; earlier commands have results; the shell goes on."""
    for gather in (False, True):
        results = shell.ask(
            [sh("echo one"), sh("sleep %s | cat", f"61.{os.getpid()}"), sh("echo three")], gather=gather, deadline=0.3
        )
        assert results == [Result(b"one\n")]
        (left,) = shell.ask([sh("ps -eo args | grep '[s]leep 61.%s'; exit 0", os.getpid())], gather=False)
        assert left == Result()


def steps(*scripts: str, deadline: float = 20) -> list[Part]:
    """Parts of one command each."""
    return [Part([sh(one)], deadline) for one in scripts]


def test_no_part_runs_after_one_that_failed(shell: LocalShell) -> None:
    """Each part has its own output, exit code and shell. Questions at the end all run, regardless of their exit codes."""
    asked = Part([sh("exit 2"), sh("echo asked"), *[sh(":")] * 4], 20)
    done = shell.send([*steps("x=1; echo one; exit 0", 'echo "${x-unset}" >&2'), asked])
    assert done == [Result(b"one\n"), Result(b"", b"unset\n"), Result(code=2), Result(b"asked\n"), *[Result()] * 4]
    assert shell.send([*steps("echo one", "echo why >&2; exit 7", "echo never"), asked]) == [
        Result(b"one\n"),
        Result(b"", b"why\n", 7),
    ]


@given(data=st.data())
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_byte_of_a_part_is_returned(shell: LocalShell, data: st.DataObject) -> None:
    """This holds for any input, and for commands that do unusual things, as in a batch of one part."""
    tricks = [one for one in TRICKS if one[1].code == 0]
    chosen = data.draw(st.lists(st.sampled_from(tricks), min_size=1, max_size=4))
    text = data.draw(any_bytes(shell.nonce))
    commands = [*(command for command, _ in chosen), Command("cat", text)]
    assert shell.send([Part([one], 20) for one in commands]) == [*(result for _, result in chosen), Result(text)]


def test_each_part_has_its_own_deadline(shell: LocalShell) -> None:
    """A part that exceeds it is stopped with its children, and no part runs after it. The shell can still be used."""
    started = time.monotonic()
    done = shell.send([*steps("echo one"), *steps(f"sleep 62.{os.getpid()} | cat", deadline=0.3), *steps("echo three")])
    assert done == [Result(b"one\n")]
    assert time.monotonic() - started < 10
    (left,) = shell.ask([sh("ps -eo args | grep '[s]leep 62.%s'; exit 0", os.getpid())], gather=False)
    assert left == Result()


def test_no_part_starts_after_a_request_to_stop(shell: LocalShell) -> None:
    """The running command ends, and its result arrives. A stop request that comes too late is ignored."""
    done = shell.send(steps("sleep 0.5; echo one", "echo two", "echo three"), more=STOP_REQUEST)
    assert done == [Result(b"one\n")]
    assert shell.send(steps("echo one", "echo two")) == [Result(b"one\n"), Result(b"two\n")]
    assert shell.send(steps("echo alone"), more=STOP_REQUEST) == [Result(b"alone\n")]
    assert shell.ask([sh("echo on")], gather=False) == [Result(b"on\n")]


def test_no_part_starts_after_the_input_has_ended(shell: LocalShell, tmp_path: Path) -> None:
    """The controller was killed, or the connection broke. The running command ends, and no other starts."""
    gone = LocalShell(shell.program)
    gate, passed = tmp_path / "gate", tmp_path / "passed"
    os.mkfifo(gate)
    scripts = [sh("read -r word < %s; echo 1 > %s.1", gate, passed), sh("echo 2 > %s.2", passed)]
    gone.start([Part([one], 20) for one in scripts])
    gone.end_input()
    gate.write_text("go\n")
    assert gone.close() == 0
    assert [one.name for one in tmp_path.glob("passed*")] == ["passed.1"]


def test_no_descriptor_of_the_shell_reaches_a_command(shell: LocalShell) -> None:
    """A command inherits neither the shell's input nor its lock, in a batch of one part and of several parts."""
    for count in (1, 2):
        done = shell.send(steps(*["ls /proc/self/fd"] * count))
        assert [one.text.split() for one in done] == [["0", "1", "2", "3"]] * count


def test_large_payloads_are_linear(shell: LocalShell) -> None:
    """Eight megabytes are sent and returned within seconds: no step is quadratic."""
    blob = bytes(range(256)) * 32_768
    started = time.monotonic()
    assert shell.ask([Command("cat", blob)], gather=False) == [Result(blob)]
    assert time.monotonic() - started < 10


@given(stream=st.lists(st.binary(max_size=40)), cuts=st.lists(st.integers(0, 60)))
def test_splitting_does_not_depend_on_how_the_stream_is_cut(stream: list[bytes], cuts: list[int]) -> None:
    """The same bytes and markers result, however the network cuts the stream."""
    nonce = b"0123456789abcdef0123456789abcdef"
    whole = b"".join(part + nonce + b" 1.%d 0\n" % index for index, part in enumerate(stream))
    out: list[bytes] = [b""]

    def more(piece: bytes) -> None:
        out[-1] += piece

    splitter = Splitter(nonce, more, lambda _: out.append(b""))
    rest = whole
    for cut in cuts:
        splitter.feed(rest[:cut])
        rest = rest[cut:]
    splitter.feed(rest)
    assert out == [*stream, b""]
